#!/usr/bin/env python3
"""psycopg 3 against a running weir: types, parameters, pipelines, COPY, cancel, errors."""

import datetime
import decimal
import threading
import uuid

import psycopg

from common import Checks, equal

checks = Checks(__doc__)


def connect(**options):
    return psycopg.connect(**checks.pg, autocommit=True, **options)


def one(sql, parameters=None, **options):
    with connect() as connection:
        with connection.cursor(**options) as cursor:
            return cursor.execute(sql, parameters).fetchone()


TYPED = (
    "SELECT 1::int2, 2::int4, 3::int8, 2.5::float8, 1.25::numeric(10,2), 'text', true, NULL::int, "
    "date '2026-01-02', timestamp '2026-01-02 03:04:05.5', "
    "timestamptz '2026-01-02 03:04:05+00', '6f1c1d1e-7e0a-4a29-9d0b-0d9f0c7a2b11'::uuid"
)
VALUES = (
    1, 2, 3, 2.5, decimal.Decimal("1.25"), "text", True, None,
    datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5, 500000),
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
    uuid.UUID("6f1c1d1e-7e0a-4a29-9d0b-0d9f0c7a2b11"),
)


def parameters():
    values = (7, "it's", 2.5, True, None, decimal.Decimal("1.25"), datetime.date(2026, 1, 2))
    sql = (
        "SELECT %s::bigint, %s::text, %s::float8, %s::boolean, %s::text, "
        "%s::numeric(10,2), %s::date"
    )
    return equal(one(sql, values), values)


def prepared():
    with connect(prepare_threshold=0) as connection:
        rows = [connection.execute("SELECT %s::int * 2", (i,)).fetchone()[0] for i in range(6)]
    return equal(rows, [0, 2, 4, 6, 8, 10])


def parameters_against_columns():
    with connect() as connection:
        connection.execute("CREATE TABLE pc_parameters (a BIGINT, b NUMERIC(10,2), c TEXT, d DATE)")
        sql = "INSERT INTO pc_parameters VALUES (%s, %s, %s, %s)"
        connection.execute(sql, (1, 2, "x", datetime.date(2026, 1, 1)))
        connection.execute(sql, (2**40, decimal.Decimal("3.50"), None, "2026-02-01"))
        found = connection.execute(
            "SELECT a, c, d FROM pc_parameters WHERE b = %s AND d < %s", (2, "2026-01-31")
        ).fetchall()
        connection.execute("DROP TABLE pc_parameters")
    return equal(found, [(1, "x", datetime.date(2026, 1, 1))])


def pipeline():
    with connect() as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (i,)) for i in range(10)]
        return equal([c.fetchone()[0] for c in cursors], list(range(10)))


def streaming_table():
    with connect() as connection:
        connection.execute("CREATE STREAMING TABLE pc_events (id BIGINT NOT NULL, name TEXT)")
        with connection.cursor() as cursor:
            with cursor.copy("COPY pc_events FROM STDIN") as copy:
                for i in range(1000):
                    copy.write_row((i, f"name {i}" if i % 2 else None))
            equal(cursor.rowcount, 1000)
            cursor.execute("SELECT count(*), count(name), sum(id)::bigint FROM pc_events")
            return equal(cursor.fetchone(), (1000, 500, 499500))


def copy_out(format):
    with connect() as connection:
        sql = f"COPY (SELECT id, name FROM pc_events ORDER BY id) TO STDOUT (FORMAT {format})"
        with connection.cursor().copy(sql) as copy:
            copy.set_types(["int8", "text"])
            rows = list(copy.rows())
    equal(len(rows), 1000)
    first = [tuple(str(v) if v is not None else None for v in row) for row in rows[:2]]
    return equal(first, [("0", None), ("1", "name 1")])


