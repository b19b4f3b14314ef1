"""The same load captured by the agent, with each backend, tcpdump and dumpcap: packets lost, CPU seconds, memory."""

import os

from measure import Failure, note, say, setting, table
from network import Network
from recorder import Agent, Dumpcap, Libpcap, OnDisk, Tcpdump, Xdp


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
        if isinstance(running, Agent):
            running.stream()
        # Their start is none of the load's.
        started = running.spent()
        passed, speed = network.load(rate, seconds)
        peak = running.resident("VmHWM")
        had, cpu = running.finish()
    return speed, passed, passed - had, (cpu - started) / passed * 1e6, peak


def measure():
    seconds = setting("SECONDS", 5.0)
    rows, clean = [], {}
    with Network() as network:
        for rate in rates():
            for recorder in (Agent, OnDisk, Libpcap, Xdp, Tcpdump, Dumpcap):
                say(f"  {rate or 'max'} packets/s, {recorder.name}")
                speed, passed, lost, cpu, peak = record(recorder, network, rate, seconds)
                rows.append((f"{rate:,}" if rate else "max", recorder.name, int(speed), passed, lost, f"{lost / passed:.2%}", cpu, peak))
                if lost == 0:
                    clean[recorder.name] = max(speed, clean.get(recorder.name, 0))
    table(
        f"Capture: each load for {seconds:g} s, written to /dev/null; the sender has a core of its own",
        ("packets/s", "", "passed/s", "packets", "lost", "", "CPU s / million", "peak MiB"),
        rows,
        text=2,
    )
    note("most packets/s without loss: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in clean.items()))
