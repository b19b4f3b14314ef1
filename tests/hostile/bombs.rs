//! A little that decompresses to very much: what is looked at has a limit, and the message its row.

use super::dissect;

/// `head`, and zeros without end, in the format that is named; brotli has the zeros alone.
fn bomb(format: &str, head: &[u8]) -> Vec<u8> {
    const BROTLI: &str = "cfffff7f002400e2b14072effff9ffff0f8004401c1680eefd3fffffff01900088c302d0bdffe7ffff3f001200715800baf7\
        fffcffff074002200e0b40f7fe9fffffff004800c46101e8defff3ffff1f000980382c00ddfb7ffeffff032001108705a07b\
        ffcfffff7f002400e2b00074effff9ffff0f8004401c1680eefd3fffffff01900088c302d0bdffe7ffff3f001200715800ba\
        f7fffcffff074002200e0b40f7fe9fffffff004800c46101e8defff3ffff1f000980382c00ddfb7ffeffff032001108705a0\
        7bffcfffff7f002400e2b00074effff9ffff0f8004401c1680eefd3fffffff01900088c302d0bdffe7ffff3f001200715800\
        baf7fffcffff074002200e0b40f7fe9fffffff004800c46101e8defff3ffff1f000980382c00ddfb7ffeffff032001108705\
        a07bffcfffff7f002400e2b00074effff9ffff0f8004401c1680eefd3fffffff01900088c302d0bdffe7ffff3f0012007158\
        00baf7fffcffff074002200e0b40f7fe9fffffff004800c46101e8defff3ffff1f000980382c00ddfb7ffeffff0320011087\
        05a07bff3f";
    // A gibibyte: a window's worth of zeros, flushed whole so that it may be repeated.
    let deflated = || {
        let flushed = |bytes: &[u8]| {
            let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
            let mut block = Vec::with_capacity(1 << 16);
            deflate.compress_vec(bytes, &mut block, flate2::FlushCompress::Full).unwrap();
            block
        };
        [flushed(head), flushed(&vec![0; 1 << 20]).repeat(1024), vec![3, 0]].concat()
    };
    match format {
        "gzip" => [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &deflated()].concat(),
        "zlib" => [&[0x78, 0x9c][..], &deflated()].concat(),
        "br" => (0..BROTLI.len()).step_by(2).map(|at| u8::from_str_radix(&BROTLI[at..at + 2], 16).unwrap()).collect(),
        // Blocks of 128 KiB in four bytes each, within a window of 8 MiB; before them one as it is.
        "zstd" => {
            let raw = (head.len() as u32) << 3;
            let raw = [&raw.to_le_bytes()[..3], head].concat();
            [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x68][..], &raw, &[2, 0, 0x10, 0].repeat(8192), &[3, 0, 0x10, 0]].concat()
        }
        // A literal with its length in two bytes, a zero, and copies of 64 bytes from one back.
        "snappy" => {
            let literal = head.len() as u16;
            let literal = [&[61 << 2][..], &literal.to_le_bytes(), head, &[0]].concat();
            [&[0x80, 0x80, 0x80, 0x80, 4][..], &literal, &[0xfe, 1, 0].repeat(300_000)].concat()
        }
        // Blocks of 4 MiB, each by itself.
        "lz4" => {
            use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
            let whole = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max4MB);
            let mut encoder = FrameEncoder::with_frame_info(whole, Vec::new());
            std::io::Write::write_all(&mut encoder, &vec![0; 4 << 20]).unwrap();
            let frame = encoder.finish().unwrap();
            [&frame[..7], &frame[7..frame.len() - 4].repeat(60), &[0; 4]].concat()
        }
        _ => panic!("no bomb in {format}"),
    }
}

#[test]
fn bodies_that_decompress_without_end() {
    for coding in ["gzip", "br", "zstd"] {
        let body = bomb(coding, b"");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = [head.as_bytes(), &body].concat();
        let entries = dissect(80, [(true, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()), (false, answer)]);
        assert_eq!(entries.len(), 1, "{coding}");
        assert_eq!(entries[0]["status"], "200", "{coding}");
        let body = entries[0]["response"]["body"].to_string();
        assert!(body.len() > 10_000 && body.len() < 1_000_000, "{coding}: {} characters of it", body.len());
    }
}

