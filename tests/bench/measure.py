"""Runs programs and says what they took; prints tables."""

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
PLUGIN = TARGET / "release" / "kubectl-sniff"
IMAGE = ROOT / "target" / "sniff-agent.oci.tar"

# The cores that this process may use.
CORES = sorted(os.sched_getaffinity(0))


class Failure(Exception):
    """Why a figure cannot be taken, and what to do about it."""

    def __init__(self, message, hint=None):
        super().__init__(message)
        self.hint = hint


def setting(name, default, kind=float):
    """A figure that the environment, or `make bench NAME=…`, may set."""
    text = os.environ.get(name)
    try:
        value = kind(text) if text else default
    except ValueError:
        raise Failure(f"{name}={text} is no number") from None
    if value <= 0:
        raise Failure(f"{name}={text} is too little")
    return value


def say(text):
    print(text, file=sys.stderr, flush=True)


def need(program, package=None):
    """The path of a program that must be there."""
    path = shutil.which(program)
    if not path:
        raise Failure(f"{program} is not installed", f"apt-get install {package or program}, or tests/setup for all at once")
    return path


def built(path, how):
    if not path.exists():
        raise Failure(f"{path} has not been built", f"run: {how}")
    return path


def agent():
    """The agent's binary as it is in the image, for this machine."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return built(ROOT / "target" / "image" / machine / "sniff-agent", "make image")


@dataclasses.dataclass
class Run:
    """What a program took: seconds, and MiB at the most."""

    elapsed: float
    user: float
    system: float
    peak: float

    @property
    def cpu(self):
        return self.user + self.system


def run(command, cores=None, output=subprocess.DEVNULL):
    """Runs a program to its end on these cores, with its stdout there."""
    cores = ",".join(map(str, CORES if cores is None else CORES[:cores]))
    with tempfile.NamedTemporaryFile("r") as report, tempfile.TemporaryFile("w+") as errors:
        # The kernel counts the memory of what a process was before it called exec as its own. GNU time is smaller than
        # Python, so it starts the program. Seconds come from wait4, which is more exact.
        words = ["taskset", "-c", cores, need("time"), "-f", "%M", "-o", report.name, *map(str, command)]
        since = time.perf_counter()
        started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        code, usage = reap(started)
        elapsed = time.perf_counter() - since
        if code:
            errors.seek(0)
            raise Failure(f"{command[0]} failed with {code}: {errors.read().strip()[-500:]}")
        peak = int(report.read().split()[-1]) / 1024
    return Run(elapsed, usage.ru_utime, usage.ru_stime, peak)


def reap(process):
    """Waits for a child's end; returns its exit code and what it and its own children took."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def stop(process, with_signal=signal.SIGINT, patience=10):
    """Ends a child that may have ended already."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def memory(pid, field="VmRSS"):
    """Resident memory of a process now (`VmRSS`) or at its most (`VmHWM`), in MiB."""
    with open(f"/proc/{pid}/status") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    raise Failure(f"process {pid} has ended and has no memory")


def number(value):
    """With as many digits as say something."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def ratio(value):
    return number(float(value)) + " ×"


def table(title, columns, rows, text=1):
    """The first columns are text and start at the left, the others end at the right."""
    cells = [list(columns)] + [[number(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print(f"\n{title}\n")
    for row in cells:
        padded = [cell.ljust(width) if at < text else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        print("  " + "  ".join(padded).rstrip())
    sys.stdout.flush()


def note(text):
    print("  " + text, flush=True)
