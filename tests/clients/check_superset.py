#!/usr/bin/env python3
"""Apache Superset against a running weir: databases, tables, SQL Lab, datasets, charts and their filters, uploads.

A Superset is set up in a temporary directory and driven by its REST API; what it answers is compared with what
Python computes from the rows that were inserted. It needs requirements-superset.txt and is run by more.sh."""

import collections
import concurrent.futures
import csv
import datetime
import decimal
import io
import json
import pathlib
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse

import psycopg
import requests

from common import Checks, equal
from superset_events import (
    COLUMNS, COUNT, EVENTS, GRAINS, SCHEMA, formula, given, grouped, metric, plain, same, stamp, total,
)
from superset_server import ANSWER_LIMIT, PROGRAM, Superset

checks = Checks(__doc__)
if not PROGRAM.exists():
    print("skipped: no superset")
    sys.exit(0)


def weir():
    return psycopg.connect(**checks.pg, autocommit=True)


def prepare():
    columns = ", ".join(
        f"{name} {'TIMESTAMPTZ' if name == 'ts' else kind}{' NOT NULL' if name in ('id', 'ts') else ''}"
        for name, kind in COLUMNS.items()
    )
    with weir() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        connection.execute(f"CREATE TABLE {SCHEMA}.events ({columns})")
        with connection.cursor().copy(f"COPY {SCHEMA}.events FROM STDIN") as copy:
            for event in EVENTS:
                copy.write_row(event)
        connection.execute(f"COMMENT ON TABLE {SCHEMA}.events IS 'what was seen'")
        connection.execute(f"COMMENT ON COLUMN {SCHEMA}.events.price IS 'in euros'")
        connection.execute(
            f"CREATE VIEW {SCHEMA}.sold AS SELECT ts, country, price FROM {SCHEMA}.events WHERE price > 100"
        )
        connection.execute(
            f"CREATE MATERIALIZED VIEW {SCHEMA}.daily AS SELECT day, country, count(*) AS events, "
            f"sum(price) AS total FROM {SCHEMA}.events GROUP BY day, country"
        )


