//! Entries for the tests of the formats.

use std::net::IpAddr;
use std::sync::Arc;

use crate::entry::{Endpoint, Entry, Half, JOINED, Name, Timestamp};
use crate::fields;

fn pod(ip: [u8; 4], port: u16, name: &str) -> Endpoint {
    let name = Name {
        kind: "pod",
        namespace: "sock-shop".into(),
        name: name.into(),
        workload: Some("deploy/front-end".into()),
        node: Some("node1".into()),
    };
    Endpoint { ip: IpAddr::from(ip), port, name: Some(Arc::new(name)) }
}

/// A request between a pod and a service, answered.
pub(super) fn http() -> Entry {
    let service =
        Name { kind: "service", namespace: "sock-shop".into(), name: "catalogue".into(), workload: None, node: None };
    let src = pod([10, 244, 0, 7], 40_000, "front-end-6d5f8b7c9-x2v4k");
    let dst = Endpoint { ip: IpAddr::from([10, 96, 12, 5]), port: 80, name: Some(Arc::new(service)) };
    Entry {
        id: 1,
        time: Timestamp(1_767_323_045_123_456_789),
        operation: "GET".into(),
        target: "/catalogue?size=5&tags=".into(),
        status: "200".into(),
        latency: Some(1_234_567),
        request: Some(Half {
            time: Timestamp(1_767_323_045_123_456_789),
            packet: 4,
            position: 1001,
            bytes: 78,
            body: None,
            detail: fields! { "version" => "1.1", "headers" => fields! { "host" => "catalogue" } },
        }),
        response: Some(Half {
            time: Timestamp(1_767_323_045_124_691_356),
            packet: 6,
            position: 5001,
            bytes: 1843,
            body: Some(12),
            detail: fields! { "version" => "1.1", "body" => fields! { "size" => 12u8, "text" => "line 1\nline 2" } },
        }),
        tap: 1,
        ..Entry::new("http", src, dst)
    }
}

/// A request over IPv6 that nobody answered, with text that would drive a terminal.
pub(super) fn unanswered() -> Entry {
    Entry {
        id: 2,
        protocol: "redis",
        src: Endpoint::new("fd00::1".parse().unwrap(), 40_001),
        dst: Endpoint::new("fd00::2".parse().unwrap(), 6379),
        operation: "SET".into(),
        target: "k\u{1b}[2Jey\nöäü漢字".into(),
        status: "".into(),
        latency: None,
        response: None,
        warnings: vec![JOINED.into()],
        ..http()
    }
}

/// One that failed after a while.
pub(super) fn failed() -> Entry {
    let warnings = vec!["12 bytes are missing".into()];
    Entry { id: 3, status: "503".into(), failed: true, latency: Some(2_345_000_000), warnings, ..http() }
}
