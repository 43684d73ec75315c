#!/usr/bin/env python3
"""psqlODBC against a running weir, as spreadsheets and BI tools use it: catalog calls, parameters, three ways to
fetch. Needs unixODBC with PostgreSQL's driver (Debian: unixodbc odbc-postgresql) and pyodbc; without them it
says so and is left out."""

import datetime
import decimal
import glob
import sys

from common import Checks, equal

checks = Checks(__doc__)
drivers = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")
try:
    import pyodbc
except ImportError:
    pyodbc = None
if pyodbc is None or not drivers:
    print("skipped: no pyodbc, or no ODBC driver of PostgreSQL")
    sys.exit(0)

WAYS = {
    "prepared by the server": "UseServerSidePrepare=1;UseDeclareFetch=0",
    "with cursors": "UseServerSidePrepare=1;UseDeclareFetch=1;Fetch=50",
    "prepared by the driver": "UseServerSidePrepare=0",
}


def connect(options):
    return pyodbc.connect(
        f"Driver={drivers[0]};Servername={checks.pg_host};Port={checks.pg_port};Database=weir;"
        f"Username={checks.user};Password={checks.password};SSLmode=disable;BoolsAsChar=0;{options}"
    )


def catalog(connection):
    cursor = connection.cursor()
    tables = {(row.table_name, row.table_type) for row in cursor.tables(schema="public")}
    if not {("od_sales", "TABLE"), ("od_totals", "VIEW")} <= tables:
        raise AssertionError(f"tables: {tables}")
    columns = [(row.column_name, row.type_name) for row in cursor.columns(table="od_sales")]
    wanted = [("id", "int4"), ("region", "varchar"), ("amount", "numeric"), ("at", "timestamptz")]
    equal(columns, wanted)
    equal(cursor.primaryKeys("od_sales").fetchall(), [])
    equal(cursor.foreignKeys("od_sales").fetchall(), [])
    cursor.statistics("od_sales").fetchall()
    return f"{len(cursor.getTypeInfo().fetchall())} types"


def parameters(connection):
    sql = "SELECT ?::int + 1, ?::text, CAST(? AS timestamp), CAST(? AS numeric(10, 2))"
    at, amount = datetime.datetime(2026, 1, 1, 12, 30), decimal.Decimal("12.25")
    row = connection.cursor().execute(sql, 41, "it's", at, amount).fetchone()
    return equal(tuple(row), (42, "it's", at, amount))


def types(connection):
    sql = "SELECT true, 1::smallint, 2::bigint, 1.5::float8, DATE '2026-01-01', 'x'::varchar(10), NULL::int"
    row = connection.cursor().execute(sql).fetchone()
    return equal(tuple(row), (True, 1, 2, 1.5, datetime.date(2026, 1, 1), "x", None))


def all_rows(connection):
    rows = connection.cursor().execute("SELECT id FROM od_sales").fetchall()
    return equal(sum(row[0] for row in rows), 500 * 501 // 2)


def transactions(connection):
    """Without autocommit, as the driver is by default."""
    cursor = connection.cursor()
    equal(cursor.execute("DELETE FROM od_sales WHERE id > 100").rowcount, 400)
    connection.rollback()
    cursor.execute("INSERT INTO od_sales (id) VALUES (?)", 501)
    connection.commit()
    equal(cursor.execute("SELECT count(*) FROM od_sales").fetchval(), 501)
    cursor.execute("DELETE FROM od_sales WHERE id = 501")
    connection.commit()


def errors(connection):
    try:
        connection.cursor().execute("SELECT nothing FROM od_sales").fetchall()
    except pyodbc.Error as error:
        connection.rollback()
        equal(connection.cursor().execute("SELECT 1").fetchval(), 1)
        return equal(error.args[0], "42703")
    raise AssertionError("no error")


with connect(WAYS["prepared by the driver"]) as setup:
    setup.execute("CREATE TABLE od_sales (id INT NOT NULL, region VARCHAR(10), amount NUMERIC(10, 2), at TIMESTAMPTZ)")
    setup.execute(
        "INSERT INTO od_sales SELECT i, 'r' || (i % 3), i * 1.5, '2026-01-01' FROM generate_series(1, 500) AS g (i)"
    )
    setup.execute("CREATE VIEW od_totals AS SELECT region, sum(amount) AS total FROM od_sales GROUP BY region")
    setup.commit()
for way, options in WAYS.items():
    connection = connect(options)
    for function in (catalog, parameters, types, all_rows, transactions, errors):
        checks.check(f"{way}: {function.__name__}", lambda: function(connection))
    connection.rollback()
    connection.close()
with connect(WAYS["prepared by the driver"]) as setup:
    setup.execute("DROP TABLE od_sales CASCADE")
    setup.commit()
checks.end()
