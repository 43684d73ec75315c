#!/usr/bin/env python3
"""weir on a disk that runs full: clear errors, nothing lost, nothing twice, and it goes on once there is room.

Makes a small ext4 file system in a file and mounts it (which needs root), lets the log, the warehouse or both
lie on it, and sends rows over HTTP, Flight and INSERT until no more fit. Where nothing can be mounted the check
says so and is left out."""

import argparse
import base64
import collections
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import psycopg
import pyarrow
from deltalake import DeltaTable

from common import Count
from served import Served

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("weir", type=pathlib.Path, help="the server's program")
parser.add_argument("scratch", type=pathlib.Path, help="directory for data")
parser.add_argument("--mib", type=int, default=200, help="size of the small disk")
arguments = parser.parse_args()
password = secrets.token_urlsafe(18)
# what is taken away to make room again
BALLOON = 48 << 20
SETTINGS = {
    "WEIR__AUTH__ADMIN_PASSWORD": password,
    "WEIR__STREAM__SEGMENT_BYTES": str(4 << 20),
    "WEIR__STREAM__TAIL_BYTES": str(24 << 20),
    "WEIR__STREAM__FLUSH_INTERVAL": "1 s",
}
DOORS = ("http", "insert", "flight")
# no space; rows that cannot be flushed fill the memory for them
CLEAR = {"53100", "53400"}
PATIENCE = 120


class SmallDisk:
    """A mounted file system with a balloon in it."""

    def __init__(self, directory):
        self.image = directory / "disk.img"
        self.path = directory / "disk"
        self.path.mkdir(parents=True)
        with open(self.image, "wb") as image:
            image.truncate(arguments.mib << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)
        self.balloon = self.path / "balloon"
        with open(self.balloon, "wb") as balloon:
            os.posix_fallocate(balloon.fileno(), 0, BALLOON)

    def crowd(self, leave):
        """Somebody else takes all room but that many MiB."""
        with open(self.path / "crowd", "wb") as crowd:
            os.posix_fallocate(crowd.fileno(), 0, (self.free() - leave) << 20)

    def free(self):
        return shutil.disk_usage(self.path).free >> 20

    def close(self):
        subprocess.run(["umount", "-l", self.path], check=False)
        self.image.unlink()


class Server(Served):
    """A server whose log does not lie on the small disk: it must be able to say that this is full."""

    def __init__(self, data, warehouse):
        super().__init__(arguments.weir, data, warehouse, arguments.scratch / "server.log", SETTINGS)


class Refused(Exception):
    """The server said no, with a code."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Producer:
    """Sends numbered rows at one door and keeps the books. No row is sent twice."""

    def __init__(self, server, door):
        self.server, self.door = server, door
        self.next = 0
        self.requests = []  # rows from, to, acknowledged
        self.errors = collections.Counter()
        self.texts = {}

    def rows(self, count):
        first, self.next = self.next, self.next + count
        return [
            (self.door, seq, base64.b64encode(secrets.token_bytes(300)).decode())
            for seq in range(first, self.next)
        ]

    def send(self, count=400):
        """Sends one request; raises what the server says."""
        rows = self.rows(count)
        account = [rows[0][1], rows[-1][1] + 1, False]
        self.requests.append(account)
        try:
            getattr(self, "by_" + self.door)(rows)
        except Refused as refused:
            self.errors[refused.code] += 1
            self.texts.setdefault(refused.code, refused.text)
            raise
        account[2] = True

    def by_http(self, rows):
        names = ("producer", "seq", "filler")
        body = "\n".join(json.dumps(dict(zip(names, row))) for row in rows)
        request = urllib.request.Request(
            f"http://{self.server.http}/v1/tables/public/t/rows", body.encode(), method="POST"
        )
        request.add_header("content-type", "application/x-ndjson")
        credentials = base64.b64encode(f"weir:{password}".encode()).decode()
        request.add_header("authorization", "Basic " + credentials)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                assert json.load(answer)["accepted"] == len(rows)
        except urllib.error.HTTPError as error:
            said = json.load(error)["error"]
            expected = {"53100": 507, "53400": 429}.get(said["code"], error.code)
            assert error.code == expected, f"status {error.code} for {said}"
            raise Refused(said["code"], said["message"]) from None

    def by_insert(self, rows):
        places = ", ".join(["(%s, %s, %s)"] * len(rows))
        values = [value for row in rows for value in row]
        try:
            with self.server.connect() as connection:
                connection.execute(f"INSERT INTO t VALUES {places}", values)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            raise Refused(error.sqlstate, error.diag.message_primary) from None

    def by_flight(self, rows):
        names = ["producer", "seq", "filler"]
        table = pyarrow.table([pyarrow.array(column) for column in zip(*rows)], names)
        login = {"username": "weir", "password": password}
        uri = "grpc://" + self.server.flight
        try:
            with adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=login, autocommit=True) as connection:
                with connection.cursor() as cursor:
                    cursor.adbc_ingest("t", table, mode="append")
        except adbc_driver_manager.Error as error:
            text = str(error)
            named = [code for code in sorted(CLEAR | {"58030", "XX000"}) if code in text]
            full = "53100" if "no space left" in text else None
            full = full or ("53400" if "too many rows wait" in text else None)
            raise Refused(full or (named[0] if named else "?"), text[:200]) from None

    def until_full(self):
        """Sends until the server has refused a few requests in a row."""
        refused = 0
        end = time.monotonic() + 300
        while refused < 3 and time.monotonic() < end:
            try:
                self.send()
                refused = 0
            except Refused:
                refused += 1


def in_parallel(actions):
    failures = []

    def run(action):
        try:
            action()
        except BaseException as error:  # reported by who waits
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def compare(read, producers, whose):
    """Acknowledged rows are there, rows that were not sent are not, none twice, each producer's in order."""
    by_door = collections.defaultdict(list)
    for door, seq in read:
        by_door[door].append(seq)
    for producer in producers:
        seqs = by_door.pop(producer.door, [])
        pairs = zip(seqs, seqs[1:])
        wrong = next((pair for pair in pairs if pair[0] >= pair[1]), None)
        assert wrong is None, f"{whose}, {producer.door}: twice or out of order at {wrong}"
        there = set(seqs)
        for first, end, acknowledged in producer.requests:
            found = sum(seq in there for seq in range(first, end))
            assert found in (0, end - first), f"{whose}, {producer.door}: half of {first}..{end}"
            assert found or not acknowledged, f"{whose}, {producer.door}: {first}..{end} is lost"
        assert there <= set(range(producer.next)), f"{whose}: rows that nobody sent"
    assert not by_door, f"{whose}: rows of strangers"


