//! The command line without a cluster: captures that are read, and what is wrong with them.

use std::io::Write;
use std::process::Stdio;

use crate::support::sniff::{Done, command, run};

/// A capture of two HTTP requests on one connection.
fn capture() -> Vec<u8> {
    let request = |n: u8| format!("GET /{n} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(field.to_le_bytes());
    }
    let (mut client, mut server) = (1000_u32, 9000_u32);
    let halves = [(true, request(1)), (false, response.clone()), (true, request(2)), (false, response)];
    for (at, (to_server, payload)) in (1_u32..).zip(halves) {
        let (from, to, ports) = if to_server { (1, 2, [40_000_u16, 80]) } else { (2, 1, [80, 40_000]) };
        let (sequence, acknowledged) = if to_server { (client, server) } else { (server, client) };
        let length = 40 + payload.len();
        let mut packet = vec![0x45, 0];
        packet.extend((length as u16).to_be_bytes());
        packet.extend([0, at as u8, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
        packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        packet.extend(sequence.to_be_bytes());
        packet.extend(acknowledged.to_be_bytes());
        packet.extend([0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        packet.extend(&payload);
        *(if to_server { &mut client } else { &mut server }) += payload.len() as u32;
        for field in [1_700_000_000, at * 1000, length as u32, length as u32] {
            file.extend(field.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

fn stored(name: &str, bytes: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("sniff-test-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// Reads a capture that is stored for it, and removes it again.
fn read(name: &str, bytes: &[u8], more: &[&str]) -> Done {
    let path = stored(name, bytes);
    let done = run(&[&["--pcap", &path], more].concat());
    std::fs::remove_file(path).unwrap();
    done
}

#[test]
fn a_capture_is_read_in_every_format() {
    let table = read("table.pcap", &capture(), &["--utc"]);
    assert_eq!(table.code(), Some(0), "{}", table.stderr);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("TIME") && lines[1].contains("/1") && lines[2].contains("/2"), "{}", table.stdout);
    assert!(table.stderr.contains("4 packets") && table.stderr.contains("2 entries"), "{}", table.stderr);

    let json = read("json.pcap", &capture(), &["-o", "json"]);
    let targets: Vec<_> = json.entries().iter().map(|entry| entry["target"].clone()).collect();
    assert_eq!(targets, ["/1", "/2"]);
    let yaml = read("yaml.pcap", &capture(), &["-o", "yaml"]);
    assert_eq!(yaml.stdout.matches("protocol: http").count(), 2, "{}", yaml.stdout);
    let first = read("count.pcap", &capture(), &["-o", "json", "--count", "1"]);
    assert_eq!((first.entries().len(), first.code()), (1, Some(0)));
}

#[test]
fn a_capture_may_be_compressed_or_come_by_stdin() {
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&capture()).unwrap();
    assert_eq!(read("zipped.pcap.gz", &zipped.finish().unwrap(), &["-o", "json"]).entries().len(), 2);

    let mut child = command();
    let child = child.args(["--pcap", "-", "-o", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&capture()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn what_is_no_capture_is_one_error_that_names_file_and_reason() {
    for (name, bytes, reason) in [
        ("empty", &b""[..], "it is empty"),
        ("text", b"once upon a time", "once upon a time"),
        ("zeroes", &[0; 4096], "is no capture"),
        ("elf", b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", "is no capture"),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", ""),
    ] {
        let done = read(name, bytes, &[]);
        assert_eq!(done.code(), Some(1), "{name}: {}", done.stderr);
        assert_eq!(done.stdout, "", "{name}");
        let errors: Vec<&str> = done.stderr.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{name}: {}", done.stderr);
        assert!(errors[0].contains(&format!("-{name}")) && errors[0].contains(reason), "{name}: {}", errors[0]);
    }
    let missing = run(&["--pcap", "/nowhere/at/all"]);
    assert_eq!((missing.code(), missing.stdout.as_str()), (Some(1), ""));
    assert!(missing.stderr.starts_with("error: cannot read /nowhere/at/all: "), "{}", missing.stderr);
}

#[test]
fn wrong_usage_is_told_and_exits_with_2() {
    for arguments in [
        &[][..],
        &["-n", "shop"],
        &["-o", "rows"],
        &["--pcap", "x", "--decode-as", "80=nothing"],
        &["--pcap", "x", "--count", "0"],
        &["web", "--filter", "prot 80"],
    ] {
        let done = run(arguments);
        assert_eq!((done.code(), done.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.starts_with("error: "), "{arguments:?}: {}", done.stderr);
    }
    let two = run(&["front-end", "catalogue"]);
    assert_eq!(two.code(), Some(2));
    assert!(two.stderr.contains("\"catalogue\"") && two.stderr.contains("hint: several names"), "{}", two.stderr);
}

#[test]
fn a_port_is_what_it_is_said_to_be() {
    let http = read("as-it-is.pcap", &capture(), &["-o", "json"]).entries();
    assert!(http.iter().all(|entry| entry["protocol"] == "http"), "{http:?}");
    let other = read("as-told.pcap", &capture(), &["-o", "json", "--decode-as", "80=redis"]).entries();
    assert!(!other.iter().any(|entry| entry["protocol"] == "http"), "{other:?}");
}

#[test]
fn without_a_cluster_the_error_is_all_that_is_said() {
    let done = run(&["web", "--kubeconfig", "/dev/null", "--server", "http://127.0.0.1:1"]);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = done.stderr.lines().collect();
    assert!(lines[0].starts_with("error: cannot reach the API server at http://127.0.0.1:1"), "{}", done.stderr);
    assert!(!done.stderr.contains("0 pods"), "{}", done.stderr);
}

#[test]
fn a_capture_keeps_what_it_holds_if_there_is_no_cluster_to_capture_from() {
    let folder = folder(&[("old.pcap", "packets")]);
    let path = folder.path().join("old.pcap");
    let done = run(&["web", "--kubeconfig", "/nowhere/at/all", "--pcap", path.to_str().unwrap()]);
    assert_eq!(done.code(), Some(1), "{}", done.stderr);
    assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "packets");
}

#[test]
fn the_version_says_what_is_run_where() {
    let version: serde_json::Value = serde_json::from_str(&run(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["commit"].is_string(), "{version}");
    let image = version["agentImage"].as_str().unwrap_or_default();
    assert!(image.contains("sniff-agent:"), "{version}");
}

/// A folder with these files in it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// The types of all gRPC messages in the recorded calls, with these definitions.
fn message_types(definitions: &[&str]) -> Vec<String> {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let script = std::fs::read_to_string(fixtures.join("grpc/descriptors.flow")).unwrap();
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(field.to_le_bytes());
    }
    for (nanos, frame) in crate::support::flow_script::Script::parse(&script).frames() {
        let (seconds, micros) = (nanos / 1_000_000_000, nanos % 1_000_000_000 / 1000);
        for field in
            [seconds.cast_unsigned() as u32, micros.cast_unsigned() as u32, frame.len() as u32, frame.len() as u32]
        {
            file.extend(field.to_le_bytes());
        }
        file.extend(frame);
    }
    let name = format!("grpc-{}.pcap", definitions.len() + definitions.concat().len());
    let flags: Vec<&str> = definitions.iter().flat_map(|definition| ["--proto", definition]).collect();
    let done = read(&name, &file, &[&["-o", "yaml"], flags.as_slice()].concat());
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    let types = done.stdout.lines().filter_map(|line| line.trim().strip_prefix("message_type: "));
    types.map(str::to_owned).collect()
}

#[test]
fn definitions_of_messages_come_as_sources_or_compiled() {
    let fixtures = format!("{}/tests/fixtures/grpc", env!("CARGO_MANIFEST_DIR"));
    let expected =
        ["GetRequest", "Item", "WatchRequest", "Change", "Item", "PutReply"].map(|of| format!("shop.v1.{of}"));
    let (source, compiled) = (format!("{fixtures}/shop.proto"), format!("{fixtures}/shop.binpb"));
    for definitions in [&[source.as_str()][..], &[&fixtures], &[&compiled], &[&source, &compiled]] {
        assert_eq!(message_types(definitions), expected, "{definitions:?}");
    }
    assert!(message_types(&[]).is_empty());

    // Imports start from a folder above, or from another one.
    let shared = "syntax = \"proto3\"; package shop.v1; message GetRequest { string id = 1; }";
    let service = "syntax = \"proto3\"; package shop.v1; import \"shop/v1/shared.proto\";
                   service Catalogue { rpc Get(GetRequest) returns (GetRequest); }";
    let one = folder(&[("shop/v1/shared.proto", shared), ("shop/v1/service.proto", service)]);
    let path = |folder: &tempfile::TempDir, name: &str| folder.path().join(name).display().to_string();
    assert_eq!(message_types(&[&path(&one, "shop/v1/service.proto")])[0], "shop.v1.GetRequest");
    let (first, second) = (folder(&[("service.proto", service)]), folder(&[("shop/v1/shared.proto", shared)]));
    assert_eq!(message_types(&[&path(&first, ""), &path(&second, "")])[0], "shop.v1.GetRequest");
}

#[test]
fn definitions_that_are_of_no_use_are_errors_that_say_where_and_what_next() {
    let no_import = "syntax = \"proto3\";\nimport \"shop/none.proto\";\n";
    let cases = folder(&[
        ("syntax.proto", "syntax = \"proto3\";\nmessage A {\n  strin g id = 1;\n}\n"),
        ("type.proto", "syntax = \"proto3\";\nmessage A {\n  Missing id = 1;\n}\n"),
        ("import.proto", no_import),
        ("text.binpb", "once upon a time"),
        ("empty/README", ""),
        ("twice/a.proto", "syntax = \"proto3\"; message A {}"),
        ("twice/b.proto", "syntax = \"proto3\"; message A {}"),
    ]);
    for (name, cause, hint) in [
        ("syntax.proto", "syntax.proto:3:11: expected", "protoc"),
        ("type.proto", "type.proto:3:3: ", "protoc"),
        ("import.proto", "import.proto:2:1: import 'shop/none.proto' not found", "--proto DIR"),
        ("none.proto", "No such file", "a folder of them"),
        ("none.binpb", "No such file", "a folder of them"),
        ("text.binpb", "no FileDescriptorSet", "--include_imports"),
        ("empty", "no files *.proto", "compiled sets"),
        ("twice", "'A'", "protoc"),
    ] {
        let path = cases.path().join(name).display().to_string();
        let done = read(&format!("{name}.pcap"), &capture(), &["--proto", &path]);
        assert_eq!((done.code(), done.stdout.as_str()), (Some(1), ""), "{name}");
        assert!(done.stderr.contains("error: ") && done.stderr.contains(&path), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(cause), "{name}: {}", done.stderr);
        assert!(
            done.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains(hint)),
            "{name}: {}",
            done.stderr
        );
    }
}
