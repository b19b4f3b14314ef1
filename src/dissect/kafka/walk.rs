//! Walks over a body by its schema, piece by piece as the bytes come: a message is never held, however large it is.

use super::apis::API_VERSIONS;
use super::reading::{Reading, Topics};
use super::schema::{Api, Field, Kind};
use crate::dissect::{Cursor, Malformed, Short};

/// The deepest that structures lie in one another, in steps; schemas stay far below.
const MAX_DEPTH: usize = 32;
/// The largest buffer that is kept for the next value.
const MAX_IDLE: usize = 4096;
const DEEP: Malformed = Malformed("structures too deep");
const ENDS_EARLY: Malformed = Malformed("the body ends too early");

/// Where in a body the next byte lies.
#[derive(Default)]
pub(super) struct Walk {
    version: u8,
    flexible: bool,
    /// Answers of the oldest version are told by this error.
    fallback: bool,
    /// How many bytes of the message are to come.
    left: u64,
    levels: Vec<Level>,
    /// The value that has been read in part.
    partial: Option<Partial>,
    kept: Vec<u8>,
}

/// What is being read, from the body down to the next value.
#[derive(Clone, Copy)]
enum Level {
    /// The fields of a structure, from that one on.
    Fields { fields: &'static [Field], next: usize },
    /// So many elements of an array.
    Items { field: &'static Field, left: u64 },
    /// The tagged fields at a structure's end: so many, if that has been read.
    Tags { fields: &'static [Field], left: Option<u64> },
    /// A tagged field, if it has not been read, and how much of the message is left where it ends.
    Tagged { field: Option<&'static Field>, end: u64 },
}

/// A value of which more bytes are wanted than have come.
#[derive(Clone, Copy)]
struct Partial {
    field: &'static Field,
    named: bool,
    /// Its length.
    len: u64,
    wanted: usize,
    /// How many of its bytes have not come.
    left: u64,
    /// Some of them never will.
    lost: bool,
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// So many bytes are done with, which may be more than were given, and more have to come.
    On(usize),
    /// So many bytes are done with, and so is the body.
    Done(usize),
}

enum Fault {
    Short,
    Malformed(Malformed),
}

impl From<Short> for Fault {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The error code that answers a version of `ApiVersions` which the broker does not know: what follows is version 0.
const UNSUPPORTED_VERSION: [u8; 2] = 35i16.to_be_bytes();

impl Walk {
    /// Begins a body of `left` bytes, with the tagged fields before it that end the message's header, if it has them.
    pub fn start(&mut self, api: &Api, request: bool, version: u8, tagged_header: bool, left: u64) {
        self.restart(if request { api.request } else { api.response }, version, left);
        self.flexible = version >= api.flexible;
        self.fallback = api.key == API_VERSIONS && !request;
        if tagged_header {
            self.levels.push(Level::Tags { fields: &[], left: None });
        }
    }

    /// Begins with fields of no API's.
    pub fn restart(&mut self, fields: &'static [Field], version: u8, left: u64) {
        *self = Self {
            version,
            flexible: false,
            fallback: false,
            left,
            levels: std::mem::take(&mut self.levels),
            partial: None,
            kept: std::mem::take(&mut self.kept),
        };
        self.levels.clear();
        self.levels.push(Level::Fields { fields, next: 0 });
    }

    /// How many bytes of the message are to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Reads on. `On(0)` means that the next value needs more bytes than were given.
    pub fn run(&mut self, bytes: &[u8], reading: &mut Reading, topics: &mut Topics) -> Result<Walked, Malformed> {
        let whole = self.left;
        let within = usize::try_from(whole).unwrap_or(usize::MAX);
        let mut cursor = Cursor::new(bytes.get(..within).unwrap_or(bytes));
        // What was passed over beyond the bytes at hand.
        let mut beyond = 0;
        loop {
            self.left = whole - cursor.position() as u64 - beyond;
            let mut next = cursor;
            let skip = match self.step(&mut next, reading, topics) {
                Ok(Some(skip)) => skip,
                Ok(None) => return Ok(Walked::Done((whole - self.left) as usize)),
                Err(Fault::Short) if self.left <= cursor.remaining() as u64 => return Err(ENDS_EARLY),
                Err(Fault::Short) => return Ok(Walked::On((whole - self.left) as usize)),
                Err(Fault::Malformed(malformed)) => return Err(malformed),
            };
            cursor = next;
            let at_hand = skip.min(cursor.remaining() as u64);
            beyond += skip - at_hand;
            cursor.skip(at_hand as usize)?;
        }
    }

    /// The capture lacks `len` bytes from here on: true if they lie in a value that can do without them.
    pub fn lose(&mut self, len: u64) -> bool {
        match &mut self.partial {
            Some(partial) if partial.left >= len => {
                partial.left -= len;
                partial.lost = true;
                self.left -= len;
                true
            }
            _ => false,
        }
    }

    /// Reads the next number, length or value, and tells how many bytes of it to pass over. `None` at the end.
    fn step(
        &mut self,
        cursor: &mut Cursor<'_>,
        reading: &mut Reading,
        topics: &mut Topics,
    ) -> Result<Option<u64>, Fault> {
        if self.partial.is_some() {
            return self.resume(cursor, reading, topics).map(Some);
        }
        let begin = cursor.position();
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        match level {
            Level::Fields { fields, next } => {
                let (fields, version) = (*fields, self.version);
                let Some((at, field)) = fields
                    .iter()
                    .enumerate()
                    .skip(*next)
                    .find(|(_, field)| field.tag.is_none() && field.is_in(version))
                else {
                    if self.flexible {
                        *level = Level::Tags { fields, left: None };
                    } else {
                        self.levels.pop();
                        reading.close();
                    }
                    return Ok(Some(0));
                };
                let depth = self.levels.len() - 1;
                let skip = self.field(field, cursor, reading, topics)?;
                if let Some(Level::Fields { next, .. }) = self.levels.get_mut(depth) {
                    *next = at + 1;
                }
                Ok(Some(skip))
            }
            Level::Items { left: 0, .. } | Level::Tags { left: Some(0), .. } => {
                self.levels.pop();
                reading.close();
                Ok(Some(0))
            }
            Level::Items { field, left } => {
                let field = *field;
                if let Some(size) = field.kind.size()
                    && field.kind.is_idle()
                    && !reading.is_detailed()
                {
                    let skip = size as u64 * std::mem::take(left);
                    return if skip > self.left { Err(ENDS_EARLY.into()) } else { Ok(Some(skip)) };
                }
                let depth = self.levels.len() - 1;
                let skip = self.value(field, false, cursor, reading, topics)?;
                if let Some(Level::Items { left, .. }) = self.levels.get_mut(depth) {
                    *left -= 1;
                }
                Ok(Some(skip))
            }
            Level::Tags { left: left @ None, .. } => {
                *left = Some(u64::from(varint(cursor)?));
                Ok(Some(0))
            }
            Level::Tags { fields, left: Some(left) } => {
                let (tag, size) = (varint(cursor)?, u64::from(varint(cursor)?));
                *left -= 1;
                let version = self.version;
                let field = fields.iter().find(|field| field.tag.map(u32::from) == Some(tag) && field.is_in(version));
                let read = (cursor.position() - begin) as u64;
                let end = self.left.checked_sub(read + size).ok_or(ENDS_EARLY)?;
                let Some(field) = field else { return Ok(Some(size)) };
                self.push(Level::Tagged { field: Some(field), end })?;
                Ok(Some(0))
            }
            Level::Tagged { field: Some(field), .. } => {
                let field = *field;
                let depth = self.levels.len() - 1;
                let skip = self.field(field, cursor, reading, topics)?;
                if let Some(Level::Tagged { field, .. }) = self.levels.get_mut(depth) {
                    *field = None;
                }
                Ok(Some(skip))
            }
            Level::Tagged { field: None, end } => {
                let rest = self.left.checked_sub(*end).ok_or(Malformed("a tagged field longer than it says"))?;
                self.levels.pop();
                Ok(Some(rest))
            }
        }
    }

    /// A field: a value, or the start of an array.
    fn field(
        &mut self,
        field: &'static Field,
        cursor: &mut Cursor<'_>,
        reading: &mut Reading,
        topics: &mut Topics,
    ) -> Result<u64, Fault> {
        if !field.many {
            return self.value(field, true, cursor, reading, topics);
        }
        let count = if self.flexible { compact(cursor)? } else { plain(i64::from(cursor.i32()?))? };
        let Some(count) = count else {
            let nested = self.levels.len() > 1 && matches!(field.kind, Kind::Struct(_));
            reading.null(field, true, nested && !field.nullable && !self.flexible);
            return Ok(0);
        };
        // Each element takes a byte at least; were they empty, their number would cost the peer nothing.
        let empty = match field.kind {
            Kind::Struct(fields) => !self.flexible && !fields.iter().any(|field| field.is_in(self.version)),
            _ => false,
        };
        if count > self.left || empty && count > 0 {
            return Err(Malformed("an array longer than the body").into());
        }
        self.push(Level::Items { field, left: count })?;
        reading.open(field, true, true);
        Ok(0)
    }

    /// One value, of a field or an array.
    fn value(
        &mut self,
        field: &'static Field,
        named: bool,
        cursor: &mut Cursor<'_>,
        reading: &mut Reading,
        topics: &mut Topics,
    ) -> Result<u64, Fault> {
        let begin = cursor.position();
        if let Kind::Struct(fields) = field.kind {
            if field.nullable && named && cursor.i8()? < 0 {
                reading.null(field, named, false);
                return Ok(0);
            }
            self.push(Level::Fields { fields, next: 0 })?;
            reading.open(field, named, false);
            return Ok(0);
        }
        if let Some(size) = field.kind.size() {
            let bytes = cursor.take(size)?;
            if self.fallback && matches!(field.kind, Kind::Error) && bytes == UNSUPPORTED_VERSION {
                (self.version, self.flexible) = (0, false);
            }
            reading.number(field, named, bytes, topics);
            return Ok(0);
        }
        let len = match field.kind {
            _ if self.flexible => compact(cursor)?,
            Kind::Bytes | Kind::Records => plain(i64::from(cursor.i32()?))?,
            _ => plain(i64::from(cursor.i16()?))?,
        };
        let Some(len) = len else {
            reading.null(field, named, matches!(field.kind, Kind::Topic) && !self.flexible);
            return Ok(0);
        };
        if len + (cursor.position() - begin) as u64 > self.left {
            return Err(Malformed("a value longer than the body").into());
        }
        let wanted = reading.wanted(field, len);
        if let Ok(bytes) = cursor.take(wanted) {
            reading.text(field, named, bytes, len, topics);
            return Ok(len - wanted as u64);
        }
        self.kept.clear();
        self.partial = Some(Partial { field, named, len, wanted, left: len, lost: false });
        Ok(0)
    }

    /// Goes on with a value of which more bytes were wanted.
    fn resume(&mut self, cursor: &mut Cursor<'_>, reading: &mut Reading, topics: &mut Topics) -> Result<u64, Fault> {
        let Some(partial) = &mut self.partial else { return Ok(0) };
        let missing = partial.wanted.saturating_sub(self.kept.len());
        if !partial.lost && missing > 0 {
            if cursor.is_empty() {
                return Err(Fault::Short);
            }
            let bytes = cursor.take(missing.min(cursor.remaining()))?;
            self.kept.extend_from_slice(bytes);
            partial.left -= bytes.len() as u64;
            if bytes.len() < missing {
                return Ok(0);
            }
        }
        let Partial { field, named, len, left, lost, .. } = *partial;
        self.partial = None;
        if lost && matches!(field.kind, Kind::Topic | Kind::ResourceName) {
            reading.null(field, named, false);
        } else {
            reading.text(field, named, &self.kept, len, topics);
        }
        if self.kept.capacity() > MAX_IDLE {
            self.kept = Vec::new();
        }
        Ok(left)
    }

    fn push(&mut self, level: Level) -> Result<(), Malformed> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(DEEP);
        }
        self.levels.push(level);
        Ok(())
    }
}

/// A length or count as it is: −1 stands for null.
fn plain(len: i64) -> Result<Option<u64>, Malformed> {
    match len {
        -1 => Ok(None),
        len => u64::try_from(len).map(Some).map_err(|_| Malformed("a negative length")),
    }
}

/// A length or count in compact form: one more than it is, 0 stands for null.
fn compact(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Fault> {
    Ok(varint(cursor)?.checked_sub(1).map(u64::from))
}

/// An unsigned number of seven bits a byte, the lowest first.
fn varint(cursor: &mut Cursor<'_>) -> Result<u32, Fault> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = cursor.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number).map_err(|_| Malformed("a number of too many bits").into());
        }
    }
    Err(Malformed("a number of too many bits").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;
    use crate::dissect::kafka::schema::{error, int32, list, one, records, text, topic};

    static FIELDS: Api = Api {
        key: 0,
        name: "Test",
        versions: (0, 9),
        flexible: 5,
        request: &[
            list("topics").of(&[topic("name"), records("records").until(8)]),
            list("empty").until(1).of(&[text("later").since(2)]),
            one("extra").since(5).tag(1).of(&[error("error_code")]),
        ],
        response: &[int32("numbers").many()],
    };

    fn walk(version: u8, bytes: &[u8], len: u64) -> (Result<Walked, Malformed>, Reading, Walk) {
        let (mut walk, mut reading) = (Walk::default(), Reading::default());
        reading.start(true, None);
        walk.start(&FIELDS, true, version, false, len);
        let walked = walk.run(bytes, &mut reading, &mut Topics::default());
        (walked, reading, walk)
    }

    #[test]
    fn records_are_passed_over_unseen() {
        let (walked, reading, walk) = walk(2, b"\0\0\0\x01\0\x01a\0\x10\0\0head", 11 + (1 << 20));
        assert_eq!((walked, reading.target.as_str()), (Ok(Walked::Done(11 + (1 << 20))), "a"));
        assert_eq!(walk.left(), 0);
    }

    #[test]
    fn it_goes_on_at_any_byte() {
        let bytes = b"\x03\x02a\x03..\0\x02b\x01\0\x02\x07\x01!\x01\x03\0\x03\0";
        let (mut walk, mut reading, mut topics) = (Walk::default(), Reading::default(), Topics::default());
        reading.start(true, None);
        walk.start(&FIELDS, true, 5, false, bytes.len() as u64);
        let (mut done, mut given) = (0, 1);
        while done < bytes.len() {
            match walk.run(&bytes[done..given.max(done)], &mut reading, &mut topics).unwrap() {
                Walked::On(0) => given += 1,
                Walked::On(n) => (done, given) = (done + n, given.max(done + n)),
                Walked::Done(n) => done += n,
            }
        }
        assert_eq!((reading.target.as_str(), reading.status, walk.left()), ("a,b", Some(3), 0));
    }

    #[test]
    fn lengths_are_not_believed() {
        let long = Err(Malformed("an array longer than the body"));
        assert_eq!(walk(2, b"\x7f\xff\xff\xff....", 8).0, long);
        assert_eq!(walk(1, b"\0\0\0\0\0\0\0\x02..", 10).0, long, "elements that take no bytes");
        assert_eq!(walk(2, b"\xff\xff\xff\xfe", 4).0, Err(Malformed("a negative length")));
        assert_eq!(walk(2, b"\0\0\0\x01\0\x09a", 7).0, Err(Malformed("a value longer than the body")));
        assert_eq!(walk(2, b"\0\0\0\x01\0", 5).0, Err(ENDS_EARLY));
        assert_eq!(walk(5, b"\xff\xff\xff\xff\xff", 5).0, Err(Malformed("a number of too many bits")));
        let tagged = walk(5, b"\x01\x01\x01\x01\0\x03\0", 7).0;
        assert_eq!(tagged, Err(Malformed("a tagged field longer than it says")));
    }
}
