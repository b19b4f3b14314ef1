//! Whose sockets are those that the probes have no keys of, so that a row says why it is closed, and blames no other program of its pod.
//!
//! The pod's sockets are in `/proc/net/tcp`, by inode, and each process's among its descriptors. A socket that comes and goes between two
//! looks is missed, unless it is one of a port that somebody listens at.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, Instant};

use super::super::keys::Survey;
use super::super::process::{Descriptors, cpu_time};
use super::socket::{self, Ends, Socket};

/// How often it looks; less often if that takes more than this part of a CPU: the table alone takes milliseconds on a large node.
const LOOK: Duration = Duration::from_millis(500);
const SHARE: u32 = 200;

/// How long a socket is told of that is gone: rows wait for keys as long.
const KEPT: Duration = Duration::from_secs(10);

/// The most sockets that are told of, and that are looked at.
const MOST_TOLD: usize = 256;
const MOST: usize = 16_384;

/// The most descriptors of a process that are looked at.
const MOST_DESCRIPTORS: u32 = 8192;

/// What is known of sockets.
pub(super) struct Owners {
    /// By their end in the pod.
    told: HashMap<SocketAddr, Told>,
    /// Those of no process when it last looked: one that is of none twice is of none here.
    strange: HashSet<u64>,
    due: Instant,
}

struct Told {
    /// None if its process is not the target's.
    program: Option<String>,
    seen: Instant,
}

/// By inode, what a socket's processes have in common: a program whose TLS no probe understands, or none.
type Programs<'a> = HashMap<u64, Option<&'a str>>;

impl Owners {
    pub(super) fn new() -> Self {
        Self { told: HashMap::new(), strange: HashSet::new(), due: Instant::now() }
    }

    /// Looks, if it is time to; `unknown` are the programs, by process, whose TLS no probe understands.
    pub(super) fn look<'a>(&mut self, unknown: impl Fn(u32) -> Option<&'a str>, survey: &mut Survey) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        let before = cpu_time();
        // Before the processes: a socket that is there is one's that is there.
        let sockets: Vec<_> = socket::all().take(MOST).collect();
        let (programs, are_all) = programs(unknown);
        self.see(now, &sockets, &programs, are_all);
        (survey.sockets, survey.outside) = Default::default();
        for (socket, told) in &self.told {
            match &told.program {
                Some(program) => survey.sockets.entry(program.clone()).or_default().push(*socket),
                None => survey.outside.push(*socket),
            }
        }
        survey.sockets.values_mut().chain([&mut survey.outside]).for_each(|sockets| sockets.sort_unstable());
        self.due = now + LOOK.max(cpu_time().saturating_sub(before) * SHARE);
    }

    /// Takes note of sockets; `are_all`: those of no process in `programs` are of none here.
    fn see(&mut self, now: Instant, sockets: &[Socket], programs: &Programs<'_>, are_all: bool) {
        let addresses = addresses();
        let is_understood = |socket: &&Socket| programs.get(&socket.inode) == Some(&None);
        let understood: HashSet<Ends> = sockets.iter().filter(is_understood).map(|socket| socket.ends).collect();
        self.told.retain(|_, told| now.duration_since(told.seen) < KEPT);
        let before = std::mem::take(&mut self.strange);
        for Socket { ends, listens, inode } in sockets {
            let program = match programs.get(inode) {
                Some(None) => {
                    self.told.remove(&ends.local);
                    continue;
                }
                Some(program) => program.map(str::to_owned),
                None => {
                    if *inode == 0 || !self.strange.insert(*inode) || !are_all || !before.contains(inode) {
                        continue;
                    }
                    None
                }
            };
            // Where the other end's keys are seen, this one is no reason.
            if understood.contains(&Ends { local: ends.remote, remote: ends.local }) {
                continue;
            }
            let any = ends.local.ip();
            let is_any = *listens && any.is_unspecified();
            let locals = addresses.iter().filter(|ip| any.is_ipv6() || ip.is_ipv4()).copied();
            let locals = locals.filter(|_| is_any).chain(Some(any).filter(|_| !is_any));
            for ip in locals {
                if self.told.len() >= MOST_TOLD {
                    self.told.retain(|_, told| told.seen == now);
                }
                if self.told.len() < MOST_TOLD {
                    let told = Told { program: program.clone(), seen: now };
                    self.told.insert(SocketAddr::new(ip, ends.local.port()), told);
                }
            }
        }
    }
}

/// The sockets of all processes here; false if some could not be had.
fn programs<'a>(unknown: impl Fn(u32) -> Option<&'a str>) -> (Programs<'a>, bool) {
    let mut programs = Programs::new();
    let mut are_all = true;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let program = unknown(process);
        are_all &= inodes(process, |inode| {
            programs.entry(inode).and_modify(|known| *known = known.filter(|_| *known == program)).or_insert(program);
        });
    }
    (programs, are_all)
}

