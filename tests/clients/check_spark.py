#!/usr/bin/env python3
"""Materialized views against Spark Structured Streaming: the same answers, with time and CPU side by side.

Tumbling counts, sessions, a join of two streams and one with a table are views in weir, and in Spark queries
over a directory of Parquet files. Events come out of order, twice, with NULLs, with pauses of exactly the
gap, and late within Spark's watermark; plain Python computes the answers a third time. First weir works, then
Spark, each alone. Spark appends windows and sessions when the watermark is past them: latency is also
measured of counts in its modes update and complete. It needs requirements-spark.txt and Java, and is run by
hand."""

import collections
import datetime
import json
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import adbc_driver_flightsql.dbapi as flight
import psycopg
import pyarrow as pa
import pyarrow.parquet
import pyspark
from pyspark.sql import SparkSession

from common import Checks

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)
MINUTE = 60_000_000
BEGIN = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
CLOSING = BEGIN + 30 * 24 * 60 * MINUTE  # moves the watermark past everything else; not compared
GAP = 10 * MINUTE
REACH = 30 * MINUTE
LATE = 29 * MINUTE  # and REACH before that is still within the watermark
KINDS = ["view", "view", "view", "cart", "click", "click", "purchase", None]
SCHEMA = "user_id STRING, ts TIMESTAMP, kind STRING, value BIGINT"
TYPES = [pa.string(), pa.timestamp("us", "UTC"), pa.string(), pa.int64()]
ARROW = pa.schema(list(zip(("user_id", "ts", "kind", "value"), TYPES)))

VIEWS = {
    "counts": "SELECT {slot} AS slot, kind, count(*) AS n, count(value) AS given, sum(value) AS total "
    "FROM {events} GROUP BY {by_slot}, kind",
    "sessions": "SELECT user_id, {session}, count(*) AS n, sum(value) AS total "
    "FROM {events} GROUP BY user_id, {by_session}",
    "pairs": "SELECT c.user_id, c.ts AS clicked, p.ts AS bought, p.value "
    "FROM {events} AS c JOIN {events} AS p ON c.user_id = p.user_id AND p.ts >= c.ts "
    "AND p.ts <= c.ts + INTERVAL '30 minutes' WHERE c.kind = 'click' AND p.kind = 'purchase'",
    "plans": "SELECT {slot} AS slot, d.plan, count(*) AS n, sum(e.value) AS total "
    "FROM {events} AS e LEFT JOIN {events}_dim AS d ON e.user_id = d.user_id GROUP BY {by_slot}, d.plan",
}
WEIR = {
    "slot": "date_bin(INTERVAL '1 minute', ts)",
    "by_slot": "date_bin(INTERVAL '1 minute', ts)",
    "session": "session_window(ts, INTERVAL '10 minutes') AS w",
    "by_session": "session_window(ts, INTERVAL '10 minutes')",
}
SPARK = {
    "slot": "window.start",
    "by_slot": "window(ts, '1 minute')",
    "session": "session_window.start AS begun, session_window.end AS ended",
    "by_session": "session_window(ts, '10 minutes')",
    "events": "events",
}
COLUMNS = {"sessions": "user_id, w['start'], w['end'], n, total"}


def arguments(parser):
    parser.add_argument("--pid", type=int, required=True, help="the server's process, to measure its CPU")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    parser.add_argument("--rows", type=int, default=1_000_000, help="events of the large batch; 0 for none")
    parser.add_argument("--batches", type=int, default=40, help="small batches to measure latency by")
    parser.add_argument("--pace", type=float, default=1, help="seconds from one small batch to the next")
    parser.add_argument("--runs", type=int, default=2, help="runs of the large batch; the quickest counts")
    parser.add_argument("--memory", default="4g", help="heap of Spark's JVM")


checks = Checks(__doc__.splitlines()[0], arguments)
given = checks.arguments


def events(piece, rows, users, span):
    """Events of one span of time, some of before it: (user, microseconds, kind, value) each."""
    chance = random.Random(f"{piece} {rows} {users}")
    made = []
    while len(made) < rows:
        at = BEGIN + piece * span + chance.randrange(span)
        at -= chance.randrange(LATE) if chance.random() < 0.1 else 0
        at -= at % 1000
        user = f"user {chance.randrange(users)}" if chance.random() < 0.98 else None
        value = chance.randrange(-500, 10_000) if chance.random() < 0.9 else None
        made.append((user, at, chance.choice(KINDS), value))
        what = chance.random()
        if what < 0.01:
            made.append(made[-1])
        elif what < 0.02:
            made.append((user, at - GAP, "view", value))
        elif what < 0.03:
            made += [(user, at - REACH, "click", value), (user, at, "purchase", value)]
    return made[:rows]


