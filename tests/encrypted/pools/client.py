"""Connections that are open before anybody listens: to nginx (requests and asyncio, which hands on what is encrypted by itself) and
to PostgreSQL (psycopg 3)."""
import asyncio, ssl
import psycopg, requests, urllib3
from asked import PORT, SERVER, equal, main, row

BASE = f"https://{SERVER}:{PORT}"
WHERE = {"host": SERVER, "port": 5432, "user": "asker", "password": "secret", "dbname": "postgres", "sslmode": "require"}
urllib3.disable_warnings()
trusting = ssl.create_default_context()
trusting.check_hostname = False
trusting.verify_mode = ssl.CERT_NONE
loop = asyncio.new_event_loop()
sessions, streams, databases = [], [], []


async def get(stream, path):
    reader, writer = stream
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
    return int(head.split()[1])


def is_up():
    psycopg.connect(**WHERE).close()
    equal(requests.get(f"{BASE}/up", verify=False).status_code, 200)
    for _ in range(3):
        sessions.append(requests.Session())
        equal(sessions[-1].get(f"{BASE}/before", verify=False).status_code, 200)
        streams.append(loop.run_until_complete(asyncio.open_connection(SERVER, PORT, ssl=trusting)))
        equal(loop.run_until_complete(get(streams[-1], "/before")), 200)
        databases.append(psycopg.connect(**WHERE, autocommit=True))
        equal(databases[-1].execute("SELECT 1").fetchone(), (1,))


def at_once(number):
    async def all():
        paths = [f"/asyncio?{which}-{number}" for which in range(len(streams))]
        equal(await asyncio.gather(*(get(stream, path) for stream, path in zip(streams, paths))), [200] * len(streams))
        for path in paths:
            row("http", "GET", path, "200")
    loop.run_until_complete(all())


def ask():
    for number in range(40):
        for which, session in enumerate(sessions):
            path, status = (f"/requests?{which}-{number}", 200) if number % 4 else ("/none", 404)
            equal(session.get(BASE + path, verify=False).status_code, status)
            row("http", "GET", path, str(status))
        at_once(number)
        for which, database in enumerate(databases):
            sql = f"SELECT {which * 1000 + number}"
            equal(database.execute(sql).fetchone(), (which * 1000 + number,))
            row("postgresql", "Query", sql, "ok")
        # What is new has keys.
        equal(requests.get(f"{BASE}/new?{number}", verify=False).status_code, 200)
        row("http", "GET", f"/new?{number}", "200")


main(ask, is_up)
