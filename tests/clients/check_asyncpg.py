#!/usr/bin/env python3
"""asyncpg: arrays both ways, prepared statements, transactions, COPY, cursors, pools, temporary tables."""

import asyncio
import datetime
import decimal

import asyncpg

from common import Checks, equal

checks = Checks(__doc__)
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)
IDS = ["00000000-0000-0000-0000-000000000001", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"]
LISTS = {
    "int": [1, None, -3],
    "bigint": [2**40, 0],
    "text": ["a", 'b "c", {d}', None, ""],
    "timestamptz": [MOMENT, None],
    "date": [datetime.date(2026, 1, 2)],
    "numeric": [decimal.Decimal("1.5"), decimal.Decimal("-0.25")],
    "bool": [True, False, None],
    "float8": [1.5, -2.0],
}


def run(work):
    """Runs a coroutine over a connection of its own, with a limit."""

    async def limited():
        connection = await connect()
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(asyncio.wait_for(limited(), 60))


def connect():
    return asyncpg.connect(
        host=checks.pg_host,
        port=int(checks.pg_port),
        user=checks.user,
        password=checks.password,
        database="weir",
    )


async def arrays(connection):
    """Every list comes back as it was sent, as a parameter and by its type alone."""
    for kind, values in LISTS.items():
        equal(await connection.fetchval(f"SELECT $1::{kind}[]", values), values)
        equal(await connection.fetchval(f"SELECT $1::{kind}[]", []), [])
        equal(await connection.fetchval(f"SELECT $1::{kind}[]", None), None)
    equal(await connection.fetchval("SELECT ARRAY[1, 2, NULL]"), [1, 2, None])
    return equal(await connection.fetchval("SELECT array_agg(x) FROM (VALUES ('a'), ('b')) AS t (x)"), ["a", "b"])


async def stored_arrays(connection):
    """A uuid is read as one, and given as its text."""
    await connection.execute("CREATE TABLE apg_lists (id uuid, tags text[], at timestamptz[], n int[])")
    rows = [(id, [f"t{i}", None], [MOMENT], list(range(i))) for i, id in enumerate(IDS)]
    await connection.executemany("INSERT INTO apg_lists VALUES ($1, $2, $3, $4)", rows)
    found = await connection.fetch("SELECT * FROM apg_lists WHERE id = ANY($1) ORDER BY id", IDS)
    equal([(str(row[0]), *row[1:]) for row in found], sorted(rows))
    await connection.execute("DROP TABLE apg_lists")
    return len(found)


async def parameters(connection):
    """asyncpg takes Python values of the types it is told, and no others."""
    equal(await connection.fetchval("SELECT $1 + 1", 41), 42)
    equal([r["x"] for r in await connection.fetch("SELECT x FROM generate_series(1, $1) AS g (x)", 3)], [1, 2, 3])
    equal(await connection.fetchval("SELECT typname FROM pg_type WHERE oid = $1", 25), "text")
    statement = await connection.prepare("SELECT $1::text || 'x' AS t, $2::numeric(10, 2) AS n")
    equal([p.name for p in statement.get_parameters()], ["text", "numeric"])
    return equal(dict(await statement.fetchrow("a", decimal.Decimal("2.5"))), {"t": "ax", "n": decimal.Decimal("2.50")})


async def rows(connection):
    await connection.execute("CREATE TEMP TABLE apg_rows (id int, at timestamptz, what jsonb)")
    records = [(i, MOMENT, '{"n": 1}') for i in range(1000)]
    await connection.copy_records_to_table("apg_rows", records=records, schema_name="pg_temp")
    async with connection.transaction(readonly=True):
        seen = 0
        async for row in connection.cursor("SELECT id, at FROM apg_rows ORDER BY id", prefetch=100):
            equal((row["id"], row["at"]), (seen, MOMENT))
            seen += 1
    equal(seen, 1000)
    changed = await connection.execute(
        "UPDATE apg_rows SET id = -s.id FROM generate_series(1, 3) AS s (id) WHERE s.id = apg_rows.id"
    )
    equal(changed, "UPDATE 3")
    try:
        await connection.execute("SELECT * FROM apg_nothing")
    except asyncpg.UndefinedTableError as error:
        equal(error.sqlstate, "42P01")
    return equal(await connection.fetchval("SELECT count(*) FROM apg_rows WHERE id < 0"), 3)


async def pooled():
    async with asyncpg.create_pool(
        host=checks.pg_host,
        port=int(checks.pg_port),
        user=checks.user,
        password=checks.password,
        database="weir",
        min_size=1,
        max_size=3,
    ) as pool:
        found = await asyncio.gather(*[pool.fetchval("SELECT $1::int[]", [i]) for i in range(20)])
    return equal(found, [[i] for i in range(20)])


checks.check("arrays", lambda: run(arrays))
checks.check("stored arrays", lambda: run(stored_arrays))
checks.check("parameters", lambda: run(parameters))
checks.check("COPY, cursor, temporary table", lambda: run(rows))
checks.check("pool", lambda: asyncio.run(asyncio.wait_for(pooled(), 60)))
checks.end()
