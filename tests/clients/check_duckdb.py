#!/usr/bin/env python3
"""Materialized views against DuckDB: the same events into both, late ones and all, the same answers from both.

Events go into weir over HTTP in pieces; between the pieces views are stored, flushed and left alone by turns. After
each piece the views' results are compared with what DuckDB makes of all events so far. It needs the Python module
duckdb and is run by hand."""

import base64
import datetime
import json
import random
import urllib.error
import urllib.request

import duckdb

from common import Checks

checks = Checks(__doc__.splitlines()[0])
chance = random.Random(20260101)
TABLE = f"duck_{chance.getrandbits(24):06x}"
USERS = 300
PIECES = 8
ROWS = 5_000
# 2026-01-01T00:00:00Z; events of a piece lie around an hour after those of the one before
BEGIN = 1_767_225_600

VIEWS = {
    # tumbling windows
    "counts": (
        "SELECT date_bin(INTERVAL '5 minutes', ts) AS slot, kind, count(*) AS n, sum(cents) AS cents, "
        "min(cents) AS lowest, max(cents) AS highest FROM {t} GROUP BY 1, 2",
        "SELECT time_bucket(INTERVAL '5 minutes', ts) AS slot, kind, count(*) AS n, sum(cents) AS cents, "
        "min(cents) AS lowest, max(cents) AS highest FROM events GROUP BY 1, 2",
        "{epoch}, kind, n, cents, lowest, highest",
        "slot",
    ),
    # sessions: late events bridge what were two
    "sessions": (
        "SELECT user_id, session_window(ts, INTERVAL '10 minutes') AS w, count(*) AS n, sum(cents) AS cents "
        "FROM {t} GROUP BY user_id, session_window(ts, INTERVAL '10 minutes')",
        "WITH seen AS (SELECT *, ts - lag(ts) OVER (PARTITION BY user_id ORDER BY ts) > INTERVAL '10 minutes' AS apart "
        "FROM events), numbered AS (SELECT *, sum(CASE WHEN apart THEN 1 ELSE 0 END) "
        "OVER (PARTITION BY user_id ORDER BY ts) AS number FROM seen) "
        "SELECT user_id, min(ts) AS w, count(*) AS n, sum(cents) AS cents FROM numbered GROUP BY user_id, number",
        "user_id, {epoch}, n, cents",
        "w",
    ),
    # a join with a table that changes
    "by_plan": (
        "SELECT p.plan, count(*) AS n, count(DISTINCT e.user_id) AS users, sum(e.cents) AS cents "
        "FROM {t} AS e JOIN {t}_plans AS p ON e.user_id = p.user_id GROUP BY p.plan",
        "SELECT p.plan, count(*) AS n, count(DISTINCT e.user_id) AS users, sum(e.cents) AS cents "
        "FROM events AS e JOIN plans AS p ON e.user_id = p.user_id GROUP BY p.plan",
        "plan, n, users, cents",
        None,
    ),
    # exact distinct values
    "visitors": (
        "SELECT date_bin(INTERVAL '1 hour', ts) AS slot, count(DISTINCT user_id) AS users FROM {t} GROUP BY 1",
        "SELECT time_bucket(INTERVAL '1 hour', ts) AS slot, count(DISTINCT user_id) AS users FROM events GROUP BY 1",
        "{epoch}, users",
        "slot",
    ),
}


def call(path, body, kind):
    request = urllib.request.Request(checks.http + path, data=body, headers={"content-type": kind})
    secret = base64.b64encode(f"{checks.user}:{checks.password}".encode()).decode()
    request.add_header("authorization", f"Basic {secret}")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


def sql(text):
    return call("/v1/sql", json.dumps({"sql": text}).encode(), "application/json")


def rows(text):
    return [list(row) if isinstance(row, list) else list(row.values()) for row in sql(text)["rows"]]


def events(piece):
    made = []
    for _ in range(ROWS):
        late = chance.choice([0] * 40 + [chance.randrange(6 * 3600)])
        at = BEGIN + piece * 3600 + chance.randrange(3600) - late
        kind = chance.choice(["view", "view", "view", "cart", "purchase", None])
        made.append((chance.randrange(USERS), at, kind, chance.randrange(-500, 10_000)))
    return made


duck = duckdb.connect()
duck.execute("CREATE TABLE events (user_id BIGINT, ts TIMESTAMP, kind TEXT, cents BIGINT)")
duck.execute("CREATE TABLE plans (user_id BIGINT, plan TEXT)")


def moment(at):
    return datetime.datetime.fromtimestamp(at, datetime.UTC).replace(tzinfo=None).isoformat()


def send(piece):
    made = events(piece)
    body = "".join(
        json.dumps({"user_id": user, "ts": f"{moment(at)}Z", "kind": kind, "cents": cents}) + "\n"
        for user, at, kind, cents in made
    )
    answer = call(f"/v1/tables/public/{TABLE}/rows", body.encode(), "application/x-ndjson")
    assert answer["accepted"] == ROWS, answer
    duck.executemany("INSERT INTO events VALUES (?, make_timestamp(?::bigint * 1000000), ?, ?)", [list(e) for e in made])
    if piece % 3 == 2:
        users = [(user, chance.choice(["free", "team", "firm"])) for user in range(0, USERS, piece + 1)]
        values = ", ".join(f"({user}, '{plan}')" for user, plan in users)
        sql(f"TRUNCATE {TABLE}_plans")
        sql(f"INSERT INTO {TABLE}_plans VALUES {values}")
        duck.execute("DELETE FROM plans")
        duck.execute(f"INSERT INTO plans VALUES {values}")
    if piece % 2:
        sql(f"FLUSH TABLE {TABLE}")
    for name in VIEWS:
        if chance.random() < 0.4:
            sql(f"REFRESH MATERIALIZED VIEW {TABLE}_{name}")


def number(value):
    return None if value is None else int(value)


def compare(name):
    _, theirs, columns, time = VIEWS[name]
    start = "w['start']" if time == "w" else time
    ours = columns.format(epoch=f"extract(epoch FROM {start})::bigint")
    asked = f"SELECT {columns.format(epoch=f'epoch({time})::bigint')} FROM ({theirs})"

    def whole(values):
        return [value if isinstance(value, str) or value is None else number(value) for value in values]

    def text(value):
        return json.dumps(value)

    def read(value):
        # whole numbers may come as texts where JSON's numbers are too short for them
        return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value

    found = sorted(([read(v) for v in row] for row in rows(f"SELECT {ours} FROM {TABLE}_{name}")), key=text)
    expected = sorted((whole(row) for row in duck.execute(asked).fetchall()), key=text)
    assert len(found) == len(expected), f"{len(found)} rows, {len(expected)} in DuckDB"
    for ours, other in zip(found, expected):
        assert ours == other, f"{ours} is {other} in DuckDB"
    return f"{len(found)} rows"


def make():
    sql(f"CREATE STREAMING TABLE {TABLE} (user_id BIGINT NOT NULL, ts TIMESTAMPTZ NOT NULL, kind TEXT, cents BIGINT)")
    sql(f"CREATE TABLE {TABLE}_plans (user_id BIGINT, plan TEXT)")
    for name, (ours, *_) in VIEWS.items():
        sql(f"CREATE MATERIALIZED VIEW {TABLE}_{name} AS {ours.format(t=TABLE)}")
    return ", ".join(VIEWS)


checks.check("views are made", make)
for piece in range(PIECES):
    checks.check(f"piece {piece} is sent", lambda: send(piece))
    for name in VIEWS:
        checks.check(f"{name} after piece {piece}", lambda: compare(name))
checks.end()
