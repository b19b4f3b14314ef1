//! The interfaces of this network namespace.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

use super::bpf;
use super::socket::{self, check};

/// Link type Ethernet in the tcpdump.org registry.
pub const LINK_ETHERNET: u16 = 1;

/// Link type "IP packet without link header".
pub const LINK_RAW_IP: u16 = 101;

/// An interface, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    pub name: String,
    /// Its hardware type (`ARPHRD_…`).
    pub hardware: u16,
}

impl Interface {
    /// Link type of what is captured on it.
    #[must_use]
    pub fn link(&self) -> u16 {
        link_type(self.hardware)
    }
}

/// The link type of what is captured on an interface of that hardware type.
pub(super) fn link_type(hardware: u16) -> u16 {
    match hardware {
        bpf::ETHERNET | bpf::LOOPBACK => LINK_ETHERNET,
        _ => LINK_RAW_IP,
    }
}

/// The name of an interface; none if it is gone.
#[must_use]
pub fn name(index: u32) -> Option<String> {
    let mut name: [libc::c_char; libc::IF_NAMESIZE] = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer is as long as the call asks for.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null() {
        return None;
    }
    // SAFETY: on success the name in the buffer ends in a zero byte.
    Some(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Interface> {
    let mut found = Vec::new();
    // SAFETY: a plain call; the list is read up to its end, an entry of index 0, and freed once.
    unsafe {
        let list = libc::if_nameindex();
        let mut entry = list;
        while !entry.is_null() && (*entry).if_index != 0 {
            let name = CStr::from_ptr((*entry).if_name);
            found.extend(hardware_type(name).map(|hardware| Interface {
                index: (*entry).if_index,
                name: name.to_string_lossy().into_owned(),
                hardware,
            }));
            entry = entry.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    found
}

/// The address of an Ethernet interface.
#[cfg_attr(not(feature = "libpcap"), allow(dead_code, reason = "who asks for it is not in every binary"))]
pub(super) fn address(name: &str) -> Option<[u8; 6]> {
    let address = hardware_address(&CString::new(name).ok()?)?;
    // The field's type differs between architectures.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "not everywhere")]
    Some(std::array::from_fn(|at| address.sa_data[at] as u8))
}

/// The hardware type of an interface.
fn hardware_type(name: &CStr) -> Option<u16> {
    hardware_address(name).map(|address| address.sa_family)
}

/// The hardware address of an interface; its family is the hardware type.
fn hardware_address(name: &CStr) -> Option<libc::sockaddr> {
    let socket = socket::open(libc::AF_INET, libc::SOCK_DGRAM, 0).ok()?;
    // SAFETY: all zeros is a valid ifreq; the copied name is shorter than its field, so it ends in a zero byte; the call
    // fills in the address.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        libc::strncpy(request.ifr_name.as_mut_ptr(), name.as_ptr(), libc::IF_NAMESIZE - 1);
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request)).ok()?;
        Some(request.ifr_ifru.ifru_hwaddr)
    }
}
