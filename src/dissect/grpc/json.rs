//! Messages of a known type, as protobuf's JSON mapping has them: <https://protobuf.dev/programming-guides/json/>. Fields that
//! the type does not have go by their numbers.

use std::borrow::Cow;

use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value as Decoded};

use super::wire;
use crate::dissect::text;
use crate::entry::{Text, Timestamp, Value};
use crate::fields;

/// The most values that one half of a call shows.
pub(super) const MAX_VALUES: usize = 10_000;

/// The message's fields; `left` values may still be made.
pub(super) fn message(message: &DynamicMessage, left: &mut usize) -> Value {
    well_known(message, left).unwrap_or_else(|| plain(message, left).into())
}

/// The fields that are set, in the order of their numbers.
fn plain(message: &DynamicMessage, left: &mut usize) -> Vec<(Text, Value)> {
    let fields = message.fields().map(|(field, value)| (field.json_name().to_owned(), field.kind(), value));
    let extensions =
        message.extensions().map(|(field, value)| (format!("[{}]", field.full_name()), field.kind(), value));
    let mut shown: Vec<(Text, Value)> = Vec::new();
    for (name, kind, value) in fields.chain(extensions) {
        if *left == 0 {
            shown.push(("truncated".into(), true.into()));
            return shown;
        }
        shown.push((name.into(), self::value(&kind, value, left)));
    }
    let mut unknown = Vec::new();
    for field in message.unknown_fields() {
        field.encode(&mut unknown);
    }
    if !unknown.is_empty() {
        match wire::value(&unknown) {
            Value::Map(numbered) if numbered.iter().all(|(name, _)| name.bytes().all(|byte| byte.is_ascii_digit())) => {
                *left = left.saturating_sub(numbered.len());
                shown.extend(numbered);
            }
            other => shown.push(("unknown".into(), other)),
        }
    }
    shown
}

fn value(kind: &Kind, value: &Decoded, left: &mut usize) -> Value {
    *left = left.saturating_sub(1);
    match value {
        Decoded::Bool(value) => (*value).into(),
        Decoded::I32(value) => (*value).into(),
        Decoded::U32(value) => (*value).into(),
        // Numbers beyond a double's precision are text, so that no reader rounds them.
        Decoded::I64(value) => value.to_string().into(),
        Decoded::U64(value) => value.to_string().into(),
        Decoded::F32(value) => float(value.to_string().parse().unwrap_or(f64::from(*value))),
        Decoded::F64(value) => float(*value),
        Decoded::String(value) => text::value(value.as_bytes()),
        Decoded::Bytes(value) => text::base64(value).into(),
        Decoded::EnumNumber(number) => match kind {
            Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Value::Null,
            Kind::Enum(kind) => {
                kind.get_value(*number).map_or_else(|| (*number).into(), |value| text::value(value.name().as_bytes()))
            }
            _ => (*number).into(),
        },
        Decoded::Message(value) => message(value, left),
        Decoded::List(values) => list(kind, values, left),
        Decoded::Map(values) => {
            let kind = match kind {
                Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            let mut sorted: Vec<_> = values.iter().collect();
            // They have no order of their own.
            sorted.sort_unstable_by_key(|(key, _)| *key);
            let named = |(key, value): (&MapKey, _)| (key_text(key), self::value(&kind, value, left));
            let shown = sorted.into_iter().map(named).collect();
            Value::Map(shown)
        }
    }
}

fn list(kind: &Kind, values: &[Decoded], left: &mut usize) -> Value {
    let mut shown = Vec::new();
    for value in values {
        if *left == 0 {
            shown.push(fields! { "truncated" => true });
            break;
        }
        shown.push(self::value(kind, value, left));
    }
    shown.into()
}

/// JSON has no number for some.
fn float(value: f64) -> Value {
    match value {
        _ if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => value.into(),
    }
}

fn key_text(key: &MapKey) -> Text {
    match key {
        MapKey::Bool(key) => key.to_string().into(),
        MapKey::I32(key) => key.to_string().into(),
        MapKey::I64(key) => key.to_string().into(),
        MapKey::U32(key) => key.to_string().into(),
        MapKey::U64(key) => key.to_string().into(),
        MapKey::String(key) => text::string(key.as_bytes()).into(),
    }
}

/// A message of the types that the mapping knows by name; `None` for others, and where what it holds has no such form.
fn well_known(message: &DynamicMessage, left: &mut usize) -> Option<Value> {
    let descriptor = message.descriptor();
    let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
    match name {
        "Timestamp" => timestamp(field(message, 1)?.as_i64()?, field(message, 2)?.as_i32()?),
        "Duration" => duration(field(message, 1)?.as_i64()?, field(message, 2)?.as_i32()?),
        "FieldMask" => {
            let paths = field(message, 1)?;
            let paths: Vec<String> = paths.as_list()?.iter().filter_map(Decoded::as_str).map(camel_case).collect();
            Some(text::value(paths.join(",").as_bytes()))
        }
        "Struct" | "ListValue" | "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
        | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => {
            let held = field(message, 1)?;
            Some(value(&descriptor.get_field(1)?.kind(), held.as_ref(), left))
        }
        "Value" => {
            let held = message.fields().next();
            Some(held.map_or(Value::Null, |(field, held)| value(&field.kind(), held, left)))
        }
        "Any" => any(message, left),
        _ => None,
    }
}

/// The value of a field of that number, or what it is if it is not set.
fn field(message: &DynamicMessage, number: u32) -> Option<Cow<'_, Decoded>> {
    message.get_field_by_number(number)
}

