"""What the way from the pods to the client carries: one stream at full speed, and a hundred at once."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time

import measure as bench
from cluster import IMAGE_OF_PODS, Namespace
from measure import PLUGIN, Failure, reap, say, setting, table

# A large page over the pod's loopback, again and again: more than a stream carries.
FLOOD = """mkdir -p /tmp/w; head -c 4000000 /dev/urandom >/tmp/w/index.html; httpd -p 8080 -h /tmp/w
while true; do wget -q -O /dev/null http://127.0.0.1:8080/; done"""
# A small one every other second: a hundred pods leave a small machine time for what is measured.
TRICKLE = """mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -p 8080 -h /tmp/w
while true; do wget -q -O /dev/null http://127.0.0.1:8080/; sleep 2; done"""
# Pods that start at a time, how long all of them may take, and how long their agents.
BATCH, STARTED, ATTACHED = 10, 240, 120


def deployment(namespace, name, script, replicas):
    """Pods that run the script; returns when all do."""
    container = {"name": "web", "image": IMAGE_OF_PODS, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    metadata = {"name": name, "namespace": namespace.name}
    namespace.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    await_rollout(namespace, name, 120)


def await_rollout(namespace, name, seconds):
    namespace.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace.name, f"--timeout={seconds:.0f}s")


def grown(namespace, name, replicas):
    """Adds pods in batches until there are so many or time is up; returns how many run."""
    until, running = time.monotonic() + STARTED, BATCH
    while running < replicas:
        wanted = min(running + BATCH, replicas)
        namespace.kubectl("scale", f"deployment/{name}", "-n", namespace.name, f"--replicas={wanted}")
        try:
            await_rollout(namespace, name, max(until - time.monotonic(), 1))
        except Failure:
            namespace.kubectl("scale", f"deployment/{name}", "-n", namespace.name, f"--replicas={running}")
            await_rollout(namespace, name, 120)
            say(f"warning: only {running} of {replicas} pods have started within {STARTED} s")
            return running
        running = wanted
    return running


class Client:
    """`kubectl sniff` on pods of the namespace, whose stdout is read and counted, with what it says on stderr in a file."""

    def __init__(self, namespace, *words):
        self.stderr = tempfile.NamedTemporaryFile("w+")
        command = [PLUGIN, *words, "-n", namespace.name]
        self.process = subprocess.Popen(command, env=namespace.environment, stdout=subprocess.PIPE, stderr=self.stderr)
        # Bytes of stdout. What nobody reads would hold up the client, its messages included.
        self.size = 0
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while piece := os.read(self.process.stdout.fileno(), 1 << 20):
            self.size += len(piece)

    def said(self):
        with open(self.stderr.name) as file:
            return file.read()

    def attached(self, count):
        since = time.monotonic()
        while len(re.findall(r"^\+ ", self.said(), re.MULTILINE)) < count:
            if time.monotonic() - since > ATTACHED or self.process.poll() is not None:
                raise Failure(f"not all of {count} agents stream: {self.said()[-500:]}")
            time.sleep(0.2)

    def measured(self, seconds):
        """Bytes that come on its stdout in about so many seconds, and how many these were."""
        since, size = time.monotonic(), self.size
        time.sleep(seconds)
        if not self.reader.is_alive():
            raise Failure(f"the client has ended: {self.said()[-500:]}")
        return self.size - size, time.monotonic() - since

    def end(self):
        self.process.send_signal(signal.SIGINT)
        return reap(self.process)


def cpu(pid):
    """CPU seconds that a process has taken so far."""
    with open(f"/proc/{pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def counted(summary, what):
    found = re.search(rf"([\d,]+) {what}", summary)
    return int(found.group(1).replace(",", "")) if found else 0


def measure():
    seconds = setting("SECONDS", 5.0)
    agents = setting("AGENTS", 100, int)
    with Namespace() as namespace:
        deployment(namespace, "flood", FLOOD, 1)
        rows = []
        for name, more in (("as it is", []), ("compressed", ["--compress"])):
            say(f"  one stream, {name}")
            client = Client(namespace, "flood", "--pcap", "-", *more)
            client.attached(1)
            client.measured(1)
            size, took = client.measured(seconds)
            _, usage = client.end()
            rows.append((name, size / took / 1e6, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
        table(
            f"One exec stream at full speed, for {seconds:g} s: packets of random bytes, as saved",
            ("", "MB/s", "client's CPU s", "client's MiB"),
            rows,
        )
        namespace.kubectl("delete", "deployment/flood", "-n", namespace.name)
        say(f"  {agents} pods")
        deployment(namespace, "many", TRICKLE, min(agents, BATCH))
        agents = min(agents, grown(namespace, "many", agents))
        client = Client(namespace, "many", "--max-targets", str(agents), "-o", "json")
        since = time.monotonic()
        client.attached(agents)
        took = time.monotonic() - since
        client.measured(1)
        before = cpu(client.process.pid)
        size, passed = client.measured(seconds)
        used, resident = cpu(client.process.pid) - before, bench.memory(client.process.pid)
        client.end()
        said = client.said()
        lost = sum(counted(said, what) for what in ("flushed", "dropped by kernel"))
        table(
            f"{agents} agents into one client",
            ("", "s until all stream", "MB/s of rows", "client's CPU s / s", "client's MiB", "packets lost"),
            [("kubectl sniff -o json", took, size / passed / 1e6, used / passed, resident, lost)],
        )
