"""What captures: the agent, tcpdump and dumpcap, all with the same filter, each at the same three tasks.

To record is to keep the latest packets in bounded room, 16 MiB, with nobody reading. To stream is to have each packet in a pipe at once,
as a live reader wants it (tcpdump's -U). To discard is to write to /dev/null, which keeps nothing; the agent has no such mode.
"""

import glob
import json
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import measure
from measure import CORES, Failure, memory, need, stop
from network import DEVICE, FILTER

# How long a capture may take to start.
PATIENCE = 10
# How long the last packets may take to pass: tcpdump lets the kernel keep them for a second.
SETTLE = 1.5


class Recorder:
    """A program, or two, that captures in a network namespace, on the last core."""

    def __init__(self, network):
        self.network = network
        self.errors = tempfile.TemporaryFile("w+")
        self.folder = tempfile.TemporaryDirectory()
        self.processes = []
        self.reader = None

    def inside(self, core, *words):
        """A command line that runs where packets are captured."""
        return self.network.inside(self.network.far, core, *words)

    def start(self, *words, piped=False):
        """Starts a program; piped, another process takes what it writes, on the first core."""
        output = subprocess.PIPE if piped else subprocess.DEVNULL
        words = self.inside(CORES[-1], *words)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=self.errors)
        self.processes.append(process)
        if piped:
            words = ("taskset", "-c", str(CORES[0]), "cat")
            self.reader = subprocess.Popen(words, stdin=process.stdout, stdout=subprocess.DEVNULL)
            process.stdout.close()
        return process

    def said(self):
        self.errors.seek(0)
        return self.errors.read()

    def wait_until(self, is_true, what):
        since = time.monotonic()
        while not is_true():
            ended = any(process.poll() is not None for process in self.processes)
            if ended or time.monotonic() - since > PATIENCE:
                raise Failure(f"{self.name} does not {what}: {self.said().strip()[-300:]}")
            time.sleep(0.05)

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            stop(process)
        if self.reader:
            stop(self.reader)
        self.errors.close()
        self.folder.cleanup()

    def resident(self, field="VmRSS"):
        """MiB of all its processes."""
        return sum(memory(process.pid, field) for process in self.processes)

    def spent(self):
        """CPU seconds of all its processes so far. None of their threads ends meanwhile."""
        threads = (thread for process in self.processes for thread in glob.glob(f"/proc/{process.pid}/task/*/schedstat"))
        return sum(int(pathlib.Path(thread).read_text().split()[0]) for thread in threads) / 1e9

    def finish(self):
        """Ends it; returns how many packets it had, and its CPU seconds."""
        time.sleep(SETTLE)
        seconds = self.spent()
        self.end()
        for process in self.processes:
            process.wait()
        return self.count(), seconds


class Peer(Recorder):
    """A program that says on stderr when it begins, and how many packets it had."""

    # Where the packets go, {} being a folder.
    output = ("-w", "/dev/null")
    piped = False

    def begin(self):
        output = [word.format(self.folder.name) for word in self.output]
        self.process = self.start(*self.command(), *output, piped=self.piped)
        self.wait_until(lambda: self.begins in self.said(), "start")

    def end(self):
        self.process.send_signal(signal.SIGINT)

    def count(self):
        return int(re.search(self.counts, self.said()).group(1))


class Tcpdump(Peer):
    name = "tcpdump"
    begins, counts = "listening on", r"(\d+) packets? captured"

    def command(self):
        return need("tcpdump"), "-n", "-Z", "root", "-i", DEVICE, FILTER


class RecordingTcpdump(Tcpdump):
    output = ("-C", "8", "-W", "2", "-w", "{}/ring")


class StreamingTcpdump(Tcpdump):
    output, piped = ("-U", "-w", "-"), True


class Dumpcap(Peer):
    name = "dumpcap"
    begins, counts = "File:", r"Packets captured: (\d+)"

    def command(self):
        return need("dumpcap", "wireshark-common"), "-q", "-i", DEVICE, "-f", FILTER


class RecordingDumpcap(Dumpcap):
    output = ("-b", "filesize:8192", "-b", "files:2", "-w", "{}/ring.pcapng")


class StreamingDumpcap(Dumpcap):
    output, piped = ("-w", "-"), True
    begins = "Capturing on"


class Agent(Recorder):
    """The daemon, with nobody who reads."""

    name = "sniff-agent"
    backend = "af_packet"
    # Besides, e.g. where packets are kept.
    options = ()

    def begin(self):
        self.socket = f"{self.folder.name}/socket"
        compiled = subprocess.run([need("tcpdump"), "-y", "EN10MB", "-ddd", FILTER], check=True, capture_output=True, text=True)
        program = ",".join(compiled.stdout.split("\n")).strip(",")
        words = ("run", "--socket", self.socket, "--filter", program, "--backend", self.backend, *self.options)
        self.daemon = self.start(measure.agent(), *words)
        self.wait_until(lambda: "capturing on" in self.said(), "start")

    def stream(self):
        self.start(measure.agent(), "stream", "--no-stdin", "--socket", self.socket, piped=True)
        self.wait_until(lambda: len(self.status()["sessions"]) == 1, "stream")

    def status(self):
        words = [measure.agent(), "status", "--socket", self.socket]
        return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)

    def end(self):
        status = self.status()
        self.had = status["packets"] - status["missed"]
        self.daemon.send_signal(signal.SIGINT)

    def count(self):
        return self.had


class StreamingAgent(Agent):
    """The daemon and a session. What the daemon flushed before the session read it is lost."""

    def begin(self):
        super().begin()
        self.stream()


class OnDisk(Agent):
    name = "sniff-agent, on disk"

    def begin(self):
        file = f"{tempfile.gettempdir()}/sniff-bench-{self.network.far}.buffer"
        self.options = ("--buffer", "256Mi", "--buffer-on", "disk", "--buffer-file", file)
        super().begin()


class Libpcap(Agent):
    name = "sniff-agent, libpcap"
    backend = "libpcap"


class Xdp(Agent):
    name = "sniff-agent, af_xdp"
    backend = "af_xdp"
    # It takes 2 KiB of the ring for each packet, however short.
    options = ("--ring", "16Mi")
