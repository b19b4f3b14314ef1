//! Connections that were open before the probes came, of real programs.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use kubectl_sniff::entry::Entry;

use super::support::{Agent, Block, Killed, Net, Stream, packets, until};
use super::tls::{Processes, python};
use crate::support::dissect_file;

/// Clients that stay connected, and ask for each line of their input. Python's own keeps to sockets, asyncio and Node hand what is
/// encrypted on by themselves.
const PYTHON: &str = "import http.client, ssl, sys\n\
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
    it = http.client.HTTPSConnection('127.0.0.1', int(sys.argv[1]), context=context)\n\
    for line in sys.stdin:\n\
    \x20   it.request('GET', line.strip()); answer = it.getresponse(); answer.read(); print(answer.status, flush=True)\n";
const ASYNCIO: &str = "import asyncio, ssl, sys\n\
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
    async def main():\n\
    \x20   loop = asyncio.get_running_loop()\n\
    \x20   r, w = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]), ssl=context)\n\
    \x20   while line := await loop.run_in_executor(None, sys.stdin.readline):\n\
    \x20       w.write(f'GET {line.strip()} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())\n\
    \x20       head = await r.readuntil(b'\\r\\n\\r\\n')\n\
    \x20       await r.readexactly(int(head.lower().split(b'content-length: ')[1].split(b'\\r')[0]))\n\
    \x20       print(head.split()[1].decode(), flush=True)\n\
    asyncio.run(main())\n";
const NODE: &str = "const https = require('https'), agent = new https.Agent({keepAlive: true, maxSockets: 1});\n\
    require('readline').createInterface({input: process.stdin}).on('line', path => https.get({host: '127.0.0.1', \
    port: process.argv[1], path, agent, rejectUnauthorized: false}, it => { it.resume(); it.on('end', () => \
    console.log(it.statusCode)); }));\n";
const BORINGSSL: &str = "import sys\n\
    from curl_cffi import Curl, CurlOpt, CurlInfo\n\
    it = Curl(); it.setopt(CurlOpt.SSL_VERIFYPEER, 0); it.setopt(CurlOpt.SSL_VERIFYHOST, 0)\n\
    for line in sys.stdin:\n\
    \x20   it.setopt(CurlOpt.WRITEFUNCTION, len); it.setopt(CurlOpt.URL, f'https://127.0.0.1:{sys.argv[1]}{line.strip()}'.encode()); it.perform()\n\
    \x20   print(it.getinfo(CurlInfo.RESPONSE_CODE), flush=True)\n";
const GNUTLS: &str = "import subprocess, sys\n\
    line = ['gnutls-cli', '--insecure', '--logfile', '/dev/null', '-p', sys.argv[1], '127.0.0.1']\n\
    it = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n\
    for line in sys.stdin:\n\
    \x20   it.stdin.write(f'GET {line.strip()} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode()); it.stdin.flush()\n\
    \x20   head = b''.join(iter(it.stdout.readline, b'\\r\\n'))\n\
    \x20   it.stdout.read(int(head.lower().split(b'content-length: ')[1].split(b'\\r')[0]))\n\
    \x20   print(head.split()[1].decode(), flush=True)\n";
const GO: &str = r#"package main
import ("bufio"; "crypto/tls"; "fmt"; "io"; "net/http"; "os")
func main() {
	if os.Args[1] == "serve" {
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
		panic(http.ListenAndServeTLS("127.0.0.1:8444", os.Args[2], os.Args[2], nil))
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxConnsPerHost: 1}}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer, err := client.Get("https://127.0.0.1:" + os.Args[1] + lines.Text())
		if err != nil { panic(err) }
		io.Copy(io.Discard, answer.Body); answer.Body.Close()
		fmt.Println(answer.StatusCode)
	}
}
"#;

