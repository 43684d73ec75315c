#!/usr/bin/env python3
"""The ADBC Flight SQL driver against a running weir: queries, parameters, metadata, ingest, errors."""

import pathlib
import subprocess
import sys

import adbc_driver_flightsql.dbapi as flight
import adbc_driver_manager
import pyarrow as pa

from common import Checks, equal

checks = Checks(__doc__)


def connect(password=None):
    login = {"username": checks.user, "password": password or checks.password}
    return flight.connect(checks.flight, db_kwargs=login, autocommit=True)


def query(sql, parameters=None):
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def run(sql):
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)


def types():
    table = query(
        "SELECT 1::int8 AS a, 'x' AS b, 1.5::float8 AS c, true AS d, date '2026-01-01' AS e, "
        "timestamp '2026-01-01 00:00:00' AS f, NULL::text AS g"
    )
    equal(table.column_names, list("abcdefg"))
    kinds = [str(t) for t in table.schema.types]
    # Views of strings break older readers: plain strings leave the server.
    equal(kinds[:5], ["int64", "string", "double", "bool", "date32[day]"])
    return equal(table.slice(0, 1).to_pylist()[0]["b"], "x")


def many_rows():
    table = query("SELECT i FROM generate_series(1, 300000) AS g (i)")
    equal(table.num_rows, 300000)
    return equal(sum(table.column("i").to_pylist()), 300000 * 300001 // 2)


def parameters():
    table = query("SELECT $1::bigint + 1 AS n, $2::text AS s", (41, "it's"))
    return equal(table.to_pylist(), [{"n": 42, "s": "it's"}])


def ingest():
    rows = pa.table({
        "id": pa.array(range(10000), pa.int64()),
        "name": pa.array([f"name {i}" if i % 3 else None for i in range(10000)]),
    })
    run("CREATE STREAMING TABLE af_events (id BIGINT NOT NULL, name TEXT)")
    with connect() as connection, connection.cursor() as cursor:
        equal(cursor.adbc_ingest("af_events", rows, mode="append"), 10000)
        cursor.execute("SELECT count(*) AS n, count(name) AS named FROM af_events")
        return equal(cursor.fetchone(), (10000, 6666))


def metadata():
    with connect() as connection:
        schema = connection.adbc_get_table_schema("af_events")
        equal(schema.names, ["id", "name"])
        objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        names = {
            table["table_name"]
            for catalog in objects
            for schema in catalog["catalog_db_schemas"] or []
            for table in schema["db_schema_tables"] or []
        }
        if "af_events" not in names:
            raise AssertionError(f"af_events is not among {sorted(names)[:20]}")
        if not connection.adbc_get_table_types():
            raise AssertionError("no table types")
        return connection.adbc_get_info().get("vendor_name")


def errors():
    cases = ["SELECT * FROM missing", "SELEC 1", "SELECT 1 / 0"]
    for sql in cases:
        try:
            query(sql)
        except adbc_driver_manager.Error:
            continue
        raise AssertionError(f"{sql}: no error")
    return equal(query("SELECT 1 AS a").to_pylist(), [{"a": 1}])


def transactions():
    """Without autocommit: the block reads its rows, others only after the commit."""
    login = {"username": checks.user, "password": checks.password}
    count = "SELECT count(*) AS n FROM af_block"
    run("CREATE TABLE af_block (a INT)")
    with flight.connect(checks.flight, db_kwargs=login) as connection, connection.cursor() as cursor:
        for end, after in [(connection.rollback, 0), (connection.commit, 1)]:
            cursor.execute("INSERT INTO af_block VALUES (1)")
            cursor.execute(count)
            equal(cursor.fetchone(), (1,))
            equal(query(count).to_pylist(), [{"n": 0}])
            end()
            equal(query(count).to_pylist(), [{"n": after}])
        # ingest commits by itself, inside a block too
        cursor.adbc_ingest("af_block", pa.table({"a": pa.array([2, 3], pa.int32())}), mode="append")
        connection.commit()
    equal(query(count).to_pylist(), [{"n": 3}])
    run("DROP TABLE af_block")


def wrong_password():
    try:
        with connect("wrong") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except adbc_driver_manager.Error as error:
        return error.status_code.name
    raise AssertionError("came in")


def readme_example():
    script = pathlib.Path(__file__).with_name("flight_example.py")
    sql = "SELECT count(*) AS n FROM af_events"
    command = [sys.executable, str(script), checks.flight, checks.password, sql]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if told.returncode != 0 or "10000" not in told.stdout:
        raise AssertionError(told.stdout + told.stderr)
    return None


checks.check("types", types)
checks.check("many rows", many_rows)
checks.check("bound parameters", parameters)
checks.check("bulk ingest", ingest)
checks.check("metadata", metadata)
checks.check("errors", errors)
checks.check("transactions", transactions)
checks.check("wrong password", wrong_password)
checks.check("the README's example", readme_example)
checks.check("clean up", lambda: run("DROP TABLE IF EXISTS af_events CASCADE"))
checks.end()
