//! What the headers of a packet are called here, and the bytes that they stand in.

/// A header that may come next, by what announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// An Ethernet frame, from its destination address on.
    Ethernet,
    /// What an `EtherType` announces.
    Type(u16),
    /// IEEE 802.2 logical link control.
    Llc,
    /// PPP, from its protocol field on.
    Ppp,
    /// IP of the version that its first half-byte says.
    Ip,
}

/// Why a header cannot be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It leads to no IP packet.
    NotIp,
    /// It is cut off or contradicts itself.
    Malformed,
}

/// A header and the bytes that it starts.
pub(super) type Inner<'a> = (Layer, Bytes<'a>);

/// A header passed: the next one, or why there is none.
pub(super) type Passed<'a> = Result<Inner<'a>, Stop>;

/// The bytes of a layer that were captured, and how many were cut off behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a> {
    pub data: &'a [u8],
    /// Bytes that were on the wire but that the snaplen cut off.
    pub cut: u32,
}

impl<'a> Bytes<'a> {
    /// A frame that was `len` bytes long on the wire.
    pub(super) fn new(data: &'a [u8], len: u32) -> Self {
        Self { data, cut: len.saturating_sub(data.len() as u32) }
    }

    /// Its length on the wire.
    pub(super) fn wire(self) -> usize {
        self.data.len() + self.cut as usize
    }

    /// What follows the first `n` bytes.
    pub(super) fn after(self, n: usize) -> Result<Self, Stop> {
        let data = self.data.get(n..).ok_or(Stop::Malformed)?;
        Ok(Self { data, cut: self.cut })
    }

    /// What follows the first `n` bytes, of which not all need to be captured.
    pub(super) fn beyond(self, n: usize) -> Result<Self, Stop> {
        if n <= self.data.len() {
            return self.after(n);
        }
        let cut = self.wire().checked_sub(n).ok_or(Stop::Malformed)?;
        Ok(Self { data: &[], cut: cut as u32 })
    }

    /// The first `n` bytes on the wire: drops padding behind them. A length beyond the frame counts as its end.
    pub(super) fn trim(self, n: usize) -> Self {
        match self.data.get(..n) {
            Some(data) => Self { data, cut: 0 },
            None => Self { data: self.data, cut: self.cut.min((n - self.data.len()) as u32) },
        }
    }

    pub(super) fn byte(self, at: usize) -> Result<u8, Stop> {
        self.data.get(at).copied().ok_or(Stop::Malformed)
    }

    /// `N` bytes at `at`.
    pub(super) fn array<const N: usize>(self, at: usize) -> Result<[u8; N], Stop> {
        self.data.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Stop::Malformed)
    }

    /// A big-endian number.
    pub(super) fn u16(self, at: usize) -> Result<u16, Stop> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// A little-endian number.
    pub(super) fn u16_le(self, at: usize) -> Result<u16, Stop> {
        self.array(at).map(u16::from_le_bytes)
    }

    /// A big-endian number.
    pub(super) fn u32(self, at: usize) -> Result<u32, Stop> {
        self.array(at).map(u32::from_be_bytes)
    }
}