/// RFC 3339 in UTC, with as many digits as there have to be of 0, 3, 6 and 9.
fn timestamp(seconds: i64, nanos: i32) -> Option<Value> {
    let nanos = Some(nanos).filter(|nanos| (0..1_000_000_000).contains(nanos))?;
    let time = seconds.checked_mul(1_000_000_000)?.checked_add(nanos.into())?;
    let text = Timestamp(time).to_string();
    let whole = text.split_once('.').map_or(text.as_str(), |(whole, _)| whole);
    Some(format!("{whole}{}Z", fraction(nanos.unsigned_abs())).into())
}

/// Seconds with their unit.
fn duration(seconds: i64, nanos: i32) -> Option<Value> {
    let agree = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
    if !agree || nanos.unsigned_abs() >= 1_000_000_000 {
        return None;
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    Some(format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs())).into())
}

fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!(".{:06}", nanos / 1_000),
        _ => format!(".{nanos:09}"),
    }
}

/// `user_name.first_one` as `userName.firstOne`.
fn camel_case(path: &str) -> String {
    let mut raise = false;
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter == '_' {
            raise = true;
        } else if std::mem::take(&mut raise) {
            out.push(letter.to_ascii_uppercase());
        } else {
            out.push(letter);
        }
    }
    out
}

/// A message of any type, with the type's name; its bytes if the type is not known.
fn any(message: &DynamicMessage, left: &mut usize) -> Option<Value> {
    let (url, held) = (field(message, 1)?, field(message, 2)?);
    let (url, held) = (url.as_str()?, held.as_bytes()?);
    let (_, name) = url.rsplit_once('/')?;
    let kind = text::value(url.as_bytes());
    let descriptor = message.descriptor().parent_pool().get_message_by_name(name);
    let decoded = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, held.clone()).ok());
    let Some(decoded) = decoded else { return Some(fields! { "@type" => kind, "value" => text::base64(held) }) };
    *left = left.saturating_sub(1);
    if let Some(value) = well_known(&decoded, left) {
        return Some(fields! { "@type" => kind, "value" => value });
    }
    let mut shown = vec![("@type".into(), kind)];
    shown.extend(plain(&decoded, left));
    Some(Value::Map(shown))
}
