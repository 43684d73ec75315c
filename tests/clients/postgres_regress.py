#!/usr/bin/env python3
"""PostgreSQL's own regression statements, asked of PostgreSQL and of a running weir; answers compared.

The files are those that libpg_query carries; they come from the source distribution of `pglast`, or
from --files. They are read, never kept. Each statement that reads is asked of both; the others (CREATE TABLE,
INSERT, SET, ...) prepare both. What only one of them took makes its table `unlike`, and statements that name the
table are left out of the comparison, unless weir takes the table's rows as they are in PostgreSQL.
"""

import collections
import contextlib
import io
import math
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

import oracle
import postgres_reasons
from common import Checks

DISTRIBUTION = "pglast==8.8"
INSIDE = "libpg_query/test/sql/postgres_regress/"
FILES = """
boolean int2 int4 int8 float4 float8 numeric text varchar char strings uuid
date time timetz timestamp timestamptz interval horology
arrays json jsonb case select select_distinct select_distinct_on select_having select_implicit
subselect union join aggregates groupingsets window with limit rangefuncs tsrf expressions
""".split()

READS = re.compile(r"\(*\s*(select|values|with|table)\b", re.I)
SETS = re.compile(r"(set|reset)\b", re.I)
BLOCK = re.compile(r"(begin|commit|rollback|abort|end|start|savepoint|release)\b", re.I)
SKIPPED = re.compile(
    r"(explain|vacuum|analyze|copy|do|prepare|execute|deallocate|declare|fetch|move|close|grant|revoke|"
    r"comment|call|cluster|reindex|lock|notify|listen|load|show|discard|security|checkpoint|refresh|import)\b",
    re.I,
)
WRITES = re.compile(
    r"(?:create\s+(?:or\s+replace\s+)?(?:(?:global|local)\s+)?(?:temp|temporary|unlogged|recursive|materialized)?\s*"
    r"(?:table|view)\s+(?:if\s+not\s+exists\s+)?|insert\s+into\s+|update\s+(?:only\s+)?|delete\s+from\s+(?:only\s+)?|"
    r"truncate\s+(?:table\s+)?|alter\s+(?:table|view)\s+(?:if\s+exists\s+)?(?:only\s+)?|merge\s+into\s+|"
    r"drop\s+(?:table|view)\s+(?:if\s+exists\s+)?)(?P<name>[\w.\"]+)",
    re.I,
)
WRITES_INSIDE = re.compile(
    r"\b(?:insert\s+into|update(?:\s+only)?|delete\s+from|merge\s+into)\s+([\w.\"]+)(?=\s+(?:set|select|values|using|as|where|returning|\()|\s*\()",
    re.I,
)
# what nobody can compare
BY_CHANCE = re.compile(
    r"\b(random|random_normal|now|clock_timestamp|gen_random_uuid|timeofday|pg_backend_pid|txid_current|"
    r"statement_timestamp|current_timestamp|localtimestamp|localtime|current_time|current_date|ctid|tableoid|"
    r"xmin|pg_relation_size|uuidv7|uuidv4|pg_sleep)\b|'(?:now|today|tomorrow|yesterday)",
    re.I,
)

AGREE, NEAR, REFUSED, ERROR, WRONG, ACCEPTS, BOTH, APART = (
    "agree", "near", "refused", "error", "wrong", "accepts", "both refuse", "left out",
)


def arguments(parser):
    parser.add_argument("--postgres", help="connection string; a PostgreSQL is started when missing")
    parser.add_argument("--files", type=pathlib.Path, help="directory of the .sql files")
    parser.add_argument("--only", help="file names without .sql, separated by commas")
    parser.add_argument("--report", type=pathlib.Path, help="write the report to this file")
    parser.add_argument("--details", type=pathlib.Path, help="write every statement that does not agree")
    parser.add_argument("--least", type=float, default=0.0, help="share of relation-free SELECTs that must agree")


