//! TLS keys by uprobes, with real programs: on loopback, in a PID namespace of their own, as a pod's processes are in.
//!
//! The kernel must have uprobes and BPF, and let root use them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::support::dissect_file;
use crate::support::jars::jars;

use super::support::{Agent, Block, Killed, Net, binary_with_probes, exit_code, said, sh, until};

/// A server of HTTPS that answers each request with its path, and starts a thread for each connection. It may want one group for the
/// key exchange, which clients do not offer first.
const SERVER: &str = "import http.server, ssl, sys\n\
    class Handler(http.server.BaseHTTPRequestHandler):\n\
    \x20   protocol_version = 'HTTP/1.1'\n\
    \x20   def do_GET(self):\n\
    \x20       body = self.path.encode() * int(self.headers.get('X-Times', 1)); self.send_response(200)\n\
    \x20       self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
    \x20   def log_message(self, *_): pass\n\
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1])\n\
    sys.argv[3:] and context.set_ecdh_curve(sys.argv[3])\n\
    server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[2])), Handler)\n\
    server.socket.listen(512)\n\
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)\n\
    print('ready', flush=True); server.serve_forever()\n";

/// Opens many connections at once in one thread, whose handshakes take turns.
const MANY: &str = "import asyncio, ssl, sys\n\
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
    async def ask(n):\n\
    \x20   r, w = await asyncio.open_connection('127.0.0.1', 8443, ssl=context)\n\
    \x20   w.write(b'GET /many-%d HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' % n)\n\
    \x20   answer = await r.read(); w.close(); return answer.endswith(b'/many-%d' % n)\n\
    async def all(): return sum(await asyncio.gather(*(ask(n) for n in range(int(sys.argv[1])))))\n\
    print(asyncio.run(all()))\n";

/// A client with BoringSSL inside of a library: asks for what lines of its input say, the older version of TLS or many at once in one
/// thread.
const BORINGSSL: &str = "import asyncio, sys\n\
    from curl_cffi import Curl, CurlOpt\n\
    from curl_cffi.requests import AsyncSession\n\
    def one(url, older):\n\
    \x20   it = Curl(); it.setopt(CurlOpt.URL, url.encode()); it.setopt(CurlOpt.SSL_VERIFYPEER, 0)\n\
    \x20   it.setopt(CurlOpt.SSL_VERIFYHOST, 0); it.setopt(CurlOpt.WRITEFUNCTION, len)\n\
    \x20   older and it.setopt(CurlOpt.SSLVERSION, 6 << 16)\n\
    \x20   it.perform(); it.close()\n\
    async def many(url):\n\
    \x20   async with AsyncSession(verify=False, max_clients=40) as it:\n\
    \x20       await asyncio.gather(*(it.get(f'{url}-{n}') for n in range(40)))\n\
    print('ready', flush=True)\n\
    for line in sys.stdin:\n\
    \x20   what, url = line.split()\n\
    \x20   asyncio.run(many(url)) if what == 'many' else one(url, what == 'older')\n\
    \x20   print('done', flush=True)\n";

/// The same with a library of OpenSSL 1.1.
const OPENSSL_1: &str = "import pycurl, sys\n\
    def client(url, older=False):\n\
    \x20   it = pycurl.Curl(); it.setopt(it.URL, url); it.setopt(it.SSL_VERIFYPEER, 0); it.setopt(it.SSL_VERIFYHOST, 0)\n\
    \x20   it.setopt(it.WRITEFUNCTION, len); older and it.setopt(it.SSLVERSION, it.SSLVERSION_MAX_TLSv1_2)\n\
    \x20   return it\n\
    def many(url):\n\
    \x20   all = pycurl.CurlMulti(); clients = [client(f'{url}-{n}') for n in range(40)]\n\
    \x20   for it in clients: all.add_handle(it)\n\
    \x20   while all.perform()[1]: all.select(1)\n\
    assert 'OpenSSL/1.1' in pycurl.version\n\
    print('ready', flush=True)\n\
    for line in sys.stdin:\n\
    \x20   what, url = line.split()\n\
    \x20   many(url) if what == 'many' else client(url, what == 'older').perform()\n\
    \x20   print('done', flush=True)\n";

/// A connection that is open and says nothing.
const IDLE: &str = "import socket, time; it = socket.create_connection(('127.0.0.1', 8443)); print('ready', flush=True); time.sleep(600)";

