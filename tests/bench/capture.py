"""The same load captured by the agent, tcpdump and dumpcap at the same tasks: packets lost, CPU seconds, memory."""

import os

from measure import Failure, note, say, setting, table
from network import Network
from recorder import (
    Agent,
    Dumpcap,
    Libpcap,
    OnDisk,
    RecordingDumpcap,
    RecordingTcpdump,
    StreamingAgent,
    StreamingDumpcap,
    StreamingTcpdump,
    Tcpdump,
    Xdp,
)

# What recorder.py says of them.
TASKS = {
    "record": (Agent, OnDisk, Libpcap, Xdp, RecordingTcpdump, RecordingDumpcap),
    "stream": (StreamingAgent, StreamingTcpdump, StreamingDumpcap),
    "discard": (Tcpdump, Dumpcap),
}


def rates():
    """Packets a second; 0 is as many as the machine makes."""
    text = os.environ.get("RATES") or "10000,50000,100000,200000,400000,max"
    try:
        return [0 if word == "max" else int(word) for word in text.split(",")]
    except ValueError:
        raise Failure(f"RATES={text}: {text.split(',')} are not all numbers or max") from None


def record(recorder, network, rate, seconds):
    """One load past one recorder: packets a second, how many, how many lost, CPU seconds for a million, MiB."""
    with recorder(network) as running:
        # Their start is none of the load's.
        started = running.spent()
        passed, speed = network.load(rate, seconds)
        peak = running.resident("VmHWM")
        had, cpu = running.finish()
    return speed, passed, passed - had, (cpu - started) / passed * 1e6, peak


def measure():
    seconds = setting("SECONDS", 5.0)
    rows, clean, spent = [], {}, {}
    with Network() as network:
        for rate in rates():
            shown = f"{rate:,}" if rate else "max"
            for task, recorders in TASKS.items():
                for recorder in recorders:
                    say(f"  {shown} packets/s, {task}: {recorder.name}")
                    speed, passed, lost, cpu, peak = record(recorder, network, rate, seconds)
                    name = f"{task}: {recorder.name}"
                    rows.append((shown, name, int(speed), passed, lost, f"{lost / passed:.2%}", cpu, peak))
                    spent[shown, name] = cpu
                    if lost == 0:
                        clean[name] = max(speed, clean.get(name, 0))
    table(
        f"Capture: each load for {seconds:g} s; the sender has a core of its own",
        ("packets/s", "", "passed/s", "packets", "lost", "", "CPU s / million", "peak MiB"),
        rows,
        text=2,
    )
    note("most packets/s without loss: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in clean.items()))
    for task in ("record", "stream"):
        ratios = {at: spent[at, f"{task}: sniff-agent"] / spent[at, f"{task}: tcpdump"] for at in dict.fromkeys(at for at, _ in spent)}
        note(f"{task}: CPU of the agent, tcpdump's being 1: " + ", ".join(f"{at}/s {ratio:.2f}" for at, ratio in ratios.items()))
