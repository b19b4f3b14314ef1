//! What the agent asks of the kernel for its own process: priority, signals, children, memory.
#![allow(unsafe_code, reason = "the standard library has no signals and no priority")]

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// How nice capturing is to the target: the CPU is the target's first.
pub(super) const CAPTURE: Niceness = Niceness(10);

/// How nice sending is: packets that are stored can wait, those in the ring cannot.
pub(super) const SESSION: Niceness = Niceness(15);

/// How readily a thread leaves the CPU to others, up to 19.
#[derive(Clone, Copy, Debug)]
pub(super) struct Niceness(c_int);

/// What ends the agent.
const ENDING: [(c_int, &str); 3] = [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT"), (libc::SIGHUP, "SIGHUP")];

/// Signals that are held back for [`Signals::wait`].
pub(super) struct Signals(libc::sigset_t);

impl Signals {
    /// Holds back the signals that end the agent, in this thread and those that it starts. The kernel throws away what a
    /// PID 1 has not asked for, so they must be waited for rather than left alone.
    pub(super) fn hold() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set; the other calls get the initialised one.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for (signal, _) in ENDING {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    /// Waits for one; returns its name.
    pub(super) fn wait(&self) -> &'static str {
        let mut signal = 0;
        // SAFETY: the set is initialised; sigwait writes one number.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        ENDING.iter().find(|(number, _)| *number == signal).map_or("signal", |(_, name)| name)
    }
}

/// Makes this thread, and those that it starts, yield to others. A refusal is no reason not to work.
pub(super) fn be_nice(niceness: Niceness) {
    // SAFETY: a plain call; process 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness.0) };
}

/// Bytes of memory that the process has, the ring included; 0 if the kernel does not say.
pub(super) fn resident() -> u64 {
    // SAFETY: a plain call.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    pages.unwrap_or(0) * u64::try_from(page).unwrap_or(4096)
}

/// Has memory there at once that is about to be written, which costs less than a fault for each page. Before Linux 5.14, or where that
/// is refused, it comes as it is written.
pub(super) fn fault_in(memory: &mut [MaybeUninit<u8>]) {
    // SAFETY: a plain call.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let start = memory.as_mut_ptr();
    let aligned = start.map_addr(|address| address.next_multiple_of(page));
    let length = memory.len().saturating_sub(aligned.addr() - start.addr());
    // SAFETY: inside of the memory, or of no length; what the pages hold stays.
    unsafe { libc::madvise(aligned.cast(), length, libc::MADV_POPULATE_WRITE) };
}

/// Makes the process the first to die when memory runs out. A refusal is no reason not to work.
pub(super) fn die_first() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Lets the process lock as much memory as it likes, which old kernels want for maps. A refusal is no reason not to try.
#[cfg(feature = "tls")]
pub(super) fn lock_memory() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: it reads one structure.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// True if the process has the capability `SYS_ADMIN` (21), by capabilities(7).
#[cfg(feature = "tls")]
pub(super) fn may_administrate() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & 1 << 21 != 0)
}

/// Waits until there is something to read, or for so long.
#[cfg(feature = "tls")]
pub(super) fn wait_for_input(file: std::os::fd::BorrowedFd<'_>, time: std::time::Duration) {
    let mut poll = libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&file), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which it is told of; the descriptor is open as long as it is borrowed.
    unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as c_int) };
}

/// Nanoseconds by the clock that programs in the kernel have, which stands still while the machine sleeps.
#[cfg(feature = "tls")]
pub(super) fn uptime() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// What CPU time this thread has had.
#[cfg(feature = "tls")]
pub(super) fn cpu_time() -> std::time::Duration {
    std::time::Duration::from_nanos(clock(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// Nanoseconds by a clock of the kernel's.
#[cfg(feature = "tls")]
fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one structure.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// A process's descriptors. `/proc/PID/fd` is open to its own user only, where that is not root.
#[cfg(feature = "tls")]
pub(super) struct Descriptors(std::os::fd::OwnedFd);

#[cfg(feature = "tls")]
impl Descriptors {
    /// # Errors
    /// If the process is gone (`ESRCH`).
    pub(super) fn of(process: u32) -> std::io::Result<Self> {
        // SAFETY: a plain call, which returns a descriptor or -1.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) }).map(Self)
    }

    /// The one of that number, as one of our own.
    ///
    /// # Errors
    /// If there is none (`EBADF`), the process is gone (`ESRCH`), or the kernel does not let it be had.
    pub(super) fn get(&self, number: u32) -> std::io::Result<std::os::fd::OwnedFd> {
        let process = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        // SAFETY: a plain call, which returns a descriptor or -1.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) })
    }
}

/// What a system call has returned: a descriptor that nobody else has, or -1.
#[cfg(feature = "tls")]
fn owned(returned: std::ffi::c_long) -> std::io::Result<std::os::fd::OwnedFd> {
    match c_int::try_from(returned) {
        // SAFETY: it was just made.
        Ok(descriptor @ 0..) => Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Lets the kernel reap the children that a PID 1 inherits: processes of an exec whose parent died.
pub(super) fn reap_children() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