#[test]
fn websocket_messages_that_decompress_without_end() {
    let upgrade = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let gzip = bomb("gzip", b"");
    let payload = &gzip[10..gzip.len() - 2];
    let mut frame = vec![0xc2, 127];
    frame.extend((payload.len() as u64).to_be_bytes());
    frame.extend(payload);
    frame.extend(b"\x81\x02ok");
    let entries = dissect(80, [(true, upgrade.into()), (false, answer.into()), (false, frame)]);
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2]["operation"], "text");
}

#[test]
fn record_batches_that_decompress_without_end() {
    for (codec, format) in [(1u8, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
        let packed = bomb(format, b"");
        let mut batch = vec![0; 8];
        batch.extend((packed.len() as u32 + 49).to_be_bytes());
        batch.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, codec, 0, 0, 0, 0]);
        batch.extend([0; 16]);
        batch.extend([0xff; 14]);
        batch.extend([0, 0, 0, 1]);
        batch.extend(&packed);
        let mut request =
            b"\0\0\0\x03\0\0\0\x07\0\x01c\xff\xff\0\x01\0\0\x05\xdc\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0".to_vec();
        request.extend((batch.len() as u32).to_be_bytes());
        request.extend(batch);
        let answer = b"\0\0\0\x07\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
        let framed = |message: &[u8]| [&(message.len() as u32).to_be_bytes()[..], message].concat();
        let entries = dissect(9092, [(true, framed(&request)), (false, framed(answer))]);
        assert_eq!(entries.len(), 1, "{format}");
        assert_eq!(
            (&entries[0]["operation"], &entries[0]["target"]),
            (&"Produce".into(), &"orders".into()),
            "{format}"
        );
        assert!(entries[0].to_string().contains(&format!("\"{format}\"")), "{format}: {}", entries[0]);
        assert!(entries[0].to_string().len() < 1_000_000, "{format}");
    }
}

#[test]
fn mongodb_messages_that_decompress_without_end() {
    // A find, of which a text of nearly 48 MB is part.
    let size = 47_000_000u32;
    let mut message = b"\0\0\0\0\0".to_vec();
    message.extend((size - 5).to_le_bytes());
    message.extend(b"\x02find\0\x02\0\0\0a\0\x02$db\0\x05\0\0\0shop\0\x02note\0");
    message.extend((size - 60).to_le_bytes());
    for (compressor, format) in [(1u8, "snappy"), (2, "zlib"), (3, "zstd")] {
        let packed = bomb(format, &message);
        let mut bytes = (packed.len() as u32 + 25).to_le_bytes().to_vec();
        for word in [1, 0, 2012, 2013, size] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(compressor);
        bytes.extend(&packed);
        let entries = dissect(27017, [(true, bytes)]);
        assert_eq!(entries.len(), 1, "{format}");
        assert_eq!((&entries[0]["operation"], &entries[0]["target"]), (&"find".into(), &"shop.a".into()), "{format}");
        assert!(entries[0].to_string().len() < 1_000_000, "{format}");
    }
}

#[test]
fn mysql_packets_that_decompress_without_end() {
    let greeting = b"J\0\0\0\n8.0.36\0*\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xc1\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0";
    let login = b"W\0\0\x01)\xa2\x08\0\0\0\0\x01-\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0shop\0\x1401234567890123456789orders\0mysql_native_password\0";
    let mut steps =
        vec![(false, greeting.to_vec()), (true, login.to_vec()), (false, b"\x07\0\0\x02\0\0\0\x02\0\0\0".to_vec())];
    // Queries of nearly 16 MiB in some ten kilobytes, and one that is small.
    for _ in 0..8 {
        let packed = bomb("zlib", b"\xfa\xff\xff\0\x03SELECT 1 -- ");
        let packed = &packed[..packed.len().min(40_000)];
        let mut query = (packed.len() as u32).to_le_bytes()[..3].to_vec();
        query.extend([0, 0xfe, 0xff, 0xff]);
        query.extend(packed);
        steps.extend([(true, query), (false, b"\x0b\0\0\x01\0\0\0\x07\0\0\x01\0\0\0\x02\0\0\0".to_vec())]);
    }
    let entries = dissect(3306, steps);
    let queries = entries.iter().filter(|entry| entry["target"].as_str().unwrap().starts_with("SELECT 1"));
    assert_eq!(queries.count(), 8, "{entries:?}");
    assert!(entries.iter().all(|entry| entry.to_string().len() < 1_000_000));
}
