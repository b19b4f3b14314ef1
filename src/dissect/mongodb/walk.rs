//! Walks over the top level of a message's documents as they come, and passes over all that tells nothing of its row.

use super::wire::{CHECKSUM, Opcode};
use crate::dissect::{Cursor, Malformed, Short};

/// The longest name of a field.
const MAX_NAME: usize = 16 << 10;
/// The longest regular expression.
const MAX_REGEX: usize = 64 << 10;
/// Length of a checksum.
const CHECKSUM_LEN: usize = 4;

/// Types of BSON values.
pub(super) mod kind {
    pub(in super::super) const DOUBLE: u8 = 1;
    pub(in super::super) const STRING: u8 = 2;
    pub(in super::super) const DOCUMENT: u8 = 3;
    pub(in super::super) const ARRAY: u8 = 4;
    pub(in super::super) const BINARY: u8 = 5;
    pub(in super::super) const UNDEFINED: u8 = 6;
    pub(in super::super) const OBJECT_ID: u8 = 7;
    pub(in super::super) const BOOL: u8 = 8;
    pub(in super::super) const DATE: u8 = 9;
    pub(in super::super) const NULL: u8 = 10;
    pub(in super::super) const REGEX: u8 = 11;
    pub(in super::super) const DB_POINTER: u8 = 12;
    pub(in super::super) const CODE: u8 = 13;
    pub(in super::super) const SYMBOL: u8 = 14;
    pub(in super::super) const SCOPED_CODE: u8 = 15;
    pub(in super::super) const INT32: u8 = 16;
    pub(in super::super) const TIMESTAMP: u8 = 17;
    pub(in super::super) const INT64: u8 = 18;
    pub(in super::super) const DECIMAL: u8 = 19;
    pub(in super::super) const MAX_KEY: u8 = 127;
    pub(in super::super) const MIN_KEY: u8 = 255;
}

/// A field of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    /// Length of the value.
    pub size: usize,
}

/// Why no element was read.
pub(super) enum Fault {
    /// The bytes end before.
    Short,
    Malformed(&'static str),
}

impl From<Short> for Fault {
    fn from(Short: Short) -> Self {
        Self::Short
    }
}

impl<'a> Element<'a> {
    /// Reads the next element up to its value; none at the document's end, which is passed.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Option<Self>, Fault> {
        let kind = cursor.u8()?;
        if kind == 0 {
            return Ok(None);
        }
        let Ok(name) = cursor.until(0) else {
            return Err(if cursor.remaining() > MAX_NAME { Fault::Malformed("a name too long") } else { Fault::Short });
        };
        let size = size(kind, *cursor)?;
        Ok(Some(Self { kind, name, size }))
    }
}

/// The size of a value, which for some types is written at its start.
fn size(kind: u8, mut value: Cursor<'_>) -> Result<usize, Fault> {
    let mut length = |more: usize, least: u32| match value.u32_le() {
        Ok(len) if len >= least => Ok((len as usize).saturating_add(more)),
        Ok(_) => Err(Fault::Malformed("a value shorter than it can be")),
        Err(Short) => Err(Fault::Short),
    };
    Ok(match kind {
        kind::UNDEFINED | kind::NULL | kind::MAX_KEY | kind::MIN_KEY => 0,
        kind::BOOL => 1,
        kind::INT32 => 4,
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => 8,
        kind::OBJECT_ID => 12,
        kind::DECIMAL => 16,
        kind::STRING | kind::CODE | kind::SYMBOL => length(4, 1)?,
        kind::DOCUMENT | kind::ARRAY => length(0, 5)?,
        kind::BINARY => length(5, 0)?,
        kind::DB_POINTER => length(4 + 12, 1)?,
        kind::SCOPED_CODE => length(0, 14)?,
        kind::REGEX => {
            let start = value.remaining();
            if value.until(0).is_err() || value.until(0).is_err() {
                return Err(if start > MAX_REGEX { Fault::Malformed("an expression too long") } else { Fault::Short });
            }
            start - value.remaining()
        }
        _ => return Err(Fault::Malformed("a value of unknown type")),
    })
}