/// Bodies of several records, on connections that take turns; all of them fit where the agent takes them from, however late.
const LARGE: &str = "import http.client, ssl, sys, threading\n\
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
    many = [http.client.HTTPSConnection('127.0.0.1', int(sys.argv[1]), context=context) for _ in range(8)]\n\
    def ask(n, path):\n\
    \x20   for i in range(20):\n\
    \x20       many[n].request('GET', f'{path}-{n}-{i}', headers={'X-Times': str(n * i * 20 + 1)})\n\
    \x20       answer = many[n].getresponse(); answer.read()\n\
    for it in many: it.request('GET', '/before'); it.getresponse().read()\n\
    for line in sys.stdin:\n\
    \x20   threads = [threading.Thread(target=ask, args=(n, line.strip())) for n in range(8)]\n\
    \x20   [it.start() for it in threads]; [it.join() for it in threads]; print(200, flush=True)\n";

/// A client that stays connected.
struct Client {
    _process: Killed,
    input: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn new(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter runs");
        let mut process = Killed(child);
        let input = process.0.stdin.take().expect("a pipe");
        let said = BufReader::new(process.0.stdout.take().expect("a pipe")).lines();
        Self { _process: process, input, said }
    }

    fn asks(&mut self, path: &str) {
        writeln!(self.input, "{path}").expect("it reads");
        assert_eq!(self.said.next().and_then(Result::ok).as_deref(), Some("200"), "{path}");
    }
}

/// The program of Go's, with symbols and without.
fn go() -> &'static [PathBuf; 2] {
    static PROGRAMS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    PROGRAMS.get_or_init(|| super::tls::build_go("keep", GO, [("kept", &[]), ("kept-stripped", &["-ldflags=-s -w"])]))
}

/// The rows of HTTP, decrypted, of a path that starts so: by which probe, of which path, and what came of it.
fn rows(entries: &[Entry], start: &str) -> Vec<String> {
    let rows = entries.iter().filter(|row| row.protocol == "http" && row.target.starts_with(start));
    let mut rows: Vec<_> = rows
        .map(|row| format!("{} {} {} {}", row.decrypted.unwrap_or("plain"), row.target, row.status, row.dst.port))
        .collect();
    rows.sort();
    rows
}

/// Ends the agent and reads what it has sent.
fn entries(mut agent: Agent<'_>, stream: Stream) -> (Vec<Entry>, Vec<Block>) {
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();
    (dissect_file(&path).0, blocks)
}

/// True if a packet holds that text.
fn holds(blocks: &[Block], text: &[u8]) -> bool {
    packets(blocks).iter().any(|packet| packet.data.windows(text.len()).any(|part| part == text))
}

#[test]
fn what_clients_go_on_to_say_can_be_read() {
    let programs = go();
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    let _server = others.server(others.command("python3"), 8443);
    let python3 = |source: &str| {
        let mut command = pod.command("python3");
        command.args(["-c", source, "8443"]).env("PYTHONPATH", python());
        command
    };
    let mut node = pod.command("node");
    node.args(["-e", NODE, "8443"]);
    let mut commands = vec![
        ("openssl", "python", python3(PYTHON)),
        ("openssl", "asyncio", python3(ASYNCIO)),
        ("openssl", "node", node),
        ("boringssl", "curl", python3(BORINGSSL)),
        ("gnutls", "gnutls-cli", python3(GNUTLS)),
    ];
    for program in programs {
        let mut command = pod.command(program);
        command.arg("8443");
        commands.push(("go", program.file_name().and_then(|name| name.to_str()).expect("text"), command));
    }
    let mut clients: Vec<_> =
        commands.into_iter().map(|(library, name, command)| (library, name, Client::new(command))).collect();
    for (_, name, client) in &mut clients {
        client.asks(&format!("/{name}-before"));
    }
    let agent = pod.agent(1);
    let stream = agent.stream(&[]);
    let mut wanted = Vec::new();
    for round in 1..=3 {
        for (library, name, client) in &mut clients {
            client.asks(&format!("/{name}-{round}"));
            wanted.push(format!("uprobe:{library} /{name}-{round} 200 8443"));
        }
    }
    // What is new is decrypted by its keys, and nothing else is made of it.
    assert_eq!(pod.run(&["curl", "-sk", "--http1.1", "https://127.0.0.1:8443/new"]), "/new");
    assert_eq!(
        pod.run(&[
            "python3",
            "-c",
            "import urllib.request, ssl, sys\nprint(urllib.request.urlopen(sys.argv[1], \
        context=ssl._create_unverified_context()).status)",
            "https://127.0.0.1:8443/new"
        ]),
        "200"
    );
    assert_eq!(agent.told()["tls"]["plaintext_lost"], 0);
    let (entries, blocks) = entries(agent, stream);
    assert!(holds(&blocks, b"/python-1") && !holds(&blocks, b"/new"));
    wanted.extend(vec!["uprobe:openssl /new 200 8443".to_owned(); 2]);
    wanted.sort();
    assert_eq!(rows(&entries, "/"), wanted);
    // Nobody calls them closed.
    assert!(entries.iter().all(|row| row.protocol == "http" || row.operation == "handshake"));
}

