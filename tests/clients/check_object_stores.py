#!/usr/bin/env python3
"""weir over real object stores: rows land in a bucket, survive kill -9 and are read by another engine.

Starts each store on loopback, its data in a scratch directory: S3 (SeaweedFS, installed with the other
requirements), Azure (azurite, where npm is; --azurite names its program) and Google Cloud Storage (a
server with its XML API, where --gcs names one). A store that cannot be had is said to be left out."""

import argparse
import base64
import contextlib
import email.utils
import hashlib
import hmac
import json
import os
import pathlib
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psycopg
from deltalake import DeltaTable

from common import Count, equal

# the emulator's account and key are published with it
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("weir", type=pathlib.Path, help="the server's program")
parser.add_argument("scratch", type=pathlib.Path, help="directory for data")
parser.add_argument("--azurite", type=pathlib.Path, help="azurite-blob's program")
parser.add_argument("--gcs", type=pathlib.Path, help="a Python server with the XML API, called with a port")
arguments = parser.parse_args()
arguments.scratch.mkdir(parents=True, exist_ok=True)
password = secrets.token_urlsafe(18)


def free_ports(count):
    """Neighbouring ports that are free now."""
    for _ in range(50):
        # programs put further ports 10 000 above these
        base = random.randrange(20000, 30000)
        with contextlib.ExitStack() as stack:
            try:
                for n in range(count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", base + n))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports")


def wait_for(port, process, name):
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{name} does not answer")


@contextlib.contextmanager
def program(name, command):
    """A process for as long as the block runs; its output in a file."""
    with open(arguments.scratch / f"{name}.log", "ab") as log:
        process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def request(method, url, headers):
    asked = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return answer.read()