/// Maps a file as code, after it has made it that large.
const MAPS: &str = "import mmap, os, sys, time; it = os.open(sys.argv[1], os.O_RDWR); os.truncate(it, int(sys.argv[2]))\n\
    here = mmap.mmap(it, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_EXEC); print('ready', flush=True); time.sleep(600)";

/// Bytes of symbols that an agent of a debug build looks at for about two seconds.
const SLOW: u64 = 16 << 20;

/// Bytes of an ELF header and two sections' headers.
const CLAIMED: u64 = 64 + 2 * 64;

/// The headers of a program with a section of no symbols, and that many bytes of names, all zero, behind it.
fn claims(size: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(CLAIMED as usize, 0);
    let mut put =
        |at: usize, value: u64, length: usize| file[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    // Where the sections are, the size of each, and how many.
    put(40, 64, 8);
    put(58, 64, 2);
    put(60, 2, 2);
    // The first has the symbols (type 2), whose names are in the second: offset and size.
    put(64 + 4, 2, 4);
    put(64 + 40, 1, 4);
    put(128 + 24, CLAIMED, 8);
    put(128 + 32, size, 8);
    file
}

/// A client, or a server, in Go.
const GO: &str = r#"package main
import ("crypto/tls"; "fmt"; "io"; "net/http"; "os"; "time")
func main() {
	if os.Args[1] == "serve" {
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
		panic(http.ListenAndServeTLS("127.0.0.1:8444", os.Args[2], os.Args[2], nil))
	}
	time.Sleep(2 * time.Second) // As programs that stay, it is there when it is looked for.
	config := &tls.Config{InsecureSkipVerify: true}
	if os.Args[1] == "1.2" { config.MaxVersion = tls.VersionTLS12 }
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	answer, err := client.Get(os.Args[2])
	if err != nil { panic(err) }
	fmt.Print(answer.StatusCode)
}
"#;

/// What is the first instruction of a function that is probed, as a process finds it that is started now.
const FIRST: &str = "import ctypes, sys\n\
    function = ctypes.CDLL(sys.argv[1]).EVP_DigestUpdate\n\
    print(ctypes.string_at(ctypes.cast(function, ctypes.c_void_p).value, 4).hex(), flush=True)\n\
    sys.argv[2:] and __import__('time').sleep(600)\n";

/// Processes that are on their own, as those of a pod are.
pub(super) struct Processes<'a> {
    net: &'a Net,
    /// The first of them, as it is known outside. All of them go with it.
    init: u32,
    _parent: Killed,
    pub(super) certificate: PathBuf,
}

impl<'a> Processes<'a> {
    pub(super) fn new(net: &'a Net) -> Self {
        let parent =
            net.in_pod("unshare").args(["--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "600"]).spawn();
        let parent = Killed(parent.expect("ip runs"));
        let id = parent.0.id();
        let mut init = None;
        until("the first process", || {
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            init = children.split_whitespace().next().and_then(|child| child.parse().ok());
            init.is_some_and(|init: u32| {
                std::fs::read(format!("/proc/{init}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
            })
        });
        let certificate = net.folder.path().join("both.pem");
        let path = certificate.display();
        sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {path}.key -out {path}.crt -days 2 \
             -subj /CN=localhost 2>/dev/null && cat {path}.key {path}.crt >{path}"
        ));
        Self { net, init: init.expect("it is there"), _parent: parent, certificate }
    }

    /// A command among them.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-p", "-m", "-n", "-t", &self.init.to_string()]).arg(program).env("GODEBUG", "http2client=0");
        command
    }

    /// What a command among them prints.
    pub(super) fn run(&self, line: &[&str]) -> String {
        let output = self.command(line[0]).args(&line[1..]).output().expect("nsenter runs");
        assert!(output.status.success(), "{line:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts an agent among them, and waits until it has probes in so many files.
    pub(super) fn agent(&self, files: u64) -> Agent<'a> {
        let mut run = self.command(binary_with_probes());
        run.args(["run", "--tls", "--ring", "16Mi", "--pod", "shop/web-1"]).arg("--socket").arg(self.net.socket());
        let agent = self.net.start(run);
        until("probes", || agent.told()["tls"]["files"].as_u64() >= Some(files));
        agent
    }

    pub(super) fn server(&self, mut command: Command, port: u16) -> Killed {
        let path = self.certificate.to_str().expect("text");
        command.args(["-c", SERVER, path, &port.to_string()]);
        ready(command)
    }

    /// Starts a client that has its library from a Python package, and waits for the probes in it; has it ask for each.
    fn ask(&self, agent: &Agent<'_>, packages: &Path, source: &str, wanted: &[(&str, &str)]) {
        let before = agent.told()["tls"]["files"].as_u64();
        let mut client = self.command("python3");
        client.args(["-c", source]).env("PYTHONPATH", packages).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Killed(client.spawn().expect("nsenter runs"));
        let mut said = BufReader::new(client.0.stdout.take().expect("a pipe")).lines();
        let mut says = |word: &str| assert_eq!(said.next().and_then(Result::ok).as_deref(), Some(word));
        says("ready");
        until("probes", || agent.told()["tls"]["files"].as_u64() > before);
        let mut input = client.0.stdin.take().expect("a pipe");
        for (what, url) in wanted {
            writeln!(input, "{what} {url}").expect("it reads");
            says("done");
        }
    }
}

/// Python packages that bring TLS libraries of their own: BoringSSL, with its symbols, and OpenSSL 1.1.
pub(super) fn python() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/agent-test/python");
        if !folder.join("done").exists() {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--upgrade", "--target"])
                .arg(&folder);
            let output = pip.args(["curl_cffi==0.17.0", "pycurl==7.45.3"]).output().expect("pip runs");
            assert!(output.status.success(), "{}", said(&output));
            std::fs::write(folder.join("done"), "").expect("a file");
        }
        folder
    })
}