def copy_in_binary():
    with connect() as connection:
        connection.execute("CREATE TABLE pc_binary (a BIGINT, b TEXT, c FLOAT8)")
        with connection.cursor().copy("COPY pc_binary FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "text", "float8"])
            for i in range(500):
                copy.write_row((i, str(i), i / 2))
        found = connection.execute("SELECT count(*), max(c) FROM pc_binary").fetchone()
        connection.execute("DROP TABLE pc_binary")
    return equal(found, (500, 249.5))


def cancel():
    with connect() as connection:
        threading.Timer(0.3, connection.cancel).start()
        endless = (
            "SELECT count(*) FROM generate_series(1, 1000000) AS a (i), "
            "generate_series(1, 1000000) AS b (j)"
        )
        try:
            connection.execute(endless)
        except psycopg.errors.QueryCanceled:
            return equal(connection.execute("SELECT 1").fetchone(), (1,))
    raise AssertionError("the statement was not cancelled")


def errors():
    cases = [
        ("SELECT * FROM missing", psycopg.errors.UndefinedTable, "15"),
        ("SELECT\n  nope\nFROM pc_events", psycopg.errors.UndefinedColumn, "10"),
        ("SELECT e.nope FROM pc_events AS e", psycopg.errors.UndefinedColumn, "8"),
        ("SELEC 1", psycopg.errors.SyntaxError, "1"),
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero, None),
        ("INSERT INTO pc_events VALUES (NULL, 'x')", psycopg.errors.NotNullViolation, None),
    ]
    with connect() as connection:
        for sql, kind, position in cases:
            try:
                connection.execute(sql)
            except kind as error:
                assert error.diag.statement_position == position, (sql, error.diag.statement_position)
                continue
            raise AssertionError(f"{sql}: no {kind.__name__}")
    return f"{len(cases)} kinds"


def transaction_block():
    with psycopg.connect(**checks.pg) as connection:
        equal(connection.execute("SELECT 1").fetchone(), (1,))
        connection.commit()
        try:
            connection.execute("SELECT * FROM missing")
        except psycopg.errors.UndefinedTable:
            connection.rollback()
        return equal(connection.execute("SELECT 2").fetchone(), (2,))


def transactions_of_inserts():
    """Rows wait for the COMMIT; a batch of 500 statements is one commit."""
    with psycopg.connect(**checks.pg) as connection, connect() as other:
        other.execute("CREATE TABLE pc_batch (a INT, b TEXT)")
        count = "SELECT count(*) FROM pc_batch"
        connection.execute("INSERT INTO pc_batch VALUES (1, 'one')")
        equal(connection.execute(count).fetchone(), (1,))
        equal(other.execute(count).fetchone(), (0,))
        connection.rollback()
        equal(connection.execute(count).fetchone(), (0,))
        with other.pipeline():
            for n in range(500):
                other.execute("INSERT INTO pc_batch VALUES (%s, %s)", (n, str(n)))
        equal(other.execute(count).fetchone(), (500,))
        equal(other.execute(f"{count} VERSION AS OF 1").fetchone(), (500,))
        try:
            with other.pipeline():
                other.execute("INSERT INTO pc_batch VALUES (1000, 'first')")
                other.execute("INSERT INTO pc_batch VALUES ('no number', 'second')")
        except psycopg.DataError:
            pass
        equal(other.execute(count).fetchone(), (500,))
        other.execute("DROP TABLE pc_batch")
    return "500 statements, 1 commit"


def wrong_password():
    try:
        psycopg.connect(**{**checks.pg, "password": "wrong"})
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            return None
        raise
    raise AssertionError("came in")


def clean_up():
    with connect() as connection:
        connection.execute("DROP TABLE IF EXISTS pc_events CASCADE")


checks.check("types, text results", lambda: equal(one(TYPED), VALUES))
checks.check("types, binary results", lambda: equal(one(TYPED, binary=True), VALUES))
checks.check("parameters", parameters)
checks.check("prepared statement", prepared)
checks.check("parameters against columns", parameters_against_columns)
checks.check("pipeline", pipeline)
checks.check("streaming table, COPY in", streaming_table)
checks.check("COPY out, text", lambda: copy_out("text"))
checks.check("COPY out, binary", lambda: copy_out("binary"))
checks.check("COPY in, binary", copy_in_binary)
checks.check("cancel", cancel)
checks.check("errors by class", errors)
checks.check("transaction block", transaction_block)
checks.check("transactions of INSERTs", transactions_of_inserts)
checks.check("wrong password", wrong_password)
checks.check("clean up", clean_up)
checks.end()
