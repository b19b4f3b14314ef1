//! The secrets in a pcapng file, looked up before its packets are read: they may stand behind those that need them.

use std::io::{self, BufReader, Read, Seek};

/// Block type of a section header, the same in both byte orders.
const SECTION: u32 = 0x0a0d_0d0a;
/// What tells a section's byte order.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Decryption Secrets Block.
const SECRETS: u32 = 10;
/// Secrets type of a TLS key log ("TLSK").
const TLS_KEY_LOG: u32 = 0x544c_534b;
/// The longest block of secrets that is read.
const MAX_SECRETS: u32 = 64 << 20;
/// How much is read at once.
const PIECE: usize = 256 << 10;

/// The key logs in a pcapng file, one after the other. Stops where it is damaged; whoever reads the packets tells of that.
pub(super) fn key_logs(input: impl Read + Seek) -> Vec<u8> {
    let mut found = Vec::new();
    let _ = scan(&mut BufReader::with_capacity(PIECE, input), &mut found);
    found
}

/// Hops from block to block.
fn scan(input: &mut BufReader<impl Read + Seek>, found: &mut Vec<u8>) -> io::Result<()> {
    let mut big = false;
    loop {
        let (kind, length) = (word(input)?, word(input)?);
        let mut read = 8;
        if u32::from_le_bytes(kind) == SECTION {
            big = u32::from_be_bytes(word(input)?) == BYTE_ORDER;
            read += 4;
        } else if found.is_empty() && read == 8 && input.stream_position()? == 8 {
            // It does not start as pcapng does.
            return Ok(());
        }
        let number = |word| if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
        let (kind, length) = (number(kind), number(length));
        if length < 12 || length % 4 != 0 {
            return Ok(());
        }
        if kind == SECRETS && (20..=MAX_SECRETS).contains(&length) && number(word(input)?) == TLS_KEY_LOG {
            let room = length - 20;
            let text = number(word(input)?).min(room);
            input.by_ref().take(text.into()).read_to_end(found)?;
            found.push(b'\n');
            read += 8 + text;
        } else if kind == SECRETS && length >= 20 {
            read += 4;
        }
        input.seek_relative(i64::from(length - read))?;
    }
}

fn word(input: &mut impl Read) -> io::Result<[u8; 4]> {
    let mut word = [0; 4];
    input.read_exact(&mut word)?;
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
        let number = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = number(body.len() as u32 + 12);
        [&number(kind)[..], &length, &body, &length].concat()
    }

    fn section(big: bool) -> Vec<u8> {
        let magic = if big { BYTE_ORDER.to_be_bytes() } else { BYTE_ORDER.to_le_bytes() };
        block(big, SECTION, &[&magic[..], &[0; 12]].concat())
    }

    fn secrets(big: bool, kind: u32, text: &[u8]) -> Vec<u8> {
        let number = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        block(big, SECRETS, &[&number(kind)[..], &number(text.len() as u32), text].concat())
    }

    #[test]
    fn key_logs_are_found_wherever_they_are() {
        let file = [
            section(false),
            block(false, 6, &[7; 100]),
            secrets(false, TLS_KEY_LOG, b"A 1 2"),
            secrets(false, 0x57_47_4b_4c, b"WireGuard's"),
            block(false, 6, &[7; 101]),
            section(true),
            secrets(true, TLS_KEY_LOG, b"B 3 4\n"),
            block(true, 6, &[7; 8]),
        ]
        .concat();
        assert_eq!(key_logs(io::Cursor::new(&file)), b"A 1 2\nB 3 4\n\n");
        // Cut anywhere, it is what was there before.
        for end in 0..file.len() {
            assert!(key_logs(io::Cursor::new(&file[..end])).len() <= 13);
        }
        assert_eq!(key_logs(io::Cursor::new(vec![0; 100])), b"");
        assert_eq!(key_logs(io::Cursor::new(secrets(false, TLS_KEY_LOG, b"A 1 2"))), b"");
    }
}