/// Starts a server, and waits until it listens.
pub(super) fn ready(mut command: Command) -> Killed {
    let mut child: Child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut word = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut word).expect("it is ready");
    Killed(child)
}

/// Paths that were asked for over TLS.
fn asked(path: &Path) -> Vec<String> {
    let (rows, _) = dissect_file(path);
    let decrypted = rows.into_iter().filter(|row| row.decrypted.is_some() && row.protocol == "http");
    let mut paths: Vec<_> = decrypted.map(|row| row.target).collect();
    paths.sort();
    paths
}

/// The same according to Wireshark.
fn asked_as_wireshark_sees_it(path: &Path) -> Vec<String> {
    let output = Command::new("tshark")
        .arg("-2")
        .arg("-r")
        .arg(path)
        .args(["-Y", "http.request && tls", "-T", "fields", "-e", "http.request.uri"])
        .output()
        .expect("tshark runs");
    let mut paths: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    paths.sort();
    paths
}

/// All lines of the key log in a stream.
fn lines(blocks: &[Block]) -> Vec<&str> {
    let secrets = blocks.iter().filter_map(|block| if let Block::Secrets(text) = block { Some(text) } else { None });
    secrets.flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')).collect()
}

/// Go programs: with symbols, without, and without symbols but position-independent.
fn go() -> &'static [PathBuf; 3] {
    static PROGRAMS: OnceLock<[PathBuf; 3]> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let flags: [(&str, &[&str]); 3] =
            [("plain", &[]), ("stripped", &["-ldflags=-s -w"]), ("pie", &["-ldflags=-s -w", "-buildmode=pie"])];
        build_go("client", GO, flags)
    })
}

/// Builds a program of Go's under each of these names, with these flags.
pub(super) fn build_go<const N: usize>(name: &str, program: &str, flags: [(&str, &[&str]); N]) -> [PathBuf; N] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/agent-test/go");
    std::fs::create_dir_all(&folder).expect("a folder");
    let source = folder.join(format!("{name}.go"));
    std::fs::write(&source, program).expect("its source");
    flags.map(|(name, flags)| {
        let path = folder.join(name);
        let mut build = Command::new("go");
        build.arg("build").args(flags).arg("-o").arg(&path).arg(&source);
        assert!(build.status().expect("go runs").success());
        path
    })
}

