"""NATS as its client libraries speak it: publish, headers, queue groups, requests with replies, errors, verbose mode.

Debian has no client library for Python, so this is the protocol itself, in the order in which those send it.
"""
import json, socket
from asked import PORT, SERVER, equal, main, row


def tell(operation, target="", status="", by="client", times=1):
    row("nats", operation, target, status, by, times)


class Client:
    def __init__(self, **options):
        self.socket = socket.create_connection((SERVER, PORT))
        self.socket.settimeout(20)
        self.lines = self.socket.makefile("rb")
        assert self.line().startswith(b"INFO {")
        tell("INFO", by="server")
        self.verbose = options.get("verbose", False)
        options = {"verbose": False, "pedantic": False, "lang": "python3", "version": "2", "protocol": 1, "headers": True, "no_responders": True, **options}
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        if self.verbose:
            equal(self.line(), b"+OK")
        equal(self.line(), b"PONG")
        tell("CONNECT", status="ok" if self.verbose else "")
        tell("PING", status="ok")

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        return self.lines.readline().rstrip(b"\r\n")

    def answer(self):
        """Waits for the answer that the verbose mode gives."""
        if self.verbose:
            equal(self.line(), b"+OK")
            return "ok"
        return ""

    def publish(self, subject, payload, reply=None):
        self.send(b"PUB %s %d\r\n%s\r\n" % (" ".join(filter(None, (subject, reply))).encode(), len(payload), payload))
        tell("PUB", subject, self.answer())

    def publish_with(self, subject, headers, payload):
        head = b"NATS/1.0\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in headers) + b"\r\n"
        self.send(b"HPUB %s %d %d\r\n%s%s\r\n" % (subject.encode(), len(head), len(head) + len(payload), head, payload))
        tell("HPUB", subject, self.answer())

    def subscribe(self, subject, number, queue=""):
        self.send(f"SUB {subject} {queue + ' ' if queue else ''}{number}\r\n".encode())
        tell("SUB", subject, self.answer())

    def unsubscribe(self, subject, number, most=""):
        self.send(f"UNSUB {number}{' ' if most else ''}{most}\r\n".encode())
        tell("UNSUB", subject, self.answer())

    def flush(self):
        self.send(b"PING\r\n")
        equal(self.line(), b"PONG")
        tell("PING", status="ok")

    def message(self, subject, payload):
        """The next message; its reply subject."""
        head = self.line().split()
        sizes = [int(size) for size in head[-2 if head[0] == b"HMSG" else -1:]]
        body = self.lines.read(sizes[-1] + 2)
        equal((head[1].decode(), body[sizes[0] if len(sizes) == 2 else 0:-2]), (subject, payload))
        tell(head[0].decode(), subject, by="server")
        return head[3].decode() if len(head) - len(sizes) == 4 else None


def ask():
    one, two = Client(name="one"), Client(name="two")
    one.subscribe("orders.*", 1)
    one.subscribe("big", 2, "workers")
    one.subscribe("asks", 3)
    one.flush()
    for number in range(100):
        two.publish(f"orders.{number}", b"number %d\r\nPUB not.this 3\r\n" % number)
    for number in range(100):
        one.message(f"orders.{number}", b"number %d\r\nPUB not.this 3\r\n" % number)
    large = bytes(range(256)) * 1500
    two.publish("big", large)
    one.message("big", large)
    two.publish("orders.empty", b"")
    one.message("orders.empty", b"")
    two.publish_with("orders.head", [(b"Trace", b"1"), (b"Trace", b"2")], b"with")
    one.message("orders.head", b"with")

    two.subscribe("_INBOX.two.*", 1)
    two.publish("asks", b"how much?", "_INBOX.two.1")
    reply = one.message("asks", b"how much?")
    one.publish(reply, b"much")
    two.message("_INBOX.two.1", b"much")
    two.publish("nobody.there", b"?", "_INBOX.two.2")
    two.message("_INBOX.two.2", b"")

    one.unsubscribe("asks", 3)
    one.unsubscribe("orders.*", 1, 200)
    one.flush()
    two.publish("asks", b"late")
    two.flush()

    three = Client(name="three", verbose=True, pedantic=True)
    three.subscribe("loud", 1)
    three.publish("loud", b"!")
    three.message("loud", b"!")
    three.send(b"SUB bad..subject 2\r\n")
    text = three.line()
    assert text.startswith(b"-ERR '"), text
    tell("SUB", "bad..subject", text[6:-1].decode())
    four = Client(name="four")
    four.send(b"NOSUCH\r\n")
    text = four.line()
    assert text.startswith(b"-ERR '"), text
    tell("-ERR", "", text[6:-1].decode(), by="server")  # To no request of four's that has a row.
    for client in (one, two, three, four):
        client.socket.close()


main(ask)
