"""HTTPS: curl (TLS 1.3, 1.2, HTTP/2), wget (GnuTLS), Python (urllib, requests, resumed sessions), Node, early data (openssl s_client)."""
import json, socket, ssl, subprocess, urllib.error, urllib.request
import requests, urllib3
from asked import PORT, SERVER, equal, main, row

BASE = f"https://{SERVER}:{PORT}"
urllib3.disable_warnings()
trusting = ssl.create_default_context()
trusting.check_hostname = False
trusting.verify_mode = ssl.CERT_NONE


def tell(method, target, status=200):
    row("http", method, target, str(status))


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    equal((done.returncode, done.stderr), (0, ""))
    return done.stdout


def curl(name, *options):
    """Four requests on one connection."""
    wanted = [("GET", f"/?{name}", 200), ("GET", f"/none?{name}", 404), ("GET", f"/empty?{name}", 204), ("GET", f"/large.txt?{name}", 200)]
    urls = [word for _, target, _ in wanted for word in ("-o", "/dev/null", BASE + target)]
    said = run("curl", "-sSk", "-w", "%{http_code} %{num_connects}\n", *options, *urls)
    equal(said.split("\n")[:-1], [f"{status} {int(number == 0)}" for number, (_, _, status) in enumerate(wanted)])
    for request in wanted:
        tell(*request)


def curls():
    curl("curl-1.3", "--http1.1", "--tlsv1.3")
    curl("curl-1.2", "--http1.1", "--tls-max", "1.2")
    curl("curl-2", "--http2")
    curl("curl-group", "--http1.1", "--curves", "P-521")
    for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-SHA384"):
        curl(cipher, "--http1.1", "--tls-max", "1.2", "--ciphers", cipher)
    for cipher in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        curl(cipher, "--http1.1", "--tls13-ciphers", cipher)
    # Programs that come and go, many at a time.
    at_once = [subprocess.Popen(["curl", "-sSk", "-o", "/dev/null", f"{BASE}/?at-once={number}"]) for number in range(30)]
    for number, process in enumerate(at_once):
        equal(process.wait(), 0)
        tell("GET", f"/?at-once={number}")


def wget(name, *options):
    """Debian's is linked with GnuTLS."""
    targets = [f"/?{name}={number}" for number in range(4)]
    run("wget", "-q", "--no-check-certificate", "-O", "/dev/null", *options, *(BASE + target for target in targets))
    for target in targets:
        tell("GET", target)


def with_urllib():
    for number in range(20):
        with urllib.request.urlopen(f"{BASE}/?urllib={number}", context=trusting) as answer:
            equal(answer.status, 200)
        tell("GET", f"/?urllib={number}")
    try:
        urllib.request.urlopen(f"{BASE}/broken?urllib", context=trusting)
    except urllib.error.HTTPError as error:
        equal(error.code, 500)
    tell("GET", "/broken?urllib", 500)


def with_requests():
    with requests.Session() as session:
        session.verify = False

        def ask(method, target, status, **options):
            answer = session.request(method, BASE + target, allow_redirects=False, **options)
            equal(answer.status_code, status)
            tell(method, target, status)
            return answer

        for number in range(100):
            ask("GET", f"/?requests={number}", 200)
        equal(ask("POST", "/echo?requests", 200, data=b"y" * 300_000).text, "POST requests")
        ask("HEAD", "/large.txt?requests", 200)
        ask("GET", "/moved?requests", 301)
        ask("DELETE", "/echo?requests", 200)
    equal(requests.get(BASE + "/none?requests", verify=False).status_code, 404)
    tell("GET", "/none?requests", 404)


def resumed(version, name):
    """Connections that resume the session of the first one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    session = None
    for number in range(5):
        target = f"/resumed?{name}={number}"
        with context.wrap_socket(socket.create_connection((SERVER, PORT)), session=session) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            equal(answer.startswith(b"HTTP/1.1 200"), True)
            equal((connection.session_reused, answer[-1:]), (session is not None, b"r" if session else b"."))
            session = connection.session
        tell("GET", target)


NODE = """
const https = require('https'), http2 = require('http2'), base = process.argv[1];
const agent = new https.Agent({keepAlive: true, maxSockets: 4, rejectUnauthorized: false});
const one = target => new Promise((done, fail) => https.get(base + target, {agent}, answer => {
    answer.resume(); answer.on('end', () => done(answer.statusCode)); }).on('error', fail));
const session = http2.connect(base, {rejectUnauthorized: false});
const two = target => new Promise((done, fail) => { let status; const stream = session.request({':path': target});
    stream.on('response', head => status = head[':status']); stream.on('end', () => done(status)); stream.on('error', fail); stream.resume(); });
const all = kind => [...Array(50).keys()].map(number => (number % 10 ? '/?' : '/none?') + kind + '=' + number);
Promise.all([...all('node').map(one), ...all('node-2').map(two)]).then(answers => {
    console.log(JSON.stringify(answers)); session.close(); agent.destroy(); });
"""


def node():
    statuses = json.loads(run("node", "-e", NODE, BASE))
    targets = [f"/{'' if number % 10 else 'none'}?{kind}={number}" for kind in ("node", "node-2") for number in range(50)]
    equal(statuses, [404 if target.startswith("/none") else 200 for target in targets])
    for target, status in zip(targets, statuses):
        tell("GET", target, status)


def early_data():
    """What a client sends before the server has said a word."""
    where = ["openssl", "s_client", "-connect", f"{SERVER}:{PORT}", "-ign_eof"]
    ask = lambda target: f"GET {target} HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\n\r\n"
    first = subprocess.run([*where, "-sess_out", "/tmp/session"], input=ask("/early?first"), capture_output=True, text=True)
    equal(first.stdout.count("early=."), 1)
    tell("GET", "/early?first")
    with open("/tmp/early", "w") as file:
        file.write(ask("/early?second"))
    second = subprocess.run([*where, "-sess_in", "/tmp/session", "-early_data", "/tmp/early"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    equal(second.stdout.count("Early data was accepted"), 1)
    # nginx says 1 only if it answers before the client has finished its handshake.
    equal(second.stdout.count("early=1.") + second.stdout.count("early=."), 1)
    tell("GET", "/early?second")


def ask():
    curls()
    wget("wget")
    wget("wget-1.2", "--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.2")
    with_urllib()
    with_requests()
    resumed(ssl.TLSVersion.TLSv1_2, "resumed-1.2")
    resumed(ssl.TLSVersion.TLSv1_3, "resumed-1.3")
    node()
    early_data()


main(ask)