#[test]
fn what_programs_say_over_tls_can_be_read() {
    let programs = go();
    let net = Net::new();
    let pod = Processes::new(&net);
    let _server = pod.server(pod.command("python3"), 8443);
    let mut go_server = pod.command(&programs[1]);
    let _go_server =
        Killed(go_server.arg("serve").arg(&pod.certificate).stdout(Stdio::null()).spawn().expect("it runs"));
    let mut agent = pod.agent(2);
    let stream = agent.stream(&[]);
    let curl = |more: &[&str]| pod.run(&[&["curl", "-sk", "--http1.1"], more].concat());
    assert_eq!(curl(&["https://127.0.0.1:8443/curl-1.3"]), "/curl-1.3");
    assert_eq!(curl(&["--tls-max", "1.2", "https://127.0.0.1:8443/curl-1.2"]), "/curl-1.2");
    let retried = ["--curves", "P-521:X25519", "https://127.0.0.1:8443/curl-other-group"];
    assert_eq!(curl(&retried), "/curl-other-group");
    assert_eq!(curl(&["https://127.0.0.1:8444/go-server"]), "/go-server");
    assert_eq!(curl(&["--tls-max", "1.2", "https://127.0.0.1:8444/go-server-1.2"]), "/go-server-1.2");
    let node = "setTimeout(() => require('https').get({host: '127.0.0.1', port: 8443, path: '/node', \
                rejectUnauthorized: false}, r => { console.log(r.statusCode); r.resume(); }), 2000)";
    assert_eq!(pod.run(&["node", "-e", node]), "200");
    for (program, name) in programs.iter().zip(["plain", "stripped", "pie"]) {
        let program = program.to_str().expect("text");
        for version in ["1.2", "1.3"] {
            let url = format!("https://127.0.0.1:8443/go-{name}-{version}");
            assert_eq!(pod.run(&[program, version, &url]), "200");
        }
    }
    // What is captured last is in the buffer when the agent is told to stop.
    assert_eq!(agent.told()["tls"]["lost"], 0);
    assert_eq!(agent.told()["tls"]["unmatched"], 0);
    agent.stop();
    let path = stream.path.clone();
    stream.end();
    let mut wanted: Vec<String> = ["curl-1.3", "curl-1.2", "curl-other-group", "go-server", "go-server-1.2", "node"]
        .map(|it| format!("/{it}"))
        .to_vec();
    for name in ["plain", "stripped", "pie"] {
        wanted.extend(["1.2", "1.3"].map(|version| format!("/go-{name}-{version}")));
    }
    wanted.sort();
    assert_eq!(asked(&path), wanted);
    // Nothing of a secret is in the agent's log, which the node keeps.
    let mut log = String::new();
    std::io::Read::read_to_string(agent.child.stderr.as_mut().expect("a pipe"), &mut log).expect("text");
    assert!(log.contains("tls: probes in libcrypto.so"), "{log}");
    assert!(!log.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() >= 32), "{log}");
}

