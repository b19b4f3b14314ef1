//! A small service mesh on a real cluster: program → sidecar → mutual TLS → sidecar → program.

use serde_json::{Value, json};

use crate::support::cluster::{Place, soon};
use crate::support::from_node;
use crate::support::sniff::{Done, Sniff, run};

/// Passes on what comes, encrypted on one side with a certificate that both sidecars have.
const SIDECAR: &str = "import asyncio, ssl, sys
listens, port, host, to = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if listens == 'tls' else ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False; context.verify_mode = ssl.CERT_REQUIRED
context.load_verify_locations('/tmp/pem'); context.load_cert_chain('/tmp/pem')
if listens != 'tls': context.keylog_filename = '/tmp/keys'
async def copy(reader, writer):
    while data := await reader.read(65536): writer.write(data); await writer.drain()
    writer.close()
async def serve(reader, writer):
    there = await asyncio.open_connection(host, to, ssl=None if listens == 'tls' else context)
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)
async def main():
    address = '0.0.0.0' if listens == 'tls' else '127.0.0.1'
    server = await asyncio.start_server(serve, address, port, ssl=context if listens == 'tls' else None)
    open('/tmp/ready', 'w').close(); await server.serve_forever()
asyncio.run(main())";

/// How often the one program asks the other.
const REQUESTS: usize = 20;

fn certificate() -> String {
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout - -days 2 -subj /CN=mesh 2>/dev/null";
    let output = std::process::Command::new("sh").args(["-c", make]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A pod of a web server, and of a sidecar with these arguments in a container of its own.
async fn pod(place: &Place, name: &str, pem: &str, arguments: &str) {
    let serve = "mkdir /tmp/w; echo hello >/tmp/w/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp/w";
    let sidecar = format!("echo \"$PEM\" >/tmp/pem; exec python3 -c \"$SIDECAR\" {arguments}");
    let env = json!([{"name": "PEM", "value": pem}, {"name": "SIDECAR", "value": SIDECAR}]);
    let mut spec = from_node::spec(serve, &json!([]));
    let mut sidecar = from_node::spec(&sidecar, &env)["containers"][0].take();
    sidecar["name"] = json!("sidecar");
    spec["containers"].as_array_mut().unwrap().push(sidecar);
    place.pod(name, &spec).await;
    let ready = "until test -e /tmp/ready; do sleep 0.1; done; echo ready";
    assert_eq!(place.exec(name, "sidecar", &["sh", "-c", ready]).await.trim(), "ready");
}

/// Two pods whose programs speak through their sidecars.
async fn mesh(name: &str) -> Place {
    let place = Place::new(name, json!({})).await;
    let pem = certificate();
    pod(&place, "server", &pem, "tls 15443 127.0.0.1 8080").await;
    let server = place.pods().get("server").await.unwrap().status.unwrap().pod_ip.unwrap();
    pod(&place, "client", &pem, &format!("plain 15001 {server} 15443")).await;
    place
}

/// Sniffs both pods while the one asks the other, and once itself.
async fn sniffed(place: &Place, arguments: &[&str]) -> Done {
    let live = Sniff::at_place(place, &[&[".", "-c", "sidecar"], arguments].concat());
    live.says("+ ", 2);
    // Probes may not be in place yet.
    soon("a decrypted row", || async {
        place
            .exec("client", "web", &["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:15001/index.html?early"])
            .await;
        live.entries().iter().any(|it| !it["decrypted"].is_null()).then_some(())
    })
    .await;
    let ask = format!(
        "for n in $(seq {REQUESTS}); do wget -q -O /dev/null \"http://127.0.0.1:15001/index.html?n=$n\"; sleep 0.1; done; echo done"
    );
    assert_eq!(place.exec("client", "web", &["sh", "-c", &ask]).await.trim(), "done");
    let alone = "wget -q -O /dev/null http://127.0.0.1:8080/index.html?alone; echo done";
    assert_eq!(place.exec("server", "web", &["sh", "-c", alone]).await.trim(), "done");
    live.prints("?alone", 1);
    soon("decrypted rows of all requests", || async {
        let entries = live.entries();
        let decrypted = entries.iter().filter(|it| !it["decrypted"].is_null() && is_numbered(it));
        (decrypted.count() >= REQUESTS).then_some(())
    })
    .await;
    live.interrupt()
}

/// Each request has one row, of the leg between the sidecars, with the others as its hops, at least so many; what passed none has
/// its own.
fn check(done: &Done, decrypted: &str, least: usize) {
    let hops = [(15001, &json!("client")), (8080, &json!("server"))];
    let entries = done.entries();
    let rows = |target: &str| -> Vec<&Value> { entries.iter().filter(|entry| entry["target"] == target).collect() };
    for n in 1..=REQUESTS {
        let rows = rows(&format!("/index.html?n={n}"));
        let [row] = rows[..] else { panic!("{rows:#?}") };
        assert_eq!((&row["src"]["name"], &row["dst"]["name"]), (&json!("client"), &json!("server")), "{row:#}");
        assert_eq!((port(&row["dst"]), &row["decrypted"]), (15443, &json!(decrypted)));
        let found: Vec<_> =
            row["hops"].as_array().unwrap().iter().map(|hop| (port(&hop["dst"]), &hop["dst"]["name"])).collect();
        assert!(found == hops || least == 1 && found.len() == 1 && hops.contains(&found[0]), "{row:#}");
    }
    let alone = rows("/index.html?alone");
    assert_eq!((alone.len(), &alone[0]["hops"]), (1, &Value::Null));
    assert!(done.stderr.contains(" hops to sidecars"), "{}", done.stderr);
}

/// One of the requests that are counted.
fn is_numbered(entry: &Value) -> bool {
    entry["target"].as_str().is_some_and(|target| target.contains("?n="))
}

fn port(end: &Value) -> u64 {
    end["port"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_passes_sidecars_is_one_row() {
    let place = mesh("mesh").await;
    // A view that comes later than its twin adds nothing to a row that is out already.
    check(&sniffed(&place, &["--tls"]).await, "uprobe:openssl", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_one_row_as_well_if_the_keys_come_later() {
    let place = mesh("mesh-late").await;
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("mesh.pcap");
    let capture = capture.to_str().unwrap();
    check(&sniffed(&place, &["--keylog", "pod:/tmp/keys", "--pcap", capture]).await, "keylog", 1);
    // From the file, where keys are before packets, it is the same.
    check(&run(&["--pcap", capture, "-o", "json"]), "keylog", 2);
}