/// Tells the sockets of a process; false if some could not be had.
fn inodes(process: u32, mut tell: impl FnMut(u64)) -> bool {
    // Those that end meanwhile have none any more.
    let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else { return true };
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok()).unwrap_or(0);
    let descriptors = match Descriptors::of(process) {
        Ok(descriptors) => descriptors,
        Err(error) => return error.raw_os_error() == Some(libc::ESRCH),
    };
    for number in 0..size.min(MOST_DESCRIPTORS) {
        match descriptors.get(number) {
            Ok(descriptor) => {
                let metadata = File::from(descriptor).metadata();
                metadata.iter().filter(|it| it.file_type().is_socket()).for_each(|it| tell(it.ino()));
            }
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => return error.raw_os_error() == Some(libc::ESRCH),
        }
    }
    size <= MOST_DESCRIPTORS
}

/// The pod's addresses, without those of loopback.
fn addresses() -> Vec<IpAddr> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    let (trie, list) = (read("fib_trie"), read("if_inet6"));
    // An address, and in the line after it that it is one of ours.
    let v4 = trie.lines().zip(trie.lines().skip(1)).filter(|(_, what)| what.ends_with("/32 host LOCAL"));
    let v4 = v4.filter_map(|(ip, _)| ip.trim_start_matches([' ', '|', '-']).parse().ok());
    let v6 = list.lines().filter_map(|line| u128::from_str_radix(line.get(..32)?, 16).ok());
    let all = v4.chain(v6.map(|ip| Ipv6Addr::from(ip).into()));
    let mut all: Vec<IpAddr> = all.filter(|ip: &IpAddr| !ip.is_loopback()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn told(owners: &Owners) -> Vec<(String, Option<&str>)> {
        let mut told: Vec<_> =
            owners.told.iter().map(|(socket, told)| (socket.to_string(), told.program.as_deref())).collect();
        told.sort_unstable();
        told
    }

    fn socket(local: &str, remote: &str, inode: u64) -> Socket {
        let ends = Ends { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        Socket { ends, listens: remote.ends_with(":0"), inode }
    }

    #[test]
    fn finds_its_own_sockets_and_their_program() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, own) = (stream.local_addr().unwrap(), std::process::id());
        let find = || socket::all().find(|socket| socket.ends.local == local).unwrap().inode;
        let mut found = HashSet::new();
        assert!(inodes(own, |inode| found.extend([inode])));
        assert!(found.contains(&find()));
        let (programs, _) = programs(|process| (process == own).then_some("java (Java's own)"));
        assert_eq!(programs.get(&find()), Some(&Some("java (Java's own)")));
    }

    #[test]
    fn tells_of_what_no_probe_understands_and_of_what_is_of_no_process_twice() {
        let sockets = [
            socket("10.0.0.1:8443", "0.0.0.0:0", 1),
            socket("10.0.0.1:40001", "10.0.0.2:443", 2),
            socket("10.0.0.1:40002", "10.0.0.2:443", 3),
            // Within the pod: the other end of the first is understood, that of the second is as strange as itself.
            socket("127.0.0.1:9000", "127.0.0.1:40003", 4),
            socket("127.0.0.1:40003", "127.0.0.1:9000", 5),
            socket("127.0.0.1:9000", "127.0.0.1:40004", 6),
            // Of no process yet.
            socket("10.0.0.1:40005", "10.0.0.2:443", 0),
        ];
        let programs = Programs::from([(1, Some("java")), (2, Some("java")), (5, None)]);
        let (mut owners, now) = (Owners::new(), Instant::now());
        owners.see(now, &sockets, &programs, true);
        let java = [("10.0.0.1:40001".to_owned(), Some("java")), ("10.0.0.1:8443".to_owned(), Some("java"))];
        assert_eq!(told(&owners), java);
        owners.see(now, &sockets, &programs, false);
        assert_eq!(told(&owners), java);
        owners.see(now, &sockets, &programs, true);
        let outside = ["10.0.0.1:40002", "127.0.0.1:9000"].map(|socket| (socket.to_owned(), None));
        assert_eq!(told(&owners), [&java[..1], &outside[..1], &java[1..], &outside[1..]].concat());
        // A port that another program has now is that one's; what is gone is told of for a while.
        let programs = Programs::from([(2, None)]);
        owners.see(now, &sockets[1..2], &programs, true);
        assert_eq!(told(&owners).len(), 3);
        owners.see(now + KEPT, &[], &programs, true);
        assert_eq!(told(&owners), []);
    }

    #[test]
    fn what_is_told_is_bounded_and_what_is_gone_makes_room() {
        let sockets: Vec<_> = (1..=1000).map(|n| socket(&format!("10.0.0.1:{n}"), "10.0.0.2:443", n)).collect();
        let programs: Programs<'_> = (1..=1000).map(|n| (n, Some("java"))).collect();
        let (mut owners, now) = (Owners::new(), Instant::now());
        owners.see(now, &sockets, &programs, true);
        assert_eq!(owners.told.len(), MOST_TOLD);
        owners.see(now + LOOK, &sockets[900..], &programs, true);
        assert!(owners.told.contains_key(&"10.0.0.1:1000".parse().unwrap()));
        assert!(owners.told.len() <= MOST_TOLD);
    }
}