#[test]
fn rows_say_which_library_has_given_the_keys() {
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    // What servers derive is not seen here.
    let _server = others.server(others.command("python3"), 8443);
    let mut picky = others.command("python3");
    picky.args(["-c", SERVER, others.certificate.to_str().expect("text"), "8445", "secp384r1"]);
    let _picky = ready(picky);
    // As long as there is a connection from before, plaintext is copied as well: of it, and of no other.
    let mut idle = pod.command("python3");
    idle.args(["-c", IDLE]);
    let _idle = ready(idle);
    let mut agent = pod.agent(1);
    let stream = agent.stream(&[]);
    let wget = |more: &[&str]| pod.run(&[&["wget", "-qO-", "--no-check-certificate"], more].concat());
    assert_eq!(wget(&["https://127.0.0.1:8443/gnutls"]), "/gnutls");
    assert_eq!(wget(&["--secure-protocol=TLSv1_2", "https://127.0.0.1:8443/gnutls-older"]), "/gnutls-older");
    assert_eq!(wget(&["https://127.0.0.1:8445/gnutls-picky"]), "/gnutls-picky");
    let mut serve = pod.command("gnutls-serv");
    serve.args(["--http", "--quiet", "--port", "8446", "--x509keyfile"]).arg(&pod.certificate).arg("--x509certfile");
    serve.arg(&pod.certificate).stdout(Stdio::null()).stderr(Stdio::null());
    let _serve = Killed(serve.spawn().expect("nsenter runs"));
    for (older, name) in [("1.3", "server"), ("1.2", "server-older")] {
        let mut curl = others.command("curl");
        curl.args(["-sk", "--retry-connrefused", "--retry", "60", "--retry-delay", "1", "--tls-max", older]);
        let output = curl.arg(format!("https://127.0.0.1:8446/gnutls-{name}")).output().expect("curl runs");
        assert!(output.status.success(), "{}", said(&output));
    }
    let wanted = |library: &str| {
        [("one", 8443, ""), ("older", 8443, "-older"), ("one", 8445, "-picky"), ("many", 8445, "-many")]
            .map(|(what, port, name)| (what, format!("https://127.0.0.1:{port}/{library}{name}")))
    };
    for (library, source) in [("boringssl", BORINGSSL), ("openssl", OPENSSL_1)] {
        let wanted = wanted(library);
        pod.ask(&agent, python(), source, &wanted.each_ref().map(|(what, url)| (*what, url.as_str())));
    }
    // A library that is removed once it is loaded, as Java's are.
    let copy = net.folder.path().join("python");
    sh(&format!("cp -r {} {}", python().display(), copy.display()));
    let removed = format!("import os; from curl_cffi import _wrapper; os.remove(_wrapper.__file__)\n{BORINGSSL}");
    pod.ask(&agent, &copy, &removed, &[("one", "https://127.0.0.1:8443/boringssl-removed")]);
    assert_eq!(agent.told()["tls"]["lost"], 0);
    assert_eq!(agent.told()["tls"]["unmatched"], 0);
    agent.stop();
    let path = stream.path.clone();
    stream.end();
    let mut wanted: Vec<_> = ["gnutls", "boringssl", "openssl"]
        .iter()
        .flat_map(|library| ["", "-older", "-picky"].map(|name| format!("uprobe:{library} /{library}{name}")))
        .collect();
    wanted.extend(["", "-older"].map(|name| format!("uprobe:gnutls /gnutls-server{name}")));
    wanted.push("uprobe:boringssl /boringssl-removed".into());
    for library in ["boringssl", "openssl"] {
        wanted.extend((0..40).map(|n| format!("uprobe:{library} /{library}-many-{n}")));
    }
    wanted.sort();
    let (rows, _) = dissect_file(&path);
    let rows = rows.iter().filter(|row| row.protocol == "http");
    let mut found: Vec<_> = rows.filter_map(|row| Some(format!("{} {}", row.decrypted?, row.target))).collect();
    found.sort();
    assert_eq!(found, wanted);
}

/// Java programs on netty have BoringSSL in a library that is unpacked, loaded and removed.
#[test]
fn a_server_on_netty_gives_its_keys() {
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    let mut agent = pod.agent(1);
    let mut java = pod.command("java");
    java.arg("-cp").arg(jars("tests/agent/netty").join("*"));
    java.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/netty/Server.java")).arg("8447");
    java.args(["crt", "key"].map(|part| format!("{}.{part}", pod.certificate.display())));
    // More than the libraries that are there anyway.
    let before = agent.told()["tls"]["files"].as_u64();
    let _java = ready(java);
    until("probes", || agent.told()["tls"]["files"].as_u64() > before);
    let stream = agent.stream(&[]);
    for version in ["1.2", "1.3"] {
        let mut curl = others.command("curl");
        curl.args(["-sk", "--http1.1", "--tls-max", version]);
        let output = curl.arg(format!("https://127.0.0.1:8447/netty-{version}")).output().expect("curl runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("/netty-{version}"), "{}", said(&output));
    }
    assert_eq!(agent.told()["tls"]["unmatched"], 0);
    agent.stop();
    let path = stream.path.clone();
    stream.end();
    assert_eq!(asked(&path), ["/netty-1.2", "/netty-1.3"]);
}

#[test]
fn handshakes_that_take_turns_are_not_mixed_up() {
    let net = Net::new();
    let pod = Processes::new(&net);
    let _server = pod.server(pod.command("python3"), 8443);
    let mut agent = pod.agent(1);
    let stream = agent.stream(&[]);
    assert_eq!(pod.run(&["python3", "-c", MANY, "100"]), "100");
    assert_eq!(agent.told()["tls"]["lost"], 0);
    assert_eq!(agent.told()["tls"]["unmatched"], 0);
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();
    assert_eq!(lines(&blocks).len(), 4 * 100);
    let mut wanted: Vec<_> = (0..100).map(|n| format!("/many-{n}")).collect();
    wanted.sort();
    assert_eq!(asked(&path), wanted);
}

#[test]
fn of_other_pods_not_a_byte_is_read() {
    let net = Net::new();
    let (ours, others) = (Processes::new(&net), Processes::new(&net));
    // Both use the same file of the library, and so do processes of the node. Their packets are seen, as the network is one.
    let _others_server = others.server(others.command("python3"), 8443);
    let mut agent = ours.agent(1);
    let stream = agent.stream(&[]);
    let line = ["-sk", "--http1.1", "https://127.0.0.1:8443/"];
    let curl = |mut command: Command, name: &str| {
        let output = command.args(&line[..2]).arg(format!("{}{name}", line[2])).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("/{name}"));
    };
    curl(others.command("curl"), "theirs");
    curl(net.in_pod("curl"), "the-nodes");
    assert_eq!(agent.told()["tls"]["keys"], 0);
    curl(ours.command("curl"), "ours");
    curl(others.command("curl"), "theirs");
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();
    assert_eq!(lines(&blocks).len(), 4);
    assert_eq!(asked(&path), ["/ours"]);
    assert_eq!(asked_as_wireshark_sees_it(&path), ["/ours"]);
}

