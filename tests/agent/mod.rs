//! The agent on real sockets, in network namespaces that these tests make and remove.
//!
//! They need root, as capturing does, and fail without it rather than pass unseen.

mod buffer;
mod capture;
mod daemon;
mod owners;
mod plaintext;
mod refused;
mod sessions;
mod support;
mod tls;

use support::Block;

/// `1..=last`.
fn numbers(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

fn hello(blocks: &[Block]) -> &serde_json::Value {
    match blocks {
        [Block::Section, Block::Hello(hello), ..] => hello,
        _ => panic!("no hello: {blocks:?}"),
    }
}

/// The packets flushed according to the notes: first number and count of each.
fn flushed(blocks: &[Block]) -> Vec<(u64, u64)> {
    let note = |block: &Block| match block {
        Block::Flushed(note) => Some((note["from"].as_u64()?, note["count"].as_u64()?)),
        _ => None,
    };
    blocks.iter().filter_map(note).collect()
}

fn interface_names<'a>(blocks: &'a [Block]) -> Vec<&'a str> {
    let name = |block: &'a Block| match block {
        Block::Interface { name, .. } => Some(name.as_str()),
        _ => None,
    };
    blocks.iter().filter_map(name).collect()
}
