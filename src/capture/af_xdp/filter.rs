//! Capture filters for the hooks: classic BPF made into the kernel's extended BPF, so that a frame that nobody wants is not
//! cloned.
//!
//! Registers are wider there, but have instructions that use the lower half, and those are classic BPF's, by the same codes.
//! What takes more are loads, which a helper does, since its own would end the program in place of the hook's. `A` and `X`
//! are in two registers that stay, memory cells on the stack.
//!
//! What a program cannot tell here lets the frame through: the filter in user space has the last word.

use super::bpf::{self, ANCILLARY, CELLS, ETHERNET, ETHERNET_HEADER, LINK_LAYER, NETWORK_HEADER, OUTGOING, Program};
use super::ebpf::{self, Instruction, Register};
use super::programs::{INTERFACE, LENGTH, VLAN_PRESENT, VLAN_PROTOCOL, VLAN_TCI};

/// The helper that copies bytes of a frame.
const SKB_LOAD_BYTES: i32 = 26;

/// The frame; set by whoever this is put behind.
pub(super) const FRAME: Register = 6;
const A: Register = 7;
const X: Register = 8;
/// A byte on its way to `X`.
const BYTE: Register = 9;
const STACK: Register = 10;

/// Where on the stack bytes are copied to, below the cells.
const COPIED: i16 = cell(CELLS as u32) - 8;

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To an instruction of the filter.
    At(usize),
    /// The frame is let through.
    Wanted,
    Unwanted,
}

/// What is written so far.
#[derive(Debug, Default)]
struct Writer {
    out: Vec<Instruction>,
    /// Places of jumps, and where they go.
    jumps: Vec<(usize, Target)>,
}

/// The program that runs the filter and goes on with `wanted` or `unwanted`, both of which return. None if it cannot be
/// written.
pub(super) fn translate(
    filter: &Program,
    is_sent: bool,
    wanted: &[Instruction],
    unwanted: &[Instruction],
) -> Option<Vec<Instruction>> {
    let filter = filter.instructions();
    let mut writer = Writer::default();
    writer.out.extend([ebpf::set(A, 0), ebpf::set(X, 0)]);
    for used in
        (0..CELLS as u32).filter(|used| filter.iter().any(|one| matches!(one.code, 0x60 | 0x61) && one.k == *used))
    {
        writer.out.push(ebpf::store(STACK, cell(used), A));
    }
    let mut starts = Vec::new();
    for (at, instruction) in filter.iter().enumerate() {
        starts.push(writer.out.len());
        // The kernel takes no instruction that is never come to.
        let is_reached = at == 0 || falls_through(filter.get(at - 1)?.code) && starts.get(at - 1)? != starts.get(at)?;
        if is_reached || writer.jumps.iter().any(|(_, target)| *target == Target::At(at)) {
            writer.write(*instruction, at, is_sent)?;
        }
    }
    let (mut to_wanted, mut to_unwanted) = (None, None);
    for (part, target, place) in
        [(wanted, Target::Wanted, &mut to_wanted), (unwanted, Target::Unwanted, &mut to_unwanted)]
    {
        if writer.jumps.iter().any(|(_, to)| *to == target) {
            *place = Some(writer.out.len());
            writer.out.extend(part);
        }
    }
    if writer.out.len() > i16::MAX as usize {
        return None;
    }
    for (from, target) in writer.jumps {
        let to = match target {
            Target::At(at) => starts.get(at).copied(),
            Target::Wanted => to_wanted,
            Target::Unwanted => to_unwanted,
        };
        let jump = writer.out.get_mut(from)?;
        *jump = jump.over(to?.checked_sub(from + 1)?);
    }
    Some(writer.out)
}