/// What rows want to know of documents.
pub(super) trait Facts {
    /// How many bytes of the value of a field have to be seen; none if it tells nothing. `first` if it is the document's
    /// first.
    fn wants(&self, first: bool, element: &Element<'_>) -> Option<usize>;
    /// Takes as many of them, or the whole value if it is shorter.
    fn take(&mut self, first: bool, element: &Element<'_>, value: &[u8]);
}

/// How far a message was read.
#[derive(Debug)]
pub(super) struct Walk {
    /// Bytes of the message still to come.
    left: usize,
    at: At,
    /// What follows a document.
    then: Then,
    checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Next,
    /// In a document of which so many bytes are left.
    Document {
        left: usize,
        first: bool,
    },
    /// In what tells nothing.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Sections of `OP_MSG`.
    Sections,
    /// So many more documents.
    Documents(u8),
}

impl Walk {
    /// Of a message with so many bytes after its head.
    pub(super) fn new(opcode: Opcode, flags: u32, left: usize) -> Self {
        let then = match opcode {
            Opcode::Msg => Then::Sections,
            Opcode::Query | Opcode::Reply => Then::Documents(1),
            // Its arguments and its metadata, in an order that changed between versions.
            Opcode::Command | Opcode::CommandReply => Then::Documents(2),
            _ => Then::Documents(0),
        };
        Self { left, at: At::Next, then, checksum: opcode == Opcode::Msg && flags & CHECKSUM != 0 }
    }

    /// True if the message has ended.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Reads on; returns how many bytes are done with, which may be more than there are.
    pub(super) fn feed(&mut self, bytes: &[u8], facts: &mut impl Facts) -> Result<usize, Malformed> {
        let bytes = bytes.get(..self.left).unwrap_or(bytes);
        let mut done = 0;
        while self.left > 0 {
            let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) else { break };
            let passed = match self.step(rest, facts) {
                Ok(passed) => passed,
                Err(Fault::Short) if rest.len() < self.left => break,
                Err(Fault::Short) => return Err(Malformed("a document longer than its message")),
                Err(Fault::Malformed(why)) => return Err(Malformed(why)),
            };
            self.left = self.left.checked_sub(passed).ok_or(Malformed("a document longer than its message"))?;
            done += passed;
        }
        Ok(done)
    }

    /// Reads one element, or what is between documents.
    fn step(&mut self, bytes: &[u8], facts: &mut impl Facts) -> Result<usize, Fault> {
        let mut cursor = Cursor::new(bytes);
        match self.at {
            At::Rest => return Ok(self.left),
            At::Next => match self.then {
                Then::Documents(0) => self.at = At::Rest,
                Then::Documents(more) => {
                    self.document(&mut cursor)?;
                    self.then = Then::Documents(more - 1);
                }
                Then::Sections if self.checksum && self.left == CHECKSUM_LEN => self.at = At::Rest,
                Then::Sections => match cursor.u8()? {
                    0 => self.document(&mut cursor)?,
                    1 => {
                        let size = Cursor::new(cursor.rest()).u32_le()? as usize;
                        return if size > 4 { Ok(1 + size) } else { Err(Fault::Malformed("an empty section")) };
                    }
                    _ => return Err(Fault::Malformed("a section of unknown kind")),
                },
            },
            At::Document { left, first } => {
                let Some(element) = Element::read(&mut cursor)? else {
                    self.at = At::Next;
                    return if left == 1 { Ok(1) } else { Err(Fault::Malformed("a document that ends too early")) };
                };
                let passed = cursor.position().saturating_add(element.size);
                // The zero byte is still to come.
                let left = left.checked_sub(passed).filter(|left| *left > 0);
                let left = left.ok_or(Fault::Malformed("a value longer than its document"))?;
                if let Some(wanted) = facts.wants(first, &element) {
                    facts.take(first, &element, cursor.take(wanted.min(element.size))?);
                }
                self.at = At::Document { left, first: false };
                return Ok(passed);
            }
        }
        Ok(cursor.position())
    }

    fn document(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let len = cursor.u32_le()? as usize;
        let left = len.checked_sub(4).filter(|left| *left > 0).ok_or(Fault::Malformed("an empty document"))?;
        self.at = At::Document { left, first: true };
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    /// Keeps the names that it is asked for, and the start of the values of some.
    #[derive(Default)]
    struct Seen(Vec<(Vec<u8>, Vec<u8>)>);

    impl Facts for Seen {
        fn wants(&self, first: bool, element: &Element<'_>) -> Option<usize> {
            (first || element.name == b"$db").then_some(7)
        }

        fn take(&mut self, _first: bool, element: &Element<'_>, value: &[u8]) {
            self.0.push((element.name.to_vec(), value.to_vec()));
        }
    }

    fn document(elements: &[u8]) -> Vec<u8> {
        [&(elements.len() as u32 + 5).to_le_bytes()[..], elements, b"\0"].concat()
    }

    /// What is seen of a message whose bytes come in pieces of that size.
    fn walk(opcode: Opcode, flags: u32, body: &[u8], size: usize) -> Result<Seen, Malformed> {
        let mut walk = Walk::new(opcode, flags, body.len());
        let (mut seen, mut at, mut there) = (Seen::default(), 0, 0);
        while there < body.len() {
            there = (there + size).min(body.len());
            while let Some(bytes) = body.get(at..there).filter(|bytes| !bytes.is_empty()) {
                match walk.feed(bytes, &mut seen)? {
                    0 => break,
                    done => at += done,
                }
            }
        }
        assert!(walk.is_done() && at == body.len());
        Ok(seen)
    }

    #[test]
    fn large_values_are_passed_over_whatever_the_pieces() {
        let large = document(&b"\x10a\0\x01\0\0\0".repeat(2000));
        let fields =
            [&b"\x02insert\0\x06\0\0\0carts\0\x04documents\0"[..], &large, b"\x02$db\0\x05\0\0\0shop\0"].concat();
        let sequence = [&b"\x01\x18\0\0\0documents\0"[..], &document(b"\x0aa\0"), b"xx"].concat();
        let body = [&b"\0"[..], &document(&fields), &sequence, b"\x11\x22\x33\x44"].concat();
        let expected =
            vec![(b"insert".to_vec(), b"\x06\0\0\0car".to_vec()), (b"$db".to_vec(), b"\x05\0\0\0sho".to_vec())];
        for size in [1, 2, 3, 7, 100, 4096, 1 << 20] {
            assert_eq!(walk(Opcode::Msg, CHECKSUM, &body, size).unwrap().0, expected);
        }
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let bodies: [(Opcode, &[u8]); 7] = [
            (Opcode::Msg, b"\0\x20\0\0\0\x0aa\0\0"),
            (Opcode::Msg, b"\0\x08\0\0\0\x02a\0\x09\0\0\0abc\0\0"),
            (Opcode::Msg, b"\x02\0\0\0\0"),
            (Opcode::Msg, b"\x01\x04\0\0\0"),
            (Opcode::Query, b"\x03\0\0\0\0"),
            (Opcode::Query, b"\x09\0\0\0\0\0\0\0\0"),
            (Opcode::Query, b"\x08\0\0\0\x20a\0\0"),
        ];
        for (opcode, body) in bodies {
            assert!(walk(opcode, 0, body, 1).is_err(), "{body:?}");
        }
    }
}
