//! XDR (RFC 4506), as far as a layout tells it: `dir:F name:c` is a file handle called `dir`, then a name.

use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};

/// The most words of a bitmap.
const MAX_BITMAP: u32 = 64;

/// Opaque bytes of variable length, without their padding.
pub fn opaque<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = cursor.u32()? as usize;
    let bytes = cursor.take(length)?;
    cursor.skip(length.next_multiple_of(4) - length)?;
    Ok(bytes)
}

/// What some arguments or results say.
#[derive(Debug, Default)]
pub struct Read<'a> {
    /// The file handles among them.
    pub handles: Vec<&'a [u8]>,
    /// The names among them.
    pub names: Vec<&'a [u8]>,
    /// All of them that have a name; empty unless asked for.
    pub fields: Vec<(Text, Value)>,
    detail: bool,
}

impl<'a> Read<'a> {
    pub fn new(detail: bool) -> Self {
        Self { detail, ..Self::default() }
    }

    /// Reads one after another. What comes before the bytes end is kept.
    pub fn layout(&mut self, layout: &'static str, cursor: &mut Cursor<'a>) -> Result<(), Short> {
        for item in layout.split_ascii_whitespace() {
            let (name, kind) = item.split_once(':').unwrap_or(("", item));
            self.item(name, kind, cursor)?;
        }
        Ok(())
    }

    /// Reads a number, which may decide what follows.
    pub fn number(&mut self, name: &'static str, cursor: &mut Cursor<'a>) -> Result<u32, Short> {
        let number = cursor.u32()?;
        self.field(name, || number.into());
        Ok(number)
    }

    fn item(&mut self, name: &'static str, kind: &str, cursor: &mut Cursor<'a>) -> Result<(), Short> {
        match kind {
            "u" => {
                self.number(name, cursor)?;
            }
            "h" => {
                let number = cursor.u64()?;
                self.field(name, || number.into());
            }
            "o" => {
                let bytes = opaque(cursor)?;
                self.field(name, || text::octets(bytes));
            }
            // The length of data, which are not kept.
            "n" => {
                let length = cursor.u32()?;
                self.field(name, || length.into());
                cursor.skip((length as usize).next_multiple_of(4))?;
            }
            "c" => {
                let bytes = opaque(cursor)?;
                self.names.push(bytes);
                self.field(name, || text::value(bytes));
            }
            "F" => {
                let bytes = opaque(cursor)?;
                self.handles.push(bytes);
                self.field(name, || text::hex(bytes).into());
            }
            "8" | "16" => {
                let bytes = cursor.take(if kind == "8" { 8 } else { 16 })?;
                self.field(name, || text::hex(bytes).into());
            }
            "b" => bitmap(cursor)?,
            // Attributes: which, and their values.
            "a" => {
                bitmap(cursor)?;
                opaque(cursor)?;
            }
            _ => return Err(Short),
        }
        Ok(())
    }

    fn field(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if self.detail && !name.is_empty() {
            self.fields.push((Text::Borrowed(name), value()));
        }
    }
}

fn bitmap(cursor: &mut Cursor<'_>) -> Result<(), Short> {
    let words = cursor.u32()?;
    if words > MAX_BITMAP {
        return Err(Short);
    }
    cursor.skip(words as usize * 4)
}
