//! Reads numbers and slices off the front of some bytes; the only way in which dissectors index.

/// The bytes ended before what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// A position in some bytes. Every read either advances past what it returns or fails and stays.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($be:ident $le:ident $type:ty),*) => {
        $(
            /// A big-endian number.
            ///
            /// # Errors
            /// [`Short`] if the bytes end before.
            pub fn $be(&mut self) -> Result<$type, Short> {
                self.array().map(<$type>::from_be_bytes)
            }

            /// A little-endian number.
            ///
            /// # Errors
            /// [`Short`] if the bytes end before.
            pub fn $le(&mut self) -> Result<$type, Short> {
                self.array().map(<$type>::from_le_bytes)
            }
        )*
    };
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A number in groups of seven bits, lowest first, in at most ten bytes (LEB128).
    ///
    /// # Errors
    /// [`Short`] if the bytes end before, or the number does not.
    pub fn varint(&mut self) -> Result<u64, Short> {
        let mut ahead = *self;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = ahead.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *self = ahead;
                return Ok(number);
            }
        }
        Err(Short)
    }

    /// How many bytes were read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// True if nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let slice = self.rest().get(..n).ok_or(Short)?;
        self.at += n;
        Ok(slice)
    }

    /// The next `N` bytes, as an array.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let array = *self.rest().first_chunk::<N>().ok_or(Short)?;
        self.at += N;
        Ok(array)
    }

    /// Passes over `n` bytes.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn skip(&mut self, n: usize) -> Result<(), Short> {
        self.take(n).map(|_| ())
    }

    /// The next byte, without passing it.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Short`] if none is left.
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// One byte, signed.
    ///
    /// # Errors
    /// [`Short`] if none is left.
    pub fn i8(&mut self) -> Result<i8, Short> {
        self.array().map(i8::from_be_bytes)
    }

    numbers!(u16 u16_le u16, u32 u32_le u32, u64 u64_le u64, i16 i16_le i16, i32 i32_le i32, i64 i64_le i64);

    /// A big-endian number of three bytes.
    ///
    /// # Errors
    /// [`Short`] if the bytes end before.
    pub fn u24(&mut self) -> Result<u32, Short> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// A little-endian number of three bytes.
    ///
    /// # Errors
    /// [`Short`] if the bytes end before.
    pub fn u24_le(&mut self) -> Result<u32, Short> {
        self.array().map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// The bytes before the next `delimiter`, which is passed too.
    ///
    /// # Errors
    /// [`Short`] if it does not come.
    pub fn until(&mut self, delimiter: u8) -> Result<&'a [u8], Short> {
        let end = memchr::memchr(delimiter, self.rest()).ok_or(Short)?;
        let slice = self.take(end)?;
        self.at += 1;
        Ok(slice)
    }

    /// The line before the next CRLF, which is passed too.
    ///
    /// # Errors
    /// [`Short`] if it does not come.
    pub fn line(&mut self) -> Result<&'a [u8], Short> {
        let end = memchr::memmem::find(self.rest(), b"\r\n").ok_or(Short)?;
        let slice = self.take(end)?;
        self.at += 2;
        Ok(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_advance_and_failures_stay() {
        let mut cursor = Cursor::new(b"\x01\x02\x03ab\r\nx\0");
        assert_eq!(cursor.u16(), Ok(0x0102));
        assert_eq!(cursor.u64(), Err(Short));
        assert_eq!(cursor.u8(), Ok(3));
        assert_eq!(cursor.line(), Ok(&b"ab"[..]));
        assert_eq!(cursor.line(), Err(Short));
        assert_eq!(cursor.until(0), Ok(&b"x"[..]));
        assert_eq!(cursor.position(), 9);
        assert!(cursor.is_empty());
    }
}