impl Writer {
    fn write(&mut self, instruction: bpf::Instruction, at: usize, is_sent: bool) -> Option<()> {
        let bpf::Instruction { code, jt, jf, k } = instruction;
        let number = k.cast_signed();
        match code {
            0x20 | 0x28 | 0x30 if k >= ANCILLARY => self.ancillary(k - ANCILLARY, is_sent),
            0x20 | 0x28 | 0x30 => self.load(A, code, place(k)?),
            0x40 | 0x48 | 0x50 => {
                self.out.extend([ebpf::copy_word(2, X), ebpf::compute(0x04, 2, 0, number)]);
                // Places relative to a header; no filter for Ethernet computes one.
                self.jump(ebpf::compare(0x45, 2, 0, i32::MIN), Target::Wanted);
                self.copied(A, code);
            }
            0x80 => self.out.push(ebpf::load(A, FRAME, LENGTH)),
            0x81 => self.out.push(ebpf::load(X, FRAME, LENGTH)),
            0x00 => self.out.push(ebpf::set_word(A, number)),
            0x01 => self.out.push(ebpf::set_word(X, number)),
            0x60 => self.out.push(ebpf::load(A, STACK, cell(k))),
            0x61 => self.out.push(ebpf::load(X, STACK, cell(k))),
            0x02 => self.out.push(ebpf::store(STACK, cell(k), A)),
            0x03 => self.out.push(ebpf::store(STACK, cell(k), X)),
            0x07 => self.out.push(ebpf::copy_word(X, A)),
            0x87 => self.out.push(ebpf::copy_word(A, X)),
            0xb1 => {
                self.load(BYTE, 0x30, place(k)?);
                self.out.extend([ebpf::and(BYTE, 0x0f), ebpf::shift_left(BYTE, 2), ebpf::copy_word(X, BYTE)]);
            }
            0x05 => self.jump(ebpf::skip(0), Target::At(at + 1 + k as usize)),
            0x06 => self.jump(ebpf::skip(0), if k == 0 { Target::Unwanted } else { Target::Wanted }),
            0x16 => {
                self.jump(ebpf::skip_if(A, 0, 0), Target::Unwanted);
                self.jump(ebpf::skip(0), Target::Wanted);
            }
            _ if code & 0x07 == 0x04 => {
                if matches!(code, 0x3c | 0x9c) {
                    self.jump(ebpf::skip_if(X, 0, 0), Target::Unwanted);
                }
                self.out.push(if code & 0x08 == 0 {
                    ebpf::compute(code, A, 0, number)
                } else {
                    ebpf::compute(code, A, X, 0)
                });
            }
            _ if code & 0x07 == 0x05 => {
                let holds =
                    if code & 0x08 == 0 { ebpf::compare(code, A, 0, number) } else { ebpf::compare(code, A, X, 0) };
                self.jump(holds, Target::At(at + 1 + usize::from(jt)));
                self.jump(ebpf::skip(0), Target::At(at + 1 + usize::from(jf)));
            }
            _ => return None,
        }
        Some(())
    }

    fn jump(&mut self, jump: Instruction, target: Target) {
        self.jumps.push((self.out.len(), target));
        self.out.push(jump);
    }

    /// `to` = the big-endian number at `offset`, of the size that the code of a load tells.
    fn load(&mut self, to: Register, code: u16, offset: i32) {
        self.out.push(ebpf::set(2, offset));
        self.copied(to, code);
    }

    /// The same where register 2 holds the offset. A load from beyond the frame leaves the frame out.
    fn copied(&mut self, to: Register, code: u16) {
        let (size, load): (i32, fn(Register, Register, i16) -> Instruction) = match code & 0x18 {
            0x00 => (4, ebpf::load),
            0x08 => (2, ebpf::load_half),
            _ => (1, ebpf::load_byte),
        };
        self.out.extend([ebpf::copy(1, FRAME), ebpf::copy(3, STACK), ebpf::add(3, COPIED.into()), ebpf::set(4, size)]);
        self.out.push(ebpf::call(SKB_LOAD_BYTES));
        self.jump(ebpf::skip_unless(0, 0, 0), Target::Unwanted);
        self.out.push(load(to, STACK, COPIED));
        if size > 1 {
            self.out.push(ebpf::from_network(to, size * 8));
        }
    }

    /// `A` = what the kernel knows of a frame besides its bytes, as in [`interpreter`](crate::capture::interpreter).
    fn ancillary(&mut self, what: u32, is_sent: bool) {
        match what {
            0 => self.load(A, 0x28, ETHERNET_HEADER.cast_signed() - 2),
            4 if is_sent => self.out.push(ebpf::set(A, OUTGOING.into())),
            8 => self.out.push(ebpf::load(A, FRAME, INTERFACE)),
            28 => self.out.push(ebpf::set(A, ETHERNET.into())),
            40 => self.out.push(ebpf::compute(0xac, A, X, 0)),
            44 => self.out.push(ebpf::load(A, FRAME, VLAN_TCI)),
            48 => self.out.push(ebpf::load(A, FRAME, VLAN_PRESENT)),
            60 => self.out.extend([ebpf::load(A, FRAME, VLAN_PROTOCOL), ebpf::from_network(A, 16)]),
            _ => self.out.push(ebpf::set(A, 0)),
        }
    }
}

/// Where a memory cell is on the stack.
const fn cell(number: u32) -> i16 {
    -4 * (number as i16 + 1)
}

