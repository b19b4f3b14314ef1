//! Capture filters as the kernel runs them: classic BPF programs, checked before they are attached.
//!
//! # Text form
//!
//! `tcpdump -ddd` prints the number of instructions, then one line for each with its four numbers `code jt jf k`. That,
//! with commas for line ends so that it fits one argument: `4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0`.
//!
//! # What is attached
//!
//! A filter is compiled for Ethernet, but one socket captures on all interfaces, so [`Program::attachable`] puts a few
//! instructions before it: they drop the outgoing copy of each loopback frame (which comes again as incoming) and send
//! frames of interfaces without Ethernet header to a second copy of the program that reads from the network header on.
//!
//! # What a filter cannot see
//!
//! The kernel takes the VLAN tag out of a frame before filters run; it is put back into the captured frame afterwards. A
//! filter thus sees a tagged frame as if it had no tag: `ip` and `port 80` match it, `vlan 7` never matches.

use std::fmt::{self, Write};

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const MOST_ATTACHED: usize = 4096;

/// The most instructions of a filter: it is attached twice, behind [`PROLOGUE`].
const MOST: usize = (MOST_ATTACHED - PROLOGUE as usize) / 2;

/// Instructions before the filter's two copies.
const PROLOGUE: u32 = 7;

/// Length of an Ethernet header without tags.
pub(super) const ETHERNET_HEADER: u32 = 14;

/// An offset behind the end of every frame: a load from it drops the frame, as it does in the first copy.
const BEYOND: u32 = 0x000f_0000;

/// Where a filter looks for the `EtherType`.
const ETHERTYPE: u32 = 12;

// Instruction codes, as in linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_IMMEDIATE: u16 = 0x00;
const LOAD_X_HEADER_LENGTH: u16 = 0xb1;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;

// Loads from these offsets read what the kernel knows of a frame, as in linux/filter.h.
pub(super) const LINK_LAYER: u32 = 0xffe0_0000;
pub(super) const NETWORK_HEADER: u32 = 0xfff0_0000;
pub(super) const ANCILLARY: u32 = 0xffff_f000;
const PROTOCOL: u32 = ANCILLARY;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const HARDWARE_TYPE: u32 = ANCILLARY + 28;

/// Hardware type of Ethernet (`ARPHRD_ETHER`).
pub const ETHERNET: u16 = 1;

/// Hardware type of the loopback interface (`ARPHRD_LOOPBACK`), whose frames have an Ethernet header too.
pub const LOOPBACK: u16 = 772;

/// Packet type of what this host sends (`PACKET_OUTGOING`).
pub const OUTGOING: u8 = 4;

/// How many memory cells a program has.
pub(super) const CELLS: usize = 16;

/// A VLAN tag as on the wire, if there is one.
pub type Tag = Option<[u8; 4]>;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if the condition holds.
    pub jt: u8,
    /// How many to skip if not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A checked program: every instruction is known and has an operand that it can have, every jump goes forward and stays
/// inside, and the last instruction returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

/// What is wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl Program {
    /// The program that accepts all.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![statement(RETURN, u32::MAX)])
    }

    /// Parses and checks the text form.
    ///
    /// # Errors
    /// [`Invalid`] names the first instruction that is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut lines = text.split([',', '\n']).map(str::trim).filter(|line| !line.is_empty());
        let count = lines.next().unwrap_or_default();
        let count: usize = count.parse().map_err(|_| Invalid(format!("{count:?} is no number of instructions")))?;
        let mut instructions = Vec::new();
        for line in lines {
            if instructions.len() == MOST {
                return Err(Invalid(format!("more than {MOST} instructions")));
            }
            let instruction =
                parse(line).ok_or_else(|| Invalid(format!("instruction {}: {line:?}", instructions.len())))?;
            instructions.push(instruction);
        }
        if instructions.len() != count {
            return Err(Invalid(format!("{count} instructions announced, {} given", instructions.len())));
        }
        check(&instructions)?;
        Ok(Self(instructions))
    }

    pub(super) fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// The text form, on one line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self.0.len().to_string();
        for Instruction { code, jt, jf, k } in &self.0 {
            // Writing to a string does not fail.
            let _ = write!(text, ",{code} {jt} {jf} {k}");
        }
        text
    }

    /// As the kernel takes it.
    #[cfg_attr(not(feature = "libpcap"), allow(dead_code, reason = "who asks for it is not in every binary"))]
    pub(super) fn to_kernel(&self) -> Vec<libc::sock_filter> {
        to_kernel(&self.0)
    }

    /// What to attach so that at most `snaplen` bytes of each frame are kept: see the module's documentation.
    #[must_use]
    pub fn attachable(&self, snaplen: u32) -> Vec<Instruction> {
        let length = self.0.len() as u32;
        let mut out = vec![
            statement(LOAD_WORD, HARDWARE_TYPE),
            Instruction { code: JUMP_EQUAL, jt: 0, jf: 3, k: LOOPBACK.into() },
            statement(LOAD_WORD, PACKET_TYPE),
            Instruction { code: JUMP_EQUAL, jt: 0, jf: 3, k: OUTGOING.into() },
            statement(RETURN, 0),
            Instruction { code: JUMP_EQUAL, jt: 1, jf: 0, k: ETHERNET.into() },
            statement(JUMP, length),
        ];
        let cut = |mut instruction: Instruction| {
            if instruction.code == RETURN {
                instruction.k = instruction.k.min(snaplen);
            }
            instruction
        };
        out.extend(self.0.iter().copied().map(cut));
        out.extend(self.0.iter().copied().map(cut).map(without_ethernet));
        out
    }
}