def fetched(directory):
    """The regression files of the source distribution, unpacked into a directory."""
    command = [sys.executable, "-m", "pip", "download", DISTRIBUTION, "--quiet", "--no-deps"]
    command += ["--no-binary", "pglast", "--no-build-isolation", "--dest", directory]
    # building its metadata may fail for want of a compiler; the archive is there by then
    subprocess.run(command, check=False, timeout=300, capture_output=True)
    archives = list(pathlib.Path(directory).glob("pglast-*.tar.gz"))
    if not archives:
        raise SystemExit(f"{DISTRIBUTION} cannot be downloaded: give --files")
    with tarfile.open(archives[0]) as archive:
        for member in archive.getmembers():
            if INSIDE in member.name and member.name.endswith(".sql"):
                name = pathlib.Path(member.name).name
                pathlib.Path(directory, name).write_bytes(archive.extractfile(member).read())
    return pathlib.Path(directory)


# --- tables that many files read ---------------------------------------------------------------------

ONEK = """unique1 int4, unique2 int4, two int4, four int4, ten int4, twenty int4, hundred int4, thousand int4,
twothousand int4, fivethous int4, tenthous int4, odd int4, even int4, stringu1 text, stringu2 text, string4 text"""


def letters(number):
    """A number as PostgreSQL's benchmark spells it: letters, then filled up."""
    spelled = ""
    for _ in range(4):
        spelled = chr(65 + number % 26) + spelled
        number //= 26
    return spelled + "xx"


def wisconsin(rows):
    """Rows like those of onek and tenk1, whose data files are not distributed: the same relations between the
    columns in another order."""
    step = 7919  # a prime: the first column is a permutation
    for second in range(rows):
        first = second * step % rows
        yield (
            first, second, first % 2, first % 4, first % 10, first % 20, first % 100, first % 1000,
            first % 2000, first % 5000, first % 10000, first % 100 * 2 + 1, first % 100 * 2,
            letters(first), letters(second), ("AAAAxx", "HHHHxx", "OOOOxx", "VVVVxx")[second % 4],
        )


def wisconsin_tables():
    for name, rows in (("onek", 1000), ("tenk1", 10000)):
        yield f"CREATE TABLE {name} ({ONEK})"
        values = [str(row) for row in wisconsin(rows)]
        for at in range(0, rows, 2500):
            yield f"INSERT INTO {name} VALUES " + ", ".join(values[at : at + 2500])
    yield "CREATE TABLE onek2 AS SELECT * FROM onek"
    yield "CREATE TABLE tenk2 AS SELECT * FROM tenk1"
    yield "CREATE TABLE aggtest (a int2, b float4)"
    yield "INSERT INTO aggtest VALUES (56, 7.8), (100, 99.097), (0, 0.09561), (42, 324.78)"


# --- comparison --------------------------------------------------------------------------------------

NUMBERS = {20: "int8", 21: "int2", 23: "int4", 700: "float4", 701: "float8", 1700: "numeric", 26: "oid"}
NUMBER_LISTS = {1005, 1007, 1016, 1021, 1022, 1231}
TEXTS = {19, 25, 1043, 1042, 705, 18, 2275}


def same_type(theirs, ours):
    return theirs == ours or (theirs in TEXTS and ours in TEXTS)


def close(theirs, ours):
    """Equal numbers, to what a double holds."""
    if theirs == ours:
        return True
    if theirs is None or ours is None:
        return False
    if theirs.startswith("{") and ours.startswith("{"):
        one, other = re.split(r"([{},])", theirs), re.split(r"([{},])", ours)
        return len(one) == len(other) and all(map(close, one, other))
    try:
        a, b = float(theirs), float(ours)
    except ValueError:
        return False
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-10)