class Run:
    """The checks, over one Superset: `database` and `datasets` are Superset's numbers of them."""

    def __init__(self, server):
        self.server = server
        self.database = None
        self.datasets = {}
        self.charts = {}
        self.statements = 0

    def uri(self, password=None, database="weir"):
        password = urllib.parse.quote(password or checks.password, safe="")
        return f"postgresql+psycopg2://{checks.user}:{password}@{checks.pg_host}:{checks.pg_port}/{database}"

    # databases and what is in them

    def connections(self):
        path = "/api/v1/database/test_connection/"
        told = self.server.post(path, {"sqlalchemy_uri": self.uri(), "database_name": "weir"})
        equal(told, {"message": "OK"})
        for uri, kind in (
            (self.uri(password="wrong"), "CONNECTION_INVALID_PASSWORD_ERROR"),
            (self.uri(database="nowhere"), "CONNECTION_UNKNOWN_DATABASE_ERROR"),
        ):
            error = self.server.refused(path, {"sqlalchemy_uri": uri, "database_name": "weir"})
            equal(error["error_type"], kind)

    def register(self):
        extra = {"cost_estimate_enabled": True, "schemas_allowed_for_file_upload": [SCHEMA]}
        allowed = dict.fromkeys(
            ("expose_in_sqllab", "allow_dml", "allow_ctas", "allow_cvas", "allow_file_upload"), True
        )
        body = {"database_name": "weir", "sqlalchemy_uri": self.uri(), "extra": json.dumps(extra), **allowed}
        self.database = self.server.post("/api/v1/database/", body)["id"]

    def of_database(self, path, **parameters):
        return self.server.get(f"/api/v1/database/{self.database}/{path}", **parameters)

    def names(self):
        equal("weir" in self.of_database("catalogs/")["result"], True)
        schemas = set(self.of_database("schemas/", q="(force:!t)")["result"])
        equal({SCHEMA, "public", "information_schema"} - schemas, set())
        found = self.of_database("tables/", q=f"(schema_name:{SCHEMA},force:!t)")["result"]
        kinds = {one["value"]: one["type"] for one in found}
        equal(kinds, {"events": "table", "sold": "view", "daily": "view"})

    def metadata(self):
        told = self.of_database("table_metadata/", name="events", schema=SCHEMA)
        equal({one["name"]: one["longType"].replace("_", " ") for one in told["columns"]}, COLUMNS)
        comments = {one["name"]: one["comment"] for one in told["columns"] if one.get("comment")}
        equal(comments, {"price": "in euros"})
        equal(told["comment"], "what was seen")
        equal((told["indexes"], told["foreignKeys"], told["primaryKey"]["constrained_columns"]), ([], [], None))
        equal(told["selectStar"].split()[0], "SELECT")
        for name, columns in (("sold", ["ts", "country", "price"]), ("daily", ["day", "country", "events", "total"])):
            told = self.of_database("table_metadata/", name=name, schema=SCHEMA)
            equal([one["name"] for one in told["columns"]], columns)
        self.of_database("table_metadata/extra/", name="events", schema=SCHEMA)
        told = self.execute(self.of_database(f"select_star/events/{SCHEMA}/")["result"])
        return same([tuple(row.values()) for row in told["data"]], map(self.shown, EVENTS))

    # SQL Lab

    def execution(self, sql, **more):
        self.statements += 1
        return {
            "database_id": self.database, "sql": sql, "schema": SCHEMA, "runAsync": False,
            "client_id": f"c{self.statements:08}", **more,
        }

    def execute(self, sql, **more):
        return self.server.post("/api/v1/sqllab/execute/", self.execution(sql, **more))

    @staticmethod
    def shown(event):
        """An event as SQL Lab shows it: times are texts."""
        return [value.isoformat() if isinstance(value, datetime.date) else value for value in event]

    def lab(self):
        told = self.execute("SELECT * FROM events ORDER BY id")
        equal(
            {one["column_name"]: one["type_generic"] for one in told["columns"]},
            {"id": 0, "ts": 2, "seen": 2, "day": 2, "country": 1, "page": 1, "price": 0, "ok": 3, "clicks": 0,
             "ratio": 0},
        )
        return same([tuple(row.values()) for row in told["data"]], map(self.shown, EVENTS), ordered=True)

    def lab_limit(self):
        told = self.execute("SELECT id FROM events ORDER BY id DESC", queryLimit=5)
        equal([row["id"] for row in told["data"]], [event.id for event in EVENTS[:-6:-1]])

    def lab_values(self):
        sql = (
            "SELECT 1 AS a, 1.50 AS b, true AS c, NULL AS d, 'it''s' AS e, date '2026-01-02' AS f, ARRAY[1, 2] AS g, "
            "timestamptz '2026-01-02 03:04:05.5+02' AS h, '{\"k\": [1]}'::jsonb AS i, interval '1 day' AS j, "
            "9007199254740993::bigint AS k"
        )
        return equal(
            list(self.execute(sql)["data"][0].values()),
            [1, 1.5, True, None, "it's", "2026-01-02", "[1, 2]", "2026-01-02T01:04:05.500000+00:00", "{'k': [1]}",
             "1 days 00:00:00", "9007199254740993"],
        )

    def lab_statements(self):
        """Several statements at once, and one that changes rows."""
        self.execute("CREATE TABLE notes (id INT, note TEXT); INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
        told = self.execute("DELETE FROM notes WHERE id = 1; SELECT * FROM notes")
        equal(told["data"], [{"id": 2, "note": "b"}])
        self.execute("DROP TABLE notes")

    def lab_made(self):
        """The results of a query kept as a table, and a query as a view."""
        sql = "SELECT country, count(*) AS n FROM events GROUP BY country"
        expected = [(country, len(events)) for country, events in grouped(lambda e: e.country).items()]
        for method in ("TABLE", "VIEW"):
            name = "kept_" + method.lower()
            self.execute(sql, select_as_cta=True, ctas_method=method, tmp_table_name=name)
            same([tuple(row.values()) for row in self.execute(f"SELECT * FROM {name}")["data"]], expected)
            self.execute(f"DROP {method} {name}")

    def lab_error(self, sql, kind, part):
        """What a statement is refused with. Superset reads the messages; for a column it needs the position too."""
        error = self.server.refused("/api/v1/sqllab/execute/", self.execution(sql))
        if part not in error["message"]:
            raise AssertionError(f"got {error['message']!r}, expected {part!r} in it")
        return equal(error["error_type"], kind)

    def lab_plan(self):
        told = self.execute("EXPLAIN SELECT country, count(*) FROM events GROUP BY country")
        equal(list(told["data"][0]), ["QUERY PLAN"])
        body = {"database_id": self.database, "sql": "SELECT * FROM events", "schema": SCHEMA}
        return equal(len(self.server.post("/api/v1/sqllab/estimate/", body)["result"]), 1)

    def lab_export(self):
        asked = self.execution("SELECT id, ts, country, price FROM events ORDER BY id")
        self.server.post("/api/v1/sqllab/execute/", asked)
        text = self.server.ask("GET", f"/api/v1/sqllab/export/{asked['client_id']}/").content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text)))
        equal(rows[0], ["id", "ts", "country", "price"])
        got = [(int(row[0]), datetime.datetime.fromisoformat(row[1]), row[2] or None, float(row[3]) if row[3] else None)
               for row in rows[1:]]
        return same(got, [(e.id, e.ts, e.country, e.price) for e in EVENTS], ordered=True)

    def lab_stop(self):
        """A query that is stopped ends, and so does its session."""
        asked = self.execution(
            "SELECT count(*) FROM events a, events b, events c, events d WHERE a.id + b.id + c.id + d.id < 0"
        )
        asking = threading.Thread(
            target=lambda: self.server.ask("POST", "/api/v1/sqllab/execute/", status=range(600), json=asked)
        )
        running = "FROM pg_stat_activity WHERE query ~* 'events (as )?d' AND pid <> pg_backend_pid()"
        began = time.monotonic()
        asking.start()
        with weir() as connection:
            try:
                self.until(connection, "SELECT count(*) " + running, 1)
                states = connection.execute("SELECT state " + running).fetchall()
                time.sleep(0.5)
                equal(self.server.post("/api/v1/query/stop", {"client_id": asked["client_id"]}), {"result": "OK"})
                self.until(connection, "SELECT count(*) " + running, 0)
            finally:
                connection.execute("SELECT pg_terminate_backend(pid) " + running)
                asking.join()
        told = self.server.get("/api/v1/query/", q="(order_column:start_time,order_direction:desc,page_size:1)")
        equal(told["result"][0]["status"], "stopped")
        equal(states, [("active",)])
        return f"after {time.monotonic() - began:.1f} s"

    @staticmethod
    def until(connection, sql, expected):
        end = time.monotonic() + 20
        while (got := connection.execute(sql).fetchone()[0]) != expected:
            if time.monotonic() > end:
                raise AssertionError(f"{sql}: {got}")
            time.sleep(0.1)

    # datasets

    def make_datasets(self):
        for name in ("events", "sold", "daily"):
            body = {"database": self.database, "schema": SCHEMA, "table_name": name}
            self.datasets[name] = self.server.post("/api/v1/dataset/", body)["id"]
        sql = f"SELECT date_trunc('month', ts) AS month, country, price FROM {SCHEMA}.events WHERE ok -- those\n"
        body = {"database": self.database, "schema": SCHEMA, "table_name": "good", "sql": sql}
        self.datasets["good"] = self.server.post("/api/v1/dataset/", body)["id"]

    def columns_of(self, name):
        told = self.server.get(f"/api/v1/dataset/{self.datasets[name]}")["result"]
        return {one["column_name"]: (one["type"], one["is_dttm"]) for one in told["columns"]}

    def dataset_columns(self):
        expected = {name: (kind, kind in ("TIMESTAMP", "DATE")) for name, kind in COLUMNS.items()}
        expected |= {"ts": ("TIMESTAMP WITH TIME ZONE", True), "seen": ("TIMESTAMP WITHOUT TIME ZONE", True)}
        equal(self.columns_of("events"), expected)
        equal(
            self.columns_of("good"),
            {"month": ("DATETIMETZ", True), "country": ("STRING", False), "price": ("DECIMAL", False)},
        )
        equal(self.columns_of("daily")["day"], ("DATE", True))

    def refresh(self):
        """A column that was added is found."""
        with weir() as connection:
            connection.execute(f"CREATE TABLE {SCHEMA}.grown (a INT)")
            body = {"database": self.database, "schema": SCHEMA, "table_name": "grown"}
            self.datasets["grown"] = self.server.post("/api/v1/dataset/", body)["id"]
            connection.execute(f"ALTER TABLE {SCHEMA}.grown ADD COLUMN b TEXT")
            connection.execute(f"INSERT INTO {SCHEMA}.grown VALUES (1, 'x'), (2, NULL)")
        self.server.put(f"/api/v1/dataset/{self.datasets['grown']}/refresh", {})
        equal(self.columns_of("grown"), {"a": ("INTEGER", False), "b": ("TEXT", False)})
        return same(self.data("grown", columns=["b", "a"]), [("x", 1), (None, 2)])

    def calculated(self):
        """A calculated column and a saved metric."""
        path = f"/api/v1/dataset/{self.datasets['events']}"
        told = self.server.get(path)["result"]
        kept = ("id", "column_name", "type", "is_dttm", "groupby", "filterable", "is_active")
        columns = [{name: one[name] for name in kept} for one in told["columns"]]
        columns.append({
            "column_name": "size", "expression": "CASE WHEN price >= 100 THEN 'large' ELSE 'small' END",
            "type": "TEXT", "is_dttm": False, "groupby": True, "filterable": True, "is_active": True,
        })
        metrics = [{"metric_name": "revenue", "expression": "SUM(price)"}]
        self.server.put(path, {"columns": columns, "metrics": metrics})
        groups = grouped(lambda e: "large" if e.price is not None and e.price >= 100 else "small")
        expected = [(size, total(given(events, "price"))) for size, events in groups.items()]
        same(self.data(columns=["size"], metrics=["revenue"]), expected)
        got = self.data(columns=["size"], metrics=["revenue"], filters=[{"col": "size", "op": "==", "val": "large"}])
        return same(got, [row for row in expected if row[0] == "large"])

    def expressions(self):
        path = f"/api/v1/datasource/table/{self.datasets['events']}/validate_expression/"
        for text, kind, faults in (
            ("price * 2", "column", 0), ("SUM(price)", "metric", 0), ("SUM(nothing)", "metric", 1),
            ("price > 1 AND ok", "where", 0), ("SUM(price) > 1", "having", 0),
        ):
            told = self.server.post(path, {"expression": text, "expression_type": kind})["result"]
            equal((text, len(told)), (text, faults))

    # charts

    def context(self, queries, dataset="events", **more):
        source = {"id": self.datasets[dataset], "type": "table"}
        return {"datasource": source, "force": True, "result_format": "json", "result_type": "full", **more,
                "queries": [{"row_limit": 50_000, "orderby": [], **query} for query in queries]}

    def answers(self, *queries, dataset="events", **more):
        return self.server.post("/api/v1/chart/data", self.context(queries, dataset, **more))["result"]

    def data(self, dataset="events", **query):
        """The rows of a chart's query."""
        return [tuple(row.values()) for row in self.answers(query, dataset=dataset)[0]["data"]]

    def filtered(self, condition, **filters_and_more):
        """Of a chart with these filters the identities are those of the events with the condition."""
        got = [row[0] for row in self.data(columns=["id"], **filters_and_more)]
        return same([(number,) for number in got], [(event.id,) for event in EVENTS if condition(event)])

    def aggregates(self):
        metrics = [
            COUNT, metric("COUNT", "price", "given"), metric("COUNT_DISTINCT", "page", "pages"),
            metric("SUM", "price", "total"), metric("MIN", "price", "least"), metric("MAX", "clicks", "most"),
            metric("AVG", "ratio", "mean"), metric("MAX", "ts", "last"), metric("MIN", "day", "first"),
        ]
        expected = [
            (country, len(events), len(given(events, "price")), len({e.page for e in events}),
             total(given(events, "price")), min(given(events, "price")), max(given(events, "clicks")),
             statistics.fmean(given(events, "ratio")), max(e.ts for e in events), min(e.day for e in events))
            for country, events in grouped(lambda e: e.country).items()
        ]
        return same(self.data(columns=["country"], metrics=metrics), expected)

    def formulas(self):
        metrics = [
            formula("PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY ratio)", "p90"),
            formula("STDDEV(ratio)", "deviation"),
            formula("SUM(price) FILTER (WHERE ok)", "good"),
            formula("SUM(CASE WHEN ok THEN 1 ELSE 0 END)::float / COUNT(*)", "share"),
            formula("ROUND(AVG(price), 2)", "rounded"),
        ]

        def hundredth(values):
            return statistics.mean(values).quantize(decimal.Decimal("0.01"), decimal.ROUND_HALF_UP)

        expected = []
        for page, events in grouped(lambda e: e.page).items():
            ratios = sorted(given(events, "ratio"))
            at = 0.9 * (len(ratios) - 1)
            low = ratios[int(at)]
            high = ratios[min(int(at) + 1, len(ratios) - 1)]
            expected.append((
                page, low + (high - low) * (at - int(at)), statistics.stdev(ratios),
                total(given([e for e in events if e.ok], "price")), sum(1 for e in events if e.ok) / len(events),
                hundredth(given(events, "price")),
            ))
        return same(self.data(columns=["page"], metrics=metrics), expected)

    def quotients(self):
        """Rates, and means of decimals, have digits enough."""
        metrics = [
            formula("COUNT(DISTINCT country) * 1.0 / NULLIF(COUNT(*), 0)", "part"),
            formula("100.0 * SUM(CASE WHEN ok THEN 1 ELSE 0 END) / COUNT(*)", "percent"),
            formula("SUM(price) / COUNT(*)", "each"),
            metric("AVG", "price", "mean"),
        ]
        prices = lambda events: given(events, "price")
        expected = [
            (page, len(set(given(events, "country"))) / len(events),
             100 * sum(e.ok is True for e in events) / len(events), sum(prices(events)) / len(events),
             statistics.mean(prices(events)))
            for page, events in grouped(lambda e: e.page).items()
        ]
        return same(self.data(columns=["page"], metrics=metrics), expected)

    def offered(self):
        """The time grains of a dataset are those that are compared below."""
        told = self.server.get(f"/api/v1/dataset/{self.datasets['events']}")["result"]
        equal({grain for grain, _ in told["time_grain_sqla"] if grain}, set(GRAINS))

    def grain(self, name):
        """A time series by the grain, over the three kinds of times. Dates have no seconds and minutes to extract."""
        extracted = re.fullmatch(r"PT\d+[SM]", name) and name not in ("PT1S", "PT1M")
        for column in ("ts", "seen") if extracted else ("ts", "seen", "day"):
            cut = GRAINS[name]
            if column == "day":
                key = lambda e: cut(datetime.datetime.combine(e.day, datetime.time()))
            else:
                key = lambda e: cut(getattr(e, column))
            axis = {"timeGrain": name, "columnType": "BASE_AXIS", "sqlExpression": column, "label": column,
                    "expressionType": "SQL"}
            got = self.data(columns=[axis], metrics=[COUNT, metric("SUM", "price", "total")],
                            extras={"time_grain_sqla": name})
            expected = [(at, len(events), total(given(events, "price"))) for at, events in grouped(key).items()]
            told = same(got, expected)
        return told

    def legacy_series(self):
        """`is_timeseries` with a granularity, as older charts have it, with an order and a range."""
        begin, end = (datetime.datetime(2026, month, 1, tzinfo=datetime.UTC) for month in (1, 3))
        got = self.data(
            columns=["country"], metrics=[COUNT], granularity="ts", is_timeseries=True,
            time_range="2026-01-01 : 2026-03-01", extras={"time_grain_sqla": "P1W"}, orderby=[["n", False]],
        )
        inside = [event for event in EVENTS if begin <= event.ts < end]
        groups = grouped(lambda e: (GRAINS["P1W"](e.ts), e.country), inside)
        return same(got, [(*key, len(events)) for key, events in groups.items()])

    def filters(self):
        """Every operator of a filter."""
        def one(condition, col, op, val=None):
            try:
                self.filtered(condition, filters=[{"col": col, "op": op, "val": val}])
            except AssertionError as error:
                raise AssertionError(f"{col} {op} {val!r}: {error}") from None

        some = EVENTS[5].price
        one(lambda e: e.country == "SE", "country", "==", "SE")
        one(lambda e: e.country == "Åland", "country", "==", "Åland")
        one(lambda e: e.page == "/it's", "page", "==", "/it's")
        one(lambda e: e.country not in ("SE", None), "country", "!=", "SE")
        one(lambda e: e.country in ("SE", "NO"), "country", "IN", ["SE", "NO"])
        one(lambda e: e.country in ("SE", None), "country", "IN", ["SE", None])
        one(lambda e: e.country not in ("SE", "NO", None), "country", "NOT IN", ["SE", "NO"])
        one(lambda e: e.id in (3, 5), "id", "IN", [3, 5, 100_000])
        one(lambda e: e.id == 7, "id", "==", "7")
        one(lambda e: e.price == some, "price", "==", float(some))
        one(lambda e: e.price is not None and e.price > 100, "price", ">", 100)
        one(lambda e: e.price is not None and e.price <= decimal.Decimal("12.5"), "price", "<=", "12.5")
        one(lambda e: e.clicks is not None and e.clicks >= 2**39, "clicks", ">=", 2**39)
        one(lambda e: e.ratio < 10.5, "ratio", "<", 10.5)
        one(lambda e: e.page.startswith("/shop"), "page", "LIKE", "/shop%")
        one(lambda e: e.page.lower().startswith("/shop"), "page", "ILIKE", "/shop%")
        one(lambda e: not e.page.startswith("/shop"), "page", "NOT LIKE", "/shop%")
        one(lambda e: not e.page.lower().startswith("/h"), "page", "NOT ILIKE", "/h%")
        one(lambda e: "7" in str(e.id), "id", "LIKE", "%7%")
        one(lambda e: e.price is None, "price", "IS NULL")
        one(lambda e: e.country is not None, "country", "IS NOT NULL")
        one(lambda e: e.ok is True, "ok", "IS TRUE")
        one(lambda e: e.ok is False, "ok", "IS FALSE")
        one(lambda e: e.ok is True, "ok", "==", True)
        one(lambda e: e.ok is not None, "ok", "IN", [True, False])
        one(lambda e: e.page == "", "page", "==", "<empty string>")
        one(lambda e: e.country is None, "country", "IN", ["<NULL>"])

    def ranges(self):
        begin, end = datetime.datetime(2026, 1, 1, 12), datetime.datetime(2026, 2, 10)
        def within(column, moment):
            if column == "day":
                return begin.date() <= moment < end.date()
            return begin <= moment.replace(tzinfo=None) < end

        for column in ("ts", "seen", "day"):
            value = "2026-01-01T12:00:00 : 2026-02-10T00:00:00"
            condition = lambda e: within(column, getattr(e, column))
            self.filtered(condition, filters=[{"col": column, "op": "TEMPORAL_RANGE", "val": value}])
        self.filtered(lambda e: e.ts.date() < end.date(), filters=[{"col": "ts", "op": "TEMPORAL_RANGE",
                                                                    "val": " : 2026-02-10"}])
        since = datetime.date(2026, 3, 1)
        self.filtered(lambda e: e.day >= since, filters=[{"col": "day", "op": ">=", "val": stamp(since)}])
        moment = datetime.datetime(2026, 3, 1, 6, tzinfo=datetime.UTC)
        self.filtered(lambda e: e.ts < moment, filters=[{"col": "ts", "op": "<", "val": stamp(moment)}])
        self.filtered(lambda e: False, filters=[{"col": "ts", "op": "TEMPORAL_RANGE", "val": "Last day"}])

    def clauses(self):
        """Conditions as text, in WHERE and in HAVING."""
        where = "price BETWEEN 10 AND 20.5 OR (country = 'SE' AND page ~ '^/h')"
        self.filtered(
            lambda e: (e.price is not None and 10 <= e.price <= decimal.Decimal("20.5"))
            or (e.country == "SE" and e.page.startswith("/h")),
            extras={"where": where},
        )
        got = self.data(columns=["country", "page"], metrics=[COUNT], extras={"having": "COUNT(*) > 20"})
        groups = grouped(lambda e: (e.country, e.page))
        return same(got, [(*key, len(events)) for key, events in groups.items() if len(events) > 20])

    def order(self):
        """Orders by a metric and a column, with a limit and an offset."""
        groups = grouped(lambda e: (e.page, e.country))
        counted = sorted(
            ((*key, total(given(events, "ratio"))) for key, events in groups.items()),
            key=lambda row: (-row[2], row[0]),
        )
        orderby = [[metric("SUM", "ratio", "r"), False], ["page", True]]
        asked = {"columns": ["page", "country"], "metrics": [metric("SUM", "ratio", "r")], "orderby": orderby}
        same(self.data(**asked), counted, ordered=True)
        same(self.data(**asked, row_limit=7), counted[:7], ordered=True)
        same(self.data(**asked, row_limit=7, row_offset=5), counted[5:12], ordered=True)
        ids = self.data(columns=["id", "country"], orderby=[["country", True], ["id", False]])
        expected = sorted(EVENTS, key=lambda e: (e.country is None, e.country and e.country.encode(), -e.id))
        nordic = lambda rows: [row for row in rows if row[1] != "Åland"]
        return same(nordic(ids), nordic([(e.id, e.country) for e in expected]), ordered=True)

    def raw(self):
        """A table of rows without groups, and their count."""
        table = {"columns": list(COLUMNS), "orderby": [["id", True]], "row_limit": 50}
        rows, count = self.answers(table, {**table, "is_rowcount": True, "row_limit": 50_000})
        same([tuple(row.values()) for row in rows["data"]], EVENTS[:50], ordered=True)
        equal(list(count["data"][0].values()), [len(EVENTS)])
        kinds = dict(zip(rows["colnames"], rows["coltypes"]))
        return equal([kinds[name] for name in ("id", "country", "ts", "ok")], [0, 1, 2, 3])

    def series_limit(self):
        """The series with most events, the others put together or left out."""
        top = [country for country, _ in
               collections.Counter(e.country for e in EVENTS if e.country).most_common(2)]
        asked = {
            "columns": ["country"], "metrics": [COUNT], "granularity": "ts", "is_timeseries": True,
            "extras": {"time_grain_sqla": "P1M"}, "series_columns": ["country"], "series_limit": 2,
            "series_limit_metric": COUNT, "filters": [{"col": "country", "op": "IS NOT NULL"}], "order_desc": True,
        }
        inside = [e for e in EVENTS if e.country in top]
        groups = grouped(lambda e: (GRAINS["P1M"](e.ts), e.country), inside)
        same(self.data(**asked), [(*key, len(events)) for key, events in groups.items()])
        groups = grouped(lambda e: (GRAINS["P1M"](e.ts), e.country if e.country in top else "Others"),
                         [e for e in EVENTS if e.country])
        got = self.data(**asked, group_others_when_limit_reached=True)
        return same(got, [(*key, len(events)) for key, events in groups.items()])

    def offsets(self):
        """Months beside the months before them."""
        axis = {"timeGrain": "P1M", "columnType": "BASE_AXIS", "sqlExpression": "ts", "label": "ts",
                "expressionType": "SQL"}
        got = self.data(
            columns=[axis], metrics=[COUNT], extras={"time_grain_sqla": "P1M"}, time_offsets=["1 month ago"],
            filters=[{"col": "ts", "op": "TEMPORAL_RANGE", "val": "2026-01-01 : 2026-04-01"}],
        )
        counts = collections.Counter(GRAINS["P1M"](e.ts) for e in EVENTS)
        at = lambda year, month: datetime.datetime(year, month, 1, tzinfo=datetime.UTC)
        months = [at(2025, 12), at(2026, 1), at(2026, 2), at(2026, 3)]
        return same(got, [(later, counts[later], counts[before]) for before, later in zip(months, months[1:])])

    def totals(self):
        """Two queries of one chart: rows and their total; and pivoted by pandas in Superset."""
        rows, sums = self.answers({"columns": ["country"], "metrics": ["revenue"]}, {"metrics": ["revenue"]})
        whole = total(given(EVENTS, "price"))
        equal(plain(sums["data"][0]["revenue"]), plain(whole))
        equal(plain(sum(row["revenue"] for row in rows["data"])), plain(whole))
        pivot = {"operation": "pivot", "options": {
            "index": ["page"], "columns": ["ok"], "aggregates": {"n": {"operator": "sum"}}}}
        got = self.answers({"columns": ["page", "ok"], "metrics": [COUNT], "post_processing": [
            pivot, {"operation": "flatten"}], "filters": [{"col": "ok", "op": "IS NOT NULL"}]})[0]["data"]
        count = lambda page, ok: sum(1 for e in EVENTS if e.page == page and e.ok is ok)
        expected = [(page, count(page, False), count(page, True)) for page in {e.page for e in EVENTS}]
        return same([tuple(row.values()) for row in got], expected)

    def others(self):
        """The view, the materialized view and the virtual dataset."""
        sold = [e for e in EVENTS if e.price is not None and e.price > 100]
        expected = [(c, total(given(events, "price"))) for c, events in grouped(lambda e: e.country, sold).items()]
        same(self.data("sold", columns=["country"], metrics=[metric("SUM", "price", "total")]), expected)
        axis = {"timeGrain": "P1M", "columnType": "BASE_AXIS", "sqlExpression": "day", "label": "day",
                "expressionType": "SQL"}
        got = self.data("daily", columns=[axis], metrics=[metric("SUM", "events", "n"), metric("SUM", "total", "t")],
                        extras={"time_grain_sqla": "P1M"})
        groups = grouped(lambda e: GRAINS["P1M"](e.ts))
        same(got, [(at, len(events), total(given(events, "price"))) for at, events in groups.items()])
        got = self.data("good", columns=["month", "country"], metrics=[metric("MAX", "price", "most")],
                        filters=[{"col": "country", "op": "IN", "val": ["SE", "FR"]}])
        groups = grouped(lambda e: (GRAINS["P1M"](e.ts), e.country),
                         [e for e in EVENTS if e.ok and e.country in ("SE", "FR")])
        return same(got, [(*key, max(given(es, "price"), default=None)) for key, es in groups.items()])

    def fresh(self):
        """What is inserted is in a chart over the materialized view at once."""
        before = self.data("daily", metrics=[metric("SUM", "events", "n")])[0][0]
        with weir() as connection:
            connection.execute(f"INSERT INTO {SCHEMA}.events (id, ts, day) VALUES (-1, now(), current_date)")
            after = self.data("daily", metrics=[metric("SUM", "events", "n")])[0][0]
            connection.execute(f"DELETE FROM {SCHEMA}.events WHERE id = -1")
        return equal(after, before + 1)

    def at_once(self):
        """A dashboard: its charts ask at once, each over a connection of its own."""
        expected = [(country, len(events)) for country, events in grouped(lambda e: e.country).items()]
        headers = self.server.session.headers

        def one(number):
            context = self.context([{"columns": ["country"], "metrics": [COUNT], "filters": [
                {"col": "id", "op": ">", "val": -number - 1}]}])
            answer = requests.post(self.server.url + "/api/v1/chart/data", json=context, timeout=ANSWER_LIMIT,
                                   headers=headers, cookies=self.server.session.cookies)
            return same([tuple(row.values()) for row in answer.json()["result"][0]["data"]], expected)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return len(list(pool.map(one, range(16))))

    def distinct(self):
        """What a filter offers to choose from."""
        path = f"/api/v1/datasource/table/{self.datasets['events']}/column/%s/values/"
        for name in ("country", "page", "ok", "price", "id"):
            got = self.server.get(path % name)["result"]
            same([(value,) for value in got], [(value,) for value in {getattr(e, name) for e in EVENTS}])

    def samples(self):
        """Samples of a dataset, and the rows behind a mark of a chart."""
        of = f"/datasource/samples?datasource_type=table&datasource_id={self.datasets['events']}&force=true"
        told = self.server.post(of + "&per_page=40&page=2", {})["result"]
        equal((told["total_count"], told["rowcount"], told["page"]), (len(EVENTS), 40, 2))
        by_id = {event.id: event for event in EVENTS}
        same([tuple(row[name] for name in COLUMNS) for row in told["data"]],
             [by_id[row["id"]] for row in told["data"]], ordered=True)
        body = {"filters": [{"col": "country", "op": "==", "val": "SE"}], "granularity": "ts",
                "time_range": "2026-01-01 : 2026-02-01"}
        told = self.server.post(of + "&per_page=1000", body)["result"]
        inside = [e for e in EVENTS if e.country == "SE" and (e.ts.year, e.ts.month) == (2026, 1)]
        equal(told["total_count"], len(inside))
        return same([tuple(row[name] for name in COLUMNS) for row in told["data"]], inside)

    def saved(self):
        """Charts that are saved give the same data, also as CSV."""
        query = {"columns": ["country"], "metrics": [COUNT, "revenue"], "orderby": [["n", False]]}
        form = {"viz_type": "table", "datasource": f"{self.datasets['events']}__table", "groupby": ["country"]}
        body = {
            "slice_name": "by country", "viz_type": "table", "datasource_type": "table",
            "datasource_id": self.datasets["events"], "params": json.dumps(form),
            "query_context": json.dumps(self.context([query])),
        }
        self.charts["by country"] = number = self.server.post("/api/v1/chart/", body)["id"]
        expected = [(country, len(events), total(given(events, "price")))
                    for country, events in grouped(lambda e: e.country).items()]
        told = self.server.get(f"/api/v1/chart/{number}/data/", force="true")["result"][0]
        same([tuple(row.values()) for row in told["data"]], expected)
        text = self.server.ask("GET", f"/api/v1/chart/{number}/data/", params={"format": "csv"}).text.lstrip("\ufeff")
        rows = list(csv.reader(io.StringIO(text)))[1:]
        return same([(row[0] or None, int(row[1]), float(row[2])) for row in rows], expected)

    def row_security(self):
        """A rule of Superset's own for the rows of a dataset."""
        rule = {"name": "nordic", "filter_type": "Base", "tables": [self.datasets["events"]], "roles": [],
                "clause": "country IN ('SE', 'NO')"}
        number = self.server.post("/api/v1/rowlevelsecurity/", rule)["id"]
        try:
            self.filtered(lambda e: e.country in ("SE", "NO"))
        finally:
            self.server.ask("DELETE", f"/api/v1/rowlevelsecurity/{number}")

    def upload(self):
        """A file of rows becomes a table; a second one is appended."""
        text = "name,n,x,at\nfirst,1,1.5,2026-01-01 10:00:00\nit's,,2.25,2026-01-02 11:30:00\n"
        form = {"type": "csv", "schema": SCHEMA, "table_name": "uploaded", "column_dates": "at"}
        for exists in ("fail", "append"):
            files = {"file": ("rows.csv", text, "text/csv")}
            body = {**form, "already_exists": exists}
            self.server.ask("POST", f"/api/v1/database/{self.database}/upload/", data=body, files=files)
        told = self.execute("SELECT name, n, x, at FROM uploaded ORDER BY name, at")
        rows = [["first", 1, 1.5, "2026-01-01T10:00:00"], ["it's", None, 2.25, "2026-01-02T11:30:00"]]
        return same([tuple(row.values()) for row in told["data"]], [rows[0], rows[0], rows[1], rows[1]], ordered=True)

    def remove(self):
        for number in self.charts.values():
            self.server.ask("DELETE", f"/api/v1/chart/{number}")
        for one in self.server.get("/api/v1/dataset/", q="(columns:!(id))")["result"]:
            self.server.ask("DELETE", f"/api/v1/dataset/{one['id']}")
        self.server.ask("DELETE", f"/api/v1/database/{self.database}")
        with weir() as connection:
            connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")

    def all(self):
        checks.check("connections", self.connections)
        checks.check("database", self.register)
        checks.check("names of schemas and tables", self.names)
        checks.check("tables' metadata", self.metadata)
        checks.check("SQL Lab: rows", self.lab)
        checks.check("SQL Lab: limit", self.lab_limit)
        checks.check("SQL Lab: kinds of values", self.lab_values)
        checks.check("SQL Lab: statements", self.lab_statements)
        checks.check("SQL Lab: tables and views of results", self.lab_made)
        for sql, kind, part in (
            ("SELECT 1 FROM nowhere", "GENERIC_DB_ENGINE_ERROR", 'relation "nowhere" does not exist'),
            ("SELECT 1 / (id - id) FROM events", "GENERIC_DB_ENGINE_ERROR", "division by zero"),
            ("SELECT nothing FROM events", "COLUMN_DOES_NOT_EXIST_ERROR", 'the column "nothing" at line 2'),
        ):
            checks.check(f"SQL Lab: error of {sql}", lambda: self.lab_error(sql, kind, part))
        checks.check("SQL Lab: plan and estimate", self.lab_plan)
        checks.check("SQL Lab: export", self.lab_export)
        checks.check("SQL Lab: stop", self.lab_stop)
        checks.check("datasets", self.make_datasets)
        checks.check("datasets' columns", self.dataset_columns)
        checks.check("dataset refreshed", self.refresh)
        checks.check("calculated column, saved metric", self.calculated)
        checks.check("expressions validated", self.expressions)
        checks.check("chart: aggregates", self.aggregates)
        checks.check("chart: formulas", self.formulas)
        checks.check("chart: quotients", self.quotients)
        checks.check("chart: grains offered", self.offered)
        for name in GRAINS:
            checks.check(f"chart: time series by {name}", lambda: self.grain(name))
        checks.check("chart: time series with a granularity", self.legacy_series)
        checks.check("chart: filters", self.filters)
        checks.check("chart: ranges of time", self.ranges)
        checks.check("chart: clauses", self.clauses)
        checks.check("chart: order, limit, offset", self.order)
        checks.check("chart: rows without groups", self.raw)
        checks.check("chart: limit of series", self.series_limit)
        checks.check("chart: offset of time", self.offsets)
        checks.check("chart: totals and pivot", self.totals)
        checks.check("chart: view, materialized view, virtual dataset", self.others)
        checks.check("chart: fresh rows", self.fresh)
        checks.check("charts at once", self.at_once)
        checks.check("values for filters", self.distinct)
        checks.check("samples and details", self.samples)
        checks.check("saved chart", self.saved)
        checks.check("row level security", self.row_security)
        checks.check("upload", self.upload)
        checks.check("clean up", self.remove)


with tempfile.TemporaryDirectory() as directory:
    server = Superset(pathlib.Path(directory))
    try:
        checks.check("tables", prepare)
        checks.check("Superset set up", server.set_up)
        checks.check("Superset started", server.start)
        checks.check("log in", server.log_in)
        Run(server).all()
    finally:
        server.stop()
checks.end()
