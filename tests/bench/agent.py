"""The agent: how much memory it takes in a pod, how large it is, and what compression saves and costs."""

import json
import os
import subprocess
import tarfile
import time

import measure as bench
import offline
from measure import CORES, IMAGE, Failure, built, reap, say, setting, table
from network import DEVICE, Network
from recorder import Agent, Dumpcap, Tcpdump

# Packets a second that fill the master PCAP and keep everyone busy.
RATE = 50_000


def measure():
    seconds = setting("SECONDS", 5.0)
    rows = []
    with Network() as network:
        for recorder in (Agent, Tcpdump, Dumpcap):
            say(f"  {recorder.name}")
            with recorder(network) as running:
                time.sleep(1)
                idle, buffered = running.resident(), 0
                if recorder is Agent:
                    used = running.status()["buffer"]["used"] / 2**20
                    rows.append(("sniff-agent, idle", idle, used, idle - used))
                    running.stream()
                else:
                    rows.append((f"{recorder.name}, idle", idle, None, idle))
                network.load(RATE, seconds)
                loaded = running.resident("VmHWM")
                if recorder is Agent:
                    status = running.status()
                    buffered = status["buffer"]["size"] / 2**20
                    parts = [bench.memory(process.pid, "VmHWM") for process in running.processes]
                    rows.append((f"sniff-agent, {RATE:,} packets/s and a session", loaded, buffered, loaded - buffered))
                    rows.append(("  of it the session's process", parts[1], None, parts[1]))
                else:
                    rows.append((f"{recorder.name}, {RATE:,} packets/s", loaded, None, loaded))
    table("Agent: resident memory, MiB", ("", "all", "master PCAP", "the rest"), rows)
    compression()
    sizes()


# Sends the frames of a pcap as they are, into an interface.
REPLAY = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
data = open(sys.argv[2], 'rb').read()
at = 24
while at < len(data):
    end = at + 16 + int.from_bytes(data[at + 8:at + 12], 'little')
    s.send(data[at + 16:end])
    at = end
"""


class Everything(Agent):
    """The agent with room for a whole capture, and no filter."""

    options = ("--filter", "1,6 0 0 262144", "--buffer", "128Mi", "--ring", "32Mi")


def compression():
    """The same packets of several protocols, sent to a client as they are and compressed."""
    path, _ = offline.generate("compression", 20)
    rows = []
    with Network() as network, Everything(network) as running:
        subprocess.run(network.inside(network.near, CORES[0], "python3", "-c", REPLAY, DEVICE, path), check=True)
        time.sleep(1)
        status = running.status()
        if status["drops"] or status["flushed"]:
            raise Failure(f"the agent lost some of the packets: {status['drops']} dropped, {status['flushed']} flushed")
        for name, options in (("as it is", ()), ("lz4", ("--compress", "lz4"))):
            say(f"  stream, {name}")
            with open(f"{running.folder.name}/{name}", "wb") as out:
                words = [bench.agent(), "stream", "--no-follow", "--no-stdin", "--socket", running.socket, *options]
                process = subprocess.Popen(words, stdout=out)
                _, usage = reap(process)
                if process.returncode:
                    raise Failure(f"the stream failed with {process.returncode}")
                size, cpu = os.fstat(out.fileno()).st_size, usage.ru_utime + usage.ru_stime
            rows.append((name, size / 1e6, cpu, cpu / status["packets"] * 1e6))
    table(
        f"Agent: a stream of {status['packets']:,} packets (HTTP, Redis, Kafka, PostgreSQL, DNS)",
        ("", "MB", "CPU s", "CPU s / million"),
        rows,
    )


def sizes():
    binary = bench.agent()
    rows = [("sniff-agent, static", binary.stat().st_size / 1e6)]
    for architecture, size in images().items():
        rows.append((f"its image, {architecture}, compressed", size / 1e6))
    peer = bench.need("tcpdump")
    libraries = subprocess.run(["ldd", peer], capture_output=True, text=True).stdout
    paths = [word for word in libraries.split() if word.startswith("/")]
    sizes = [bench.pathlib.Path(path).resolve().stat().st_size for path in (peer, *paths)]
    rows.append(("tcpdump with its libraries", sum(sizes) / 1e6))
    table("Agent: size, MB", ("", "MB"), rows)


def images():
    """What a node pulls for each architecture: manifest, configuration and layers."""
    with tarfile.open(built(IMAGE, "make image")) as archive:

        def blob(descriptor):
            return json.load(archive.extractfile("blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")))

        index = json.load(archive.extractfile("index.json"))
        sizes = {}
        for entry in blob(index["manifests"][0])["manifests"]:
            manifest = blob(entry)
            parts = [entry, manifest["config"], *manifest["layers"]]
            sizes[entry["platform"]["architecture"]] = sum(part["size"] for part in parts)
        return sizes
