//! Real servers and their usual client libraries in pods: each request that a client made has its row, and nothing else.
//!
//! A folder here is one server. `start.sh` runs it, from the host's Debian packages, which the pod mounts as those of
//! the demo shop do. `client.py` asks it with a library that people use, and tells of each request the row that it must
//! have, by what the library returned or raised: see [`asked.py`](asked.py).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kube::api::LogParams;
use serde_json::{Value, json};

use crate::support::cluster::{Place, soon_within};
use crate::support::jars::jars;
use crate::support::sniff::{Done, Sniff, run};

/// How long a server may take to start, and a client to ask, on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(2);

/// How late a row may come when the machine is busy, and how long to wait for one too many.
const LATENESS: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_millis(500);
/// How often a capture may be incomplete.
const ATTEMPTS: usize = 3;

/// A folder of this one, or of another one like it.
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    /// Most run as root, who is nobody in particular in a pod; some refuse to.
    pub user: u32,
    /// What the plugin may warn of.
    pub warns: &'static str,
    /// Folders of the host beside its programs, mounted at the same path.
    pub mounts: Vec<String>,
    /// Where its folder is, in that of the tests.
    pub among: &'static str,
}

impl Server {
    pub fn new(name: &'static str, port: u16) -> Self {
        Self { name, port, user: 0, warns: "", mounts: Vec::new(), among: "servers" }
    }

    /// Where its packets are saved.
    fn capture(&self) -> String {
        format!("{}/{}.pcap", env!("CARGO_TARGET_TMPDIR"), self.name)
    }

    /// The files of the folder and what the clients share, as a `ConfigMap` has them.
    fn files(&self) -> BTreeMap<String, String> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let among = tests.join(self.among);
        let list = |folder: &Path| {
            let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect::<Vec<_>>()
        };
        let shared = list(&among).into_iter().filter(|path| path.extension().is_none_or(|kind| kind != "rs"));
        let files = list(&among.join(self.name)).into_iter().chain(shared).chain([tests.join("servers/asked.py")]);
        files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), read(&path))).collect()
    }

    /// A pod with the host's programs and those files.
    fn pod(&self, command: &[&str], environment: &Value) -> Value {
        let host = [
            ("usr", "/usr", "/usr"),
            ("lib", "/usr/lib", "/lib"),
            ("lib64", "/usr/lib64", "/lib64"),
            ("alternatives", "/etc/alternatives", "/etc/alternatives"),
        ];
        let more: Vec<(String, &str)> =
            self.mounts.iter().enumerate().map(|(index, path)| (format!("more-{index}"), path.as_str())).collect();
        let host = host.into_iter().chain(more.iter().map(|(name, path)| (name.as_str(), *path, *path)));
        let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
        for (name, from, to) in host {
            volumes.push(json!({"name": name, "hostPath": {"path": from}}));
            mounts.push(json!({"name": name, "mountPath": to, "readOnly": true}));
        }
        volumes.extend([
            json!({"name": "config", "configMap": {"name": self.name}}),
            json!({"name": "data", "emptyDir": {}}),
        ]);
        mounts
            .extend([json!({"name": "config", "mountPath": "/config"}), json!({"name": "data", "mountPath": "/data"})]);
        let mut env = vec![
            json!({"name": "PATH", "value": "/usr/sbin:/usr/bin:/sbin:/bin"}),
            json!({"name": "MORE", "value": self.mounts.first()}),
            json!({"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
        ];
        env.extend(environment.as_array().unwrap().iter().cloned());
        json!({
            "enableServiceLinks": false,
            "securityContext": {"runAsUser": self.user, "runAsGroup": self.user, "fsGroup": self.user},
            "volumes": volumes,
            "containers": [{"name": "web", "image": "localhost/sniff-test/busybox:1", "imagePullPolicy": "IfNotPresent",
                "command": command, "env": env, "volumeMounts": mounts}],
        })
    }

    /// On a machine that does much else the kernel may drop packets before the agent gets to run, which the plugin tells.
    /// What it shows of all packets is the matter here, so such a run is repeated.
    async fn check(&self) {
        for attempt in 1..=ATTEMPTS {
            if let Some(lost) = self.sniffs(attempt).await {
                eprintln!("attempt {attempt}: {lost}");
            } else {
                return;
            }
        }
        panic!("packets were lost in each of {ATTEMPTS} attempts");
    }

    /// The server and its client, which waits for the word.
    pub async fn deploy(&self, place: &Place) {
        place
            .apply(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": self.files()}),
            )
            .await;
        place.pod("server", &self.pod(&["sh", "/config/start.sh"], &json!([]))).await;
        let address = place.pods().get("server").await.unwrap().status.unwrap().pod_ip.unwrap();
        let environment =
            json!([{"name": "SERVER", "value": address}, {"name": "PORT", "value": self.port.to_string()}]);
        place.pod("client", &self.pod(&["python3", "-B", "/config/client.py"], &environment)).await;
        told(place, "/tmp/ready").await;
    }

    /// Sniffs both pods while the client asks; what the plugin says if it has missed something.
    async fn sniffs(&self, attempt: usize) -> Option<String> {
        let place = Place::new(&format!("{}-{attempt}", self.name), json!({})).await;
        let _logs = Logs(&place);
        self.deploy(&place).await;

        // The capture stays for whoever has to find out why this fails.
        let capture = self.capture();
        let live = Sniff::at_place(&place, &["client|server", "--pcap", &capture]);
        live.says("+ ", 2);
        let expected = asked(&place).await;
        shows(&live, is_asked, expected.len()).await;
        let done = live.interrupt();
        self.compare(done, is_asked, &expected)
    }

    /// Sees whether the rows of that kind are those expected; what the plugin says if it has missed something.
    pub fn compare(&self, done: Done, kind: impl Fn(&Value) -> bool, expected: &[String]) -> Option<String> {
        assert_eq!(done.code(), Some(0), "{}", done.stderr);
        if !done.stderr.contains("0 dropped by kernel · 0 flushed · 0 gaps") {
            return Some(done.stderr);
        }
        let entries = done.entries();
        let entries: Vec<&Value> = entries.iter().filter(|entry| kind(entry)).collect();
        compare(expected, &entries.iter().map(|entry| row(entry)).collect::<Vec<_>>());
        let warnings = entries.iter().flat_map(|entry| entry["warnings"].as_array().unwrap());
        assert_eq!(warnings.filter(|warning| *warning != self.warns).collect::<Vec<_>>(), [&Value::Null; 0]);
        None
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Gives the client the word; the rows of what it asked.
pub async fn asked(place: &Place) -> Vec<String> {
    place.exec("client", "web", &["sh", "-c", ": >/tmp/go"]).await;
    let client: Value = serde_json::from_str(&told(place, "/tmp/done").await).unwrap();
    assert!(client["error"].is_null(), "{}", client["error"].as_str().unwrap_or_default());
    client["rows"].as_array().unwrap().iter().map(Value::to_string).collect()
}

/// Waits until it has shown so many rows of that kind, but not for ever, and a little longer.
pub async fn shows(live: &Sniff, kind: impl Fn(&Value) -> bool, rows: usize) {
    let since = Instant::now();
    while live.entries().iter().filter(|entry| kind(entry)).count() < rows && since.elapsed() < LATENESS {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(SETTLE).await;
}

/// Prints what both programs said when the test fails.
pub struct Logs<'a>(pub &'a Place);

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for pod in ["server", "client"] {
                    let options = LogParams { tail_lines: Some(15), ..LogParams::default() };
                    let log = self.0.pods().logs(pod, &options).await.unwrap_or_else(|error| error.to_string());
                    eprintln!("--- {pod}\n{log}");
                }
            });
        });
    }
}

