#!/usr/bin/env python3
"""SQLAlchemy over psycopg and psycopg2, and pandas: reflection, bound values, failures inside a transaction."""

import datetime
import decimal

import pandas
import sqlalchemy as sa

from common import Checks, equal

checks = Checks(__doc__)


def engine(driver):
    url = sa.URL.create(
        f"postgresql+{driver}",
        username=checks.user,
        password=checks.password,
        host=checks.pg_host,
        port=int(checks.pg_port),
        database="weir",
    )
    return sa.create_engine(url)


def prepare():
    with engine("psycopg").connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE sa_sales (id INT NOT NULL, region TEXT, amount NUMERIC(10,2), "
                "at TIMESTAMPTZ, day DATE, ok BOOLEAN)"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO sa_sales SELECT i, 'r' || (i % 3), i * 1.5, "
                "timestamptz '2026-01-01' + i * interval '1 hour', date '2026-01-01' + i, i % 2 = 0 "
                "FROM generate_series(1, 100) AS g (i)"
            )
        )
        connection.execute(sa.text("CREATE VIEW sa_view AS SELECT region, id FROM sa_sales"))
        connection.execute(sa.text("COMMENT ON TABLE sa_sales IS 'what was sold'"))


def reflection(driver):
    inspector = sa.inspect(engine(driver))
    equal("sa_sales" in inspector.get_table_names(), True)
    equal("sa_view" in inspector.get_view_names(), True)
    equal(inspector.get_table_comment("sa_sales"), {"text": "what was sold"})
    equal(inspector.get_pk_constraint("sa_sales")["constrained_columns"], [])
    equal(inspector.get_foreign_keys("sa_sales"), [])
    columns = {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns("sa_sales")}
    return equal(
        columns,
        {
            "id": ("INTEGER", False),
            "region": ("TEXT", True),
            "amount": ("NUMERIC(10, 2)", True),
            "at": ("TIMESTAMP", True),
            "day": ("DATE", True),
            "ok": ("BOOLEAN", True),
        },
    )


def values(driver):
    made = engine(driver)
    sales = sa.Table("sa_sales", sa.MetaData(), autoload_with=made)
    query = (
        sa.select(sales.c.id, sales.c.amount, sales.c.day)
        .where(sales.c.region == "r1", sales.c.id.in_([1, 4, 5]), sales.c.amount < decimal.Decimal(7))
        .where(sales.c.at >= datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc))
        .order_by(sales.c.id)
        .limit(10)
        .offset(1)
    )
    with made.connect() as connection:
        rows = connection.execute(query).all()
    return equal(rows, [(4, decimal.Decimal("6.00"), datetime.date(2026, 1, 5))])


def savepoints(driver):
    """A failure inside a nested transaction leaves the outer one usable."""
    with engine(driver).connect() as connection:
        with connection.begin():
            try:
                with connection.begin_nested():
                    connection.execute(sa.text("SELECT nothing FROM sa_sales"))
            except sa.exc.ProgrammingError as error:
                equal(error.orig.sqlstate if driver == "psycopg" else error.orig.pgcode, "42703")
            return equal(connection.scalar(sa.text("SELECT count(*) FROM sa_sales")), 100)


def frames(driver):
    sql = sa.text("SELECT region, sum(amount) AS total FROM sa_sales WHERE id <= :most GROUP BY region")
    with engine(driver).connect() as connection:
        frame = pandas.read_sql(sql, connection, params={"most": 30})
    equal(sorted(frame["region"]), ["r0", "r1", "r2"])
    return equal(float(frame["total"].sum()), 697.5)


def clean_up():
    with engine("psycopg").connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("DROP TABLE sa_sales CASCADE"))


checks.check("tables", prepare)
for name in ("psycopg", "psycopg2"):
    checks.check(f"{name}: reflection", lambda name=name: reflection(name))
    checks.check(f"{name}: bound values", lambda name=name: values(name))
    checks.check(f"{name}: savepoints", lambda name=name: savepoints(name))
    checks.check(f"{name}: pandas", lambda name=name: frames(name))
checks.check("clean up", clean_up)
checks.end()
