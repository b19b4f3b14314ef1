//! BSON as fields, in the manner of relaxed Extended JSON. What is cut shows as far as it goes.

use super::decimal;
use super::walk::{Element, kind};
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Timestamp, Value};
use crate::fields;

/// How deep documents may lie in each other to be shown; servers allow 100.
const MAX_DEPTH: usize = 100;
/// The most fields of one message that are shown.
const MAX_FIELDS: usize = 16_384;

/// Fields that hold credentials, beside one that tells what kind of command or reply this is.
const SECRETS: &[&str] = &["payload", "key", "pwd"];
const CREDENTIALS: &[&str] = &[
    "saslStart",
    "saslContinue",
    "conversationId",
    "authenticate",
    "createUser",
    "updateUser",
    "copydbsaslstart",
    "copydb",
];
/// Fields whose documents are commands or replies too.
const COMMANDS: &[&str] = &["$query", "query", "speculativeAuthenticate"];

/// Subtype of binary values that are identifiers of RFC 4122.
const UUID: u8 = 4;
/// Subtype of binary values that repeat their length.
const OLD_BINARY: u8 = 2;

/// Reads the documents of one message.
#[derive(Debug)]
pub(super) struct Reader {
    secrets: bool,
    /// How many fields may still be shown.
    left: usize,
    /// Something was not shown: it is not there, too deep or too much.
    pub cut: bool,
}

impl Reader {
    pub(super) fn new(secrets: bool) -> Self {
        Self { secrets, left: MAX_FIELDS, cut: false }
    }

    /// The document, command or reply at the cursor, which is passed.
    pub(super) fn command(&mut self, cursor: &mut Cursor<'_>) -> Value {
        self.next(cursor, true)
    }

    /// A document that holds users' data.
    pub(super) fn document(&mut self, cursor: &mut Cursor<'_>) -> Value {
        self.next(cursor, false)
    }

    fn next(&mut self, cursor: &mut Cursor<'_>, command: bool) -> Value {
        let len = Cursor::new(cursor.rest()).u32_le().unwrap_or(0) as usize;
        let document = self.part(cursor, len);
        self.fields(document, MAX_DEPTH, command)
    }

    /// The next bytes, or what is there of them.
    fn part<'a>(&mut self, cursor: &mut Cursor<'a>, len: usize) -> &'a [u8] {
        self.cut |= len > cursor.remaining();
        cursor.take(len.min(cursor.remaining())).unwrap_or_default()
    }

    fn fields(&mut self, document: &[u8], depth: usize, command: bool) -> Value {
        let mut fields: Vec<(Text, Value)> = Vec::new();
        self.each(document, depth, |name, value| fields.push((text::string(name).into(), value)));
        let secret = |name: &str| CREDENTIALS.contains(&name);
        if command && !self.secrets && fields.iter().any(|(name, _)| secret(name)) {
            for (_, value) in fields.iter_mut().filter(|(name, _)| SECRETS.contains(&&**name)) {
                *value = text::HIDDEN.into();
            }
        }
        Value::Map(fields)
    }

    fn list(&mut self, array: &[u8], depth: usize) -> Value {
        let mut values = Vec::new();
        self.each(array, depth, |_, value| values.push(value));
        Value::List(values)
    }

    fn each(&mut self, document: &[u8], depth: usize, mut take: impl FnMut(&[u8], Value)) {
        let mut cursor = Cursor::new(document);
        if cursor.skip(4).is_err() {
            return;
        }
        while !cursor.is_empty() {
            let element = match Element::read(&mut cursor) {
                Ok(Some(element)) => element,
                Ok(None) => return,
                Err(_) => break,
            };
            let Some(left) = self.left.checked_sub(1) else { break };
            self.left = left;
            let value = self.part(&mut cursor, element.size);
            let Ok(value) = self.value(&element, value, depth) else { break };
            take(element.name, value);
        }
        self.cut = true;
    }

    fn value(&mut self, element: &Element<'_>, bytes: &[u8], depth: usize) -> Result<Value, Short> {
        let mut cursor = Cursor::new(bytes);
        Ok(match element.kind {
            kind::DOUBLE => float(f64::from_bits(cursor.u64_le()?)),
            kind::STRING => text::value(string(&mut cursor)?),
            kind::DOCUMENT | kind::ARRAY => {
                let Some(depth) = depth.checked_sub(1) else {
                    self.cut = true;
                    return Ok("[nested too deeply]".into());
                };
                if element.kind == kind::ARRAY {
                    self.list(bytes, depth)
                } else {
                    let command = COMMANDS.iter().any(|name| name.as_bytes() == element.name);
                    self.fields(bytes, depth, command)
                }
            }
            kind::BINARY => {
                cursor.skip(4)?;
                binary(cursor.u8()?, cursor)
            }
            kind::UNDEFINED => fields! { "$undefined" => true },
            kind::OBJECT_ID => fields! { "$oid" => text::hex(cursor.take(12)?) },
            kind::BOOL => (cursor.u8()? != 0).into(),
            kind::DATE => date(cursor.i64_le()?),
            kind::REGEX => {
                let (pattern, options) = (cursor.until(0)?, cursor.until(0)?);
                let expression = fields! { "pattern" => text::value(pattern), "options" => text::value(options) };
                fields! { "$regularExpression" => expression }
            }
            kind::DB_POINTER => {
                let namespace = text::value(string(&mut cursor)?);
                let id = fields! { "$oid" => text::hex(cursor.take(12)?) };
                fields! { "$dbPointer" => fields! { "$ref" => namespace, "$id" => id } }
            }
            kind::CODE => fields! { "$code" => text::value(string(&mut cursor)?) },
            kind::SYMBOL => fields! { "$symbol" => text::value(string(&mut cursor)?) },
            kind::SCOPED_CODE => {
                cursor.skip(4)?;
                let code = text::value(string(&mut cursor)?);
                let scope = match depth.checked_sub(1) {
                    Some(depth) => self.fields(cursor.rest(), depth, false),
                    None => Value::Null,
                };
                fields! { "$code" => code, "$scope" => scope }
            }
            kind::INT32 => cursor.i32_le()?.into(),
            kind::TIMESTAMP => {
                let (increment, time) = (cursor.u32_le()?, cursor.u32_le()?);
                fields! { "$timestamp" => fields! { "t" => time, "i" => increment } }
            }
            kind::INT64 => cursor.i64_le()?.into(),
            kind::DECIMAL => {
                let (low, high) = (cursor.u64_le()?, cursor.u64_le()?);
                fields! { "$numberDecimal" => decimal::string(u128::from(high) << 64 | u128::from(low)) }
            }
            kind::MIN_KEY => fields! { "$minKey" => 1u8 },
            kind::MAX_KEY => fields! { "$maxKey" => 1u8 },
            // Null; types that are none were refused when the element was read.
            _ => Value::Null,
        })
    }
}

