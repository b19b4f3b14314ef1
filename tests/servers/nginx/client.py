"""nginx: HTTP/1.1 kept alive, chunked, compressed, pipelined, in ranges (http.client); HTTP/2 in clear text (curl, httpx)."""
import asyncio, gzip, http.client, socket, subprocess
import httpx
from asked import PORT, SERVER, equal, main, row


def tell(method, target, status):
    row("http", method, target, str(status))


def one():
    connection = http.client.HTTPConnection(SERVER, PORT, timeout=20)

    def ask(method, target, status, body=None, headers=None, **options):
        connection.request(method, target, body, headers or {}, **options)
        answer = connection.getresponse()
        content = answer.read()
        equal(answer.status, status)
        tell(method, target, status)
        return answer, content

    large = ask("GET", "/large.txt", 200)[1]
    equal(large.count(b"\n"), 60000)
    for number in range(200):
        ask("GET", f"/?n={number}", 200)
    ask("HEAD", "/large.txt", 200)
    ask("GET", "/none?x=%20y&z=a+b", 404)
    ask("GET", "/empty", 204)
    ask("GET", "/moved", 301)
    ask("GET", "/folder", 301)
    ask("GET", "/folder/", 403)
    ask("GET", "/broken", 500)
    ask("GET", "/secret", 401)
    ask("POST", "/index.html", 405, b"x=1")
    ask("OPTIONS", "/", 405)
    ask("GET", "/large.txt", 206, headers={"Range": "bytes=10-19"})
    ask("GET", "/large.txt", 206, headers={"Range": "bytes=10-19,30-39"})
    ask("GET", "/large.txt", 416, headers={"Range": "bytes=900000-"})
    answer, content = ask("GET", "/large.txt", 200, headers={"Accept-Encoding": "gzip"})
    equal(answer.headers["Transfer-Encoding"], "chunked")
    equal(gzip.decompress(content), large)
    tag = ask("GET", "/index.html", 200)[0].headers["ETag"]
    ask("GET", "/index.html", 304, headers={"If-None-Match": tag})
    equal(ask("PUT", "/echo?a", 200, b"y" * 300_000)[1], b"PUT a")
    ask("POST", "/echo", 200, (b"piece %d " % number for number in range(50)), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    ask("DELETE", "/echo", 200)
    ask("GET", "/chunked", 200)
    ask("POST", "/early", 413)
    # The server asks a port of its own where nobody is, which is refused before anything is said.
    ask("GET", "/gone", 502)
    ask("GET", "/", 200, headers={"Connection": "close"})
    # A connection of its own.
    ask("GET", "/" + "long" * 1000, 404)
    connection.close()


def raw(sent, answers):
    with socket.create_connection((SERVER, PORT)) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    equal(answer.count(b"HTTP/1.1 "), answers)


def by_hand():
    """Pipelined; HTTP/1.0; waiting for 100 Continue."""
    raw(b"".join(b"GET /?p=%d HTTP/1.1\r\nHost: a\r\n%s\r\n" % (number, b"Connection: close\r\n" * (number == 29)) for number in range(30)), 30)
    for number in range(30):
        tell("GET", f"/?p={number}", 200)
    raw(b"GET /?old HTTP/1.0\r\n\r\n", 1)
    tell("GET", "/?old", 200)
    raw(b"GET /?none HTTP/1.1\r\n\r\n", 1)
    tell("GET", "/?none", 400)


def curl(*arguments):
    done = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_version} %{http_code}\n", *arguments], capture_output=True, text=True)
    equal((done.returncode, done.stderr), (0, ""))
    return done.stdout.splitlines()


def two():
    base = f"http://{SERVER}:8081"
    two = "--http2-prior-knowledge"
    equal(curl(two, f"{base}/none"), ["2 404"])
    tell("GET", "/none", 404)
    equal(curl(two, "-I", f"{base}/large.txt"), ["2 200"])
    tell("HEAD", "/large.txt", 200)
    equal(curl(two, "-d", "x" * 100_000, f"{base}/upload"), ["2 200"])
    tell("POST", "/upload", 200)
    equal(curl("-H", "Expect: 100-continue", "-T", "/config/client.py", f"http://{SERVER}:{PORT}/echo"), ["1.1 200"])
    tell("PUT", "/echo", 200)


async def at_once():
    """Sixty streams on one connection, some with more than their first window."""
    targets = [f"/large.txt?n={number}" if number % 20 == 0 else f"/?n={number}&two" for number in range(60)]
    async with httpx.AsyncClient(http1=False, http2=True, base_url=f"http://{SERVER}:8081") as client:
        answers = [await client.get("/?first")]
        answers += await asyncio.gather(*(client.get(target) for target in targets))
    equal({(answer.http_version, answer.status_code) for answer in answers}, {("HTTP/2", 200)})
    for target in ["/?first", *targets]:
        tell("GET", target, 200)


def ask():
    for part in (one, by_hand, two, lambda: asyncio.run(at_once())):
        part()


main(ask)
