"""TLS: what an agent costs a server of HTTPS that is sniffed, and how fast a capture is decrypted."""

import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import offline
from measure import CORES, Failure, need, ratio, run, setting, stop, table
from network import DEVICE, RECEIVER, Network
from recorder import Agent

PORT = 8443
URL = f"https://{RECEIVER}:{PORT}"
CONNECTIONS = 16
SMALL, LARGE = 100, 64 << 10
# All packets, as the kernel's filter has it.
ALL = ("--filter", "1,6 0 0 262144")

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; user root;
events {{}}
http {{
    access_log off; keepalive_requests 10000000; root {folder};
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key; ssl_protocols TLSv1.3;
    server {{ listen {port} ssl backlog=4096; }}
}}
"""


class Server:
    """nginx in the far namespace and, as in a pod, in a PID namespace of its own."""

    def __init__(self, network):
        self.network = network
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name)
        path.chmod(0o755)
        (path / "nginx.conf").write_text(NGINX.format(folder=path, port=PORT))
        for name, size in (("small", SMALL), ("large", LARGE)):
            (path / name).write_bytes(os.urandom(size))
        words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench -keyout {path}/key -out {path}/cert"
        subprocess.run([need("openssl"), *words.split()], check=True, capture_output=True)
        # The client's library is another file, as in another pod: probes are in those of the server.
        for library in glob.glob("/usr/lib/*/libcrypto.so.3") + glob.glob("/usr/lib/*/libssl.so.3"):
            shutil.copy(library, path)

    def __enter__(self):
        words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"]
        self.pod = subprocess.Popen(self.network.inside(self.network.far, CORES[-1], *words))
        try:
            self.until(self.init, "there is no PID namespace")
            words = self.inside(CORES[-1], need("nginx", "nginx-light"), "-p", self.folder.name, "-c", f"{self.folder.name}/nginx.conf", "-e", "stderr")
            self.nginx = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            self.until(lambda: self.ask("-n", 1, "-c", 1, f"{URL}/small"), "nginx does not answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # With its first process, all others of the PID namespace end. unshare heeds nothing less.
        stop(self.pod, signal.SIGKILL)
        self.folder.cleanup()

    def init(self):
        with contextlib.suppress(OSError):
            children = pathlib.Path(f"/proc/{self.pod.pid}/task/{self.pod.pid}/children").read_text().split()
            if children and b"sleep" in pathlib.Path(f"/proc/{children[0]}/cmdline").read_bytes():
                return children[0]
        return None

    @staticmethod
    def until(is_true, what):
        since = time.monotonic()
        while not is_true():
            if time.monotonic() - since > 10:
                raise Failure(what)
            time.sleep(0.05)

    def inside(self, core, *words):
        return ["nsenter", "-p", "-m", "-n", "-t", self.init(), "taskset", "-c", str(core), *map(str, words)]

    def client(self, *words, **environment):
        words = self.network.inside(self.network.near, CORES[0], *words)
        environment = {**os.environ, "LD_LIBRARY_PATH": self.folder.name, **environment}
        return subprocess.run(words, capture_output=True, text=True, env=environment).stdout

    def ask(self, *words, **environment):
        """Requests a second and mean milliseconds of each, by h2load; none if any has failed."""
        said = self.client(need("h2load", "nghttp2-client"), "--h1", *words, **environment)
        rate = re.search(r"finished in .*, ([\d.]+) req/s", said)
        mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", said)
        if not rate or not mean or not re.search(r" [1-9]\d* succeeded, 0 failed, 0 errored", said):
            return None
        return float(rate[1]), float(mean[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[mean[2]]

    def connect(self, seconds):
        """Connections a second, one after the other, each with a handshake of its own."""
        since = time.perf_counter()
        said = self.client(need("openssl"), "s_time", "-connect", f"{RECEIVER}:{PORT}", "-new", "-time", max(1, round(seconds)))
        count = re.search(r"(\d+) connections in \d+ real seconds", said)
        if not count:
            raise Failure("openssl s_time made no connections")
        return int(count[1]) / (time.perf_counter() - since)


class InPod(Agent):
    """The agent beside the server, with a session."""

    def __init__(self, server, *options):
        super().__init__(server.network)
        self.server, self.options = server, (*ALL, *options)

    def inside(self, core, *words):
        return self.server.inside(core, *words)

    def begin(self):
        super().begin()
        self.stream()
        if "--tls" in self.options:
            self.wait_until(lambda: (self.status()["tls"] or {}).get("files"), "find nginx's library")


def measure():
    overhead()
    decryption()


def overhead():
    """The server's figures without an agent, with one, and with one that reads keys; in turns, so that noise meets all alike."""
    seconds, runs = setting("SECONDS", 5.0), setting("RUNS", 3, int)
    modes = {"no agent": None, "capture": (), "capture --tls": ("--tls",)}
    taken = {name: [] for name in modes}
    with Network() as network:
        for _ in range(runs):
            for name, options in modes.items():
                with Server(network) as server, contextlib.ExitStack() as stack:
                    agent = None if options is None else stack.enter_context(InPod(server, *options))
                    answers = server.ask("-D", max(1, round(seconds)), "-c", CONNECTIONS, f"{URL}/small")
                    if not answers:
                        raise Failure("requests to nginx failed")
                    taken[name].append((*answers, server.connect(seconds)))
                    if agent and "--tls" in agent.options and not agent.status()["tls"]["keys"]:
                        raise Failure("the agent has read no keys")
    best = {name: (max(run[0] for run in all), min(run[1] for run in all), max(run[2] for run in all)) for name, all in taken.items()}
    base = best["no agent"]
    rows = [
        (name, rate, ratio(rate / base[0]), latency, ratio(latency / base[1]), connections, ratio(connections / base[2]))
        for name, (rate, latency, connections) in best.items()
    ]
    table(
        f"TLS: nginx (HTTPS) while it is sniffed, {CONNECTIONS} connections kept alive, or one after the other; the best of {runs}",
        ("", "requests/s", "÷ none", "latency ms", "÷ none", "handshakes/s", "÷ none"),
        rows,
    )


