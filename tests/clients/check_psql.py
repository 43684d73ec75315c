#!/usr/bin/env python3
"""psql against a running weir: its describe commands, which ask pg_catalog, and its scripts."""

import os
import subprocess

from common import Checks

checks = Checks(__doc__)


def psql(script):
    """The output of a script; the first error ends it."""
    command = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--pset", "pager=off"]
    command += ["--host", checks.pg_host, "--port", checks.pg_port, "--username", checks.user, "weir"]
    environment = {**os.environ, "PGPASSWORD": checks.password, "LC_ALL": "C.UTF-8"}
    told = subprocess.run(
        command, input=script, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if told.returncode != 0:
        raise AssertionError(f"{script!r}: {told.stderr.strip()}")
    return told.stdout


def shows(script, *texts):
    """The script's output holds all of the texts."""
    output = psql(script)
    for text in texts:
        if text not in output:
            raise AssertionError(f"{script!r}: no {text!r} in\n{output}")


def refuses():
    try:
        psql("SELECT * FROM missing;")
    except AssertionError as error:
        if 'relation "missing" does not exist' in str(error):
            return
        raise
    raise AssertionError("no error")


SET_UP = """
CREATE TABLE ps_plain (id INT NOT NULL, name TEXT DEFAULT 'x', price NUMERIC(10,2));
CREATE STREAMING TABLE ps_stream (id BIGINT NOT NULL, at TIMESTAMPTZ);
CREATE VIEW ps_view AS SELECT id FROM ps_plain;
CREATE MATERIALIZED VIEW ps_mv AS SELECT count(*) AS n FROM ps_stream;
CREATE ROLE ps_role LOGIN PASSWORD 'x';
"""
CLEAN_UP = """
DROP MATERIALIZED VIEW IF EXISTS ps_mv;
DROP VIEW IF EXISTS ps_view;
DROP TABLE IF EXISTS ps_stream;
DROP TABLE IF EXISTS ps_plain;
DROP ROLE IF EXISTS ps_role;
"""
COPY = """
COPY ps_plain FROM STDIN;
1\tone\t1.50
2\t\\N\t2.50
\\.
SELECT count(*), sum(price) FROM ps_plain;
"""

checks.check("set up", lambda: psql(SET_UP) and None)
checks.check(r"\d", lambda: shows(r"\d", "ps_plain", "ps_stream", "ps_view", "ps_mv", "weir"))
checks.check(r"\dt", lambda: shows(r"\dt", "ps_plain", "ps_stream"))
checks.check(r"\dv", lambda: shows(r"\dv", "ps_view"))
checks.check(r"\dm", lambda: shows(r"\dm", "ps_mv"))
checks.check(r"\d table", lambda: shows(
    r"\d ps_plain", "id", "integer", "not null", "name", "text", "'x'", "numeric(10,2)"))
checks.check(r"\d streaming table", lambda: shows(r"\d ps_stream", "timestamp with time zone"))
checks.check(r"\d view", lambda: shows(r"\d ps_view", "id", "integer"))
checks.check(r"\d+ table", lambda: shows(r"\d+ ps_plain", "numeric(10,2)"))
checks.check(r"\l", lambda: shows(r"\l", "weir", "UTF8"))
checks.check(r"\du", lambda: shows(r"\du", "weir", "Superuser", "ps_role"))
checks.check(r"\dn", lambda: shows(r"\dn", "public"))
checks.check("COPY in a script", lambda: shows(COPY, "4.00"))
checks.check("several statements", lambda: shows("SELECT 1 AS one; SELECT 2 AS two;", "one", "two"))
checks.check("an error", refuses)
checks.check("clean up", lambda: psql(CLEAN_UP) and None)
checks.end()
