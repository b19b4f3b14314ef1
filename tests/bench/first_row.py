"""How long after Enter the first row of a pod is there, beside what people do without the plugin."""

import os
import random
import re
import selectors
import statistics
import subprocess
import tempfile
import time

from cluster import Namespace
from measure import Failure, ratio, say, setting, stop, table

TCPDUMP_IMAGE = os.environ.get("SNIFF_BENCH_TCPDUMP_IMAGE", "localhost/sniff-test/tools:1")
TCPDUMP = ["tcpdump", "-Z", "root", "-l", "-n", "-i", "any"]
# How a row begins, and a packet of tcpdump's.
ROW = re.compile(rb"^\d\d:\d\d:\d\d\.\d+ ", re.MULTILINE)
PATIENCE = 60


def first(namespace, *words):
    """Seconds from the start of the command to its first row."""
    # A kubelet looks once a second what has started. Whoever starts in step with it always waits the same.
    time.sleep(random.random())
    with tempfile.TemporaryFile("w+") as errors:
        since = time.perf_counter()
        # An open stdin, as a terminal is: `kubectl debug` may end with it.
        process = subprocess.Popen(
            ["kubectl", *words], env=namespace.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            said = b""
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not ROW.search(said):
                    left = since + PATIENCE - time.perf_counter()
                    piece = os.read(process.stdout.fileno(), 65536) if left > 0 and selector.select(left) else b""
                    said += piece
                    if not piece:
                        errors.seek(0)
                        why = "has ended" if left > 0 else f"said nothing for {PATIENCE} s"
                        raise Failure(f"kubectl {' '.join(words)} {why} without a row: {errors.read().strip()[-500:]}")
            return time.perf_counter() - since
        finally:
            stop(process)
            process.stdin.close()
            process.stdout.close()


def measure():
    rounds = setting("ROUNDS", 9, int)
    taken = {}
    with Namespace() as namespace:
        inside = ["-n", namespace.name]
        for turn in range(1, rounds + 1):
            say(f"  round {turn} of {rounds}")
            ours, theirs = f"sniffed-{turn}", f"debugged-{turn}"
            for pod in (ours, theirs):
                namespace.pod(pod)
            sniff = ["sniff", f"^{ours}$", *inside]
            debug = ["debug", theirs, *inside, "-q", "-i", "-c", "debugger", "--image", TCPDUMP_IMAGE]
            debug += ["--image-pull-policy", "IfNotPresent", "--profile", "general", "--", *TCPDUMP]
            again = ["exec", theirs, *inside, "-c", "debugger", "--", *TCPDUMP]
            commands = {
                "a new agent": sniff,
                "an agent that runs already": sniff,
                "kubectl debug -i … -- tcpdump": debug,
                "kubectl exec … tcpdump, in its container": again,
            }
            for name, words in commands.items():
                taken.setdefault(name, []).append(first(namespace, *words))
            for pod in (ours, theirs):
                namespace.delete(pod)
    peers = [statistics.median(taken[name]) for name in list(commands)[2:]]
    rows = []
    for name, peer in zip(commands, peers * 2):
        seconds = taken[name]
        median = statistics.median(seconds)
        rows.append((name, median, min(seconds), max(seconds), ratio(peer / median)))
    table(
        f"First row: seconds from Enter, the median of {rounds} pods",
        ("", "median", "least", "most", "kubectl debug's ÷"),
        rows,
    )