/// Where in a frame a load's offset is; none if nowhere.
fn place(offset: u32) -> Option<i32> {
    let place = match offset {
        0..LINK_LAYER => offset,
        LINK_LAYER..NETWORK_HEADER => offset - LINK_LAYER,
        NETWORK_HEADER.. => offset - NETWORK_HEADER + ETHERNET_HEADER,
    };
    i32::try_from(place).ok()
}

/// True if the next instruction is come to without a jump.
fn falls_through(code: u16) -> bool {
    code & 0x07 != 0x05 && code & 0x07 != 0x06
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::super::super::interpreter::{Filter, View, samples};
    use super::super::ebpf::Kind;
    use super::*;

    /// What the kernel makes of a filter, where it can: whether it lets each frame through.
    fn by_kernel(filter: &Program, frames: &[Vec<u8>]) -> Vec<bool> {
        let verdict = |verdict| [ebpf::set(0, verdict), ebpf::exit()];
        let mut program = vec![ebpf::copy(FRAME, 1)];
        program.extend(translate(filter, false, &verdict(1), &verdict(0)).unwrap());
        let program = ebpf::load_program(Kind::Classifier, 0, &program).unwrap();
        frames.iter().map(|frame| ebpf::run(&program, frame).unwrap() == 1).collect()
    }

    fn by_interpreter(filter: &Program, frames: &[Vec<u8>]) -> Vec<bool> {
        let filter = Filter::new(filter);
        frames.iter().map(|frame| filter.run(&View::ethernet(frame, frame.len() as u32, 1, false)) > 0).collect()
    }

    /// The sample frames, but for those that end in the IP header: the kernel runs no program on them by hand.
    fn frames() -> Vec<Vec<u8>> {
        samples::frames().into_iter().filter(|frame| frame.len() >= 34 || frame[12..14] != [8, 0]).collect()
    }

    #[test]
    fn decides_as_user_space_does() {
        let frames = frames();
        for expression in samples::EXPRESSIONS {
            let filter = samples::compile(expression);
            assert_eq!(by_kernel(&filter, &frames), by_interpreter(&filter, &frames), "{expression}");
        }
    }

    #[test]
    fn what_no_expression_compiles_to_is_the_same_too() {
        let frames = frames();
        for program in [
            // Nothing, everything, and what is never come to.
            "1,6 0 0 0",
            "1,6 0 0 1",
            "3,6 0 0 1,0 0 0 7,6 0 0 0",
            "4,5 0 0 1,6 0 0 0,0 0 0 7,22 0 0 0",
            // Division and remainder by X, which is 0 at first; of the length by 7.
            "3,0 0 0 1,60 0 0 0,6 0 0 1",
            "4,128 0 0 0,1 0 0 7,156 0 0 0,22 0 0 0",
            // A cell that was written, one that was not, numbers with the highest bit set.
            "4,0 0 0 9,2 0 0 15,97 0 0 15,22 0 0 0",
            "3,97 0 0 3,135 0 0 0,22 0 0 0",
            "4,0 0 0 4294967295,36 0 0 2,53 0 1 4294967294,6 0 0 1,6 0 0 0",
            "5,0 0 0 2147483648,1 0 0 33,124 0 0 0,21 0 1 1073741824,6 0 0 1,6 0 0 0",
            "3,0 0 0 1,132 0 0 0,116 0 0 31,22 0 0 0",
            // Places relative to headers, and beyond the frame.
            "4,48 0 0 4293918729,21 0 1 17,6 0 0 1,6 0 0 0",
            "4,40 0 0 4292870156,21 0 1 2048,6 0 0 1,6 0 0 0",
            "2,32 0 0 70000,6 0 0 1",
            "3,1 0 0 70000,64 0 0 1,6 0 0 1",
            // Protocol, packet type, hardware type, tag.
            "4,40 0 0 4294963200,21 0 1 2048,6 0 0 1,6 0 0 0",
            "2,40 0 0 4294963204,22 0 0 0",
            "2,40 0 0 4294963228,22 0 0 0",
            "2,48 0 0 4294963248,22 0 0 0",
        ] {
            let lines: Vec<&str> = program.split(',').skip(1).collect();
            let filter = Program::parse(&format!("{},{}", lines.len(), lines.join(","))).unwrap();
            assert_eq!(by_kernel(&filter, &frames), by_interpreter(&filter, &frames), "{program}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_not() {
        let nowhere = Program::parse("2,32 0 0 2147483648,6 0 0 1").unwrap();
        assert_eq!(translate(&nowhere, false, &[], &[]), None);
    }
}
