#!/usr/bin/env python3
"""The ADBC PostgreSQL driver: queries, parameters, all objects of the database, ingest, temporary too."""

import adbc_driver_postgresql.dbapi as postgresql
import pyarrow as pa

from common import Checks, equal

checks = Checks(__doc__)


def connect():
    login = f"{checks.user}:{checks.password}@{checks.pg_host}:{checks.pg_port}"
    return postgresql.connect(f"postgresql://{login}/weir", autocommit=True)


def queries():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT i, i::text AS t, ARRAY[i, NULL] AS l FROM generate_series(1, 1000) AS g (i)")
        table = cursor.fetch_arrow_table()
        equal(table.num_rows, 1000)
        equal(table.slice(6, 1).to_pylist(), [{"i": 7, "t": "7", "l": [7, None]}])
        cursor.execute("SELECT $1::bigint + 1 AS n", (41,))
        return equal(cursor.fetchone(), (42,))


def ingest():
    rows = pa.table({"a": pa.array([1, 2, None], pa.int64()), "s": ["x", None, "z"]})
    with connect() as connection, connection.cursor() as cursor:
        equal(cursor.adbc_ingest("adbc_rows", rows, mode="create"), 3)
        equal(cursor.adbc_ingest("adbc_rows", rows, mode="append"), 3)
        equal(cursor.adbc_ingest("adbc_rows", rows.slice(0, 1), mode="create", temporary=True), 1)
        cursor.execute("SELECT count(*) FROM adbc_rows")
        equal(cursor.fetchone(), (1,))
        cursor.execute("SELECT count(*), sum(a) FROM public.adbc_rows")
        return equal(cursor.fetchone(), (6, 6))


def objects():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE adbc_checked (a INT NOT NULL, b INT, CONSTRAINT a_below_b CHECK (a < b))")
        cursor.execute("COMMENT ON COLUMN adbc_checked.a IS 'the lower'")
        read = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        equal([c["catalog_name"] for c in read], ["weir"])
        schemas = {s["db_schema_name"]: s["db_schema_tables"] for s in read[0]["catalog_db_schemas"]}
        tables = {t["table_name"]: t for t in schemas["public"]}
        checked = tables["adbc_checked"]
        equal(checked["table_type"], "table")
        columns = [(c["column_name"], c["ordinal_position"], c["remarks"]) for c in checked["table_columns"]]
        equal(columns, [("a", 1, "the lower"), ("b", 2, None)])
        constraints = checked["table_constraints"]
        equal([(c["constraint_name"], c["constraint_type"]) for c in constraints], [("a_below_b", "CHECK")])
        equal(sorted(constraints[0]["constraint_column_names"]), ["a", "b"])
        schema = connection.adbc_get_table_schema("adbc_checked", db_schema_filter="public")
        equal([f.name for f in schema], ["a", "b"])
        cursor.execute("DROP TABLE adbc_checked")
        cursor.execute("DROP TABLE public.adbc_rows")
        return len(tables)


checks.check("queries", queries)
checks.check("ingest", ingest)
checks.check("all objects", objects)
checks.end()
