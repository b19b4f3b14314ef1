"""memcached: the text protocol (pymemcache), the binary one (pylibmc, so libmemcached), and UDP."""
import socket
import pylibmc
from pymemcache import exceptions
from pymemcache.client.base import Client
from asked import PORT, SERVER, equal, fails, main, row


def tell(operation, target="", status=""):
    row("memcached", operation, target, status)


def text():
    client = Client((SERVER, PORT), default_noreply=False)
    equal(client.set("greeting", "hello"), True)
    tell("set", "greeting", "STORED")
    equal(client.get("greeting"), b"hello")
    tell("get", "greeting", "VALUE")
    equal(client.get("nothing"), None)
    tell("get", "nothing", "END")
    equal(client.add("greeting", "again"), False)
    tell("add", "greeting", "NOT_STORED")
    equal(client.replace("nothing", "x"), False)
    tell("replace", "nothing", "NOT_STORED")
    equal(client.append("greeting", "!"), True)
    tell("append", "greeting", "STORED")
    equal(client.prepend("greeting", ">"), True)
    tell("prepend", "greeting", "STORED")
    value, token = client.gets("greeting")
    equal(value, b">hello!")
    tell("gets", "greeting", "VALUE")
    equal(client.cas("greeting", "new", token), True)
    tell("cas", "greeting", "STORED")
    equal(client.cas("greeting", "late", token), False)
    tell("cas", "greeting", "EXISTS")
    equal(client.cas("nothing", "late", token), None)
    tell("cas", "nothing", "NOT_FOUND")
    client.set("count", "7")
    tell("set", "count", "STORED")
    equal(client.incr("count", 3), 10)
    tell("incr", "count", "ok")
    equal(client.decr("count", 1), 9)
    tell("decr", "count", "ok")
    equal(client.incr("nothing", 1), None)
    tell("incr", "nothing", "NOT_FOUND")
    fails(exceptions.MemcacheClientError, client.incr, "greeting", 1)
    tell("incr", "greeting", "CLIENT_ERROR")
    # The client has closed its connection after the error, and makes a new one.
    equal(client.touch("greeting", 100), True)
    tell("touch", "greeting", "TOUCHED")
    equal(client.delete("count"), True)
    tell("delete", "count", "DELETED")
    equal(client.delete("count"), False)
    tell("delete", "count", "NOT_FOUND")
    client.set_many({f"key:{number}": "x" * number for number in range(50)})
    for number in range(50):
        tell("set", f"key:{number}", "STORED")
    keys = [f"key:{number}" for number in range(50)]
    equal(len(client.get_many(keys + ["nothing"])), 50)
    tell("get", " ".join(keys + ["nothing"]), "VALUE")
    client.set("quiet", "1", noreply=True)
    tell("set", "quiet")
    equal(client.get("quiet"), b"1")
    tell("get", "quiet", "VALUE")
    large = b"large\r\nEND\r\n" * 40_000
    equal(client.set("large", large), True)
    tell("set", "large", "STORED")
    equal(client.get("large"), large)
    tell("get", "large", "VALUE")
    fails(exceptions.MemcacheServerError, client.set, "huge", b"x" * 1_100_000)
    tell("set", "huge", "SERVER_ERROR")
    client.version()
    tell("version", "", "VERSION")
    client.stats()
    tell("stats", "", "STAT")
    client.flush_all()
    tell("flush_all", "", "OK")
    client.quit()
    tell("quit")


def binary():
    client = pylibmc.Client([f"{SERVER}:{PORT}"], binary=True)
    equal(client.set("greeting", "hello"), True)
    tell("set", "greeting", "ok")
    equal(client.get("greeting"), "hello")
    tell("getk", "greeting", "ok")
    equal(client.get("nothing"), None)
    tell("getk", "nothing", "1")
    equal(client.add("greeting", "again"), False)
    tell("add", "greeting", "2")
    client.set("count", "7")
    tell("set", "count", "ok")
    fails(pylibmc.NotFound, client.incr, "nothing")
    tell("incr", "nothing", "1")
    equal(client.incr("count", 3), 10)
    tell("incr", "count", "ok")
    equal(client.delete("count"), True)
    tell("delete", "count", "ok")
    equal(client.delete("count"), False)
    tell("delete", "count", "1")
    # Quiet gets, of which only those that hit are answered, and a noop to know the end.
    equal(client.get_multi(["greeting", "nothing"]), {"greeting": "hello"})
    tell("getkq", "greeting", "ok")
    tell("getkq", "nothing")
    tell("noop", "", "ok")
    client.disconnect_all()
    tell("quit", "", "ok")


def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        for number, (request, answer) in enumerate(((b"set u 0 0 1\r\nx\r\n", b"STORED\r\n"), (b"get u\r\n", b"VALUE u 0 1\r\nx\r\nEND\r\n"))):
            client.sendto(bytes([0, number, 0, 0, 0, 1, 0, 0]) + request, (SERVER, PORT))
            equal(client.recv(2000)[8:], answer)
    tell("set", "u", "STORED")
    tell("get", "u", "VALUE")


def ask():
    for part in (text, binary, udp):
        part()


main(ask)