#[test]
fn probes_are_gone_with_the_agent_however_it_ends() {
    let net = Net::new();
    let pod = Processes::new(&net);
    // Agents of other tests have probes in the library that all use.
    let library = net.folder.path().join("libcrypto.so.3");
    sh(&format!("cp $(ldconfig -p | sed -n 's/.*libcrypto.so.3 .*=> //p' | head -n 1) {}", library.display()));
    let library = library.to_str().expect("text");
    let first = || pod.run(&["python3", "-c", FIRST, library]);
    let untouched = first();
    let mut user = pod.command("python3");
    let _user = Killed(user.args(["-c", FIRST, library, "stay"]).stdout(Stdio::null()).spawn().expect("it runs"));
    let mut agent = pod.agent(1);
    until("probes", || first() != untouched);
    agent.stop();
    assert_eq!(first(), untouched);
    let mut agent = pod.agent(1);
    until("probes", || first() != untouched);
    sh(&format!("kill -9 $(cat /proc/{id}/task/{id}/children)", id = agent.child.id()));
    assert_ne!(exit_code(&mut agent.child), Some(0));
    until("the probes are gone", || first() == untouched);
}

#[test]
fn a_session_that_comes_later_gets_the_keys_as_well() {
    let net = Net::new();
    let pod = Processes::new(&net);
    let _server = pod.server(pod.command("python3"), 8443);
    let mut agent = pod.agent(1);
    pod.run(&["curl", "-sk", "--http1.1", "https://127.0.0.1:8443/before"]);
    until("the keys are there", || agent.told()["tls"]["keys"] == 4);
    let stream = agent.stream(&["--since", "60"]);
    agent.stop();
    let path = stream.path.clone();
    stream.end();
    assert_eq!(asked(&path), ["/before"]);
}

#[test]
fn a_session_begins_once_the_programs_that_are_there_have_their_probes() {
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    // What is looked at first takes seconds: a program that claims so many symbols.
    let large = net.folder.path().join("large");
    std::fs::write(&large, claims(SLOW)).expect("a file");
    let mut slow = pod.command("python3");
    slow.args(["-c", MAPS, large.to_str().expect("text"), &(SLOW + CLAIMED).to_string()]);
    let _slow = ready(slow);
    let folder = net.folder.path().join("own");
    sh(&format!(
        "mkdir {0} && cp $(ldconfig -p | sed -n 's/.*libcrypto.so.3 .*=> //p' | head -n 1) {0}/libcrypto.so.3",
        folder.display()
    ));
    let mut server = pod.command("python3");
    server.env("LD_LIBRARY_PATH", &folder);
    let _server = pod.server(server, 8443);
    let mut run = pod.command(binary_with_probes());
    run.args(["run", "--tls", "--ring", "16Mi", "--pod", "shop/web-1"]).arg("--socket").arg(net.socket());
    let mut agent = net.start(run);
    // It returns with the hello, at which the plugin says that the pod is sniffed.
    let stream = agent.stream(&[]);
    others.run(&["curl", "-sk", "--http1.1", "https://127.0.0.1:8443/at-once"]);
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();
    let mut rest = blocks.iter().skip_while(|block| !matches!(block, Block::Hello(_)));
    let told = rest.find_map(|block| if let Block::Probes(told) = block { Some(told) } else { None });
    assert_eq!(told.expect("the probes' account")["scanned"], true);
    assert_eq!(asked(&path), ["/at-once"]);
}

