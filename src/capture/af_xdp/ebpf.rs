//! Programs and maps of the kernel's extended BPF: made of instructions written here, loaded by `bpf(2)`. Nothing is
//! compiled, so building takes no clang, and the kernel's types are not needed, so no BTF.
//!
//! All that is made here is a descriptor: it, and what it is attached to, goes with the process.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// Commands of bpf(2), as in linux/bpf.h.
const MAP_CREATE: c_long = 0;
const MAP_LOOKUP: c_long = 1;
const MAP_UPDATE: c_long = 2;
const PROG_LOAD: c_long = 5;
const LINK_CREATE: c_long = 28;
const LINK_UPDATE: c_long = 29;

/// How much of the verifier's complaint is read.
const LOG: usize = 4096;

/// A register; 10 is the stack's end, 0 what a call returns, 1 to 5 what it is given, 6 to 9 stay.
pub(super) type Register = u8;

/// One instruction, as the kernel lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A type of program.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    /// At an interface's traffic control hook (`BPF_PROG_TYPE_SCHED_CLS`).
    Classifier = 3,
    /// Where an interface's frames start (`BPF_PROG_TYPE_XDP`).
    Xdp = 6,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Hook {
    Xdp = 37,
    Ingress = 46,
    Egress = 47,
}

/// A type of map.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Map {
    Array = 2,
    Sockets = 17,
}

/// Programs that take frames in several pieces (`BPF_F_XDP_HAS_FRAGS`).
pub(super) const FRAGMENTS: u32 = 1 << 5;

/// Attach before others that are there (`BPF_F_BEFORE`).
pub(super) const FIRST: u32 = 1 << 3;

/// XDP in the driver, not after it (`XDP_FLAGS_DRV_MODE`).
pub(super) const DRIVER: u32 = 1 << 2;

impl Instruction {
    /// The same jump over so many instructions.
    pub(super) fn over(self, instructions: usize) -> Self {
        Self { offset: near(instructions), ..self }
    }
}

