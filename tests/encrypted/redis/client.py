"""Redis: redis-cli (a process and a connection each time), redis-py with a pipeline."""
import subprocess
import redis
from asked import PORT, SERVER, equal, fails, main, row


def cli(said, *command, status="ok"):
    done = subprocess.run(["redis-cli", "--tls", "--insecure", "-h", SERVER, "-p", str(PORT), *command], capture_output=True, text=True)
    equal(done.stdout.strip(), said)
    row("redis", command[0], command[1], status)


def ask():
    for number in range(20):
        cli("OK", "SET", f"cli:{number}", str(number))
        cli(str(number), "GET", f"cli:{number}")
    cli("WRONGTYPE Operation against a key holding the wrong kind of value", "LPUSH", "cli:1", "x", status="WRONGTYPE")
    with redis.Redis(SERVER, PORT, ssl=True, ssl_cert_reqs="none") as r:
        r.set("large", b"x" * 300_000)
        row("redis", "SET", "large", "ok")
        equal(len(r.get("large")), 300_000)
        row("redis", "GET", "large", "ok")
        fails(redis.ResponseError, r.incr, "large")
        row("redis", "INCRBY", "large", "ERR")
        with r.pipeline(transaction=False) as pipe:
            for number in range(500):
                pipe.set(f"p:{number}", number).get(f"p:{number}")
                row("redis", "SET", f"p:{number}", "ok")
                row("redis", "GET", f"p:{number}", "ok")
            equal(len(pipe.execute()), 1000)


main(ask)
