"""Packetbeat: built from its sources by Go, once, and kept outside the tree."""

import os
import pathlib
import subprocess
import tempfile

from measure import Failure, need, note, say

VERSION = "v7.17.29"
MODULE = "github.com/elastic/beats/v7"
# Seconds; it takes some minutes on two cores.
PATIENCE = 1500

# The protocols that it and the generated captures have in common.
CONFIG = """
packetbeat.protocols:
- {type: http, ports: [80, 8080]}
- {type: redis, ports: [6379]}
- {type: pgsql, ports: [5432]}
- {type: dns, ports: [53]}
output.file: {path: FOLDER, filename: rows, rotate_every_kb: 100000000}
logging.level: error
"""


def reads(capture, folder):
    """The command that makes JSON of a capture, as fast as it can, in a folder; none if it cannot be built here."""
    try:
        binary = built()
    except Failure as failure:
        note(f"packetbeat cannot be built: {failure}")
        return None
    config = pathlib.Path(folder) / "packetbeat.yml"
    config.write_text(CONFIG.replace("FOLDER", folder))
    return [binary, "-c", config, "-path.home", folder, "-strict.perms=false", "-t", "-I", capture]


def built():
    """Its binary."""
    cache = pathlib.Path(os.environ.get("SNIFF_CACHE", "/var/cache/kubectl-sniff"))
    binary = cache / f"packetbeat-{VERSION}"
    if binary.exists():
        return binary
    go = need("go", "golang-go")
    say(f"  building packetbeat {VERSION}")
    cache.mkdir(parents=True, exist_ok=True)
    # Beside its place until it is whole.
    made = binary.with_suffix(".new")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "go.mod").write_text("module bench\n")
        source = output([go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], folder).split('"Dir": "')[-1].split('"')[0]
        output([go, "build", "-o", str(made), "./packetbeat"], source)
    made.rename(binary)
    return binary


def output(command, folder):
    """What a command prints in a folder."""
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
    except subprocess.CalledProcessError as error:
        raise Failure((error.stderr or error.stdout).strip().splitlines()[-1]) from None
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{command[1]} took longer than {error.timeout} seconds") from None
