"""Reads an NDJSON file into a DuckDB table on disk with an explicit schema; prints seconds, CPU seconds, rows."""

import json
import os
import resource
import sys
import tempfile
import time

import duckdb

COLUMNS = {
    "event_id": "UUID", "user_id": "BIGINT", "session_id": "BIGINT", "event_time": "TIMESTAMPTZ",
    "ingest_time": "TIMESTAMPTZ", "event_type": "VARCHAR", "campaign": "VARCHAR", "channel": "VARCHAR",
    "page": "VARCHAR", "referrer": "VARCHAR", "device": "VARCHAR", "os": "VARCHAR", "browser": "VARCHAR",
    "country": "VARCHAR", "city": "VARCHAR", "revenue": "DOUBLE", "duration_ms": "INTEGER", "x": "INTEGER",
    "y": "INTEGER", "properties": "JSON",
}


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    file = sys.argv[1]
    columns = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items()) + "}"
    with tempfile.TemporaryDirectory(dir=os.path.dirname(file)) as place:
        db = duckdb.connect(os.path.join(place, "events.duckdb"))
        db.execute("SET threads = 2")
        begun, before = time.perf_counter(), cpu()
        db.execute(
            f"CREATE TABLE events AS SELECT * FROM read_json('{file}', format = 'newline_delimited', columns = {columns})"
        )
        db.execute("CHECKPOINT")
        seconds, used = time.perf_counter() - begun, cpu() - before
        rows = db.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchone()
    print(json.dumps({"seconds": seconds, "cpu": used, "rows": rows[0], "version": duckdb.__version__}))


main()