def compared(theirs, ours, ordered):
    """The class of two answers, and what differs."""
    if theirs.error and ours.error:
        return BOTH, None
    if ours.error:
        short = f"{ours.error} {ours.message}"
        return (REFUSED if ours.error == "0A000" else ERROR), short
    if theirs.error:
        return ACCEPTS, f"PostgreSQL: {theirs.error} {theirs.message}; weir: {ours.rows[:2] if ours.rows else ours.rows}"
    if theirs.rows is None or ours.rows is None:
        return (AGREE if theirs.rows == ours.rows else WRONG), "rows against no rows"
    if len(theirs.names) != len(ours.names):
        return WRONG, f"columns {theirs.names} against {ours.names}"
    ours_rows = [tuple(v for v in row) for row in ours.rows]
    numeric = [
        (t in NUMBERS and o in NUMBERS) or (t == o and t in NUMBER_LISTS) for t, o in zip(theirs.types, ours.types)
    ]
    trimmed = [t == 1042 for t in theirs.types]
    rows = [
        tuple(v.rstrip(" ") if v is not None and cut else v for v, cut in zip(row, trimmed)) for row in theirs.rows
    ]
    ours_rows = [
        tuple(v.rstrip(" ") if v is not None and cut else v for v, cut in zip(row, trimmed)) for row in ours_rows
    ]
    exact = equal_rows(rows, ours_rows, ordered is not None, [False] * len(numeric))
    loose = exact or equal_rows(rows, ours_rows, ordered is not None, numeric)
    if not loose:
        if ordered is not None and equal_rows(rows, ours_rows, False, numeric):
            keys = sort_columns(ordered, theirs.names)
            if keys is None or not same_order(rows, ours_rows, keys):
                return WRONG, "other order"
            loose = True  # rows that the keys do not tell apart come in any order
    if not loose:
        return WRONG, shown_difference(rows, ours_rows)
    types = all(map(same_type, theirs.types, ours.types))
    if theirs.names != ours.names:
        return WRONG, f"names {theirs.names} against {ours.names}"
    if types and (exact or equal_rows(rows, ours_rows, False, [False] * len(numeric))):
        return AGREE, None
    odd = [(t, o) for t, o in zip(theirs.types, ours.types) if not same_type(t, o)]
    alike = lambda t, o: (t in NUMBERS and o in NUMBERS) or (t in NUMBER_LISTS and o in NUMBER_LISTS)
    if not all(alike(t, o) for t, o in odd):
        return WRONG, f"types {odd}"
    return NEAR, f"number types {odd}" if odd else "digits"


def equal_rows(theirs, ours, ordered, numeric):
    if len(theirs) != len(ours):
        return False
    if not ordered:
        theirs, ours = sorted(theirs, key=sort_key), sorted(ours, key=sort_key)
    return all(
        all(close(a, b) if loose else a == b for a, b, loose in zip(x, y, numeric)) for x, y in zip(theirs, ours)
    )


def sort_key(row):
    key = []
    for value in row:
        try:
            key.append((0, float(value), ""))
        except (TypeError, ValueError):
            key.append((1, 0.0, value or ""))
    return [(k, n if not math.isnan(n) else math.inf, t) for k, n, t in key]


def shown_difference(theirs, ours):
    if len(theirs) != len(ours):
        return f"{len(theirs)} rows {theirs[:1]} against {len(ours)} rows {ours[:1]}"
    for row, other in zip(theirs, ours):
        if row != other:
            return f"{row} against {other}"
    return "rows"


def sort_columns(keys, names):
    """Places of the result's columns that a list of ORDER BY names; None when one is no column."""
    columns = []
    for item in re.split(r",(?![^(]*\))", keys):
        word = re.sub(r"\s+(asc|desc|nulls\s+(first|last)|using\s+\S+)", "", item.strip(), flags=re.I).strip()
        word = word.split(".")[-1].strip('"').lower()
        if word.isdigit() and 0 < int(word) <= len(names):
            columns.append(int(word) - 1)
        elif word in names:
            columns.append(names.index(word))
        else:
            return None
    return columns


def same_order(theirs, ours, columns):
    return all(
        all(close(row[c], other[c]) for c in columns) for row, other in zip(theirs, ours)
    )


def ordered_by(statement):
    """What stands behind ORDER BY outside of parentheses; None without."""
    depth, outside = 0, []
    at = 0
    while found := oracle.TOKEN.search(statement, at):
        if depth == 0:
            outside.append(statement[at : found.start()])
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        at = found.end()
    outside.append(statement[at:])
    outside = "".join(outside)
    if not re.search(r"\border\s+by\b", outside, re.I):
        return None
    last = re.split(r"\border\s+by\b", statement, flags=re.I)[-1]
    return re.split(r"\b(limit|offset|fetch|for)\b", last, flags=re.I)[0]