/// A string with its length before it, without its zero byte; what is there of it.
fn string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let len = cursor.u32_le()? as usize;
    let bytes = cursor.take(len.min(cursor.remaining()))?;
    Ok(if bytes.len() == len { bytes.strip_suffix(b"\0").unwrap_or(bytes) } else { bytes })
}

/// JSON has no infinities.
fn float(number: f64) -> Value {
    if number.is_finite() {
        return number.into();
    }
    let name = if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    fields! { "$numberDouble" => name }
}

/// Milliseconds since 1970, with the time they mean if that is near enough.
fn date(millis: i64) -> Value {
    let Some(nanos) = millis.checked_mul(1_000_000) else {
        return fields! { "$date" => fields! { "$numberLong" => millis.to_string() } };
    };
    let time = Timestamp(nanos).to_string();
    let time = time.strip_suffix("000000Z").unwrap_or(&time);
    fields! { "$date" => format!("{time}Z") }
}

fn binary(subtype: u8, mut cursor: Cursor<'_>) -> Value {
    if subtype == UUID
        && let Some(uuid) = cursor.rest().first_chunk::<16>()
    {
        let hex = text::hex(uuid);
        let mut groups = hex.as_str();
        let mut text = String::with_capacity(36);
        for len in [8, 4, 4, 4, 12] {
            let (group, rest) = groups.split_at(len);
            if !text.is_empty() {
                text.push('-');
            }
            text.push_str(group);
            groups = rest;
        }
        return fields! { "$uuid" => text };
    }
    if subtype == OLD_BINARY {
        // What is left of one that was cut shows as it is.
        let _ = cursor.skip(4);
    }
    let value = fields! { "base64" => text::base64(cursor.rest()), "subType" => format!("{subtype:02x}") };
    fields! { "$binary" => value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(elements: &[u8]) -> Vec<u8> {
        [&(elements.len() as u32 + 5).to_le_bytes()[..], elements, b"\0"].concat()
    }

    #[test]
    fn every_type() {
        let elements = [
            &b"\x01d\0\0\0\0\0\0\0\xf8\x3f\x01n\0\0\0\0\0\0\0\xf0\x7f\x02s\0\x03\0\0\0hi\0\x05b\0\x02\0\0\0\0\xff\x01"[..],
            b"\x05o\0\x05\0\0\0\x02\x01\0\0\0A\x05u\0\x10\0\0\0\x04\0\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
            b"\x06x\0\x07i\0abcdefghijkl\x08t\0\x01\x09a\0\0\x01\0\0\0\0\0\0\x09z\0\xff\xff\xff\xff\xff\xff\xff\x7f\x0aq\0",
            b"\x0br\0^a\0i\0\x0cp\0\x02\0\0\0c\0abcdefghijkl\x0dc\0\x02\0\0\0f\0\x0ey\0\x02\0\0\0g\0",
            b"\x0fw\0\x0f\0\0\0\x02\0\0\0f\0\x05\0\0\0\0\x10j\0\xfe\xff\xff\xff\x11k\0\x02\0\0\0\x01\0\0\0",
            b"\x12l\0\xfe\xff\xff\xff\xff\xff\xff\xff\x13m\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x3c\x30\xffe\0\x7ff\0",
            b"\x03g\0\x05\0\0\0\0\x04h\0\x09\0\0\0\x080\0\0\0",
        ]
        .concat();
        let oid = || fields! { "$oid" => "6162636465666768696a6b6c" };
        let code = |code| fields! { "$code" => code };
        let binary = |data, kind| fields! { "$binary" => fields! { "base64" => data, "subType" => kind } };
        let expected = fields! {
            "d" => 1.5f64, "n" => fields! { "$numberDouble" => "Infinity" }, "s" => "hi", "b" => binary("/wE=", "00"),
            "o" => binary("QQ==", "02"), "u" => fields! { "$uuid" => "00112233-4455-6677-8899-aabbccddeeff" },
            "x" => fields! { "$undefined" => true }, "i" => oid(), "t" => true,
            "a" => fields! { "$date" => "1970-01-01T00:00:00.256Z" },
            "z" => fields! { "$date" => fields! { "$numberLong" => "9223372036854775807" } }, "q" => Value::Null,
            "r" => fields! { "$regularExpression" => fields! { "pattern" => "^a", "options" => "i" } },
            "p" => fields! { "$dbPointer" => fields! { "$ref" => "c", "$id" => oid() } }, "c" => code("f"),
            "y" => fields! { "$symbol" => "g" }, "w" => fields! { "$code" => "f", "$scope" => Value::Map(Vec::new()) },
            "j" => -2i32, "k" => fields! { "$timestamp" => fields! { "t" => 1u32, "i" => 2u32 } }, "l" => -2i64,
            "m" => fields! { "$numberDecimal" => "0.05" }, "e" => fields! { "$minKey" => 1u8 },
            "f" => fields! { "$maxKey" => 1u8 }, "g" => Value::Map(Vec::new()), "h" => vec![Value::from(false)],
        };
        let mut reader = Reader::new(false);
        assert_eq!(reader.command(&mut Cursor::new(&document(&elements))), expected);
        assert!(!reader.cut);
    }

    #[test]
    fn what_is_cut_shows_as_far_as_it_goes() {
        let whole = document(b"\x10a\0\x01\0\0\0\x02s\0\x06\0\0\0hello\0");
        for end in 0..whole.len() {
            let mut reader = Reader::new(false);
            let value = reader.command(&mut Cursor::new(whole.get(..end).unwrap_or_default()));
            assert!(reader.cut || end < 4, "{end}: {value:?}");
        }
        let mut reader = Reader::new(false);
        let cut = reader.command(&mut Cursor::new(whole.get(..whole.len() - 4).unwrap_or_default()));
        assert_eq!(cut, fields! { "a" => 1i32, "s" => "hel" });
    }

    #[test]
    fn depth_and_number_are_limited() {
        let mut deep = document(b"");
        for _ in 0..200 {
            deep = document(&[b"\x03a\0", &deep[..]].concat());
        }
        let mut reader = Reader::new(false);
        assert!(format!("{:?}", reader.command(&mut Cursor::new(&deep))).contains("nested too deeply"));
        let wide = document(&b"\x0a\0".repeat(20_000));
        let Value::Map(fields) = reader.document(&mut Cursor::new(&wide)) else { return assert_eq!("a map", "") };
        assert!(reader.cut && fields.len() < MAX_FIELDS);
    }

    #[test]
    fn credentials_are_hidden_where_they_are_some() {
        let elements = b"\x10saslStart\0\x01\0\0\0\x02payload\0\x07\0\0\0secret\0\x02db\0\x02\0\0\0a\0";
        let bytes = document(elements);
        let hidden = fields! { "saslStart" => 1i32, "payload" => text::HIDDEN, "db" => "a" };
        assert_eq!(Reader::new(false).command(&mut Cursor::new(&bytes)), hidden);
        let nested = document(&[&b"\x03speculativeAuthenticate\0"[..], &bytes].concat());
        assert_eq!(
            Reader::new(false).command(&mut Cursor::new(&nested)),
            fields! { "speculativeAuthenticate" => hidden }
        );
        let shown = fields! { "saslStart" => 1i32, "payload" => "secret", "db" => "a" };
        assert_eq!(Reader::new(true).command(&mut Cursor::new(&bytes)), shown);
        assert_eq!(Reader::new(false).document(&mut Cursor::new(&bytes)), shown);
    }
}
