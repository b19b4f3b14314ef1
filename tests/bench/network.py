"""Two network namespaces with a veth pair between them, and a load that runs through it. Nothing else does."""

import contextlib
import json
import os
import subprocess

import measure
from measure import CORES, Failure, need, stop

# Of the range for benchmarks (RFC 2544); nothing outside the two namespaces knows of it.
SENDER, RECEIVER = "198.18.0.1", "198.18.0.2"
DEVICE = "bench0"
PORT = 9
FILTER = f"udp dst port {PORT}"
# Of a datagram's payload: about what packets of small requests and answers have.
BYTES = 300


class Network:
    def __init__(self):
        if os.geteuid():
            raise Failure("network namespaces take root")
        if len(CORES) < 2:
            raise Failure("whoever captures needs a core of its own, and there is only one")
        self.ip = need("ip", "iproute2")
        self.near, self.far = (f"sniff-bench-{os.getpid()}-{end}" for end in ("near", "far"))
        self.program = self.compiled()

    @staticmethod
    def compiled():
        source, program = measure.ROOT / "tests" / "bench" / "load.c", measure.TARGET / "bench" / "load"
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            program.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([need("gcc"), "-O2", "-Wall", "-o", program, source], check=True)
        return program

    def run(self, *words):
        done = subprocess.run([self.ip, *words], capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"ip {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def inside(self, namespace, core, *words):
        """A command line that runs there, on one core."""
        return [self.ip, "netns", "exec", namespace, "taskset", "-c", str(core), *map(str, words)]

    def __enter__(self):
        try:
            for namespace in (self.near, self.far):
                self.run("netns", "add", namespace)
            self.run("-n", self.near, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", self.far)
            for namespace, address in ((self.near, SENDER), (self.far, RECEIVER)):
                self.run("-n", namespace, "address", "add", f"{address}/30", "dev", DEVICE)
                self.run("-n", namespace, "link", "set", DEVICE, "up")
            words = self.inside(self.far, CORES[0], self.program, "sink", RECEIVER, PORT)
            self.sink = subprocess.Popen(words, stdout=subprocess.PIPE)
            if self.sink.stdout.readline() != b"ready\n":
                raise Failure("nobody takes the load's datagrams")
            # Addresses are resolved and the network's own chatter is over before anything is counted.
            self.load(1000, 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "sink"):
            stop(self.sink)
        for namespace in (self.near, self.far):
            with contextlib.suppress(Failure):
                self.run("netns", "delete", namespace)

    def dropped(self):
        """Packets that never came through the pair."""
        link = json.loads(self.run("-n", self.near, "-s", "-j", "link", "show", "dev", DEVICE))[0]
        return link["stats64"]["tx"]["dropped"]

    def load(self, rate, seconds):
        """Sends so many datagrams a second, 0 for as many as the machine makes; returns how many passed, and per second."""
        dropped = self.dropped()
        words = self.inside(self.near, CORES[0], self.program, "send", RECEIVER, PORT, rate, seconds, BYTES)
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"the load failed: {done.stderr.strip()}")
        sent, elapsed = done.stdout.split()
        passed = int(sent) - (self.dropped() - dropped)
        return passed, passed / float(elapsed)