# --- a file ------------------------------------------------------------------------------------------


# types that weir has under another name
OWN_TYPES = {"character": "text", "name": "text", "bpchar": "text"}


def bare_type(name):
    return name.split("(")[0]


def quoted(value):
    return "'" + value.replace("'", "''") + "'"


class Run:
    """One file against both servers."""

    def __init__(self, name, script, theirs, ours):
        self.name, self.script, self.theirs, self.ours = name, script, theirs, ours
        self.unlike = set()
        self.functions, self.routines = set(), set()
        self.apart = set()
        self.written = set()
        self.block = []
        self.found = []  # (class, relation-free, line, statement, reason)

    def go(self):
        for line, statement in oracle.statements(self.script):
            if statement is None:
                continue
            plain = oracle.bare(statement)
            if re.search(r"(?<![:\w]):['\"]?[A-Za-z_]\w*", plain.replace("::", "")) and "\\" not in plain:
                if re.search(r":'\w+'|:\"\w+\"|(?<=[\s(=]):\w+", re.sub(r"'(?:[^']|'')*'", "''", plain)):
                    continue
            if SKIPPED.match(plain):
                continue
            if BLOCK.match(plain):
                self.transaction(plain)
            elif READS.match(plain) and not re.search(r"\binto\s+(temp|table|unlogged|\w+\s+from)\b", plain, re.I):
                self.read(line, statement, plain)
            elif SETS.match(plain):
                self.set(plain)
            else:
                self.prepare(statement, plain)

    def transaction(self, plain):
        """weir commits each statement, so does PostgreSQL here; what was to be undone is unlike."""
        word = plain.split()[0].lower()
        if word in ("begin", "start"):
            self.block = []
        elif word in ("rollback", "abort"):
            for statement in self.block:
                if undo := re.match(r"create\s+(?:\w+\s+)*?(table|view)\s+([\w.\"]+)", statement, re.I):
                    for server in (self.theirs, self.ours):
                        server.ask(f"DROP {undo[1]} {undo[2]}")
            self.block = []

    def set(self, plain):
        if re.match(r"set\s+local\b", plain, re.I):
            return
        if self.ours.ask(plain).error is None:
            self.theirs.ask(plain)

    def prepare(self, statement, plain):
        theirs, ours = self.theirs.ask(statement), self.ours.ask(statement)
        self.block.append(plain)
        if named := re.match(r"create\s+(?:or\s+replace\s+)?(function|procedure|aggregate|operator|type|domain)\s+([\w.\"]+)", plain, re.I):
            kept = self.routines if named[1].lower() in ("function", "procedure") else self.functions
            kept.add(named[2].split(".")[-1].strip('"').lower())
        written = WRITES.match(plain)
        if ours.error and (parents := re.search(r"\binherits\s*\(([^)]*)\)", plain, re.I)):
            # PostgreSQL reads the children with the parent
            self.apart.update(name.strip().lower() for name in parents[1].split(","))
        if written:
            self.written.add(written["name"].strip('"').lower())
        if written is None:
            if not plain.lower().startswith("create"):
                return
        elif (theirs.error is None) == (ours.error is None):
            if theirs.error is None and re.match(r"(create|drop)\b", plain, re.I):
                self.unlike.discard(written["name"].strip('"').lower())
        else:
            self.unlike.add(written["name"].strip('"').lower())

    def read(self, line, statement, plain):
        theirs, ours = self.theirs.ask(statement), self.ours.ask(statement)
        if written := WRITES_INSIDE.findall(plain):
            # WITH … INSERT changes its table in PostgreSQL
            self.unlike.update(name.strip('"').lower() for name in written)
            return
        if theirs.error == "57014" or ours.error == "57014":
            return
        words = set(re.findall(r"[\w]+", plain.lower()))
        if words & self.routines:
            self.apart |= self.written  # they may write
        if theirs.error is None and self.taken_over(words & self.unlike):
            ours = self.ours.ask(statement)
        free = False
        if theirs.error is None and theirs.rows is not None:
            free = self.relation_free(statement)
        if words & (self.unlike | self.functions | self.routines | self.apart) or BY_CHANCE.search(plain) or "pg_" in plain.lower():
            kind, reason = APART, None
        else:
            kind, reason = compared(theirs, ours, ordered_by(plain))
        if kind == ACCEPTS and theirs.error in ("42P01", "42704"):
            kind = APART
        self.found.append((kind, free and kind != APART, line, plain, reason))

    def taken_over(self, tables):
        """Gives weir the rows that PostgreSQL has in these tables; true when one has changed by it."""
        return any([self.copied(table) for table in tables])

    def copied(self, table):
        columns = self.theirs.ask(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
            f"WHERE attrelid = to_regclass('{table}') AND attnum > 0 AND NOT attisdropped AND relkind = 'r' "
            "ORDER BY attnum"
        )
        if columns.error or not columns.rows:
            return False
        rows = self.theirs.ask(f"SELECT * FROM {table}")
        if rows.error or len(rows.rows) > 1000:
            return False
        types = [OWN_TYPES.get(bare_type(ty), ty) for _, ty in columns.rows]
        self.ours.ask(f"DROP TABLE IF EXISTS {table} CASCADE")
        declared = ", ".join(f'"{name}" {ty}' for (name, _), ty in zip(columns.rows, types))
        if self.ours.ask(f"CREATE TABLE {table} ({declared})").error:
            return False
        blanks = [bare_type(ty) in ("character", "bpchar") for _, ty in columns.rows]
        literals = [
            "(" + ", ".join("NULL" if v is None else f"{quoted(v.rstrip() if b else v)}::{t}" for v, t, b in zip(row, types, blanks)) + ")"
            for row in rows.rows
        ]
        if literals and self.ours.ask(f"INSERT INTO {table} VALUES " + ", ".join(literals)).error:
            return False
        self.unlike.discard(table)
        return True

    def relation_free(self, statement):
        plan = self.theirs.ask("EXPLAIN (FORMAT JSON) " + statement)
        if plan.error or not plan.rows:
            return False
        return '"Relation Name"' not in plan.rows[0][0]


