//! Programs in pods that talk over TLS, with `--tls`: each request that a client made has its row, decrypted, and nothing else
//! has one, also on connections that were open before. No program gives its keys away, and none is started anew.
//!
//! A folder here is like one of [`servers`](crate::servers). Each pod is sniffed by itself, so that its keys are those that
//! its own processes have.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::servers::{Logs, Server, asked, shows};
use crate::support::cluster::Place;
use crate::support::sniff::Sniff;

/// How often a capture may be incomplete.
const ATTEMPTS: usize = 3;

/// A server, in a folder of this one.
fn server(name: &'static str, port: u16) -> Server {
    Server { among: "encrypted", ..Server::new(name, port) }
}

/// As with servers in clear text, a run is repeated whose packets the kernel has dropped on a machine that does much else.
async fn check(server: &Server) {
    for attempt in 1..=ATTEMPTS {
        let Some(lost) = sniffs(server, attempt).await else { return };
        eprintln!("attempt {attempt}: {lost}");
    }
    panic!("packets were lost in each of {ATTEMPTS} attempts");
}

/// Sniffs each pod while the client asks; what the plugin says if it has missed something.
async fn sniffs(server: &Server, attempt: usize) -> Option<String> {
    let place = Place::new(&format!("tls-{}-{attempt}", server.name), json!({})).await;
    let _logs = Logs(&place);
    server.deploy(&place).await;
    let start = |pods: &str| {
        // The capture stays for whoever has to find out why this fails.
        let capture = format!("{}/tls-{}-{}.pcap", env!("CARGO_TARGET_TMPDIR"), server.name, pods.replace('|', "-"));
        Sniff::at_place(&place, &[pods, "--tls", "--pcap", &capture])
    };
    let (client, other) = (start("client"), start("server"));
    client.says("+ ", 1);
    other.says("+ ", 1);
    // The same agents give this one each packet twice, and the keys of either end.
    let both = start("client|server");
    both.says("+ ", 2);
    let expected = asked(&place).await;
    let mut done = Vec::new();
    for live in [client, other, both] {
        shows(&live, is_decrypted, expected.len()).await;
        done.push(live.interrupt());
    }
    for (view, done) in ["client", "server", "both"].iter().zip(done) {
        eprintln!("as seen by {view}");
        if let Some(lost) = server.compare(done, is_decrypted, &expected) {
            return Some(lost);
        }
    }
    None
}

/// A request inside of TLS, of one pod to the other.
fn is_decrypted(entry: &Value) -> bool {
    !entry["decrypted"].is_null()
}

/// The folder with the programs of `go/service.go`: `plain`, as they are built by default, and `stripped`. (The nodes see the
/// folder of the build.)
fn go() -> String {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/encrypted/go/service.go");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
        for (name, flags) in [("plain", ""), ("stripped", "-s -w")] {
            let mut build = Command::new("go");
            build.args(["build", "-ldflags", flags, "-o"]).arg(folder.join(name)).arg(&source);
            // Pods have no C library of theirs.
            assert!(build.env("CGO_ENABLED", "0").status().expect("go runs").success());
        }
        folder
    });
    folder.display().to_string()
}

macro_rules! encrypted {
    ($($name:ident: $server:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            check(&$server).await;
        }
    )*};
}

encrypted! {
    https: Server { warns: "answered before its body was complete", ..server("https", 8443) };
    postgresql: Server { user: 70, ..server("postgresql", 5432) };
    redis: server("redis", 6380);
    pools: Server { user: 70, warns: "joined mid-stream", ..server("pools", 8443) };
    grpc: server("grpc", 50051);
    go_programs: Server { mounts: vec![go()], ..server("go", 8443) };
    ten_thousand_requests_at_full_speed: Server { mounts: vec![go()], ..server("many", 8443) };
}
