//! JSON objects, written by hand: the agent has no other dependency than libc.

use std::fmt::Write;

/// An object under construction.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a field whose value is JSON already, or a number.
    pub(super) fn raw(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        let comma = if self.0.len() > 1 { "," } else { "" };
        let _ = write!(self.0, "{comma}{}:{value}", text(key));
        self
    }

    /// Adds a field of text.
    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, text(value))
    }

    /// Adds a list of what is JSON already.
    pub(super) fn list(self, key: &str, values: impl IntoIterator<Item = String>) -> Self {
        let values: Vec<String> = values.into_iter().collect();
        self.raw(key, format_args!("[{}]", values.join(",")))
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A string with its quotes.
pub(super) fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for char in value.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_must_be() {
        let object = Object::new().text("a\"b", "x\\y\n\u{9b}é").raw("n", 3).list("l", [text("1"), text("2")]).end();
        assert_eq!(object, r#"{"a\"b":"x\\y\u000a\u009bé","n":3,"l":["1","2"]}"#);
        assert_eq!(Object::new().end(), "{}");
    }
}
