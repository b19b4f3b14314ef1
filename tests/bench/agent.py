"""The agent: how much memory it takes in a pod, and how large it is."""

import json
import subprocess
import tarfile
import time

import measure as bench
from measure import IMAGE, built, note, say, setting, table
from network import Network
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
    sizes()


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