#[test]
fn what_a_container_has_in_place_of_libraries_does_not_hold_it_up() {
    let net = Net::new();
    let pod = Processes::new(&net);
    let _server = pod.server(pod.command("python3"), 8443);
    let folder = net.folder.path().join("root");
    sh(&format!("mkdir -p {0}/lib && cp $(command -v busybox) {0} && mkfifo {0}/lib/libssl.so.3", folder.display()));
    let mut of_a_pipe = pod.command("chroot");
    let _of_a_pipe = Killed(of_a_pipe.arg(&folder).args(["/busybox", "sleep", "600"]).spawn().expect("nsenter runs"));
    let large = net.folder.path().join("large");
    std::fs::write(&large, claims(1 << 33)).expect("a file");
    let mut huge = pod.command("python3");
    huge.args(["-c", MAPS, large.to_str().expect("text"), &((1_u64 << 33) + CLAIMED).to_string()]);
    let _huge = ready(huge);
    let mut agent = pod.agent(1);
    let stream = agent.stream(&[]);
    pod.run(&["curl", "-sk", "--http1.1", "https://127.0.0.1:8443/in-clear"]);
    let unknown = agent.told()["tls"]["unknown"].clone();
    agent.stop();
    let path = stream.path.clone();
    stream.end();
    assert_eq!(asked(&path), ["/in-clear"]);
    let told = unknown.to_string();
    assert!(told.contains("python3") && told.contains("(not looked for: too many symbols)"), "{told}");
}

#[test]
fn what_probes_lose_is_counted_and_told() {
    let net = Net::new();
    let pod = Processes::new(&net);
    let _server = pod.server(pod.command("python3"), 8443);
    let mut agent = pod.agent(1);
    let stream = agent.stream(&[]);
    // Nobody takes what the probes write, which is more than there is room for.
    let id = agent.child.id();
    sh(&format!("kill -STOP $(cat /proc/{id}/task/{id}/children)"));
    assert_eq!(pod.run(&["python3", "-c", MANY, "300"]), "300");
    // What has started it has stopped with it.
    sh(&format!("kill -CONT $(cat /proc/{id}/task/{id}/children) {id}"));
    until("the losses are counted", || agent.told()["tls"]["lost"].as_u64() > Some(0));
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();
    let told = blocks.iter().rev().find_map(|block| if let Block::Probes(told) = block { Some(told) } else { None });
    let lost = told.expect("the probes' account")["lost"].as_u64().expect("a number");
    let (_, counts) = dissect_file(&path);
    assert!(lost > 0 && counts.key_events_lost == lost, "{lost}, {counts:?}");
}

#[test]
fn programs_whose_tls_no_probe_understands_are_told_of() {
    let net = Net::new();
    let pod = Processes::new(&net);
    let _server = pod.server(pod.command("python3"), 8443);
    let mut agent = pod.agent(1);
    let stream = agent.stream(&[]);
    let knows = |agent: &Agent<'_>, program: &str| {
        agent.told()["tls"]["unknown"].as_array().expect("a list").iter().any(|known| known == program)
    };
    assert_eq!(agent.told()["tls"]["unknown"], serde_json::json!([]));
    // Java, as far as its keytool asks a server for its certificate.
    until("Java", || {
        let said = pod.run(&["keytool", "-printcert", "-sslserver", "127.0.0.1:8443"]);
        assert!(said.contains("CN=localhost"), "{said}");
        knows(&agent, "keytool (Java's own)")
    });
    // A static program without symbols, and a library that is neither OpenSSL's nor GnuTLS's.
    let mut busybox = pod.command("busybox");
    let _busybox = Killed(busybox.args(["sleep", "600"]).spawn().expect("nsenter runs"));
    until("BusyBox", || knows(&agent, "busybox (BusyBox's own)"));
    let mut nss = pod.command("python3");
    nss.args(["-c", "import ctypes, time; ctypes.CDLL('libssl3.so'); time.sleep(600)"]);
    let _nss = Killed(nss.spawn().expect("nsenter runs"));
    until("NSS", || knows(&agent, "python3.11 (NSS)") || knows(&agent, "python3 (NSS)"));
    // Programs whose libraries have probes are not among them.
    let all = agent.told()["tls"]["unknown"].clone();
    assert_eq!(all.as_array().expect("a list").len(), 3, "{all}");
    agent.stop();
    let blocks = stream.end();
    let told = blocks.iter().rev().find_map(|block| if let Block::Probes(told) = block { Some(told) } else { None });
    assert_eq!(told.expect("the probes' account")["unknown"], all);
}
