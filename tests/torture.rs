//! What a network does to a conversation, done to every fixture: cut to single bytes, reordered, repeated, truncated, with
//! gaps. The rows stay the same, or become fewer with a warning; nothing panics.

use crate::golden::fixtures;
use crate::support::dissect_with;
use crate::support::flow_script::{Script, Step};

fn scripts() -> Vec<(String, Script)> {
    fixtures()
        .into_iter()
        .map(|(folder, case, path)| {
            (format!("{folder}/{case}"), Script::parse(&std::fs::read_to_string(path).unwrap()))
        })
        .collect()
}

/// What must not change: who asked what of whom and what came of it.
fn rows(script: &Script, frames: &[(i64, Vec<u8>)]) -> Vec<String> {
    let (entries, counts) = dissect_with(frames, &script.options(), 1);
    assert_eq!(counts.faults, 0, "a dissector panicked");
    let mut rows: Vec<String> = entries
        .iter()
        .map(|entry| {
            format!(
                "{} {} {} → {} | {} | {} | {}",
                entry.time, entry.protocol, entry.src, entry.dst, entry.operation, entry.target, entry.status
            )
        })
        .map(|row| row[31..].to_owned())
        .collect();
    rows.sort();
    rows
}

/// The script with each TCP payload cut into segments of at most `size` bytes.
fn cut(script: &Script, size: usize) -> Script {
    let steps = script.steps.iter().flat_map(|step| match step {
        Step::Data(client, data) => data.chunks(size).map(|part| Step::Data(*client, part.to_vec())).collect(),
        other => vec![other.clone()],
    });
    Script { steps: steps.collect(), ..script.clone() }
}

#[test]
fn single_bytes_give_the_same_rows() {
    for (name, script) in scripts().into_iter().filter(|(_, script)| !script.udp) {
        // Joined mid-stream, a message is found only if a segment starts with it.
        for size in [1, 2, 7, 100].into_iter().filter(|size| script.handshake || *size == 100) {
            assert_eq!(
                rows(&script, &cut(&script, size).frames()),
                rows(&script, &script.frames()),
                "{name} in segments of {size} bytes"
            );
        }
    }
}

#[test]
fn repeated_frames_give_the_same_rows() {
    for (name, script) in scripts().into_iter().filter(|(_, script)| !script.udp) {
        let frames = cut(&script, 11).frames();
        let twice: Vec<_> = frames.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
        assert_eq!(rows(&script, &twice), rows(&script, &script.frames()), "{name} with each frame twice");
    }
}

#[test]
fn reordered_frames_give_the_same_rows() {
    for (name, script) in scripts().into_iter().filter(|(_, script)| !script.udp && script.handshake) {
        let mut frames = cut(&script, 11).frames();
        // Neighbours swapped, but not across a handshake: a capture that starts inside one is another case.
        let opens = |frame: &[u8]| frame[47] & 0x02 != 0;
        for at in (3..frames.len().saturating_sub(1)).step_by(2) {
            if !opens(&frames[at].1) && !opens(&frames[at + 1].1) && frames[at].1[34..38] == frames[at + 1].1[34..38] {
                let (early, late) = (frames[at].0, frames[at + 1].0);
                frames.swap(at, at + 1);
                frames[at].0 = early;
                frames[at + 1].0 = late;
            }
        }
        assert_eq!(rows(&script, &frames), rows(&script, &script.frames()), "{name} reordered");
    }
}

#[test]
fn truncation_anywhere_gives_no_more_rows() {
    for (name, script) in scripts() {
        let whole = rows(&script, &script.frames()).len();
        let frames = if script.udp { script.frames() } else { cut(&script, 5).frames() };
        for end in 0..frames.len() {
            // A request whose response is cut off is a row of its own, so each row may show its half only.
            assert!(rows(&script, &frames[..end]).len() <= whole.max(1) * 2, "{name} cut after {end} frames");
        }
    }
}

#[test]
fn a_lost_frame_costs_no_more_than_its_surroundings() {
    for (name, script) in scripts().into_iter().filter(|(_, script)| !script.udp) {
        let whole = rows(&script, &script.frames()).len();
        let frames = cut(&script, 40).frames();
        for lost in 0..frames.len() {
            let mut rest = frames.clone();
            rest.remove(lost);
            assert!(rows(&script, &rest).len() <= whole.max(1) * 2, "{name} without frame {lost}");
        }
    }
}

#[test]
fn damage_anywhere_is_survived() {
    for (name, script) in scripts().into_iter().filter(|(_, script)| !script.keys.is_empty()) {
        let frames = script.frames();
        let mut state = 1u32;
        for round in 0..60 {
            let mut damaged = frames.clone();
            for _ in 0..=round % 4 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = state as usize % damaged.len();
                let frame = &mut damaged[at].1;
                // Behind the headers, where checksums are not looked at.
                let offset = 42 + (state >> 8) as usize % (frame.len() - 41);
                if let Some(byte) = frame.get_mut(offset) {
                    *byte ^= (state >> 20) as u8 | 1;
                }
            }
            assert!(rows(&script, &damaged).len() <= frames.len(), "{name}");
        }
    }
}
