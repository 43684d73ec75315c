#!/usr/bin/env python3
"""Segment's own libraries against a running weir: the one for Python, and the one for Node where
WEIR_SEGMENT_NODE names a directory in which it is installed."""

import os
import pathlib
import secrets
import subprocess

import psycopg
from segment.analytics.client import Client

from common import Checks, equal

checks = Checks(__doc__)
key = secrets.token_urlsafe(18)


def rows(sql):
    with psycopg.connect(**checks.pg, autocommit=True) as connection:
        return connection.execute(sql).fetchall()


def make_table():
    with psycopg.connect(**checks.pg, autocommit=True) as connection:
        connection.execute(
            "CREATE STREAMING TABLE segment_events (message_id TEXT NOT NULL, type TEXT NOT NULL, "
            "event TEXT, name TEXT, user_id TEXT, anonymous_id TEXT, group_id TEXT, previous_id TEXT, "
            "timestamp TIMESTAMPTZ NOT NULL, received_at TIMESTAMPTZ, context JSONB, "
            "context_library_name TEXT, properties JSONB, traits JSONB, total DOUBLE PRECISION) "
            f"WITH (event_time = 'timestamp', dedup_key = 'message_id', segment_write_key = '{key}')"
        )


def by_library(name):
    return rows(
        "SELECT type, count(*) FROM segment_events "
        f"WHERE context_library_name = '{name}' GROUP BY type ORDER BY type"
    )


def every_call(gzip):
    errors = []
    client = Client(
        key, host=checks.http, gzip=gzip, max_retries=1, on_error=lambda e, _: errors.append(e)
    )
    user = f"python-{gzip}"
    client.identify(user, {"plan": "pro"})
    client.track(user, "Order Completed", {"total": 9.5, "items": [1, 2]})
    client.page(user, "docs", "Start", {"path": "/"})
    client.screen(user, "app", "Main")
    client.group(user, "g1", {"size": 5})
    client.alias("before", user)
    client.shutdown()
    equal(errors, [])
    told = rows(
        "SELECT type, event, name, total, traits LIKE '%pro%', group_id, previous_id "
        f"FROM segment_events WHERE user_id = '{user}' ORDER BY type"
    )
    return equal(
        told,
        [
            ("alias", None, None, None, None, None, "before"),
            ("group", None, None, None, False, "g1", None),
            ("identify", None, None, None, True, None, None),
            ("page", None, "Start", None, None, None, None),
            ("screen", None, "Main", None, None, None, None),
            ("track", "Order Completed", None, 9.5, None, None, None),
        ],
    )


def many_events():
    client = Client(key, host=checks.http, max_retries=3, upload_size=100)
    for n in range(1000):
        client.track(f"many-{n % 7}", "Tick", {"n": n}, message_id=f"tick-{n % 900}")
    client.shutdown()
    sql = "SELECT count(*), count(DISTINCT message_id) FROM segment_events WHERE event = 'Tick'"
    return equal(rows(sql), [(900, 900)])


def wrong_key():
    errors = []
    client = Client(
        "no such key", host=checks.http, max_retries=0, on_error=lambda e, _: errors.append(e)
    )
    client.track("nobody", "Never")
    client.shutdown()
    equal(len(errors), 1)
    equal(rows("SELECT count(*) FROM segment_events WHERE event = 'Never'"), [(0,)])
    return type(errors[0]).__name__


def unknown_properties():
    other = secrets.token_urlsafe(18)
    with psycopg.connect(**checks.pg, autocommit=True) as connection:
        connection.execute(
            "CREATE STREAMING TABLE segment_grows (message_id TEXT, type TEXT, event TEXT, user_id TEXT, "
            "amount INT, CHECK (amount >= 0)) WITH (dedup_key = 'message_id', dedup_window = '1 day', "
            f"schema_evolution = 'add', segment_write_key = '{other}')"
        )
    client = Client(other, host=checks.http, max_retries=1)
    client.track("u", "Order Completed", {"orderTotal": 9.5, "amount": 1})
    client.track("u", "Order Completed", {"amount": -1, "never": True})
    client.identify("u", {"plan": "pro"})
    client.shutdown()
    sql = "SELECT order_total, plan, context_library_name FROM segment_grows ORDER BY type"
    library = "analytics-python"
    equal(rows(sql), [(None, "pro", library), (9.5, None, library)])
    letters = (
        "SELECT door, sqlstate, convert_from(raw, 'UTF8') LIKE '%never%' FROM weir.dead_letters "
        "WHERE table_name = 'segment_grows'"
    )
    return equal(rows(letters), [("segment", "23514", True)])


def node():
    script = pathlib.Path(__file__).with_name("segment_events.mjs")
    installed = os.environ["WEIR_SEGMENT_NODE"]
    done = subprocess.run(
        ["node", script, installed, checks.http, key], capture_output=True, text=True, timeout=60
    )
    equal((done.returncode, done.stderr), (0, ""))
    return equal(
        by_library("@segment/analytics-node"),
        [("alias", 1), ("group", 1), ("identify", 1), ("page", 1), ("screen", 1), ("track", 40)],
    )


checks.check("a table with a write key", make_table)
checks.check("every call of the Python library", lambda: every_call(False))
checks.check("every call, compressed", lambda: every_call(True))
checks.check("many events, some of them twice", many_events)
checks.check("a wrong key is told", wrong_key)
checks.check("unknown properties become columns, a bad event a letter", unknown_properties)
if os.environ.get("WEIR_SEGMENT_NODE"):
    checks.check("every call of the Node library", node)
checks.end()