def plans(users):
    """Every third user has none."""
    return {f"user {user}": ("free", "team", "firm")[user // 3 % 3] for user in range(users) if user % 3}


def arrow(rows):
    return pa.Table.from_arrays([pa.array(c, t) for c, t in zip(zip(*rows), TYPES)], schema=ARROW)


def text(rows):
    """Rows as COPY takes them."""
    times = ((user, (EPOCH + at * MICROSECOND).isoformat(), *rest) for user, at, *rest in rows)
    lines = ("\t".join("\\N" if value is None else str(value) for value in row) for row in times)
    return "".join(f"{line}\n" for line in lines).encode()


def recomputed(rows, plan_of):
    """The answers by the definitions of the views."""
    def total(group):
        values = [row[3] for row in group if row[3] is not None]
        return sum(values) if values else None

    slots, planned, by_user = (collections.defaultdict(list) for _ in range(3))
    for row in sorted(rows, key=lambda row: row[1]):
        slot = row[1] - row[1] % MINUTE
        slots[slot, row[2]].append(row)
        planned[slot, plan_of.get(row[0])].append(row)
        by_user[row[0]].append(row)
    parts, pairs = [], []
    for user, own in by_user.items():
        for before, row in zip([None, *own], own):
            if before is None or row[1] - before[1] > GAP:
                parts.append([])
            parts[-1].append(row)
        if user is not None:
            clicks = [row[1] for row in own if row[2] == "click"]
            bought = [(row[1], row[3]) for row in own if row[2] == "purchase"]
            pairs += [(user, c, at, value) for at, value in bought for c in clicks if c <= at <= c + REACH]
    return {
        "counts": [(*k, len(g), sum(row[3] is not None for row in g), total(g)) for k, g in slots.items()],
        "sessions": [(part[0][0], part[0][1], part[-1][1] + GAP, len(part), total(part)) for part in parts],
        "pairs": pairs,
        "plans": [(*key, len(group), total(group)) for key, group in planned.items()],
    }


def cpu(pid):
    """Seconds that a process and those that it started and that have ended computed."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def peak(pid):
    """The most memory that a process had, in MiB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def kept(rows):
    """Rows without what the closing events made."""
    return [row for row in rows if not any(isinstance(value, int) and value >= CLOSING for value in row)]


def same(ours, theirs, whose):
    ours, theirs = collections.Counter(ours), collections.Counter(theirs)
    more, less = list((ours - theirs).elements()), list((theirs - ours).elements())
    told = f"weir alone ({len(more)}): {more[:3]}; {whose} alone ({len(less)}): {less[:3]}"
    assert not more and not less, told
    return f"{sum(ours.values())} rows"


def summary(seconds, used):
    """Of measured batches; the CPU is of one."""
    seconds = sorted(seconds)
    return {
        "median": statistics.median(seconds),
        "p95": seconds[int(0.95 * len(seconds))],
        "worst": seconds[-1],
        "cpu": used / len(seconds),
    }


class Weir:
    """A table with views over it."""

    def __init__(self, table, names, plan_of):
        self.table, self.names = table, names
        self.connection = psycopg.connect(**checks.pg, autocommit=True)
        self.run = self.connection.execute
        self.drop()
        columns = "user_id TEXT, ts TIMESTAMPTZ NOT NULL, kind TEXT, value BIGINT"
        self.run(f"CREATE STREAMING TABLE {table} ({columns})")
        self.run(f"CREATE TABLE {table}_dim (user_id TEXT NOT NULL, plan TEXT)")
        self.copy(f"{table}_dim", "".join(f"{user}\t{plan}\n" for user, plan in plan_of.items()).encode())
        for name in names:
            query = VIEWS[name].format(events=table, **WEIR)
            self.run(f"CREATE MATERIALIZED VIEW {table}_{name} WITH (refresh = 'incremental') AS {query}")

    def drop(self):
        self.run(f"DROP TABLE IF EXISTS {self.table}, {self.table}_dim CASCADE")

    def copy(self, table, data):
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
            copy.write(data)

    def query(self, name):
        return f"SELECT {COLUMNS.get(name, '*')} FROM {self.table}_{name}"

    def store(self):
        """What would be done in the background later is done now, for its CPU to be counted."""
        self.run(f"FLUSH TABLE {self.table}")
        for name in self.names:
            self.run(f"REFRESH MATERIALIZED VIEW {self.table}_{name}")

    def answer(self, name):
        def plain(value):
            return (value - EPOCH) // MICROSECOND if isinstance(value, datetime.datetime) else value

        return kept([tuple(plain(value) for value in row) for row in self.run(self.query(name))])


class Spark:
    """A session in a JVM of its own; it ends with the block."""

    def __init__(self, home):
        self.home = home
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
        manager = "FileSystemBasedCheckpointFileManager"
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": given.memory,
            "spark.ui.enabled": False,
            "spark.ui.showConsoleProgress": False,
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": os.cpu_count(),
            "spark.sql.streaming.checkpointLocation": home / "state",
            # the default one starts processes for files where Hadoop has no native library
            "spark.sql.streaming.checkpointFileManagerClass":
                f"org.apache.spark.sql.execution.streaming.checkpointing.{manager}",
        }
        builder = SparkSession.builder.master(f"local[{os.cpu_count()}]")
        for name, value in settings.items():
            builder = builder.config(name, value if isinstance(value, bool) else str(value))
        self.session = builder.getOrCreate()
        self.session.sparkContext.setLogLevel("ERROR")
        self.gateway = self.session.sparkContext._gateway
        self.pid = self.session._jvm.java.lang.ProcessHandle.current().pid()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.stop()
        self.gateway.shutdown()
        self.gateway.proc.stdin.close()
        try:
            self.gateway.proc.wait(20)
        except subprocess.TimeoutExpired:
            self.gateway.proc.kill()
            self.gateway.proc.wait()

    def query(self, label, name, mode, plan_of):
        """A running query over a directory of its own, which is empty."""
        home = self.home / f"{label}-{name}"
        (home / "in").mkdir(parents=True)
        dim = pa.table({"user_id": list(plan_of), "plan": list(plan_of.values())})
        pyarrow.parquet.write_table(dim, home / "dim.parquet")
        self.session.read.parquet(str(home / "dim.parquet")).createOrReplaceTempView("events_dim")
        reader = self.session.readStream.schema(SCHEMA).option("recursiveFileLookup", True)
        stream = reader.parquet(str(home / "in")).withWatermark("ts", "60 minutes")
        stream.createOrReplaceTempView("events")
        writer = self.session.sql(VIEWS[name].format(**SPARK)).writeStream.format("memory").outputMode(mode)
        query = writer.queryName(f"{label}_{name}").start()
        query.processAllAvailable()
        return query

    def answer(self, query):
        found = self.session.table(query.name)
        times = [f"unix_micros({n}) AS {n}" if kind == "timestamp" else n for n, kind in found.dtypes]
        return kept([tuple(row) for row in found.selectExpr(*times).collect()])

    def staged(self, query, number, pieces):
        """A function that hands over pieces at once: their files lie in a directory that is renamed."""
        home = self.home / query.name.replace("_", "-")
        (home / str(number)).mkdir()
        for at, piece in enumerate(pieces):
            pyarrow.parquet.write_table(piece, home / str(number) / f"{at}.parquet")
        return lambda: (home / str(number)).rename(home / "in" / str(number))


def committed(query, handed):
    """Seconds from a moment until the micro-batch with the newest rows was committed."""
    progress = [p for p in query.recentProgress if p.numInputRows > 0][-1]
    begun = datetime.datetime.fromisoformat(progress.timestamp.replace("Z", "+00:00")).timestamp()
    return begun + progress.durationMs["triggerExecution"] / 1000 - handed


def paced(batches, pid, hand):
    """Hands batches over. Returns the seconds of each and what tells the CPU used, both after warming up."""
    seconds, begun = [], time.monotonic()
    for at, batch in enumerate(batches):
        if at == WARM:
            before = cpu(pid)
        time.sleep(max(0, begun + at * given.pace - time.monotonic()))
        seconds.append(hand(batch))
    return seconds[WARM:], lambda: cpu(pid) - before


WARM = 10
SMALL_PLANS = plans(600)
SMALL = [events(piece, 2_000, 600, 20 * MINUTE) for piece in range(WARM + 10)]
STEADY = [events(piece, 1_000, 600, MINUTE) for piece in range(WARM + given.batches)]
LARGE_PLANS = plans(20_000)
LARGE = [arrow(events(at, given.rows // 20, 20_000, 20 * MINUTE)) for at in range(20 if given.rows else 0)]
CLOSE = [(f"closing {kind}", CLOSING, kind, None) for kind in ("click", "purchase")]
TOO_LATE = [("user 1", BEGIN, "late", 1)]
LARGE.append(arrow(CLOSE))
FOUR = f"four queries at once, {len(SMALL[0])} events"
ONE = f"tumbling counts, {len(STEADY[0])} events"
answers = {"Python": recomputed([row for piece in SMALL for row in piece], SMALL_PLANS)}
figures = {"latency": {FOUR: {}, ONE: {}}, "throughput": {name: {} for name in VIEWS}}


def weir_small(label, pieces, names, what):
    weir = Weir(f"spark_{label}", names, SMALL_PLANS)
    told = []

    def hand(data):
        started = time.monotonic()
        weir.copy(weir.table, data)
        told.append(time.monotonic() - started)
        for name in names:
            weir.run(weir.query(name)).fetchall()
        return time.monotonic() - started

    seen, used = paced([text(piece) for piece in pieces], given.pid, hand)
    weir.store()
    figures["latency"][what] |= {
        "weir, acknowledged": summary(told[WARM:], used()), "weir, read": summary(seen, used()),
    }
    answers[f"weir {label}"] = {name: weir.answer(name) for name in names}
    weir.copy(weir.table, text(CLOSE + TOO_LATE))
    answers[f"weir {label} late"] = [row for row in weir.answer("counts") if row[1] == "late"]
    weir.drop()


def spark_small(spark, label, mode, pieces, names, what):
    queries = [spark.query(label, name, mode, SMALL_PLANS) for name in names]
    read = []

    def stage(number, rows):
        return [spark.staged(query, number, [arrow(rows)]) for query in queries]

    def hand(files):
        handed = time.time()
        for file in files:
            file()
        for query in queries:
            query.processAllAvailable()
        seconds = max(committed(query, handed) for query in queries)
        started = time.monotonic()
        if mode == "complete":
            spark.session.table(queries[0].name).collect()
        read.append(seconds + time.monotonic() - started)
        return seconds

    done, used = paced([stage(at, piece) for at, piece in enumerate(pieces)], spark.pid, hand)
    found = figures["latency"][what]
    found[f"Spark, {mode}, committed"] = summary(done, used())
    if mode == "complete":
        found[f"Spark, {mode}, read"] = summary(read[WARM:], used())
    answers[f"Spark {label} open"] = {name: spark.answer(query) for name, query in zip(names, queries)}
    hand(stage("closing", CLOSE))
    hand(stage("late", TOO_LATE))
    answers[f"Spark {label}"] = {name: spark.answer(query) for name, query in zip(names, queries)}
    for query in queries:
        query.stop()


def latest(spark, mode):
    """Counts with Spark in another mode: as they are before the closing events."""
    spark_small(spark, mode, mode, STEADY, ["counts"], ONE)
    # of updates the last of a row holds
    rows = {row[:2]: row for row in answers[f"Spark {mode} open"]["counts"]}.values()
    return same(answers["weir steady"]["counts"], rows, "Spark")


def weir_large(name):
    found = []
    login = {"username": checks.user, "password": checks.password}
    for _ in range(given.runs):
        weir = Weir("spark_large", [name], LARGE_PLANS)
        batches = [batch for table in LARGE for batch in table.to_batches()]
        with flight.connect(checks.flight, db_kwargs=login, autocommit=True) as door, door.cursor() as cursor:
            before, started = cpu(given.pid), time.monotonic()
            cursor.adbc_ingest(weir.table, pa.RecordBatchReader.from_batches(ARROW, batches), mode="append")
            cursor.execute(weir.query(name))
            cursor.fetch_arrow_table()
            seconds = time.monotonic() - started
        weir.store()
        stored = time.monotonic() - started
        found.append({"seconds": seconds, "stored": stored, "cpu": cpu(given.pid) - before})
        answers["large", name] = weir.answer(name)
        weir.drop()
    figures["throughput"][name]["weir"] = min(found, key=lambda run: run["seconds"])


def spark_large(spark, name):
    found = []
    for run in range(given.runs):
        query = spark.query(f"large{run}", name, "append", LARGE_PLANS)
        hand = spark.staged(query, 0, LARGE)
        before, started = cpu(spark.pid), time.monotonic()
        hand()
        query.processAllAvailable()
        found.append({"seconds": time.monotonic() - started, "cpu": cpu(spark.pid) - before})
        rows = spark.answer(query)
        query.stop()
        spark.session.catalog.dropTempView(query.name)
    figures["throughput"][name]["Spark"] = min(found, key=lambda run: run["seconds"])
    return same(answers["large", name], rows, "Spark")


def too_late():
    """After the closing events, one of before: weir counts it, Spark leaves it out."""
    assert answers["weir four late"] == [(BEGIN, "late", 1, 1, 1)], answers["weir four late"]
    found = [row for row in answers["Spark four"]["counts"] if row[1] == "late"]
    assert not found, found


def report():
    for what, found in figures["latency"].items():
        print(f"\n{what + f', every {given.pace:g} s':42} median ms    p95 ms  worst ms   CPU ms a batch")
        for who, told in found.items():
            shown = " ".join(f"{told[key] * 1000:9.1f}" for key in ("median", "p95", "worst"))
            print(f"  {who:40} {shown} {told['cpu'] * 1000:16.1f}")
    print(f"\n{given.rows:,} events at once: events/s, and CPU s")
    print(f"{'':11} weir, read  weir, stored     Spark  CPU: weir   Spark")
    for name, (ours, theirs) in ((n, (f["weir"], f["Spark"])) for n, f in figures["throughput"].items()):
        rates = [given.rows / seconds for seconds in (ours["seconds"], ours["stored"], theirs["seconds"])]
        faster = f"weir is {rates[0] / rates[2]:.1f} ({rates[1] / rates[2]:.1f}) times as fast"
        print(f"  {name:9} {rates[0]:10,.0f} {rates[1]:13,.0f} {rates[2]:9,.0f} {ours['cpu']:10.2f} "
              f"{theirs['cpu']:7.2f}  {faster} by {ours['cpu'] / theirs['cpu']:.2f} of the CPU")
    print("\n" + "\n".join(f"{name}: {told}" for name, told in figures["machine"].items()) + "\n")


machine = figures["machine"] = {"CPUs": os.cpu_count(), "pyspark": pyspark.__version__}
machine["load"] = [os.getloadavg()]
at_first = cpu(given.pid)
checks.check("weir, four views", lambda: weir_small("four", SMALL, list(VIEWS), FOUR))
checks.check("weir, counts", lambda: weir_small("steady", STEADY, ["counts"], ONE))
for name in VIEWS if given.rows else ():
    checks.check(f"weir, a large batch, {name}", lambda: weir_large(name))
machine |= {"CPU s, weir": cpu(given.pid) - at_first, "peak MiB, weir": peak(given.pid)}
machine["load"].append(os.getloadavg())
with tempfile.TemporaryDirectory() as home:
    started = time.monotonic()
    with Spark(pathlib.Path(home)) as spark:
        machine |= {"Spark's start, s": time.monotonic() - started, "Spark's start, CPU s": cpu(spark.pid)}
        checks.check("Spark, four queries", lambda: spark_small(
            spark, "four", "append", SMALL, list(VIEWS), FOUR))
        for mode in ("update", "complete"):
            checks.check(f"Spark, counts, {mode}: weir's answer", lambda: latest(spark, mode))
        for name in VIEWS if given.rows else ():
            checks.check(f"Spark, a large batch, {name}: weir's answer", lambda: spark_large(spark, name))
        machine |= {"CPU s, Spark": cpu(spark.pid), "peak MiB, Spark": peak(spark.pid)}
machine["load"].append(os.getloadavg())
for name in VIEWS:
    mine = answers["weir four"][name]
    checks.check(f"{name}: Python's answer", lambda: same(mine, answers["Python"][name], "Python"))
    checks.check(f"{name}: Spark's answer", lambda: same(mine, answers["Spark four"][name], "Spark")
                 + f"; {len(answers['Spark four open'][name])} before the closing events")
checks.check("later than the watermark", too_late)
if given.rows:
    checks.check("report", report)
if given.json:
    given.json.write_text(json.dumps(figures, indent=1) + "\n")
checks.end()