def inside(server, producers):
    with server.connect() as connection:
        rows = connection.execute("SELECT producer, seq FROM t ORDER BY _lsn").fetchall()
    compare(rows, producers, "weir")
    return len(rows)


def outside(server, producers, expected):
    logs = sorted(server.warehouse.rglob("_delta_log"))
    tables = [DeltaTable(str(log.parent)) for log in logs]
    (table,) = [t for t in tables if "filler" in [f.name for f in t.schema().fields]]
    read = table.to_pyarrow_table(columns=["_lsn", "producer", "seq"]).sort_by("_lsn")
    columns = (read.column(name).to_pylist() for name in ("producer", "seq"))
    compare(list(zip(*columns)), producers, "deltalake")
    assert read.num_rows == expected, f"deltalake counts {read.num_rows}, weir {expected}"


def go_on(server, producers):
    """Room was made: how long it takes until rows are taken again, and whether a restart is needed."""
    started = time.monotonic()
    how = "without a restart"
    for producer in producers:
        while True:
            try:
                producer.send(50)
                break
            except Refused as refused:
                assert refused.code in CLEAR, refused
                if "takes no more rows" in refused.text and how == "without a restart":
                    server.kill()
                    server.start()
                    how = "after a restart (kill -9), as the log was sealed"
                assert time.monotonic() < started + PATIENCE, f"still refused: {refused}"
                time.sleep(0.2)
    return f"{how}, {time.monotonic() - started:.1f} s"


def scenario(name, log_on_disk, warehouse_on_disk):
    directory = arguments.scratch / name.replace(" ", "-")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    disk = SmallDisk(directory)
    server = None
    try:
        data = (disk.path if log_on_disk else directory) / "data"
        warehouse = (disk.path if warehouse_on_disk else directory) / "lake"
        server = Server(data, warehouse)
        with server.connect() as connection:
            connection.execute(
                "CREATE STREAMING TABLE t (producer TEXT NOT NULL, seq BIGINT NOT NULL, filler TEXT)"
            )
        if not warehouse_on_disk:
            # a log alone is written over and over, and needs room for the rows in memory only
            disk.crowd(leave=2)
        producers = [Producer(server, door) for door in DOORS]
        in_parallel([producer.until_full for producer in producers])
        server.alive()
        free = disk.free()
        codes = {p.door: dict(p.errors) for p in producers}
        texts = {code: text for p in producers for code, text in p.texts.items()}
        print(f"     {name}: {free} MiB free, refused {codes}")
        print(f"     {name}: {texts}")
        for producer in producers:
            assert producer.errors, f"{producer.door} was never refused"
            assert set(producer.errors) <= CLEAR, f"{producer.door}: {producer.texts}"
        full = inside(server, producers)
        disk.balloon.unlink()
        how = go_on(server, producers)
        in_parallel([lambda p=p: [p.send(100) for _ in range(5)] for p in producers])
        with server.connect() as connection:
            connection.execute("FLUSH TABLE t")
        rows = inside(server, producers)
        outside(server, producers, rows)
        server.kill()
        server.start()
        assert inside(server, producers) == rows, "after another kill -9"
        server.stop()
        return f"full at {full} rows; went on {how}; {rows} rows"
    finally:
        if server is not None and server.process.poll() is None:
            server.kill()
        disk.close()


arguments.scratch.mkdir(parents=True, exist_ok=True)
try:
    SmallDisk(pathlib.Path(arguments.scratch / f"probe-{os.getpid()}")).close()
except (OSError, subprocess.CalledProcessError) as error:
    print(f"left out: no small file system can be mounted here ({error}); it needs root and mount -o loop")
    raise SystemExit(0)
count = Count()
for name, log, lake in (
    ("log and warehouse", True, True),
    ("log alone", True, False),
    ("warehouse alone", False, True),
):
    count.check(name, lambda: scenario(name, log, lake))
count.end()
