//! A pair of virtual interfaces of our own in this network namespace: clones are sent into one end and received at the other.
//!
//! Made and removed over netlink. It has no address, not even IPv6's own, so that nothing is routed to it. A process that is
//! killed cannot remove it; the next one does. What it is known by is that it has our name and alias, and nothing attached.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use super::super::socket;
use crate::capture::interface;

/// Names of the ends: a number is between the two parts of the first, and of the second.
const NAMES: [(&str, &str); 2] = [("sniff-", "-in"), ("sniff-", "-out")];

/// The most pairs: each is of another agent in the same pod.
const MOST: u32 = 8;

/// Tells a pair of ours from one that somebody else gave such a name.
const ALIAS: &[u8] = b"of the agent of kubectl sniff\0";

/// Room for the largest frame.
const MTU: u32 = 65_535;

// Messages, flags and attributes of netlink, as in linux/rtnetlink.h, linux/if_link.h and linux/veth.h.
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400 | 0x200;
const NAME: u16 = 3;
const MTU_OF: u16 = 4;
const LINK_INFO: u16 = 18;
const ALIAS_OF: u16 = 20;
const STATISTICS: u16 = 23;
const OF_FAMILY: u16 = 26;
const SENDING_QUEUES: u16 = 31;
const RECEIVING_QUEUES: u16 = 32;
const XDP: u16 = 43;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PEER: u16 = 1;
const GENERATE_ADDRESS: u16 = 8;
const XDP_ATTACHED: u16 = 2;
const UP: u32 = 1;

/// The pair; removed when dropped.
#[derive(Debug)]
pub(super) struct Pair {
    netlink: Netlink,
    /// Index of the end that is sent into.
    pub(super) near: u32,
    /// Index of the other.
    pub(super) far: u32,
}

impl Pair {
    /// Makes one of so many queues; `prepare` is called with both indices before the ends are up.
    pub(super) fn new<T>(queues: u32, prepare: impl FnOnce(u32, u32) -> io::Result<T>) -> io::Result<(Self, T)> {
        let mut netlink = Netlink::open()?;
        let mut taken = None;
        for number in 0..MOST {
            let [near, far] = NAMES.map(|(before, after)| format!("{before}{number}{after}"));
            match netlink.find(&near)? {
                Some(link) if link.is_left_over() => netlink.delete(link.index)?,
                Some(_) => continue,
                None => {}
            }
            match netlink.create(&near, &far, queues) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => taken = Some(cause),
                result => {
                    result?;
                    return Self::made(netlink, &near, &far, prepare);
                }
            }
        }
        Err(taken.unwrap_or_else(|| io::Error::other(format!("{MOST} agents capture in this pod already"))))
    }

    fn made<T>(
        mut netlink: Netlink,
        near: &str,
        far: &str,
        prepare: impl FnOnce(u32, u32) -> io::Result<T>,
    ) -> io::Result<(Self, T)> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the interface that was just made is gone");
        let near = netlink.find(near)?.ok_or_else(gone)?.index;
        let far = netlink.find(far)?.ok_or_else(gone)?.index;
        // From here on it is removed, whatever happens.
        let mut pair = Self { netlink, near, far };
        for end in [near, far] {
            pair.netlink.change(end, 0, &attribute(ALIAS_OF, ALIAS))?;
            let no_address =
                attribute(OF_FAMILY, &attribute(libc::AF_INET6 as u16, &attribute(GENERATE_ADDRESS, &[1])));
            // A kernel without IPv6 does not know what that is.
            let _ = pair.netlink.change(end, 0, &no_address);
        }
        let prepared = prepare(near, far)?;
        for end in [far, near] {
            pair.netlink.change(end, UP, &[])?;
        }
        Ok((pair, prepared))
    }

    /// How many frames did not get from one end to the other for want of room.
    pub(super) fn dropped(&mut self) -> io::Result<u64> {
        Ok(self.netlink.get(self.near, &[])?.map_or(0, |link| link.dropped))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It may be gone already; the other end goes with it.
        let _ = self.netlink.delete(self.near);
    }
}

/// What is told of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    has_alias: bool,
    /// A program is attached to it, or to its other end, by whoever made it.
    is_used: bool,
    /// Frames that it had to drop when sending.
    dropped: u64,
}

impl Link {
    fn is_left_over(&self) -> bool {
        self.has_alias && !self.is_used
    }
}

/// A connection to the kernel.
#[derive(Debug)]
struct Netlink {
    socket: std::fs::File,
    sequence: u32,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let socket: OwnedFd = socket::open(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        Ok(Self { socket: socket.into(), sequence: 0 })
    }

