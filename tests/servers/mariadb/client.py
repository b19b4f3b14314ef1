"""MariaDB: text queries (PyMySQL); prepared statements and compression (the C library, as PHP and Perl use it)."""
import ctypes
import pymysql
from asked import PORT, SERVER, equal, fails, main, row

WHERE = {"host": SERVER, "port": PORT, "user": "asker", "password": "secret"}


def tell(operation, target="", status="ok"):
    row("mysql", operation, target, status)


def text():
    connection = pymysql.connect(**WHERE, database="shop")
    tell("Login", "asker")
    tell("Query", "SET AUTOCOMMIT = 0")
    cursor = connection.cursor()

    def ask(sql, arguments=None, status="ok"):
        if status == "ok":
            cursor.execute(sql, arguments)
        else:
            equal(str(fails(pymysql.MySQLError, cursor.execute, sql, arguments).args[0]), status)
        tell("Query", cursor.mogrify(sql, arguments), status)

    ask("CREATE TABLE sock (id INT PRIMARY KEY, name LONGTEXT)")
    ask("INSERT INTO sock VALUES (%s, %s)", (1, "it's left\n"))
    ask("SELECT * FROM sock")
    equal(cursor.fetchall(), ((1, "it's left\n"),))
    connection.commit()
    tell("Query", "COMMIT")
    ask("INSERT INTO sock VALUES (1, NULL)", status="1062")
    ask("SELEC 1", status="1064")
    ask("SELECT * FROM nowhere", status="1146")
    connection.rollback()
    tell("Query", "ROLLBACK")
    connection.ping()
    tell("Ping")
    connection.select_db("shop")
    tell("InitDB", "shop")
    equal(fails(pymysql.MySQLError, connection.select_db, "none").args[0], 1049)
    tell("InitDB", "none", "1049")
    cursor.executemany("INSERT INTO sock VALUES (%s, %s)", [(number, "many") for number in range(10, 13)])
    tell("Query", "INSERT INTO sock VALUES (10, 'many'),(11, 'many'),(12, 'many')")
    ask("INSERT INTO sock VALUES (99, %s)", ("x" * 60_000,))
    ask("SELECT repeat('y', 1000000)")
    equal(len(cursor.fetchone()[0]), 1_000_000)
    ask("SELECT 0 FROM sock WHERE id < 0")
    for number in range(100):
        ask("SELECT %s", (number,))
    connection.commit()
    tell("Query", "COMMIT")
    connection.close()
    tell("Quit", status="")


def several():
    """Statements in one query, each with its result."""
    connection = pymysql.connect(**WHERE, autocommit=True, client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
    tell("Login", "asker")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; DO 2; SELECT 3")
        while cursor.nextset():
            pass
    tell("Query", "SELECT 1; DO 2; SELECT 3")
    connection.close()
    tell("Quit", status="")


def refused():
    equal(fails(pymysql.MySQLError, pymysql.connect, **{**WHERE, "password": "wrong"}).args[0], 1045)
    tell("Login", "asker", "1045")


def connect(flags=0):
    """The C library and its handle of a connection."""
    library = ctypes.CDLL("libmariadb.so.3")
    for name in ("mysql_init", "mysql_real_connect", "mysql_stmt_init", "mysql_error", "mysql_store_result"):
        getattr(library, name).restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.mysql_init(None))
    connected = library.mysql_real_connect(handle, *(word.encode() for word in (SERVER, "asker", "secret", "shop")), PORT, None, ctypes.c_ulong(flags))
    assert connected, ctypes.string_at(ctypes.c_void_p(library.mysql_error(handle)))
    tell("Login", "asker")
    return library, handle


def compressed():
    """Each packet in zlib, in both directions."""
    library, handle = connect(pymysql.constants.CLIENT.COMPRESS)
    for sql, error in (("SELECT 1", 0), ("SELECT repeat('x', 300000)", 0), ("SELECT '" + "y" * 20_000 + "'", 0), ("SELEC 1", 1064)):
        library.mysql_query(handle, sql.encode())
        equal(library.mysql_errno(handle), error)
        library.mysql_free_result(ctypes.c_void_p(library.mysql_store_result(handle)))
        tell("Query", sql, str(error or "ok"))
    library.mysql_close(handle)
    tell("Quit", status="")


def prepared():
    library, handle = connect()

    def prepare(sql, error=0):
        statement = ctypes.c_void_p(library.mysql_stmt_init(handle))
        library.mysql_stmt_prepare(statement, sql.encode(), len(sql))
        equal(library.mysql_stmt_errno(statement), error)
        tell("StmtPrepare", sql, str(error or "ok"))
        return statement

    def execute(statement, sql, error=0):
        library.mysql_stmt_execute(statement)
        equal(library.mysql_stmt_errno(statement), error)
        tell("StmtExecute", sql, str(error or "ok"))
        return library.mysql_stmt_store_result(statement)

    select, insert = "SELECT id, name FROM sock ORDER BY id", "INSERT INTO sock VALUES (500, 'prepared')"
    one, two = prepare(select), prepare(insert)
    for _ in range(3):
        execute(one, select)
        equal(library.mysql_stmt_num_rows(one), 5)
        library.mysql_stmt_free_result(one)
    execute(two, insert)
    execute(two, insert, 1062)
    equal(library.mysql_stmt_reset(one), 0)
    tell("StmtReset")
    prepare("SELECT * FROM nowhere WHERE id = ?", 1146)
    library.mysql_stmt_close(one)
    tell("StmtClose", status="")
    execute(two, insert, 1062)
    library.mysql_close(handle)
    tell("Quit", status="")


def ask():
    for part in (text, several, refused, prepared, compressed):
        part()


main(ask, lambda: pymysql.connect(**WHERE).close())