SETUP = (
    "SET TIME ZONE 'America/Los_Angeles'",
    "SET statement_timeout = '20s'",
)


def shared_tables(script, theirs, ours):
    """Makes the tables of test_setup.sql in `public`; what weir does not take is left out there."""
    for statement in wisconsin_tables():
        for server in (theirs, ours):
            answer = server.ask(statement)
            if answer.error:
                print(f"{statement[:60]}: {answer.error} {answer.message}")
    wanted = re.compile(r"(create\s+table|insert\s+into)\s+(\w+_tbl)\b", re.I)
    for _, statement in oracle.statements(script):
        if statement and wanted.match(oracle.bare(statement)) and "point" not in statement.lower():
            plain = re.sub(r"\bchar\(", "varchar(", oracle.bare(statement))
            for server in (theirs, ours):
                answer = server.ask(plain)
                if answer.error:
                    print(f"{plain[:60]!r}: {answer.error} {answer.message}")


def reason_group(reason):
    """Reasons without their names and numbers."""
    short = re.sub(r"\"[^\"]*\"|'[^']*'", "…", reason or "")
    short = re.sub(r"\s+", " ", short)
    return re.sub(r"\d{2,}(?!\w)", "n", short)[:90]


def main():
    checks = Checks(__doc__, arguments)
    options = checks.arguments
    names = options.only.split(",") if options.only else FILES
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.files or fetched(scratch)
        texts = {}
        for name in [*names, "test_setup"]:
            path = directory / f"{name}.sql"
            if path.exists():
                texts[name] = path.read_text()
    server = contextlib.nullcontext(options.postgres) if options.postgres else oracle.postgres()
    with server as dsn:
        runs = compare_all(checks, dsn, names, texts)
    finish(options, runs)


