"""PostgreSQL, which asks for TLS in clear text first: psql (a process and a connection each time), psycopg 3, in TLS 1.3 and 1.2."""
import os, subprocess
import psycopg
from asked import PORT, SERVER, equal, fails, main, row

WHERE = {"host": SERVER, "port": PORT, "user": "asker", "password": "secret", "dbname": "postgres", "sslmode": "require"}


def psql(sql, said, status="ok", **more):
    where = " ".join(f"{name}={value}" for name, value in {**WHERE, **more}.items())
    done = subprocess.run(["psql", "-XAtq", where, "-c", sql], capture_output=True, text=True, env={**os.environ, "HOME": "/tmp"})
    equal((done.returncode, done.stdout), (int(status != "ok"), said))
    row("postgresql", "Startup", "asker/postgres", "ok")
    row("postgresql", "Query", sql, status)


def in_one_connection():
    with psycopg.connect(**WHERE, autocommit=True) as connection:
        row("postgresql", "Startup", "asker/postgres", "ok")
        for number in range(200):
            equal(connection.execute("SELECT %s::int + 1", (number,)).fetchone(), (number + 1,))
            row("postgresql", "Execute", "SELECT $1::int + 1", "ok")
        equal(fails(psycopg.Error, connection.execute, "SELECT 1/0").sqlstate, "22012")
        row("postgresql", "Query", "SELECT 1/0", "22012")
        equal(len(connection.execute("SELECT repeat('x', 1000000)").fetchone()[0]), 1_000_000)
        row("postgresql", "Query", "SELECT repeat('x', 1000000)", "ok")


def ask():
    psql("SELECT version() LIKE 'PostgreSQL%'", "t\n")
    psql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "t\n")
    psql("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "TLSv1.2\n", ssl_max_protocol_version="TLSv1.2")
    psql("SELECT * FROM nowhere", "", "42P01")
    for number in range(10):
        psql(f"SELECT {number}", f"{number}\n")
    in_one_connection()


main(ask, lambda: psycopg.connect(**WHERE).close())
