//! What came of a command, as the fields of its reply tell.

use super::walk::{Element, Facts, kind};
use crate::dissect::Cursor;
use crate::entry::Text;

/// How much of a list of errors is looked at.
const MAX_ERRORS: usize = 1024;
/// The status of what went wrong without a code.
const ERROR: Text = Text::Borrowed("error");

/// A reply's outcome, as far as it is read.
#[derive(Debug, Default)]
pub(super) struct Reply {
    ok: Option<bool>,
    code: Option<i32>,
    /// The code of a write that failed, or was not acknowledged as wanted, in a command that did not fail.
    write: Option<i32>,
    /// The code of the first error among the results of `bulkWrite`; documents of users hardly look the same.
    result: Option<i32>,
    /// `getLastError` tells of an error of before; so do old replies, with a name of their own.
    error: bool,
}

impl Reply {
    /// Status, and whether it means failure. Errors come first and are short: where the end is there but was not read, all is
    /// well if none was met. Where it is not there, nothing is known.
    pub(super) fn status(&self, whole: bool) -> (Text, bool) {
        let failed = self.ok == Some(false) || self.error;
        match (failed, self.code, self.write) {
            (true, Some(code), _) | (false, _, Some(code)) => (Text::Owned(code.to_string()), true),
            (true, None, _) => (ERROR, true),
            (false, _, None) if self.ok.is_none() && !whole => (Text::Borrowed(""), false),
            (false, _, None) => (Text::Borrowed("ok"), false),
        }
    }
}

impl Facts for Reply {
    fn wants(&self, _first: bool, element: &Element<'_>) -> Option<usize> {
        match element.name {
            b"ok" | b"code" | b"err" | b"$err" | b"nErrors" => Some(8),
            b"writeErrors" | b"writeConcernError" | b"cursor" => Some(MAX_ERRORS),
            _ => None,
        }
    }

    fn take(&mut self, _first: bool, element: &Element<'_>, value: &[u8]) {
        match (element.name, element.kind) {
            (b"ok", _) => self.ok = number(element.kind, value).map(|number| number != 0),
            (b"code", _) => self.code = number(element.kind, value),
            (b"err" | b"$err", kind::STRING) => self.error = true,
            (b"writeErrors", kind::ARRAY) => self.write = code_of_first(value),
            (b"cursor", kind::DOCUMENT) => {
                self.result = field(value, b"firstBatch").and_then(|(_, batch)| code_of_first(batch));
            }
            (b"nErrors", _) if self.write.is_none() && number(element.kind, value).is_some_and(|errors| errors > 0) => {
                self.error = self.result.is_none();
                self.write = self.result;
            }
            (b"writeConcernError", kind::DOCUMENT) if self.write.is_none() => self.write = code(value),
            _ => {}
        }
    }
}

/// The code of the first document in a list that has one.
fn code_of_first(list: &[u8]) -> Option<i32> {
    each(list).find_map(|(element, value)| if element.kind == kind::DOCUMENT { code(value) } else { None })
}

/// The field `code` of a document.
fn code(document: &[u8]) -> Option<i32> {
    field(document, b"code").and_then(|(kind, value)| number(kind, value))
}

/// Type and value of a field.
fn field<'a>(document: &'a [u8], name: &[u8]) -> Option<(u8, &'a [u8])> {
    each(document).find(|(element, _)| element.name == name).map(|(element, value)| (element.kind, value))
}

/// The fields of a document or list, which may be cut, as may be the last value.
fn each(document: &[u8]) -> impl Iterator<Item = (Element<'_>, &[u8])> {
    let mut cursor = Cursor::new(document.get(4..).unwrap_or_default());
    std::iter::from_fn(move || {
        let element = Element::read(&mut cursor).ok()??;
        let value = cursor.take(element.size.min(cursor.remaining())).ok()?;
        Some((element, value))
    })
}

/// A number of whatever type.
fn number(kind: u8, value: &[u8]) -> Option<i32> {
    let mut cursor = Cursor::new(value);
    match kind {
        kind::DOUBLE => cursor.u64_le().ok().map(|bits| f64::from_bits(bits) as i32),
        kind::INT32 => cursor.i32_le().ok(),
        kind::INT64 => cursor.i64_le().ok().map(|number| number as i32),
        kind::BOOL => cursor.u8().ok().map(i32::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(fields: &[(&[u8], u8, &[u8])]) -> (String, bool) {
        let mut reply = Reply::default();
        for (name, kind, value) in fields {
            reply.take(false, &Element { kind: *kind, name, size: value.len() }, value);
        }
        let (status, failed) = reply.status(true);
        (status.into_owned(), failed)
    }

    #[test]
    fn an_error_is_its_code() {
        let no = (&b"ok"[..], kind::DOUBLE, &[0; 8][..]);
        let yes = (&b"ok"[..], kind::BOOL, &[1][..]);
        let code = (&b"code"[..], kind::INT32, &[59, 0, 0, 0][..]);
        assert_eq!(status(&[yes]), ("ok".into(), false));
        assert_eq!(status(&[no, code]), ("59".into(), true));
        assert_eq!(status(&[no]), ("error".into(), true));
        assert_eq!(status(&[(b"err", kind::NULL, b""), yes]), ("ok".into(), false));
        assert_eq!(status(&[(b"err", kind::STRING, b"\x02\0\0\0x\0"), code, yes]), ("59".into(), true));
        let errors = b"\x16\0\0\0\x030\0\x0f\0\0\0\x10code\0\xf8\x2a\0\0\0\0";
        assert_eq!(status(&[(b"writeErrors", kind::ARRAY, errors), yes]), ("11000".into(), true));
        let batch = [&b"\x2c\0\0\0\x04firstBatch\0"[..], errors].concat();
        let failed = (&b"nErrors"[..], kind::INT32, &[1, 0, 0, 0][..]);
        assert_eq!(status(&[(b"cursor", kind::DOCUMENT, &batch), failed, yes]), ("11000".into(), true));
        assert_eq!(status(&[(b"cursor", kind::DOCUMENT, &batch), yes]), ("ok".into(), false));
        assert_eq!(status(&[failed, yes]), ("error".into(), true));
        let concern = b"\x0f\0\0\0\x10code\0\x40\0\0\0\0";
        assert_eq!(status(&[(b"writeConcernError", kind::DOCUMENT, concern), yes]), ("64".into(), true));
    }
}