def decryption():
    """A capture of large answers over TLS 1.3 and its key log, beside tshark with the same keys."""
    megabytes, runs = setting("SIZE", 200.0) / 4, setting("RUNS", 3, int)
    count = max(CONNECTIONS, int(megabytes * 1e6 / LARGE))
    with Network() as network, Server(network) as server, tempfile.TemporaryDirectory() as folder:
        capture, keys = f"{folder}/tls.pcap", f"{folder}/keys"
        words = (need("tcpdump"), "-Z", "root", "-i", DEVICE, "-B", 65536, "-w", capture, f"tcp port {PORT}")
        with tempfile.NamedTemporaryFile("r") as errors:
            tcpdump = subprocess.Popen(network.inside(network.far, CORES[-1], *words), stderr=errors)
            try:
                server.until(lambda: "listening on" in pathlib.Path(errors.name).read_text(), "tcpdump does not start")
                if not server.ask("-n", count, "-c", CONNECTIONS, f"{URL}/large", SSLKEYLOGFILE=keys):
                    raise Failure("requests to nginx failed")
                time.sleep(1.5)
            finally:
                stop(tcpdump)
        size, answered = os.path.getsize(capture) / 1e6, decrypted(capture, keys)
        fields = [word for field in ("http.request.method", "http.request.uri", "http.response.code") for word in ("-e", field)]
        tshark = [need("tshark"), "-n", "-r", capture, "-o", f"tls.keylog_file:{keys}", "-d", f"tcp.port=={PORT},tls", "-T", "fields", *fields]
        commands = {
            "kubectl sniff, keys": (offline.sniff(capture, "--keylog", keys), 1),
            "kubectl sniff, no keys": (offline.sniff(capture), 1),
            "tshark, keys": (tshark, 1),
        }
        taken = offline.best(commands, runs)
    peer = taken["tshark, keys"]
    rows = [(name, size / took.cpu, took.cpu, ratio(peer.cpu / took.cpu), took.peak) for name, took in taken.items()]
    table(
        f"TLS: {size:,.0f} MB of TLS 1.3 decrypted, {count:,} answers of 64 KiB, one core; the best of {runs}",
        ("", "MB/CPU s", "CPU s", "tshark's CPU ÷", "peak MiB"),
        rows,
    )
    if answered != count:
        raise Failure(f"{count:,} requests over TLS have {answered:,} decrypted rows")


def decrypted(capture, keys):
    """Rows of requests that were decrypted and answered."""
    with tempfile.TemporaryFile("w+") as output:
        run(offline.sniff(capture, "--keylog", keys, "-o", "json"), output=output)
        output.seek(0)
        rows = [json.loads(line) for line in output]
    return sum(row["protocol"] == "http" and row["status"] == "200" and "decrypted" in row for row in rows)
