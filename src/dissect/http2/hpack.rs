//! Header compression (RFC 7541), as one who may not have heard everything reads it.
//!
//! Both ends count entries of the dynamic table from the newest, so those heard since joining have their right numbers
//! whatever went before. What refers further back is not known, and is said not to be; never is it taken for another.

use std::collections::VecDeque;
use std::ops::Range;

use super::huffman;
use crate::dissect::{Cursor, Malformed, Short};

/// The size of the dynamic table until the encoder says otherwise (RFC 9113 section 6.5.2).
const DEFAULT_TABLE: usize = 4096;
/// The largest dynamic table that is kept; of a larger one, the oldest entries are as if they had not been heard.
const MAX_TABLE: usize = 64 * 1024;
/// What an entry counts beyond its bytes (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// The most bytes that the fields of one block come to; what goes beyond is left out.
const MAX_LIST: usize = 256 * 1024;

/// The fields of one block, in order. Kept from block to block for its space.
#[derive(Debug, Default)]
pub(in crate::dissect) struct List {
    bytes: Vec<u8>,
    fields: Vec<[Option<Range<usize>>; 2]>,
    /// Fields were left out.
    pub cut: bool,
}

impl List {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.cut = false;
    }

    /// Name and value of each field; `None` stands for what is not known.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, Option<&[u8]>)> {
        let text = |range: &Option<Range<usize>>| self.bytes.get(range.clone()?);
        self.fields.iter().map(move |[name, value]| (text(name), text(value)))
    }

    pub fn push(&mut self, name: Option<&[u8]>, value: Option<&[u8]>) {
        let len = name.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + ENTRY_OVERHEAD;
        if self.bytes.len() + self.fields.len() * ENTRY_OVERHEAD + len > MAX_LIST {
            self.cut = true;
            return;
        }
        let mut place = |text: Option<&[u8]>| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(text?);
            Some(start..self.bytes.len())
        };
        let field = [place(name), place(value)];
        self.fields.push(field);
    }
}

/// A field of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: Option<Box<[u8]>>,
    value: Box<[u8]>,
}

impl Entry {
    /// Its size; that of an unknown name counts as 0, which only keeps an entry for longer.
    fn size(&self) -> usize {
        self.name.as_ref().map_or(0, |name| name.len()) + self.value.len() + ENTRY_OVERHEAD
    }
}

/// The decoder of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first.
    table: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// There may be entries that were not heard.
    partial: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// For a direction heard from its start.
    pub fn new() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            limit: DEFAULT_TABLE,
            partial: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// For a direction joined later. A table larger than the real one only keeps what is not referred to any more.
    pub fn joined() -> Self {
        Self { limit: MAX_TABLE, partial: true, ..Self::new() }
    }

    /// Blocks may have been missed.
    pub fn forget(&mut self) {
        *self = Self::joined();
    }

    /// Decodes a whole block and adds its fields to `list`.
    ///
    /// # Errors
    /// If the block is invalid; the table is then as far as the valid part of it left it.
    pub fn decode(&mut self, block: &[u8], list: &mut List) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(block);
        while let Some(first) = cursor.peek() {
            match first {
                0x80.. => {
                    let index = integer(&mut cursor, 7)?;
                    match self.entry(index)? {
                        Some((name, value)) => list.push(name, Some(value)),
                        None => list.push(None, None),
                    }
                }
                0x40..0x80 => {
                    let known = self.literal(&mut cursor, 6)?;
                    let name = known.then_some(self.name.as_slice());
                    list.push(name, Some(&self.value));
                    let entry = Entry { name: name.map(Into::into), value: self.value.as_slice().into() };
                    self.insert(entry);
                }
                0x20..0x40 => {
                    let limit = usize::try_from(integer(&mut cursor, 5)?).unwrap_or(usize::MAX);
                    self.limit = limit.min(MAX_TABLE);
                    self.partial |= limit > MAX_TABLE;
                    self.evict(0);
                }
                _ => {
                    let known = self.literal(&mut cursor, 4)?;
                    list.push(known.then_some(self.name.as_slice()), Some(&self.value));
                }
            }
        }
        Ok(())
    }

    /// Reads a literal field into `name` and `value`. False if its name is not known.
    fn literal(&mut self, cursor: &mut Cursor<'_>, prefix: u32) -> Result<bool, Malformed> {
        let index = integer(cursor, prefix)?;
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        let known = if index == 0 {
            string(cursor, 7, &mut name)?;
            true
        } else {
            let found = self.entry(index)?.and_then(|(name, _)| name);
            name.extend_from_slice(found.unwrap_or_default());
            found.is_some()
        };
        self.name = name;
        self.value.clear();
        string(cursor, 7, &mut self.value)?;
        Ok(known)
    }

    /// The field of that number; `None` if it was not heard.
    #[allow(clippy::type_complexity, reason = "a name, which may be unknown, and a value")]
    fn entry(&self, index: u64) -> Result<Option<(Option<&[u8]>, &[u8])>, Malformed> {
        let index = usize::try_from(index).map_err(|_| Malformed("a header field of no table"))?;
        let index = index.checked_sub(1).ok_or(Malformed("a header field number of 0"))?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok(Some((Some(name.as_bytes()), value.as_bytes())));
        }
        match self.table.get(index - STATIC.len()) {
            Some(entry) => Ok(Some((entry.name.as_deref(), &entry.value))),
            None if self.partial => Ok(None),
            None => Err(Malformed("a header field of no table")),
        }
    }

    fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        if size <= self.limit {
            self.size += size;
            self.table.push_front(entry);
        }
    }

    /// Makes room for `size` bytes.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.limit
            && let Some(entry) = self.table.pop_back()
        {
            self.size -= entry.size();
        }
    }
}