fn instruction(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// A number of instructions to skip. More than fit are refused by the verifier.
fn near(instructions: usize) -> i16 {
    i16::try_from(instructions).unwrap_or(i16::MAX)
}

/// A descriptor, as it is written in what bpf(2) is given.
fn number(descriptor: &OwnedFd) -> u64 {
    u64::from(descriptor.as_raw_fd().cast_unsigned())
}

/// `to = number`
pub(super) fn set(to: Register, number: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

/// `to = from`
pub(super) fn copy(to: Register, from: Register) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to += number`
pub(super) fn add(to: Register, number: i32) -> Instruction {
    instruction(0x07, to, 0, 0, number)
}

/// `to &= number`
pub(super) fn and(to: Register, number: i32) -> Instruction {
    instruction(0x57, to, 0, 0, number)
}

/// `to <<= bits`
pub(super) fn shift_left(to: Register, bits: i32) -> Instruction {
    instruction(0x67, to, 0, 0, bits)
}

/// `to |= number`
pub(super) fn or(to: Register, number: i32) -> Instruction {
    instruction(0x47, to, 0, 0, number)
}

/// `to = *(u32 *)(from + offset)`
pub(super) fn load(to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

/// `to = *(u16 *)(from + offset)`
pub(super) fn load_half(to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x69, to, from, offset, 0)
}

/// `to = *(u8 *)(from + offset)`
pub(super) fn load_byte(to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x71, to, from, offset, 0)
}

/// `to = (u32)number`
pub(super) fn set_word(to: Register, number: i32) -> Instruction {
    instruction(0xb4, to, 0, 0, number)
}

/// `to = (u32)from`
pub(super) fn copy_word(to: Register, from: Register) -> Instruction {
    instruction(0xbc, to, from, 0, 0)
}

/// `to = (u32)to OP from`, or `number` in its place, by the code that classic BPF has for it
pub(super) fn compute(code: u16, to: Register, from: Register, number: i32) -> Instruction {
    // The code of a negation, which has no operand, is as it is there too.
    let number = if code == 0x84 { 0 } else { number };
    instruction(code as u8, to, from, 0, number)
}

/// `if ((u32)register OP from) skip …`, or `number` in its place, by the code that classic BPF has for it
pub(super) fn compare(code: u16, register: Register, from: Register, number: i32) -> Instruction {
    instruction(code as u8 & !0x07 | 0x06, register, from, 0, number)
}

/// `to` = the lower bits of it, which are in the network's byte order
pub(super) fn from_network(to: Register, bits: i32) -> Instruction {
    instruction(0xdc, to, 0, 0, bits)
}

/// `*(u32 *)(to + offset) = from`
pub(super) fn store(to: Register, offset: i16, from: Register) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}

/// `*(u64 *)(to + offset) = from`
pub(super) fn store_long(to: Register, offset: i16, from: Register) -> Instruction {
    instruction(0x7b, to, from, offset, 0)
}

/// `*(u64 *)to += number`, and `number` becomes what was there before, atomically
pub(super) fn count(to: Register, number: Register) -> Instruction {
    instruction(0xdb, to, number, 0, 1)
}

/// `if (register == number) skip instructions`
pub(super) fn skip_if(register: Register, number: i32, instructions: usize) -> Instruction {
    instruction(0x15, register, 0, near(instructions), number)
}

/// `if (register != number) skip instructions`
pub(super) fn skip_unless(register: Register, number: i32, instructions: usize) -> Instruction {
    instruction(0x55, register, 0, near(instructions), number)
}

/// `if (register <= number) skip instructions`
pub(super) fn skip_unless_more(register: Register, number: i32, instructions: usize) -> Instruction {
    instruction(0xb5, register, 0, near(instructions), number)
}

/// `if (register >= number) skip instructions`, signed
pub(super) fn skip_unless_less(register: Register, number: i32, instructions: usize) -> Instruction {
    instruction(0x75, register, 0, near(instructions), number)
}

/// `skip instructions`
pub(super) fn skip(instructions: usize) -> Instruction {
    instruction(0x05, 0, 0, near(instructions), 0)
}

/// `r0 = helper(r1, …)`
pub(super) fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

/// `return r0`
pub(super) fn exit() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}

/// `to = map`
pub(super) fn map(to: Register, map: &OwnedFd) -> [Instruction; 2] {
    [instruction(0x18, to, 1, 0, map.as_raw_fd()), instruction(0, 0, 0, 0, 0)]
}

/// `to = the address of the first value of an array`
pub(super) fn value(to: Register, map: &OwnedFd) -> [Instruction; 2] {
    [instruction(0x18, to, 2, 0, map.as_raw_fd()), instruction(0, 0, 0, 0, 0)]
}

/// What bpf(2) is given: as many bytes as any command reads, those not set 0.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new(words: &[(usize, u64)], longs: &[(usize, u64)]) -> Self {
        let mut bytes = [0; 128];
        let parts =
            words.iter().map(|(at, value)| (*at, *value, 4)).chain(longs.iter().map(|(at, value)| (*at, *value, 8)));
        for (at, value, size) in parts {
            let native = if size == 4 { (value as u32).to_ne_bytes().to_vec() } else { value.to_ne_bytes().to_vec() };
            if let Some(place) = bytes.get_mut(at..at + size) {
                place.copy_from_slice(&native);
            }
        }
        Self(bytes)
    }
}

/// Calls bpf(2).
///
/// # Safety
/// Pointers in the attributes are valid for what the command does with them.
unsafe fn bpf(command: c_long, attributes: &Attributes) -> io::Result<c_long> {
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are valid for their size, and what they point to by the caller's word.
    match unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) } {
        ..0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// The same for commands that make a descriptor.
///
/// # Safety
/// As for [`bpf`].
unsafe fn make(command: c_long, attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: by the caller's word; what is returned is a descriptor, new and ours.
    unsafe { bpf(command, attributes).map(|result| OwnedFd::from_raw_fd(result as RawFd)) }
}

/// Makes a map of so many entries, under keys of four bytes.
pub(super) fn create(kind: Map, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let words = [(0, kind as u64), (4, 4), (8, value_size.into()), (12, entries.into())];
    let attributes = Attributes::new(&words, &[]);
    // SAFETY: there is no pointer in it.
    unsafe { make(MAP_CREATE, &attributes) }
}

/// Puts a descriptor into a map's entry.
pub(super) fn put(map: &OwnedFd, key: u32, descriptor: &OwnedFd) -> io::Result<()> {
    let value = descriptor.as_raw_fd();
    let attributes = element(map, &raw const key as u64, &raw const value as u64);
    // SAFETY: key and value live until the call returns, and are as long as the map's.
    unsafe { bpf(MAP_UPDATE, &attributes) }?;
    Ok(())
}

/// Reads a number from a map's entry of eight bytes.
pub(super) fn get(map: &OwnedFd) -> io::Result<u64> {
    let (key, mut value) = (0_u32, 0_u64);
    let attributes = element(map, &raw const key as u64, &raw mut value as u64);
    // SAFETY: key and value live until the call returns, and are as long as the map's.
    unsafe { bpf(MAP_LOOKUP, &attributes) }?;
    Ok(value)
}

fn element(map: &OwnedFd, key: u64, value: u64) -> Attributes {
    Attributes::new(&[(0, number(map))], &[(8, key), (16, value)])
}

/// Loads a program.
///
/// # Errors
/// Those of the call; what the verifier says of a program that it refuses is in the message.
pub(super) fn load_program(kind: Kind, flags: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0".as_ptr() as u64;
    let mut log = Vec::new();
    loop {
        let attributes = Attributes::new(
            &[
                (0, kind as u64),
                (4, program.len() as u64),
                (24, u64::from(!log.is_empty())),
                (28, log.len() as u64),
                (44, flags.into()),
            ],
            &[
                (8, program.as_ptr() as u64),
                (16, licence),
                (32, if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 }),
            ],
        );
        // SAFETY: program, licence and log live until the call returns, and the log is as long as it says.
        match unsafe { make(PROG_LOAD, &attributes) } {
            Err(cause) if cause.raw_os_error() != Some(libc::EPERM) && log.is_empty() => log = vec![0_u8; LOG],
            Err(cause) if !log.is_empty() => {
                let text = String::from_utf8_lossy(&log);
                let last = text.trim_end_matches('\0').trim_end().lines().rev().take(2).collect::<Vec<_>>();
                return Err(io::Error::new(cause.kind(), format!("{cause} ({})", last.join(" / "))));
            }
            result => return result,
        }
    }
}

/// Attaches a program to an interface, as long as the descriptor is open.
pub(super) fn attach(program: &OwnedFd, interface: u32, hook: Hook, flags: u32) -> io::Result<OwnedFd> {
    let words = [(0, number(program)), (4, interface.into()), (8, hook as u64), (12, flags.into())];
    // SAFETY: there is no pointer in it.
    unsafe { make(LINK_CREATE, &Attributes::new(&words, &[])) }
}

/// Puts another program in place of the one that is attached by this link, between two frames.
pub(super) fn replace(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    // SAFETY: there is no pointer in it.
    unsafe { bpf(LINK_UPDATE, &Attributes::new(&[(0, number(link)), (4, number(program))], &[])) }?;
    Ok(())
}

/// Runs a program on a frame; returns what it returns.
#[cfg(test)]
pub(super) fn run(program: &OwnedFd, frame: &[u8]) -> io::Result<u32> {
    const PROG_TEST_RUN: c_long = 10;
    let mut attributes =
        Attributes::new(&[(0, number(program)), (8, frame.len() as u64), (32, 1)], &[(16, frame.as_ptr() as u64)]);
    // SAFETY: the frame lives until the call returns; the kernel writes into the attributes, which are ours alone.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>()) };
    let [_, _, _, _, a, b, c, d, ..] = attributes.0;
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(u32::from_ne_bytes([a, b, c, d])) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn an_instruction_is_as_the_kernel_lays_it_out() {
        assert_eq!(size_of::<Instruction>(), 8);
        let Instruction { code, registers, offset, immediate } = load(3, 6, 8);
        assert_eq!((code, registers, offset, immediate), (0x61, 0x63, 8, 0));
    }

    #[test]
    fn attributes_are_where_they_are_said_to_be() {
        let Attributes(bytes) = Attributes::new(&[(4, 1)], &[(8, 2)]);
        assert_eq!(bytes[..16], [[0, 0, 0, 0, 1_u8.to_le(), 0, 0, 0], 2_u64.to_ne_bytes()].concat()[..]);
    }
}
