"""GET /catalogue, /catalogue/ID and /catalogue/ID/per-pair (a division in SQL: the one item that is sold in packs of no
pairs makes the database fail, and so this service: a 500 with its cause in another protocol)."""

import os
import threading

import psycopg2
import psycopg2.extras

from service import Handler, NotFound, serve

DATABASE = "host={} dbname=catalogue user=shop password={}".format(
    os.environ.get("DB_HOST", "catalogue-db"), os.environ.get("DB_PASSWORD", "socks")
)


class Database:
    """A small pool: a free connection, or a new one."""

    def __init__(self):
        self.lock, self.free = threading.Lock(), []

    def rows(self, sql, *arguments):
        with self.lock:
            connection = self.free.pop() if self.free else None
        if connection is None:
            connection = psycopg2.connect(DATABASE, cursor_factory=psycopg2.extras.RealDictCursor, connect_timeout=5)
            connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments)
                found = cursor.fetchall()
        except psycopg2.OperationalError:
            connection.close()
            raise
        finally:
            if not connection.closed:
                with self.lock:
                    self.free.append(connection)
        return found


database = Database()


class Catalogue(Handler):
    def answer(self, method, path, _body):
        path, _, query = path.partition("?")
        parts = path.strip("/").split("/")
        if method != "GET":
            return 405, {"error": "the catalogue is read-only"}
        if parts == ["health"]:
            database.rows("SELECT 1")
            return 200, {"status": "ok"}
        if parts == ["catalogue"]:
            tag = query.removeprefix("tag=") if query.startswith("tag=") else None
            return 200, database.rows(
                "SELECT id, name, price_cents, tags FROM socks WHERE %s IS NULL OR %s = ANY (tags) ORDER BY id", tag, tag
            )
        if len(parts) == 2 and parts[0] == "catalogue":
            return 200, self.sock(parts[1])
        if len(parts) == 3 and parts[2] == "per-pair":
            sock = self.sock(parts[1])
            price = database.rows("SELECT price_cents / pairs AS cents FROM socks WHERE id = %s", sock["id"])
            return 200, {"id": sock["id"], "cents_per_pair": price[0]["cents"]}
        raise NotFound(path)

    @staticmethod
    def sock(name):
        found = database.rows("SELECT id, name, description, price_cents, pairs, tags FROM socks WHERE id = %s", name)
        if not found:
            raise NotFound(f"no sock has the id {name}")
        return found[0]


serve(Catalogue)