    fn create(&mut self, near: &str, far: &str, queues: u32) -> io::Result<()> {
        let number = |kind, number: u32| attribute(kind, &number.to_ne_bytes());
        let end = |name: &str| {
            [text(NAME, name), number(MTU_OF, MTU), number(SENDING_QUEUES, queues), number(RECEIVING_QUEUES, queues)]
                .concat()
        };
        let peer = attribute(PEER, &[header(0, 0, 0), end(far)].concat());
        let kind = [text(INFO_KIND, "veth"), attribute(INFO_DATA, &peer)].concat();
        let body = [header(0, 0, 0), end(near), attribute(LINK_INFO, &kind)].concat();
        self.ask(NEW_LINK, CREATE, &body).map(|_| ())
    }

    /// Sets flags and attributes of an interface.
    fn change(&mut self, index: u32, flags: u32, attributes: &[u8]) -> io::Result<()> {
        self.ask(NEW_LINK, 0, &[&header(index, flags, flags)[..], attributes].concat()).map(|_| ())
    }

    fn delete(&mut self, index: u32) -> io::Result<()> {
        self.ask(DELETE_LINK, 0, &header(index, 0, 0)).map(|_| ())
    }

    /// The end of that name that is sent into; whether it is used shows at the other one.
    fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let found = self.get(0, &text(NAME, name))?;
        let other = name.replace(NAMES[0].1, NAMES[1].1);
        match found {
            Some(link) if other != name => {
                let is_used = self.get(0, &text(NAME, &other))?.is_some_and(|other| other.is_used);
                Ok(Some(Link { is_used, ..link }))
            }
            found => Ok(found),
        }
    }

    fn get(&mut self, index: u32, attributes: &[u8]) -> io::Result<Option<Link>> {
        match self.ask(GET_LINK, 0, &[&header(index, 0, 0)[..], attributes].concat()) {
            Ok(answer) => Ok(answer.as_deref().and_then(link)),
            Err(cause) if cause.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Sends a message and reads until it is acknowledged; returns what came before that.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.sequence += 1;
        let length = (16 + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend_from_slice(body);
        self.socket.write_all(&message)?;
        let mut answer = None;
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = self.socket.read(&mut buffer)?;
            let mut rest = buffer.get(..count).unwrap_or_default();
            while let Some(length) = word(rest, 0).filter(|length| (16..=rest.len() as u32).contains(length)) {
                let (message, behind) = rest.split_at(length as usize);
                rest = behind.get((length as usize).next_multiple_of(4) - length as usize..).unwrap_or_default();
                if word(message, 8) != Some(self.sequence) {
                    continue;
                }
                match (half(message, 4), word(message, 16)) {
                    (Some(ERROR), Some(0)) => return Ok(answer),
                    (Some(ERROR), Some(error)) => return Err(io::Error::from_raw_os_error(-error.cast_signed())),
                    _ => answer = message.get(16..).map(<[u8]>::to_vec),
                }
            }
        }
    }
}

/// What a message tells of an interface.
fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: word(body, 4)?, ..Link::default() };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            ALIAS_OF => link.has_alias = value == ALIAS,
            // The eighth of the counters: dropped when sending.
            STATISTICS => link.dropped = value.get(56..64)?.try_into().ok().map(u64::from_ne_bytes)?,
            XDP => link.is_used = attributes(value).any(|(kind, value)| kind == XDP_ATTACHED && value != [0]),
            _ => {}
        }
    }
    Some(link)
}

/// The attributes in a message.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits are flags.
        Some((kind & 0x3fff, value))
    })
}

/// The fixed part of a message about an interface.
fn header(index: u32, flags: u32, changed: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), changed.to_ne_bytes()].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = (length as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// True for an end of a pair of ours, or of another agent's.
pub(in crate::capture) fn is_ours(interface: &interface::Interface) -> bool {
    is_clone(&interface.name)
}

/// The same by its name.
pub(in crate::capture) fn is_clone(name: &str) -> bool {
    NAMES.iter().any(|(before, after)| {
        let number = name.strip_prefix(before).and_then(|name| name.strip_suffix(after));
        number.is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number < MOST))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut counters = vec![0; 24 * 8];
        counters[56] = 7;
        let body = [
            header(3, 0, 0),
            text(NAME, "x"),
            attribute(STATISTICS, &counters),
            attribute(XDP | 0x8000, &attribute(XDP_ATTACHED, &[1])),
            attribute(ALIAS_OF, ALIAS),
        ]
        .concat();
        assert_eq!(link(&body), Some(Link { index: 3, has_alias: true, is_used: true, dropped: 7 }));
        assert_eq!(link(&body[..15]), None);
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
    }

    #[test]
    fn knows_its_own() {
        let named = |name: &str| interface::Interface { index: 1, name: name.to_owned(), hardware: 1 };
        assert!(is_ours(&named("sniff-0-in")) && is_ours(&named("sniff-7-out")));
        assert!(!is_ours(&named("sniff-8-in")) && !is_ours(&named("eth0")) && !is_ours(&named("sniff--in")));
    }
}
