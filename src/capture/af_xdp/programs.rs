//! The programs at the hooks: the one that clones, the one that puts a head before each clone, the one that hands it over.

use std::os::fd::OwnedFd;

use super::ebpf::{self, Instruction};
use super::{HEAD, MAGIC, SHORT_HEAD, SHORT_MAGIC, filter};
use crate::capture::bpf::Program;

/// The kernel puts nothing before a longer frame (`SKB_MAX_ALLOC`, 16 KiB less what it needs itself), unless that is to be
/// cut into segments; nor would it take the longest with a head.
const MOST_WITH_HEAD: i32 = 15_000;

// Fields of a frame, by their offset in what a program is given (struct __sk_buff).
pub(super) const LENGTH: i16 = 0;
const MARK: i16 = 8;
const QUEUE: i16 = 12;
pub(super) const VLAN_PRESENT: i16 = 20;
pub(super) const VLAN_TCI: i16 = 24;
pub(super) const VLAN_PROTOCOL: i16 = 28;
pub(super) const INTERFACE: i16 = 40;
const SEGMENT_SIZE: i16 = 176;

// The same for XDP (struct xdp_md).
const RECEIVED_ON: i16 = 16;

// What programs can call.
const KTIME_GET_NS: i32 = 5;
const SKB_STORE_BYTES: i32 = 9;
const CLONE_REDIRECT: i32 = 13;
const SKB_CHANGE_HEAD: i32 = 43;
const REDIRECT_MAP: i32 = 51;

// What programs return.
const NEXT: i32 = -1;
const PASS: i32 = 0;
const DROP: i32 = 2;
const XDP_DROP: i32 = 1;

/// If the filter accepts a frame, marks it, clones it into the pair, and unmarks it; whatever happens, the frame goes its
/// way. None if the filter cannot be written.
pub(super) fn clone(
    filter: &Program,
    is_sent: bool,
    near: u32,
    passed_over: &OwnedFd,
    failures: &OwnedFd,
) -> Option<Vec<Instruction>> {
    let [value, half] = ebpf::value(1, passed_over);
    let unwanted = [value, half, ebpf::set(2, 1), ebpf::count(1, 2), ebpf::set(0, NEXT), ebpf::exit()];
    let [value, half] = ebpf::value(1, failures);
    let wanted = [
        ebpf::load(7, 6, MARK),
        ebpf::load(8, 6, INTERFACE),
        ebpf::shift_left(8, 1),
        ebpf::or(8, is_sent.into()),
        ebpf::store(6, MARK, 8),
        ebpf::copy(1, 6),
        ebpf::set(2, near.cast_signed()),
        ebpf::set(3, 0),
        ebpf::call(CLONE_REDIRECT),
        ebpf::store(6, MARK, 7),
        // More than 0 says that the clone was dropped on its way, which is counted there.
        ebpf::skip_unless_less(0, 0, 4),
        value,
        half,
        ebpf::set(2, 1),
        ebpf::count(1, 2),
        ebpf::set(0, NEXT),
        ebpf::exit(),
    ];
    let mut program = vec![ebpf::copy(filter::FRAME, 1)];
    program.extend(filter::translate(filter, is_sent, &wanted, &unwanted)?);
    Some(program)
}

/// Puts a head before a clone, and that into the queue whose turn it is. What has no mark, i.e. is sent by the kernel itself,
/// is dropped.
pub(super) fn head(queues: u32, turns: &OwnedFd, failures: &OwnedFd) -> Vec<Instruction> {
    const STACK: u8 = 10;
    const START: i16 = -(HEAD as i16);
    let field = |from: i16, at: i16| [ebpf::load(1, 6, from), ebpf::store(STACK, START + at, 1)];
    let number = |number: i32, at: i16| [ebpf::set(1, number), ebpf::store(STACK, START + at, 1)];
    let store = |length: u8| {
        [
            ebpf::copy(1, 6),
            ebpf::set(2, 0),
            ebpf::copy(3, STACK),
            ebpf::add(3, START.into()),
            ebpf::set(4, length.into()),
            ebpf::set(5, 0),
            ebpf::call(SKB_STORE_BYTES),
        ]
    };
    let mut program = vec![ebpf::copy(6, 1), ebpf::call(KTIME_GET_NS), ebpf::store_long(STACK, START, 0)];
    program.extend([field(VLAN_PRESENT, 16), field(VLAN_TCI, 20), field(VLAN_PROTOCOL, 24)].concat());
    program.extend([number(0, 12), number(MAGIC.cast_signed(), 28), field(MARK, 8)].concat());

    // What follows, last part first: each skips over those behind it.
    let [value, half] = ebpf::value(1, failures);
    let [turn, other] = ebpf::value(1, turns);
    let end = [
        ebpf::skip_unless(0, 0, 9),
        turn,
        other,
        ebpf::set(2, 1),
        ebpf::count(1, 2),
        ebpf::and(2, queues.cast_signed() - 1),
        // Queues are counted from 1 there.
        ebpf::add(2, 1),
        ebpf::store(6, QUEUE, 2),
        ebpf::set(0, PASS),
        ebpf::exit(),
        value,
        half,
        ebpf::set(2, 1),
        ebpf::count(1, 2),
        ebpf::set(0, DROP),
        ebpf::exit(),
    ];
    // From the start of these to where it is counted that there is no head, and to behind that.
    let (to_failure, to_drop) = (10, 14);
    let within = [&number(SHORT_MAGIC.into(), 12)[..], &store(SHORT_HEAD)].concat();
    let mut before = vec![ebpf::skip(within.len())];
    before.splice(0..0, store(HEAD));
    before.insert(0, ebpf::skip_unless(0, 0, before.len() + within.len() + to_failure));
    before.splice(0..0, [ebpf::copy(1, 6), ebpf::set(2, HEAD.into()), ebpf::set(3, 0), ebpf::call(SKB_CHANGE_HEAD)]);
    let choice = [
        ebpf::load(1, 6, LENGTH),
        ebpf::skip_unless_more(1, MOST_WITH_HEAD, 2),
        ebpf::load(1, 6, SEGMENT_SIZE),
        ebpf::skip_if(1, 0, before.len()),
    ];
    program.push(ebpf::skip_if(1, 0, choice.len() + before.len() + within.len() + to_drop));
    program.extend([&choice[..], &before, &within, &end].concat());
    program
}

/// Hands what comes to the far end to the socket of its queue.
pub(super) fn redirect(sockets: &OwnedFd) -> Vec<Instruction> {
    let [map, half] = ebpf::map(1, sockets);
    vec![ebpf::load(2, 1, RECEIVED_ON), map, half, ebpf::set(3, XDP_DROP), ebpf::call(REDIRECT_MAP), ebpf::exit()]
}
