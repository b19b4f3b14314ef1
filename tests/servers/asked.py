"""What every client has: it waits for its server and for the test's word, asks, and tells which rows that must give."""
import json, os, socket, time, traceback

SERVER, PORT = os.environ["SERVER"], int(os.environ["PORT"])
rows = []


def row(protocol, operation, target="", status="", by="client", times=1):
    """One request, or one message, of which there must be a row; `by` is the pod that sent it."""
    rows.extend([[protocol, operation, target, status, by]] * times)


def fails(kind, call, *arguments, **named):
    """The error that the call must raise."""
    try:
        result = call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but {result!r}")


def equal(one, other):
    assert one == other, f"{one!r} is not {other!r}"


def say(name, text):
    with open(f"/tmp/{name}.new", "w") as file:
        file.write(text)
    os.rename(f"/tmp/{name}.new", f"/tmp/{name}")


def main(ask, is_up=None):
    while True:
        try:
            (is_up or (lambda: socket.create_connection((SERVER, PORT), 1).close()))()
            break
        except Exception:
            time.sleep(0.1)
    say("ready", "ready")
    while not os.path.exists("/tmp/go"):
        time.sleep(0.02)
    error = None
    try:
        ask()
    except BaseException:
        error = traceback.format_exc()
    say("done", json.dumps({"rows": rows, "error": error}))
    time.sleep(3600)
