//! A block's body: its fields and options, wherever the block ends (draft-ietf-opsawg-pcapng, section 3.5).

use byteorder_slice::ByteOrder;

/// A block's body, or an option's value, in the section's byte order.
pub(super) struct Body<'a, B> {
    pub(super) bytes: &'a [u8],
    order: std::marker::PhantomData<B>,
}

impl<'a, B: ByteOrder> Body<'a, B> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, order: std::marker::PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn rest(&self, at: usize) -> &'a [u8] {
        self.bytes.get(at..).unwrap_or_default()
    }

    pub(super) fn u16(&self, at: usize) -> Option<u16> {
        self.bytes.get(at..at + 2).map(B::read_u16)
    }

    pub(super) fn u32(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..at + 4).map(B::read_u32)
    }

    pub(super) fn u64(&self, at: usize) -> Option<u64> {
        self.bytes.get(at..at + 8).map(B::read_u64)
    }

    /// The type-length-value items from `at` on, to the first that is of type 0 or not whole.
    pub(super) fn options(&self, at: usize) -> impl Iterator<Item = (u16, Self)> + use<'a, B> {
        let mut rest = self.rest(at);
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            let (code, length) = (B::read_u16(head), usize::from(B::read_u16(head.get(2..)?)));
            let value = tail.get(..length).filter(|_| code != 0)?;
            rest = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((code, Self::new(value)))
        })
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