/// An integer whose first byte has `prefix` bits of it (RFC 7541 section 5.1).
pub(in crate::dissect) fn integer(cursor: &mut Cursor<'_>, prefix: u32) -> Result<u64, Malformed> {
    let mask = (1u64 << prefix) - 1;
    let mut value = u64::from(cursor.u8()?) & mask;
    if value < mask {
        return Ok(value);
    }
    // 28 bits are more than anything here counts.
    for shift in [0, 7, 14, 21] {
        let byte = cursor.u8()?;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a header integer that is too long"))
}

/// A string literal (RFC 7541 section 5.2), added to `out`. Its length begins with `prefix` bits, behind the one that says how it
/// is coded.
pub(in crate::dissect) fn string(cursor: &mut Cursor<'_>, prefix: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let coded = cursor.peek().ok_or(Short)? & 1 << prefix > 0;
    let len = integer(cursor, prefix)?;
    let bytes = cursor.take(usize::try_from(len).map_err(|_| Short)?)?;
    if coded {
        return huffman::decode(bytes, out).map_err(|_| Malformed("an invalid Huffman code"));
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// The fields that both ends know (RFC 7541 appendix A).
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut list = List::default();
        decoder.decode(block, &mut list)?;
        let text = |text: Option<&[u8]>| text.map_or("?".into(), |text| String::from_utf8_lossy(text).into_owned());
        Ok(list.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect())
    }

    fn table(decoder: &Decoder) -> (Vec<String>, usize) {
        let name =
            |entry: &Entry| entry.name.as_ref().map_or("?".into(), |name| String::from_utf8_lossy(name).into_owned());
        let line = |entry: &Entry| format!("{}: {}", name(entry), String::from_utf8_lossy(&entry.value));
        (decoder.table.iter().map(line).collect(), decoder.size)
    }

    #[test]
    fn integers_of_the_specification() {
        // RFC 7541 appendix C.1.
        assert_eq!(integer(&mut Cursor::new(&[0b1110_1010]), 5), Ok(10));
        assert_eq!(integer(&mut Cursor::new(&[0x1f, 0x9a, 0x0a]), 5), Ok(1337));
        assert_eq!(integer(&mut Cursor::new(&[42]), 8), Ok(42));
        assert!(integer(&mut Cursor::new(&[0xff]), 7).is_err());
        assert!(integer(&mut Cursor::new(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x01]), 7).is_err());
    }

    #[test]
    fn single_fields_of_the_specification() {
        // RFC 7541 appendix C.2.
        let mut decoder = Decoder::new();
        let custom = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
        assert_eq!(decoded(&mut decoder, &custom), Ok(vec!["custom-key: custom-header".into()]));
        assert_eq!(table(&decoder), (vec!["custom-key: custom-header".into()], 55));
        let mut decoder = Decoder::new();
        assert_eq!(
            decoded(&mut decoder, &bytes("040c 2f73 616d 706c 652f 7061 7468")),
            Ok(vec![":path: /sample/path".into()])
        );
        let never = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
        assert_eq!(decoded(&mut decoder, &never), Ok(vec!["password: secret".into()]));
        assert_eq!(decoded(&mut decoder, &[0x82]), Ok(vec![":method: GET".into()]));
        assert_eq!(table(&decoder), (vec![], 0));
    }

    #[test]
    fn requests_of_the_specification() {
        // RFC 7541 appendices C.3 and C.4: the same fields, plain and Huffman coded.
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new();
            let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
            assert_eq!(decoded(&mut decoder, &bytes(blocks[0])).unwrap(), first);
            assert_eq!(decoded(&mut decoder, &bytes(blocks[1])).unwrap()[4], "cache-control: no-cache");
            let third = decoded(&mut decoder, &bytes(blocks[2])).unwrap();
            assert_eq!(third[1..], [":scheme: https", ":path: /index.html", first[3], "custom-key: custom-value"]);
            assert_eq!(table(&decoder).1, 164);
        }
    }

    #[test]
    fn responses_of_the_specification() {
        // RFC 7541 appendices C.5 and C.6: a table of 256 bytes, so that entries are evicted.
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d \
             546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
             6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
             2076 6572 7369 6f6e 3d31",
        ];
        let coded = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
             8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
             dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new();
            // A dynamic table size update of 256.
            decoded(&mut decoder, &[0x3f, 0xe1, 0x01]).unwrap();
            decoded(&mut decoder, &bytes(blocks[0])).unwrap();
            assert_eq!(table(&decoder).1, 222);
            decoded(&mut decoder, &bytes(blocks[1])).unwrap();
            assert_eq!(table(&decoder).0[0], ":status: 307");
            let third = decoded(&mut decoder, &bytes(blocks[2])).unwrap();
            assert_eq!(third[0], ":status: 200");
            assert_eq!(third[5], "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
            let date = "date: Mon, 21 Oct 2013 20:13:22 GMT".to_owned();
            assert_eq!(table(&decoder), (vec![third[5].clone(), "content-encoding: gzip".into(), date], 215));
        }
    }

    #[test]
    fn joined_later_says_what_it_does_not_know() {
        let mut decoder = Decoder::joined();
        // The newest entry is not known; a new one takes its number, and it the next; names may be unknown alone.
        assert_eq!(decoded(&mut decoder, &[0xbe]).unwrap(), ["?: ?"]);
        assert_eq!(decoded(&mut decoder, b"\x40\x01a\x01b\xbe\xbf").unwrap(), ["a: b", "a: b", "?: ?"]);
        assert_eq!(decoded(&mut decoder, b"\x7f\x00\x01v\xbe\xbf").unwrap(), ["?: v", "?: v", "a: b"]);
        decoder.forget();
        assert_eq!(decoded(&mut decoder, &[0xbe]).unwrap(), ["?: ?"]);
        assert!(decoded(&mut Decoder::new(), &[0xbe]).is_err());
    }

    #[test]
    fn hostile_blocks() {
        for bad in
            [&[0x80][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"\x40\x7f", b"\x00\x05ab", b"\x00\x81\x18", &[0x40]]
        {
            assert!(decoded(&mut Decoder::new(), bad).is_err(), "{bad:x?}");
        }
        // A large entry, named again and again.
        let mut decoder = Decoder::new();
        let mut list = List::default();
        let mut block = b"\x40\x01a\x7f\xd5\x1e".to_vec();
        block.extend([b'x'; 127 + 0x55 + (0x1e << 7)]);
        block.extend([0xbe; 10_000]);
        decoder.decode(&block, &mut list).unwrap();
        assert!(list.cut && list.bytes.len() <= MAX_LIST);
    }
}
