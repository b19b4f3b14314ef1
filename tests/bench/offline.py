"""A capture file: how fast it becomes rows, and whether the rows are all there."""

import collections
import hashlib
import json
import subprocess
import tempfile

import measure
import packetbeat
from measure import CORES, PLUGIN, Failure, ratio, run, say, setting, table

GENERATE = measure.ROOT / "tests" / "bench" / "generate"

# What a row of ours says, as far as tshark can say it.
FIELDS = """
    frame.number frame.time_epoch frame.len frame.protocols ip.src tcp.srcport udp.srcport ip.dst tcp.dstport udp.dstport
    http.request.method http.request.uri http.response.code http.time resp.bulk_string.value resp.error kafka.api_key
    kafka.topic_name pgsql.query pgsql.code dns.qry.name dns.qry.type dns.flags.rcode dns.time
""".split()

# Rows that a connection has beside those of its requests.
BESIDE = {("postgresql", "Startup")}


def generate(name, megabytes, *more):
    """A generated capture, kept from one run to the next; its path and what is in it."""
    folder = measure.TARGET / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    # Another generator, another size: another file.
    key = hashlib.sha256(GENERATE.read_bytes() + repr((megabytes, more)).encode()).hexdigest()[:8]
    path = folder / f"{name}-{key}.pcap"
    summary = folder / f"{name}-{key}.pcap.json"
    if not summary.exists():
        for old in folder.glob(f"{name}-*"):
            old.unlink()
        say(f"generating {path}")
        command = [GENERATE, "--out", path, "--mb", str(megabytes), *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    # In the page cache, for all alike.
    run(["cat", path])
    return path, json.loads(summary.read_text())


def tshark(path):
    fields = [word for field in FIELDS for word in ("-e", field)]
    return [measure.need("tshark"), "-n", "-r", path, "-T", "fields", *fields]


def sniff(path, *more):
    return [measure.built(PLUGIN, "cargo build --release"), "--pcap", path, *more]


# The plugin as krew installs it, linked with another C library; there once `make dist` has built it.
STATIC = measure.TARGET / "x86_64-unknown-linux-musl" / "release" / "kubectl-sniff"

# A long capture is so many times the same, so many seconds apart: after that nothing of a connection is remembered.
TIMES, APART = 5, 200


def best(commands, runs):
    """The quickest of some runs of each; in turns, so that a noisy moment meets all alike."""
    taken = collections.defaultdict(list)
    for turn in range(1, runs + 1):
        say(f"  run {turn} of {runs}")
        for name, (command, cores) in commands.items():
            taken[name].append(run(command, cores))
    return {name: min(runs, key=lambda run: run.cpu) for name, runs in taken.items()}


def counted(path):
    """Rows of each protocol."""
    rows = collections.Counter()
    with tempfile.TemporaryFile() as output:
        run(sniff(path, "-o", "json"), output=output)
        output.seek(0)
        for line in output:
            entry = json.loads(line)
            if (entry["protocol"], entry["operation"]) not in BESIDE:
                rows[entry["protocol"]] += 1
    return rows


def printed(path, cores):
    """A digest of the rows as printed."""
    with tempfile.TemporaryFile() as output:
        run(sniff(path, "--utc"), cores, output)
        output.seek(0)
        return hashlib.file_digest(output, "sha256").hexdigest()


def known():
    """The protocols that are dissected."""
    listed = subprocess.run([measure.built(PLUGIN, "cargo build --release"), "protocols"], check=True, capture_output=True)
    return {line.split()[0] for line in listed.stdout.decode().splitlines() if line.strip()}


def mixed():
    """The mixed capture: speed beside tshark and packetbeat, and every row counted."""
    megabytes, runs = setting("SIZE", 200.0), setting("RUNS", 3, int)
    path, summary = generate("mixed", megabytes)
    cores = [1, 2] if len(CORES) > 1 else [1]
    commands = {"cat FILE >/dev/null": (["cat", path], 1)}
    for form, words in {"": [], " -o wide": ["-o", "wide"], " -o json": ["-o", "json"]}.items():
        for count in cores:
            commands[f"kubectl sniff{form}, {count} core{'s' * (count > 1)}"] = (sniff(path, *words), count)
    if STATIC.exists():
        commands["kubectl sniff from krew, 1 core"] = ([STATIC, "--pcap", path], 1)
    commands["tshark -T fields, 1 core"] = (tshark(path), 1)
    with tempfile.TemporaryDirectory() as folder:
        if beat := packetbeat.reads(path, folder):
            commands["packetbeat, 1 core (JSON; no Kafka)"] = (beat, 1)
        taken = best(commands, runs)
    pairs, size = sum(summary["pairs"].values()), summary["bytes"] / 1e6
    peer = taken["tshark -T fields, 1 core"]
    rows = [
        (name, size / took.elapsed, took.user, took.system, took.cpu, ratio(peer.cpu / took.cpu), took.peak)
        for name, took in taken.items()
    ]
    table(
        f"Offline: {size:,.0f} MB, {summary['packets']:,} packets, {pairs:,} requests with their responses; the best of {runs}",
        ("", "MB/s", "user s", "system s", "CPU s", "tshark's CPU ÷", "peak MiB"),
        rows,
    )
    if len(cores) > 1:
        one, two = (taken[f"kubectl sniff, {cores}"].elapsed for cores in ("1 core", "2 cores"))
        measure.note(f"two cores are {one / two:.2f} times as fast as one")
    flat(path)
    checked(path, summary, megabytes)


def flat(path):
    """Memory does not grow with the length of a capture; fails if it does."""
    say(f"  {TIMES} times the capture in a row")
    with tempfile.TemporaryDirectory(dir=measure.TARGET / "bench") as folder:
        parts = [f"{folder}/{part}.pcap" for part in range(TIMES)]
        for part, shifted in enumerate(parts):
            run([measure.need("editcap"), "-F", "pcap", "-t", str(part * APART), path, shifted])
        long = f"{folder}/long.pcap"
        run([measure.need("mergecap"), "-a", "-F", "pcap", "-w", long, *parts])
        once, often = run(sniff(path)).peak, run(sniff(long)).peak
    measure.note(f"peak memory: {once:.1f} MiB, and {often:.1f} MiB for a capture {TIMES} times as long")
    if often > once * 1.2 + 2:
        raise Failure(f"memory grows with the capture: {once:.1f} to {often:.1f} MiB")


def checked(path, summary, megabytes):
    """Rows against what was generated, also over a network that reorders and loses; fails if one is missing."""
    disturbed, _ = generate("disturbed", megabytes / 4, "--reorder", "0.02", "--loss", "0.02")
    say("  counting rows")
    rows, listed = [], known()
    wrong = []
    captures = (("in order", path, summary["pairs"]), ("2 % reordered, 2 % sent again", disturbed, None))
    for name, capture, pairs in captures:
        pairs = pairs or json.loads(capture.with_suffix(".pcap.json").read_text())["pairs"]
        found = counted(capture)
        for protocol in sorted(pairs.keys() | found.keys()):
            made, have = pairs.get(protocol, 0), found.get(protocol, 0)
            judged = "all" if made == have else f"{have - made:+,}" if protocol in listed else "not dissected yet"
            rows.append((name, protocol, made, have, judged))
            if made != have and protocol in listed:
                wrong.append(protocol)
    table("Rows, of requests generated", ("capture", "protocol", "requests", "rows", ""), rows, text=2)
    once, again = printed(path, 1), printed(path, len(CORES))
    measure.note(f"one core and {len(CORES)} print {'the same bytes' if once == again else 'DIFFERENT ROWS'}")
    if wrong or once != again:
        raise Failure("rows are wrong: " + (", ".join(sorted(set(wrong))) or "they depend on the number of cores"))


def protocols():
    """One capture for each protocol, on one core."""
    megabytes, runs = setting("SIZE", 200.0) / 4, setting("RUNS", 3, int)
    rows, listed = [], known()
    for protocol in ("http", "redis", "kafka", "postgresql", "dns"):
        if protocol not in listed:
            rows.append((protocol, "not dissected yet", *[None] * 5))
            continue
        path, summary = generate(protocol, megabytes, "--mix", f"{protocol}:1")
        taken = best({f"{protocol}, kubectl sniff": (sniff(path), 1), f"{protocol}, tshark": (tshark(path), 1)}, runs)
        ours, peer = taken.values()
        size, pairs = summary["bytes"] / 1e6, sum(summary["pairs"].values())
        rows.append((protocol, size / ours.cpu, int(pairs / ours.cpu), ours.cpu, peer.cpu, ratio(peer.cpu / ours.cpu), ours.peak))
    table(
        f"Each protocol alone: {megabytes:,.0f} MB, one core, the best of {runs}",
        ("", "MB/CPU s", "requests/CPU s", "CPU s", "tshark's CPU s", "÷", "peak MiB"),
        rows,
    )