/// Instructions as the kernel takes them.
pub(super) fn to_kernel(instructions: &[Instruction]) -> Vec<libc::sock_filter> {
    let one = |i: &Instruction| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
    instructions.iter().map(one).collect()
}

/// The same instruction for frames that start with the network header.
pub(super) fn without_ethernet(instruction: Instruction) -> Instruction {
    let Instruction { code, k, .. } = instruction;
    let absolute = code & !0x18 == LOAD_WORD & !0x18;
    let indirect = code & !0x18 == 0x40;
    let reads = absolute || indirect || code == LOAD_X_HEADER_LENGTH;
    match k {
        // Half of the offsets are no place in the frame: they read what the kernel knows of it.
        _ if !reads || k > i32::MAX.unsigned_abs() => instruction,
        ETHERTYPE if code == LOAD_HALF => Instruction { k: PROTOCOL, ..instruction },
        ETHERNET_HEADER.. => Instruction { k: NETWORK_HEADER + (k - ETHERNET_HEADER).min(BEYOND), ..instruction },
        // There are no addresses: they read as 0.
        _ if absolute => statement(LOAD_IMMEDIATE, 0),
        _ => instruction,
    }
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn parse(line: &str) -> Option<Instruction> {
    let mut numbers = line.split_ascii_whitespace();
    let instruction = Instruction {
        code: numbers.next()?.parse().ok()?,
        jt: numbers.next()?.parse().ok()?,
        jf: numbers.next()?.parse().ok()?,
        k: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(instruction)
}

/// Checks what must hold before two copies can be joined, or a program can be run at all. The kernel checks the rest, such
/// as memory cells that are read before they are written.
fn check(instructions: &[Instruction]) -> Result<(), Invalid> {
    for (at, instruction) in instructions.iter().enumerate() {
        if let Some(wrong) = wrong(*instruction) {
            return Err(Invalid(format!("instruction {at} {wrong}")));
        }
        let left = (instructions.len() - at - 1) as u64;
        let farthest = match (instruction.code & 0x07 == JUMP, instruction.code) {
            (true, JUMP) => u64::from(instruction.k),
            (true, _) => u64::from(instruction.jt.max(instruction.jf)),
            (false, _) => continue,
        };
        if farthest >= left {
            return Err(Invalid(format!("instruction {at} jumps out of the program")));
        }
    }
    match instructions.last().map(|instruction| instruction.code) {
        Some(RETURN | RETURN_A) => Ok(()),
        Some(_) => Err(Invalid("the last instruction does not return".to_owned())),
        None => Err(Invalid("no instruction".to_owned())),
    }
}

/// What is wrong with an instruction by itself.
#[rustfmt::skip] // A line for each class: loads, loads of X and stores, two of arithmetic, jumps, the rest.
fn wrong(instruction: Instruction) -> Option<&'static str> {
    match instruction.code {
        // Divisions and remainders by a constant.
        0x34 | 0x94 if instruction.k == 0 => Some("divides by 0"),
        // Shifts by a constant.
        0x64 | 0x74 if instruction.k >= 32 => Some("shifts by more than a word"),
        // Loads and stores of memory cells.
        0x60 | 0x61 | 0x02 | 0x03 if instruction.k as usize >= CELLS => Some("uses a cell that there is not"),
        0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0x80 | 0x00 | 0x60
        | 0x81 | 0xb1 | 0x01 | 0x61 | 0x02 | 0x03
        | 0x04 | 0x14 | 0x24 | 0x34 | 0x44 | 0x54 | 0x64 | 0x74 | 0x84 | 0x94 | 0xa4
        | 0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0x9c | 0xac
        | 0x05 | 0x15 | 0x25 | 0x35 | 0x45 | 0x1d | 0x2d | 0x3d | 0x4d
        | RETURN | RETURN_A | 0x07 | 0x87 => None,
        _ => Some("is not known"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    /// `tcpdump -ddd ip`.
    const IP: &str = "4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0";

    #[test]
    fn takes_commas_and_the_lines_of_tcpdump() {
        let program = Program::parse(IP).unwrap();
        assert_eq!(program.0.len(), 4);
        assert_eq!(program.0[1], Instruction { code: 21, jt: 0, jf: 1, k: 2048 });
        assert_eq!(Program::parse(&format!("{}\n", IP.replace(',', "\n"))).unwrap(), program);
        assert_eq!(program.to_text(), IP);
    }

    #[test]
    fn refuses_what_would_run_astray() {
        for (text, why) in [
            ("", "\"\" is no number of instructions"),
            ("0", "no instruction"),
            ("x,6 0 0 0", "\"x\" is no number of instructions"),
            ("2,6 0 0 0", "2 instructions announced, 1 given"),
            ("1,6 0 0", "instruction 0: \"6 0 0\""),
            ("1,6 0 0 0 0", "instruction 0: \"6 0 0 0 0\""),
            ("1,6 0 0 -1", "instruction 0: \"6 0 0 -1\""),
            ("2,6 0 0 0,21 0 0 1", "instruction 1 jumps out of the program"),
            ("2,21 0 1 1,6 0 0 0", "instruction 0 jumps out of the program"),
            ("2,5 0 0 4294967295,6 0 0 0", "instruction 0 jumps out of the program"),
            ("1,40 0 0 12", "the last instruction does not return"),
            ("2,99 0 0 0,6 0 0 0", "instruction 0 is not known"),
            ("2,52 0 0 0,6 0 0 0", "instruction 0 divides by 0"),
            ("2,100 0 0 32,6 0 0 0", "instruction 0 shifts by more than a word"),
            ("2,96 0 0 16,6 0 0 0", "instruction 0 uses a cell that there is not"),
        ] {
            assert_eq!(Program::parse(text).unwrap_err().to_string(), why, "{text:?}");
        }
        let long = format!("{},{}", MOST + 1, "6 0 0 0,".repeat(MOST + 1));
        assert_eq!(Program::parse(&long).unwrap_err().to_string(), format!("more than {MOST} instructions"));
        let longest = format!("{MOST},{}", "6 0 0 0,".repeat(MOST));
        assert!(Program::parse(&longest).unwrap().attachable(1).len() <= MOST_ATTACHED);
    }

    #[test]
    fn cuts_to_the_snaplen_and_nothing_else() {
        let attached = Program::parse(IP).unwrap().attachable(96);
        let returns: Vec<u32> = attached.iter().filter(|i| i.code == RETURN).map(|i| i.k).collect();
        assert_eq!(returns, [0, 96, 0, 96, 0]);
    }

    #[test]
    fn second_copy_reads_from_the_network_header() {
        let program = "7,40 0 0 12,32 0 0 2,48 0 0 23,177 0 0 14,72 0 0 16,48 0 0 4294963200,6 0 0 1";
        let attached = Program::parse(program).unwrap().attachable(u32::MAX);
        let copy: Vec<(u16, u32)> = attached[7 + 7..].iter().map(|i| (i.code, i.k)).collect();
        let expected = [
            (LOAD_HALF, PROTOCOL),
            (LOAD_IMMEDIATE, 0),
            (48, NETWORK_HEADER + 9),
            (LOAD_X_HEADER_LENGTH, NETWORK_HEADER),
            (72, NETWORK_HEADER + 2),
            (48, ANCILLARY),
            (RETURN, 1),
        ];
        assert_eq!(copy, expected);
    }
}
