#!/usr/bin/env python3
"""The Python deltalake reader over the warehouse of a running weir: another engine counts the same."""

import time

import psycopg
from deltalake import DeltaTable

from common import Checks, equal

checks = Checks(__doc__)


def connect():
    return psycopg.connect(**checks.pg, autocommit=True)


def tables(column):
    """The Delta tables in the warehouse that have a column of that name."""
    logs = sorted(checks.warehouse.rglob("_delta_log"))
    found = (DeltaTable(str(log.parent)) for log in logs)
    return [t for t in found if column in [f.name for f in t.schema().fields]]


def the_table(column):
    (table,) = tables(column)
    return table


def rows(column):
    return the_table(column).to_pyarrow_table()


def ordinary():
    with connect() as connection:
        connection.execute("CREATE TABLE dl_plain (plain_id BIGINT, name TEXT, price NUMERIC(10,2))")
        connection.execute("INSERT INTO dl_plain VALUES (1, 'a', 1.50), (2, NULL, 2.25)")
        connection.execute("UPDATE dl_plain SET name = 'b' WHERE plain_id = 2")
    table = rows("plain_id").sort_by("plain_id").to_pylist()
    equal([row["name"] for row in table], ["a", "b"])
    return equal([str(row["price"]) for row in table], ["1.50", "2.25"])


def streaming():
    with connect() as connection:
        connection.execute(
            "CREATE STREAMING TABLE dl_stream (stream_id BIGINT NOT NULL, at TIMESTAMPTZ, "
            "day DATE GENERATED ALWAYS AS (at::date) STORED) PARTITIONED BY (day) "
            "WITH (event_time = 'at', flush_interval = '1 hour')"
        )
        for batch in range(5):
            connection.execute(
                "INSERT INTO dl_stream (stream_id, at) "
                "SELECT i, to_timestamp(1767225600 + i * 3600) "
                f"FROM generate_series({batch * 100 + 1}, {batch * 100 + 100}) AS g (i)"
            )
            if batch % 2 == 0:
                connection.execute("FLUSH TABLE dl_stream")
        connection.execute("FLUSH TABLE dl_stream")
        inside = connection.execute(
            "SELECT count(*), sum(stream_id)::bigint, count(DISTINCT day) FROM dl_stream"
        ).fetchone()
    outside = rows("stream_id")
    days = outside.column("day").unique()
    found = (outside.num_rows, sum(outside.column("stream_id").to_pylist()), len(days))
    equal(found, inside)
    equal(the_table("stream_id").metadata().partition_columns, ["day"])
    positions = outside.column("_lsn").to_pylist()
    equal(len(set(positions)), len(positions))
    return found


def by_itself():
    """Rows lie in the lake within the flush interval, without anybody asking."""
    with connect() as connection:
        connection.execute(
            "CREATE STREAMING TABLE dl_soon (soon_id BIGINT) WITH (flush_interval = '1 s')"
        )
        connection.execute("INSERT INTO dl_soon VALUES (1), (2), (3)")
    end = time.monotonic() + 30
    while rows("soon_id").num_rows != 3:
        if time.monotonic() > end:
            raise AssertionError("not within 30 s")
        time.sleep(0.1)


def versions():
    table = the_table("plain_id")
    newest = table.version()
    if newest < 2:
        raise AssertionError(f"version {newest}")
    with connect() as connection:
        for version in range(newest + 1):
            table.load_as_version(version)
            sql = f"SELECT count(*) FROM dl_plain VERSION AS OF {version}"
            inside = connection.execute(sql).fetchone()[0]
            equal(table.to_pyarrow_table().num_rows, inside)
    return f"{newest + 1} versions"


def clean_up():
    with connect() as connection:
        for name in ("dl_plain", "dl_stream", "dl_soon"):
            connection.execute(f"DROP TABLE IF EXISTS {name} CASCADE")


checks.check("ordinary table", ordinary)
checks.check("streaming table", streaming)
checks.check("rows reach the lake by themselves", by_itself)
checks.check("versions", versions)
checks.check("clean up", clean_up)
checks.end()