@contextlib.contextmanager
def s3():
    """SeaweedFS with a bucket and one account."""
    port = free_ports(4)
    key, secret = "weir", secrets.token_hex(20)
    directory = arguments.scratch / "s3"
    (directory / "data").mkdir(parents=True)
    account = {"name": "weir", "credentials": [{"accessKey": key, "secretKey": secret}]}
    account["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
    (directory / "s3.json").write_text(json.dumps({"identities": [account]}))
    weed = pathlib.Path(sys.executable).with_name("weed")
    command = [weed, "mini", f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-master.port={port + 1}", f"-volume.port={port + 2}", f"-filer.port={port + 3}"]
    command += [f"-s3.port={port}", f"-s3.config={directory / 's3.json'}", "-webdav=false"]
    command += ["-master.telemetry=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with program("seaweedfs", command) as process:
        wait_for(port, process, "SeaweedFS")
        wait_for(port + 3, process, "SeaweedFS's filer")
        shell = [weed, "shell", f"-master=127.0.0.1:{port + 1}", f"-filer=127.0.0.1:{port + 3}"]
        subprocess.run(shell, input=b"s3.bucket.create -name weir\n", timeout=60, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield "s3://weir/lake", secret, {
            "aws_endpoint": f"http://127.0.0.1:{port}",
            "aws_allow_http": "true",
            "aws_region": "us-east-1",
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
        }


@contextlib.contextmanager
def azure():
    """azurite with a container. object_store's emulator mode knows one port only."""
    if not arguments.azurite:
        yield None
        return
    port = 10000
    command = [arguments.azurite, "--blobHost", "127.0.0.1", "--blobPort", port]
    command += ["-l", arguments.scratch / "azure", "--skipApiVersionCheck", "--disableTelemetry"]
    with program("azurite", command) as process:
        wait_for(port, process, "azurite")
        date = email.utils.formatdate(usegmt=True)
        headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
        resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/weir\nrestype:container"
        text = "PUT\n" + "\n" * 11 + headers + resource
        digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
        signed = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
        request(
            "PUT",
            f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}/weir?restype=container",
            {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": signed,
             "Content-Length": "0"},
        )
        yield "az://weir/lake", AZURE_KEY, {
            "azure_storage_use_emulator": "true",
            "azure_storage_account_name": AZURE_ACCOUNT,
            "azure_storage_account_key": AZURE_KEY,
            "azure_allow_http": "true",
        }


@contextlib.contextmanager
def gcs():
    """A server with the XML API; it asks for no credentials, so there is no secret to leak."""
    if not arguments.gcs:
        yield None
        return
    port = free_ports(1)
    with program("gcs", [sys.executable, arguments.gcs, port]) as process:
        wait_for(port, process, "the GCS server")
        account = {
            "gcs_base_url": f"http://127.0.0.1:{port}",
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        yield "gs://weir/lake", None, {
            "google_service_account_key": json.dumps(account),
            "google_skip_signature": "true",
            "google_base_url": f"http://127.0.0.1:{port}",
            "allow_http": "true",
        }


class Server:
    """A running weir over a warehouse."""

    def __init__(self, name, warehouse, options):
        self.data = arguments.scratch / name / "weir"
        self.log = arguments.scratch / f"weir-{name}.log"
        self.warehouse = warehouse
        self.environment = dict(os.environ, WEIR__AUTH__ADMIN_PASSWORD=password)
        for key, value in options.items():
            self.environment[f"WEIR__STORAGE__{key.upper()}"] = value
        self.process = None

    def start(self):
        addresses = self.data / "addresses.json"
        addresses.unlink(missing_ok=True)
        command = [arguments.weir, "serve", "--data", self.data, "--warehouse", self.warehouse]
        for door in ("pg", "flight", "http"):
            command += [f"--{door}-addr", "127.0.0.1:0"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(c) for c in command], stdout=log, stderr=log, env=self.environment
            )
        for _ in range(600):
            if addresses.exists() and addresses.stat().st_size:
                host, port = json.loads(addresses.read_text())["pg"].rsplit(":", 1)
                self.pg = {"host": host, "port": int(port), "user": "weir", "dbname": "weir"}
                return
            if self.process.poll() is not None:
                raise RuntimeError(f"weir ended: {self.log.read_text()[-400:]}")
            time.sleep(0.1)
        raise RuntimeError("weir does not open its doors")

    def connect(self):
        return psycopg.connect(**self.pg, password=password, autocommit=True, connect_timeout=10)

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def rows(server):
    with server.connect() as connection:
        stream = "SELECT count(*), count(DISTINCT id), sum(id)::bigint FROM os_stream"
        plain = "SELECT count(*), sum(id)::bigint FROM os_plain WHERE name = 'new'"
        view = "SELECT sum(n)::bigint FROM os_view"
        return [connection.execute(sql).fetchone() for sql in (stream, plain, view)]


def insert(server, first, last):
    with server.connect() as connection:
        connection.execute(
            "INSERT INTO os_stream (id, at) SELECT i, to_timestamp(1767225600 + i * 600) "
            f"FROM generate_series({first}, {last}) AS g (i)"
        )


def begin(server):
    with server.connect() as connection:
        connection.execute(
            "CREATE STREAMING TABLE os_stream (id BIGINT NOT NULL, at TIMESTAMPTZ, "
            "day DATE GENERATED ALWAYS AS (at::date) STORED) PARTITIONED BY (day) "
            "WITH (event_time = 'at', flush_interval = '1 hour')"
        )
        connection.execute(
            "CREATE MATERIALIZED VIEW os_view AS "
            "SELECT day, count(*) AS n FROM os_stream GROUP BY day"
        )
        connection.execute("CREATE TABLE os_plain (id BIGINT, name TEXT)")
        connection.execute("INSERT INTO os_plain VALUES (1, 'old'), (2, 'old'), (3, 'old')")
        connection.execute("UPDATE os_plain SET name = 'new' WHERE id > 1")
    insert(server, 1, 500)
    with server.connect() as connection:
        connection.execute("FLUSH TABLE os_stream")
        connection.execute("REFRESH MATERIALIZED VIEW os_view")
    insert(server, 501, 800)
    return equal(rows(server), [(800, 800, 320400), (2, 5), (800,)])


def killed(server):
    """What was flushed and what was not is there after kill -9, once."""
    for turn in range(3):
        server.stop(signal.SIGKILL)
        server.start()
        insert(server, 801 + turn * 100, 900 + turn * 100)
        if turn == 1:
            with server.connect() as connection:
                connection.execute("FLUSH TABLE os_stream")
    return equal(rows(server), [(1100, 1100, 605550), (2, 5), (1100,)])


def outside(server, options):
    with server.connect() as connection:
        connection.execute("FLUSH TABLE os_stream")
        found = dict(
            connection.execute(
                "SELECT table_name, location FROM weir.tables WHERE kind LIKE '%table'"
            ).fetchall()
        )
    stream = DeltaTable(found["os_stream"], storage_options=options).to_pyarrow_table()
    plain = DeltaTable(found["os_plain"], storage_options=options).to_pyarrow_table()
    equal(sorted(stream.column("id").to_pylist()), list(range(1, 1101)))
    return equal(sorted(plain.column("name").to_pylist()), ["new", "new", "old"])


def dropped(server):
    with server.connect() as connection:
        connection.execute("DROP TABLE os_stream CASCADE")
        connection.execute("DROP TABLE os_plain")
        return connection.execute("SELECT count(*) FROM weir.tables").fetchone()


def refused(name, warehouse, options):
    """With a wrong secret the server does not start, and says why without telling the secret."""
    wrong = dict(options)
    secret = base64.b64encode(b"this is not the secret of anything").decode()
    for key in wrong:
        if key.endswith(("secret_access_key", "account_key")):
            wrong[key] = secret
    server = Server(f"{name}-wrong", warehouse, wrong)
    try:
        server.start()
    except RuntimeError as error:
        told = server.log.read_text()
        if secret in told or "cannot write to the warehouse" not in told:
            raise AssertionError(told[-400:]) from error
        return None
    finally:
        server.stop()
    raise AssertionError("the server started")


def run(name, place):
    with place() as made:
        if made is None:
            print(f"left out: {name}, for want of a server")
            return
        warehouse, secret, options = made
        server = Server(name, warehouse, options)
        try:
            server.start()
            count.check(f"{name}: tables and a view", lambda: begin(server))
            count.check(f"{name}: kill -9", lambda: killed(server))
            count.check(f"{name}: another reader", lambda: outside(server, options))
            count.check(f"{name}: drop", lambda: dropped(server))
        finally:
            server.stop()
        if secret:
            count.check(f"{name}: a wrong secret", lambda: refused(name, warehouse, options))
            count.check(f"{name}: no secret in the log",
                        lambda: equal(secret in server.log.read_text(), False) or None)


count = Count()
run("s3", s3)
run("azure", azure)
run("gcs", gcs)
count.end()