#[test]
fn what_servers_go_on_to_hear_can_be_read() {
    let programs = go();
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    let _server = pod.server(pod.command("python3"), 8443);
    let mut go_server = pod.command(&programs[1]);
    let _go_server =
        Killed(go_server.arg("serve").arg(&pod.certificate).stdout(Stdio::null()).spawn().expect("it runs"));
    let mut clients: Vec<_> = [8443, 8444]
        .into_iter()
        .map(|port| {
            let mut command = others.command("python3");
            command.args(["-c", PYTHON, &port.to_string()]);
            (port, Client::new(command))
        })
        .collect();
    for (_, client) in &mut clients {
        client.asks("/before");
    }
    let agent = pod.agent(1);
    let stream = agent.stream(&[]);
    let mut wanted = Vec::new();
    for round in 1..=3 {
        for (port, client) in &mut clients {
            client.asks(&format!("/heard-{round}"));
            wanted.push(format!("uprobe:{} /heard-{round} 200 {port}", if *port == 8443 { "openssl" } else { "go" }));
        }
    }
    // The threads were in the midst of reading when the probes came.
    wanted.sort();
    let mut heard = rows(&entries(agent, stream).0, "/heard");
    for list in [&mut wanted, &mut heard] {
        list.retain(|row| !row.contains("heard-1"));
    }
    assert_eq!(heard, wanted);
}

#[test]
fn connections_that_take_turns_are_not_mixed_up() {
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    let _server = others.server(others.command("python3"), 8443);
    let mut command = pod.command("python3");
    command.args(["-c", LARGE, "8443"]);
    let mut client = Client::new(command);
    let agent = pod.agent(1);
    let stream = agent.stream(&[]);
    client.asks("/large");
    assert_eq!(agent.told()["tls"]["plaintext_lost"], 0);
    let (entries, _) = entries(agent, stream);
    let rows: Vec<_> = entries.iter().filter(|row| row.target.starts_with("/large")).collect();
    assert_eq!(rows.len(), 8 * 20);
    for row in rows {
        let numbers: Vec<usize> = row.target.split('-').skip(1).map(|it| it.parse().expect("a number")).collect();
        let times = numbers[0] * numbers[1] * 20 + 1;
        let body = row.response.as_ref().and_then(|half| half.body);
        assert_eq!((row.status.as_ref(), body), ("200", Some((times * row.target.len()) as u64)), "{}", row.target);
    }
}

#[test]
fn of_other_pods_no_plaintext_is_read() {
    let net = Net::new();
    let (ours, others) = (Processes::new(&net), Processes::new(&net));
    let _server = others.server(others.command("python3"), 8443);
    let client = |of: &Processes<'_>| {
        let mut command = of.command("python3");
        command.args(["-c", PYTHON, "8443"]);
        let mut client = Client::new(command);
        client.asks("/before");
        client
    };
    let (mut our, mut their) = (client(&ours), client(&others));
    let agent = ours.agent(1);
    let stream = agent.stream(&[]);
    for path in ["/theirs-1", "/theirs-2"] {
        their.asks(path);
    }
    assert_eq!(agent.told()["tls"]["plaintext"], 0);
    our.asks("/ours");
    their.asks("/theirs-3");
    until("ours", || agent.told()["tls"]["plaintext"].as_u64() > Some(1));
    let (_, blocks) = entries(agent, stream);
    assert!(holds(&blocks, b"/ours") && !holds(&blocks, b"/theirs"));
}