def compare_all(checks, dsn, names, texts):
    ours_dsn = f"host={checks.pg_host} port={checks.pg_port} user={checks.user} password={checks.password} dbname=weir"
    theirs, ours = oracle.Server(dsn, SETUP), oracle.Server(ours_dsn, SETUP)
    shared_tables(texts["test_setup"], theirs, ours)
    theirs.close()
    ours.close()
    runs = []
    for name in names:
        if name not in texts:
            continue
        schema = f"r_{name}"
        own = (*SETUP, f"CREATE SCHEMA IF NOT EXISTS {schema}", f"SET search_path TO {schema}, public")
        run = Run(name, texts[name], oracle.Server(dsn, own), oracle.Server(ours_dsn, own))
        run.go()
        run.theirs.close()
        run.ours.close()
        runs.append(run)
        count = collections.Counter(kind for kind, *_ in run.found)
        print(f"{name:20} " + "  ".join(f"{k} {v}" for k, v in sorted(count.items())), flush=True)
    return runs


KINDS = (AGREE, NEAR, REFUSED, ERROR, ACCEPTS, WRONG, BOTH, APART)


def finish(options, runs):
    out = io.StringIO()
    table(out, runs)
    free = [kind for run in runs for kind, is_free, *_ in run.found if is_free]
    good = sum(kind in (AGREE, NEAR) for kind in free)
    share = good / max(1, len(free))
    sentence = (
        f"Of {len(free)} statements that read no table and that PostgreSQL answers, {good} ({share:.1%}) agree "
        f"({free.count(AGREE)} to the letter)."
    )
    print(out.getvalue())
    print(sentence)
    if options.report:
        options.report.write_text(report(runs, out.getvalue(), sentence))
    if options.details:
        with options.details.open("w") as file:
            for run in runs:
                for kind, _, line, statement, reason in run.found:
                    if kind not in (AGREE, BOTH, APART):
                        file.write(f"{kind}\t{run.name}:{line}\t{reason}\t{' '.join(statement.split())[:300]}\n")
    sys.exit(0 if share >= options.least else 1)


def table(out, runs):
    out.write("| file | " + " | ".join(KINDS) + " |\n|---|" + "--:|" * len(KINDS) + "\n")
    total = collections.Counter()
    for run in runs:
        count = collections.Counter(kind for kind, *_ in run.found)
        total += count
        out.write(f"| {run.name} | " + " | ".join(str(count[k]) for k in KINDS) + " |\n")
    out.write("| all | " + " | ".join(str(total[k]) for k in KINDS) + " |\n")


def report(runs, counts, sentence):
    out = io.StringIO()
    out.write(HEAD)
    out.write(sentence + "\n\n" + counts)
    for kind, title in (
        (WRONG, "Other answers"),
        (ACCEPTS, "Answered where PostgreSQL has an error"),
        (REFUSED, "Refused"),
        (ERROR, "Other errors"),
        (NEAR, "The same values in another number type"),
    ):
        groups = collections.defaultdict(list)
        for run in runs:
            for found, _, line, statement, reason in run.found:
                if found == kind:
                    groups[group_of(kind, statement, reason)].append(f"{run.name}:{line}")
        out.write(f"\n## {title}\n\n| reason | statements | where |\n|---|--:|---|\n")
        for reason, places in sorted(groups.items(), key=lambda g: (-len(g[1]), g[0])):
            shown = ", ".join(places[:12]) + (", …" if len(places) > 12 else "")
            out.write(f"| {reason.replace('|', chr(92) + '|')} | {len(places)} | {shown} |\n")
    return out.getvalue()


def group_of(kind, statement, reason):
    """Answers hold the files' own values, so those are told apart by why they are others."""
    if kind == WRONG:
        return postgres_reasons.of_answer(statement) or "not looked into"
    if kind == ACCEPTS:
        return postgres_reasons.of_acceptance(statement) or reason_group(reason.split(";")[0])
    return reason_group(reason)


HEAD = """# PostgreSQL's regression statements

Made by `tests/clients/postgres_regress.py`, which asks a PostgreSQL 15 and weir the same statements. *agree*: the
same names, types and rows; *near*: the same values, but a number of another type or with other digits, as
`docs/postgres.md` says; *refused*: `0A000`; *error*: any other error where PostgreSQL answers; *accepts*: an answer where
PostgreSQL has an error; *wrong*: another answer; *left out*: what nobody can compare (chance, time, functions and tables
that weir has not taken). The places are file and line of libpg_query's copies. `onek` and `tenk1` are filled anew, since
their data is not distributed.

"""

if __name__ == "__main__":
    main()
