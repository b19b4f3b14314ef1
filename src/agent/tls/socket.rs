//! Which connection a process's descriptor is of, and which sockets there are.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use crate::agent::process::Descriptors;

/// The ends of a TCP connection, as a process has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// A socket of TCP in the pod: one that listens, or a connection that is closed on neither side, or on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) ends: Ends,
    pub(super) listens: bool,
    /// 0 if no process has it, or none yet.
    pub(super) inode: u64,
}

/// States of these.
const OPEN: [&str; 4] = ["01", "04", "05", "08"];
const LISTENS: &str = "0A";

/// The ends of a process's descriptor; none if it is no TCP connection, or gone.
pub(super) fn ends(process: u32, descriptor: u32) -> Option<Ends> {
    let socket = TcpStream::from(Descriptors::of(process).ok()?.get(descriptor).ok()?);
    // It may be a socket of something else, which has no such option.
    socket.nodelay().ok()?;
    let [local, remote] = [socket.local_addr().ok()?, socket.peer_addr().ok()?].map(as_on_the_wire);
    Some(Ends { local, remote })
}

/// On the wire, IPv4 on a socket of IPv6 is IPv4.
fn as_on_the_wire(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The ends of all connections that are open here, in order.
pub(super) fn open() -> HashSet<Ends> {
    all().filter(|socket| !socket.listens).map(|socket| socket.ends.in_order()).collect()
}

/// All sockets here; of each version of IP those that listen come first.
pub(super) fn all() -> impl Iterator<Item = Socket> {
    let tables = ["tcp", "tcp6"].iter().filter_map(|table| File::open(format!("/proc/self/net/{table}")).ok());
    tables.flat_map(|table| BufReader::new(table).lines().map_while(Result::ok)).filter_map(|text| line(&text))
}

/// The socket in a line of a table.
fn line(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let (local, remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let listens = state == LISTENS;
    if !listens && !OPEN.contains(&state) {
        return None;
    }
    let ends = Ends { local: address(local)?, remote: address(remote)? };
    // Queues, timer, retransmissions, user and timeout are before it.
    Some(Socket { ends, listens, inode: fields.nth(5)?.parse().ok()? })
}

impl Ends {
    /// The same for both ends.
    pub(super) fn in_order(self) -> Self {
        if self.local <= self.remote { self } else { Self { local: self.remote, remote: self.local } }
    }
}

/// An address as `/proc/net/tcp` has it: words of the machine's byte order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(as_on_the_wire(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn finds_the_ends_of_its_own_connections() {
        let own = std::process::id();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let wanted = Ends { local: stream.local_addr().unwrap(), remote: stream.peer_addr().unwrap() };
            assert_eq!(ends(own, stream.as_raw_fd().cast_unsigned()), Some(wanted));
            assert_eq!(ends(own, listener.as_raw_fd().cast_unsigned()), None);
            assert!(open().contains(&wanted.in_order()));
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.connect("127.0.0.1:9").unwrap();
        assert_eq!(ends(own, datagrams.as_raw_fd().cast_unsigned()), None);
        assert_eq!(ends(own, 999_999), None);
    }

    #[test]
    fn reads_addresses_as_the_kernel_writes_them() {
        assert_eq!(address("0100007F:0050"), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address("0000000000000000FFFF00000200090A:01BB"), Some("10.9.0.2:443".parse().unwrap()));
        assert_eq!(address("0000000000000000000000000100000:01BB"), None);
        let socket = |state| line(&format!(" 0: 0100007F:0050 0100007F:0051 {state} 0:0 0:0 0 0 0 77 1"));
        let is_found = |state| socket(state).map(|socket| (socket.listens, socket.inode));
        assert_eq!(["0A", "01", "06"].map(is_found), [Some((true, 77)), Some((false, 77)), None]);
    }
}
