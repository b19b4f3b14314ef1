//! Bytes of peers as text that is safe to show.

use std::borrow::Cow;
use std::fmt::Write;

use crate::entry::Value;

/// What stands in place of a secret.
pub const HIDDEN: &str = "[hidden]";

/// The bytes as text: UTF-8 stays; control characters but line breaks and tabs, and bytes that are no UTF-8, are escaped as
/// `\xHH`.
#[must_use]
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(is_unsafe)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_unsafe(character) {
                let mut utf8 = [0; 4];
                escape(&mut text, character.encode_utf8(&mut utf8).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    Cow::Owned(text)
}

/// As [`printable`], owned.
#[must_use]
pub fn string(bytes: &[u8]) -> String {
    printable(bytes).into_owned()
}

/// A field's value: the bytes as [`printable`] text.
#[must_use]
pub fn value(bytes: &[u8]) -> Value {
    Value::Text(string(bytes).into())
}

/// A field's value that is text by custom only: the bytes as text if they are printable UTF-8, else in hexadecimal.
#[must_use]
pub fn octets(bytes: &[u8]) -> Value {
    match printable(bytes) {
        Cow::Borrowed(text) => Value::Text(text.to_owned().into()),
        Cow::Owned(_) => Value::Text(hex(bytes).into()),
    }
}

/// A body's value: its text if it is UTF-8, else `{"base64": …}`; with `truncated` set if it was longer than what was kept.
#[must_use]
pub fn body(bytes: &[u8], size: u64) -> Value {
    let truncated = size > bytes.len() as u64;
    // A limit may have cut a character in half; that does not make the text binary.
    let whole = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok())
        }
        Err(_) => None,
    };
    let content = match whole {
        Some(text) => ("text", text.to_owned()),
        None => ("base64", base64(bytes)),
    };
    let mut fields = vec![("size".into(), size.into()), (content.0.into(), content.1.into())];
    if truncated {
        fields.push(("truncated".into(), true.into()));
    }
    Value::Map(fields)
}

/// Control characters that could drive a terminal, and those that reorder what a reader sees.
fn is_unsafe(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\r' | '\t'))
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Lower-case hexadecimal digits, two a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Standard base64 (RFC 4648 section 4), padded.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0u8; 3];
        for (to, from) in group.iter_mut().zip(chunk) {
            *to = *from;
        }
        let [a, b, c] = group;
        let bits = u32::from_be_bytes([0, a, b, c]);
        for position in 0..4 {
            let sextet = (bits >> (18 - 6 * position)) & 0x3f;
            let letter = ALPHABET.get(sextet as usize).copied().unwrap_or(b'=');
            text.push(if position <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_drive_a_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\xff"), "a\\x1b[2Jb\\xff");
        assert_eq!(printable("é\tü\n".as_bytes()), "é\tü\n");
        assert_eq!(printable("x\u{202e}y".as_bytes()), "x\\xe2\\x80\\xaey");
    }

    #[test]
    fn octets_are_text_or_hexadecimal() {
        assert_eq!(octets(b"bob"), "bob".into());
        assert_eq!(octets(&[0, 0xff]), "00ff".into());
    }

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b"M"), "TQ==");
        assert_eq!(base64(b"Ma"), "TWE=");
        assert_eq!(base64(b"Man"), "TWFu");
    }
}
