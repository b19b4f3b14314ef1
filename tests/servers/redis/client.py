"""Redis: plain commands, pipelines, transactions, scripts, streams, subscriptions, large and binary values."""
import socket, subprocess
import redis
from asked import PORT, SERVER, equal, fails, main, row


def tell(*commands):
    """OPERATION TARGET of commands that succeed."""
    for command in commands:
        operation, _, target = command.partition(" ")
        row("redis", operation, target, "ok")


def commands(r):
    r.ping()
    r.set("greeting", "hello")
    equal(r.get("greeting"), b"hello")
    equal(r.get("nothing"), None)
    r.mset({"a": 1, "b": 2})
    equal(r.mget("a", "b", "c"), [b"1", b"2", None])
    r.rpush("list", "x", "y")
    equal(r.blpop("list", 5), (b"list", b"x"))
    equal(r.blpop("empty", 1), None)
    r.zadd("scores", {"ann": 1.5})
    r.hset("hash", mapping={"f": "v"})
    equal(r.hgetall("hash"), {b"f": b"v"})
    r.xadd("stream", {"n": 1}, id="1-1")
    equal(len(r.xread({"stream": 0}, count=1)), 1)
    r.object("encoding", "a")
    r.config_get("maxmemory")
    r.dbsize()
    tell("PING", "SET greeting", "GET greeting", "GET nothing", "MSET a", "MGET a", "RPUSH list", "BLPOP list", "BLPOP empty",
         "ZADD scores", "HSET hash", "HGETALL hash", "XADD stream", "XREAD stream", "OBJECT a", "CONFIG", "DBSIZE")


def errors(r):
    fails(redis.ResponseError, r.incr, "greeting")
    row("redis", "INCRBY", "greeting", "ERR")
    fails(redis.ResponseError, r.lpush, "greeting", "x")
    row("redis", "LPUSH", "greeting", "WRONGTYPE")
    fails(redis.ResponseError, r.execute_command, "NOSUCH", "thing")
    row("redis", "NOSUCH", "thing", "ERR")
    fails(redis.RedisError, r.execute_command, "AUTH", "bob", "secret")
    row("redis", "AUTH", "", "WRONGPASS")


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"p:{number}", number).get(f"p:{number}")
            tell(f"SET p:{number}", f"GET p:{number}")
        pipe.lpush("greeting", "x")
        row("redis", "LPUSH", "greeting", "WRONGTYPE")
        equal(len(pipe.execute(raise_on_error=False)), 1001)
    with r.pipeline() as pipe:
        pipe.watch("a")
        pipe.multi()
        pipe.incr("a").incr("greeting")
        fails(redis.ResponseError, pipe.execute)
    tell("WATCH a", "MULTI", "INCRBY a", "INCRBY greeting", "EXEC")
    with r.pipeline() as pipe:
        pipe.incr("a").execute_command("SET", "alone")
        fails(redis.ResponseError, pipe.execute)
    tell("MULTI", "INCRBY a")
    row("redis", "SET", "alone", "ERR")
    row("redis", "EXEC", "", "EXECABORT")


def scripts(r):
    double = r.register_script("return redis.call('get', KEYS[1]) * 2")
    equal(double(keys=["b"]), 4)
    row("redis", "EVALSHA", "b", "NOSCRIPT")
    tell("SCRIPT", "EVALSHA b")
    equal(r.eval("return ARGV[1]", 0, "x"), b"x")
    tell("EVAL")


def subscriptions(r):
    subscriber = r.pubsub()
    subscriber.subscribe("news")
    subscriber.psubscribe("ne*")
    got = [subscriber.get_message(timeout=5)["type"] for _ in range(2)]
    for number in range(20):
        equal(r.publish("news", f"item {number}"), 2)
        got += [subscriber.get_message(timeout=5)["type"] for _ in range(2)]
    subscriber.unsubscribe("news")
    got += [subscriber.get_message(timeout=5)["type"]]
    equal(got, ["subscribe", "psubscribe"] + ["message", "pmessage"] * 20 + ["unsubscribe"])
    subscriber.close()
    tell("SUBSCRIBE news", "PSUBSCRIBE ne*", "UNSUBSCRIBE news")
    row("redis", "PUBLISH", "news", "ok", times=20)
    row("redis", "MESSAGE", "news", by="server", times=20)
    row("redis", "PMESSAGE", "news", by="server", times=20)


def values(r):
    large, binary = b"x" * 300_000, bytes(range(256)) * 100
    r.set("large", large)
    equal(r.get("large"), large)
    r.set(b"\xff\x00key", binary)
    r.set("binary", binary)
    equal(r.get("binary"), binary)
    tell("SET large", "GET large", "SET \\xff\\x00key", "SET binary", "GET binary")


def inline():
    """What people type with netcat."""
    with socket.create_connection((SERVER, PORT)) as connection:
        connection.sendall(b"set typed 1\r\nget typed\r\nQUIT\r\n")
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    equal(answer, b"+OK\r\n$1\r\n1\r\n+OK\r\n")
    tell("SET typed", "GET typed", "QUIT")


def resp3():
    """The newer protocol, in which answers have types that the older lacks."""
    commands = "HGETALL hash\nZSCORE scores ann\nGET nothing\nSISMEMBER list x\nDEBUG PROTOCOL map\n"
    done = subprocess.run(["redis-cli", "-3", "-h", SERVER, "-n", "1"], input=commands, capture_output=True, text=True)
    assert "1.5" in done.stdout and "WRONGTYPE" in done.stdout, done
    tell("HELLO", "SELECT", "COMMAND", "HGETALL hash", "ZSCORE scores", "GET nothing")
    row("redis", "SISMEMBER", "list", "WRONGTYPE")
    row("redis", "DEBUG", "", "ERR")


def ask():
    r = redis.Redis(SERVER, PORT, db=1, client_name="asker")
    tell("CLIENT", "SELECT")
    for part in (commands, errors, pipelines, scripts):
        part(r)
    # A connection of its own, set up as the first.
    tell("CLIENT", "SELECT")
    subscriptions(r)
    # And that of the subscriber once more, when it is used again.
    tell("CLIENT", "SELECT")
    values(r)
    inline()
    resp3()
    r.close()


main(ask)