/// What the client says in that file, once it does.
async fn told(place: &Place, file: &str) -> String {
    soon_within(PATIENCE, file, || async {
        let text = place.exec("client", "web", &["cat", file]).await;
        (!text.is_empty()).then_some(text)
    })
    .await
}

/// What a server says to itself (Kafka to its controller) is no matter of the client's; neighbour discovery is the
/// kernel's own and comes when it likes.
fn is_asked(entry: &Value) -> bool {
    entry["protocol"] != "icmp" && !entry["dst"]["ip"].as_str().unwrap().starts_with("127.")
}

/// An entry as the client tells of it.
fn row(entry: &Value) -> String {
    let fields = ["protocol", "operation", "target", "status"].map(|name| entry[name].clone());
    let mut row = fields.to_vec();
    row.push(entry["src"]["name"].clone());
    Value::Array(row).to_string()
}

/// Both have the same rows, each as often.
fn compare(expected: &[String], found: &[String]) {
    let mut difference = BTreeMap::<&str, i64>::new();
    for row in expected {
        *difference.entry(row).or_default() += 1;
    }
    for row in found {
        *difference.entry(row).or_default() -= 1;
    }
    let lines: Vec<String> = difference
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|(row, count)| {
            format!("{} {} × {row}", if *count > 0 { "missing" } else { "unexpected" }, count.unsigned_abs())
        })
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

macro_rules! servers {
    ($($name:ident: $server:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            $server.check().await;
        }
    )*};
}

servers! {
    redis: Server::new("redis", 6379);
    postgresql: Server { user: 70, ..Server::new("postgresql", 5432) };
    mariadb: Server::new("mariadb", 3306);
    rabbitmq: Server::new("rabbitmq", 5672);
    nginx: Server { warns: "answered before its body was complete", ..Server::new("nginx", 8080) };
    graphql: Server::new("graphql", 8080);
    mosquitto: Server::new("mosquitto", 1883);
    nats: Server { warns: "no NATS after this: a verb that NATS does not have", ..Server::new("nats", 4222) };
    memcached: Server::new("memcached", 11211);
    unbound: Server {
        warns: "truncated: the whole answer is to be asked for over TCP",
        ..Server::new("unbound", 5353)
    };
    kafka: Server {
        mounts: vec![jars("tests/servers/kafka").display().to_string(), "/etc/java-17-openjdk".into()],
        ..Server::new("kafka", 9092)
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc() {
    let server = Server { warns: "reset by the client: CANCEL", ..Server::new("grpc", 50051) };
    server.check().await;
    let definitions = format!("{}/tests/servers/grpc/shop.proto", env!("CARGO_MANIFEST_DIR"));
    let done = run(&["--pcap", &server.capture(), "--proto", &definitions, "-o", "yaml"]);
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    let lines: Vec<&str> = done.stdout.lines().map(str::trim).collect();
    let count = |line: &str| lines.iter().filter(|found| found.trim_start_matches("- ") == line).count();
    for (line, times) in [
        ("message_type: shop.v1.Query", 2),
        ("message_type: shop.v1.Item", 2),
        ("name: tea", 2),
        ("name: cup", 2),
        ("priceCents: \"250\"", 1),
        ("priceCents: \"9007199254740993\"", 1),
        ("colour: COLOUR_RED", 2),
        ("north: 3", 2),
    ] {
        assert_eq!(count(line), times, "{line}");
    }
    assert!(done.stdout.contains("2026-01-02T03:04:05.250Z"));
    assert!(done.stdout.contains("not in the descriptors"), "the other service's calls say why they have numbers");
}
