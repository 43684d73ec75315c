#!/usr/bin/env python3
"""What clients ask the catalog when they connect and describe, asked of PostgreSQL and of a running weir.

The statements are recorded traffic and no part of this repository: --statements names the directory of their .sql files.
Without it there is nothing to check, and the script says so. A statement may fail on weir only where it fails on
PostgreSQL; where both answer, the columns have the same names.
"""

import collections
import contextlib
import pathlib
import re
import sys

import psycopg

import oracle
from common import Checks

HEAD = re.compile(r"-- \[(simple|extended[^\]]*)\](?: parameters: (.*))?$")
VALUE = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
READS = re.compile(r"\(*\s*(select|with|show|values|table|explain|set|reset|begin|commit|rollback|discard)\b", re.I)

# the recorded schema, as far as weir has its kinds of objects
SHARED = """
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id int NOT NULL, cust bigint NOT NULL, amount double precision);
CREATE VIEW sales.v AS SELECT o.cust, sum(o.amount) AS s FROM sales.orders o GROUP BY 1;
CREATE TABLE public.ev (d date, n int);
"""
OURS = """
CREATE ROLE analyst LOGIN PASSWORD 'secret';
CREATE TABLE sales.customer (id bigint NOT NULL, name varchar(40) NOT NULL DEFAULT 'x', balance numeric(12,2),
  tags text[], doc jsonb, uid uuid, born date, seen timestamptz, ts timestamp, raw bytea, m text);
COMMENT ON TABLE sales.customer IS 'customers';
COMMENT ON COLUMN sales.customer.name IS 'the name';
INSERT INTO sales.customer (id, name, balance, tags) VALUES (1, 'a', 1.5, '{x,y}');
"""
THEIRS = """
CREATE ROLE analyst LOGIN PASSWORD 'secret';
CREATE TYPE sales.mood AS ENUM ('sad', 'ok');
CREATE TABLE sales.customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(40) NOT NULL DEFAULT 'x',
  balance numeric(12,2), tags text[], doc jsonb, uid uuid, born date, seen timestamptz, ts timestamp(3),
  raw bytea, m sales.mood);
COMMENT ON TABLE sales.customer IS 'customers';
COMMENT ON COLUMN sales.customer.name IS 'the name';
INSERT INTO sales.customer (name, balance, tags) VALUES ('a', 1.5, '{x,y}');
"""


def arguments(parser):
    parser.add_argument("--statements", type=pathlib.Path, help="directory of recorded .sql files")
    parser.add_argument("--postgres", help="connection string; a PostgreSQL is started when missing")
    parser.add_argument("--verbose", action="store_true", help="show columns and counts of rows that differ")


def recorded(text):
    """(line, statement, parameters) of a file: each stands below a line that says how it was sent."""
    parameters, line, lines = None, 0, []
    for number, row in enumerate(text.splitlines() + ["-- ## end"], 1):
        head = HEAD.match(row)
        if head or row.startswith("-- ##"):
            statement = "\n".join(lines).strip()
            if parameters is not None and statement:
                yield line, statement.rstrip(";"), parameters
            lines, line = [], number + 1
            parameters = values(head[2]) if head else None
        elif not row.startswith("-- "):
            lines.append(row)


def listed(text, names):
    """The statements of a file that does not say how they were sent: each ends its line with a semicolon."""
    for line, statement in oracle.statements(text):
        for name, value in names.items():
            statement = (statement or "").replace(f":{name}", value)
        if statement:
            yield line, statement, []


def statements_of(file, names):
    text = file.read_text()
    return recorded(text) if any(HEAD.match(row) for row in text.splitlines()) else listed(text, names)


def oids(server):
    """What the files call :nsp and :rel."""
    answer = server.ask("SELECT 'sales'::regnamespace::oid, 'sales.customer'::regclass::oid")
    return dict(zip(("nsp", "rel"), answer.rows[0])) if answer.rows else {"nsp": "0", "rel": "0"}


def values(written):
    if not written:
        return []
    found = sorted((int(place), value) for place, value in VALUE.findall(written))
    return [None if v == "NULL" else v[1:-1].replace("''", "'") for _, v in found]


def ask(server, statement, parameters):
    if not parameters:
        return server.ask(statement)
    if server.connection.closed or server.connection.pgconn.status != psycopg.pq.ConnStatus.OK:
        server.open()
    sent = [None if p is None else p.encode() for p in parameters]
    return oracle.Answer(server.connection.pgconn.exec_params(statement.encode(), sent))


def prepare(server, script):
    for _, statement in oracle.statements(script):
        answer = server.ask(statement)
        if answer.error and not answer.error.startswith("42710"):
            print(f"set-up: {statement[:60]!r}: {answer.error} {answer.message}")


def main():
    checks = Checks(__doc__, arguments)
    options = checks.arguments
    if options.statements is None or not options.statements.is_dir():
        print("skipped: no directory of recorded statements was given with --statements")
        sys.exit(0)
    server = contextlib.nullcontext(options.postgres) if options.postgres else oracle.postgres()
    with server as dsn:
        theirs = oracle.Server(dsn)
        ours = oracle.Server(
            f"host={checks.pg_host} port={checks.pg_port} user={checks.user} password={checks.password} dbname=weir"
        )
        for script in (SHARED, THEIRS):
            prepare(theirs, script)
        for script in (SHARED, OURS):
            prepare(ours, script)
        for file in sorted(options.statements.glob("*.sql")):
            if not file.name.startswith("00_"):
                checks.check(file.stem, lambda: one_file(file, theirs, ours, options.verbose))
    checks.end()


def one_file(file, theirs, ours, verbose):
    count, failed = collections.Counter(), []
    pairs = zip(statements_of(file, oids(theirs)), statements_of(file, oids(ours)))
    for (line, statement, parameters), (_, own, _) in pairs:
        if not READS.match(oracle.bare(statement)):
            continue
        expected, got = ask(theirs, statement, parameters), ask(ours, own, parameters)
        if expected.error:
            count["both refuse" if got.error else "only weir answers"] += 1
        elif got.error:
            failed.append(f"{line}: {got.error} {got.message}")
        elif expected.names != got.names:
            failed.append(f"{line}: columns {got.names}, expected {expected.names}")
        else:
            count["answered"] += 1
            if verbose and expected.types != got.types:
                odd = [(n, t, o) for n, t, o in zip(got.names, expected.types, got.types) if t != o]
                print(f"     {file.stem}:{line}: types {odd}")
        # a statement that failed inside of a block must not spoil the next
        for server in (theirs, ours):
            if server.connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                server.ask("ROLLBACK")
    if failed:
        raise AssertionError(f"{len(failed)} of {len(failed) + sum(count.values())}\n  " + "\n  ".join(failed))
    return ", ".join(f"{n} {what}" for what, n in count.items())


main()
