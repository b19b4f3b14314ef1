"""PostgreSQL: simple queries (psycopg2), the extended protocol (psycopg 3): prepared, pipelined, COPY, errors, cancel."""
import io, threading, time
import psycopg, psycopg2, psycopg2.extras
from asked import PORT, SERVER, equal, fails, main, row

WHERE = {"host": SERVER, "port": PORT, "user": "asker", "password": "secret", "dbname": "postgres"}


def query(sql, status="ok"):
    row("postgresql", "Query", sql, status)


def execute(sql, status="ok"):
    row("postgresql", "Execute", sql, status)


def simple():
    connection = psycopg2.connect(**WHERE)
    row("postgresql", "Startup", "asker/postgres", "ok")
    cursor = connection.cursor()

    def ask(sql, arguments=None, status="ok"):
        if status == "ok":
            cursor.execute(sql, arguments)
        else:
            equal(fails(psycopg2.Error, cursor.execute, sql, arguments).pgcode, status)
        query(cursor.query.decode(), status)

    query("BEGIN")
    ask("CREATE TABLE sock (id int PRIMARY KEY, name text)")
    ask("INSERT INTO sock VALUES (%s, %s), (%s, %s)", (1, "left", 2, "it's right\nor not"))
    ask("SELECT * FROM sock ORDER BY id")
    equal(cursor.fetchall(), [(1, "left"), (2, "it's right\nor not")])
    connection.commit()
    query("COMMIT")
    query("BEGIN")
    ask("INSERT INTO sock VALUES (%s, 'twice')", (1,), status="23505")
    ask("SELECT 1", status="25P02")
    connection.rollback()
    query("ROLLBACK")
    connection.autocommit = True
    for sql, status in (("SELECT 1/0", "22012"), ("SELEC 1", "42601"), ("SELECT * FROM nowhere", "42P01"), ("SELECT 1; SELECT 2", "ok"),
                        ("SELECT 1; SELECT 1/0; SELECT 3", "22012"), ("PREPARE p AS SELECT $1::int", "ok"), ("EXECUTE p(3)", "ok")):
        ask(sql, status=status)
    psycopg2.extras.execute_batch(cursor, "INSERT INTO sock VALUES (%s, NULL)", [(number,) for number in range(10, 20)])
    query(";".join(f"INSERT INTO sock VALUES ({number}, NULL)" for number in range(10, 20)))
    cursor.copy_expert("COPY sock FROM STDIN", io.StringIO("".join(f"{number}\tcopied\n" for number in range(1000, 9000))))
    query("COPY sock FROM STDIN")
    equal(fails(psycopg2.Error, cursor.copy_expert, "COPY sock FROM STDIN", io.StringIO("x\ty\n")).pgcode, "22P02")
    query("COPY sock FROM STDIN", "22P02")
    out = io.StringIO()
    cursor.copy_expert("COPY sock TO STDOUT", out)
    query("COPY sock TO STDOUT")
    equal(out.getvalue().count("\n"), 8012)
    ask("LISTEN news")
    ask("NOTIFY news, 'item'")
    equal(connection.notifies.pop().payload, "item")
    ask("SELECT repeat('x', 1000000)")
    equal(len(cursor.fetchone()[0]), 1_000_000)
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    ask("SELECT pg_sleep(30)", status="57014")
    timer.join()
    row("postgresql", "CancelRequest")
    connection.close()


def extended():
    connection = psycopg.connect(**WHERE, autocommit=True)
    row("postgresql", "Startup", "asker/postgres", "ok")
    cursor = connection.cursor()

    def ask(sql, arguments=None, as_sent=None, status="ok", **named):
        if status == "ok":
            cursor.execute(sql, arguments, **named)
        else:
            equal(fails(psycopg.Error, cursor.execute, sql, arguments, **named).sqlstate, status)
        (execute if as_sent else query)(as_sent or sql, status)

    ask("SELECT 1")
    ask("SELECT %s::int + %s", (1, 2), "SELECT $1::int + $2")
    equal(cursor.fetchone(), (3,))
    ask("SELECT %s::int", ("x",), "SELECT $1::int", status="22P02")
    for number in range(8):
        ask("SELECT name FROM sock WHERE id = %s", (number,), "SELECT name FROM sock WHERE id = $1", prepare=True)
    ask("SELECT 1 / %s::int", (0,), "SELECT 1 / $1::int", prepare=True, status="22012")
    ask("SELECT %t", (True,), "SELECT $1")
    ask("SELECT length(%b)", (bytes(range(256)) * 4000,), "SELECT length($1)")
    equal(cursor.fetchone(), (1_024_000,))

    # Not understood: no Execute follows the Parse that failed, but libpq had sent it already.
    ask("SELECT * FROM nowhere WHERE id = %s", (1,), "SELECT * FROM nowhere WHERE id = $1", status="42P01")

    with connection.transaction():
        ask("UPDATE sock SET name = %s WHERE id = %s", ("new", 1), "UPDATE sock SET name = $1 WHERE id = $2")
    execute("BEGIN")
    execute("COMMIT")
    with connection.cursor(name="portal") as portal:
        declare = "SELECT id FROM sock ORDER BY id"
        fails(psycopg.Error, portal.execute, declare)  # Not outside a transaction.
    execute('DECLARE "portal" CURSOR FOR ' + declare, "25P01")

    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (number,), prepare=False) for number in range(50)]
    equal([cursor.fetchone()[0] for cursor in cursors], list(range(50)))
    for _ in range(50):
        execute("SELECT $1::int")

    def broken():
        with connection.pipeline():
            connection.execute("SELECT 1 / %s::int", (0,), prepare=False)
            connection.execute("SELECT 'after', %s::int", (1,), prepare=False)

    equal(fails(psycopg.Error, broken).sqlstate, "22012")
    execute("SELECT 1 / $1::int", "22012")
    execute("SELECT 'after', $1::int", "")
    with cursor.copy("COPY sock FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "text"])
        copy.write_row((99, "binary"))
    query("COPY sock FROM STDIN (FORMAT BINARY)")
    connection.close()


def refused():
    fails(psycopg2.OperationalError, psycopg2.connect, **{**WHERE, "password": "wrong"})
    row("postgresql", "Startup", "asker/postgres", "28P01")
    fails(psycopg2.OperationalError, psycopg2.connect, **{**WHERE, "dbname": "none"})
    row("postgresql", "Startup", "asker/none", "3D000")


def ask():
    simple()
    extended()
    refused()


main(ask, lambda: psycopg2.connect(**WHERE).close())
