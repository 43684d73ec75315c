"""A real PostgreSQL beside the server under test, and what both say to the same statement.

Used by the scripts that compare answers. Statements go over the simple protocol, values come as text.
"""

import contextlib
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import tempfile

import psycopg

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin")


def programs():
    """The newest directory that holds initdb; None when PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found:
        return pathlib.Path(found).resolve().parent
    for place in PLACES:
        for directory in sorted(pathlib.Path("/").glob(place[1:]), reverse=True):
            if (directory / "initdb").exists():
                return directory
    return None


@contextlib.contextmanager
def postgres():
    """A fresh PostgreSQL on loopback, ended and removed afterwards; gives a connection string."""
    binaries = programs()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed: give --postgres a connection string")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="oracle-"))
    # it refuses to run as root
    user = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = directory / "data"
    quiet = {"stdout": subprocess.DEVNULL, "cwd": directory, **user}
    command = [binaries / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([*command, "--no-sync"], check=True, timeout=120, **quiet)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [binaries / "pg_ctl", "-D", data, "-w", "-t", "60"]
    start = [*control, "-l", directory / "log", "-o", options, "start"]
    subprocess.run(start, check=True, timeout=90, **quiet)
    try:
        yield f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, timeout=90, **quiet)
        shutil.rmtree(directory, ignore_errors=True)


class Answer:
    """What a server said: rows with names and types, a command tag, or an error."""

    def __init__(self, result):
        self.error = self.message = self.rows = None
        self.names, self.types = [], []
        status = psycopg.pq.ExecStatus(result.status)
        if status == psycopg.pq.ExecStatus.TUPLES_OK:
            columns = range(result.nfields)
            self.names = [text(result.fname(c)) for c in columns]
            self.types = [result.ftype(c) for c in columns]
            self.rows = [
                tuple(text(result.get_value(r, c)) for c in columns) for r in range(result.ntuples)
            ]
        elif status in (psycopg.pq.ExecStatus.FATAL_ERROR, psycopg.pq.ExecStatus.BAD_RESPONSE):
            self.error = text(result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)) or "lost"
            primary = result.error_field(psycopg.pq.DiagnosticField.MESSAGE_PRIMARY)
            self.message = text(primary) or result.error_message.decode(errors="replace")


def text(value):
    return None if value is None else bytes(value).decode(errors="replace")


class Server:
    """One connection for statements as text. A lost connection is opened again, once per statement."""

    def __init__(self, conninfo, setup=()):
        self.conninfo, self.setup = conninfo, list(setup)
        self.connection = None
        self.open()

    def open(self):
        self.connection = psycopg.connect(self.conninfo, autocommit=True)
        for statement in self.setup:
            self.connection.execute(statement)

    def ask(self, statement):
        if self.connection.closed or self.connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            self.open()
        result = self.connection.pgconn.exec_(statement.encode())
        if psycopg.pq.ExecStatus(result.status) in COPYING:
            self.connection.close()
            self.open()
        return Answer(result)

    def close(self):
        self.connection.close()


COPYING = (
    psycopg.pq.ExecStatus.COPY_IN,
    psycopg.pq.ExecStatus.COPY_OUT,
    psycopg.pq.ExecStatus.COPY_BOTH,
)

TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*)"
    r"|(?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*')"
    r"|(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<dollar>\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$)"
    r"|(?P<end>;)|(?P<open>\()|(?P<close>\))",
    re.DOTALL,
)


def statements(script):
    """(line, statement) of each statement, comments inside kept. Backslash commands end with their line and
    take the statement that they stand behind with them; rows behind `COPY … FROM stdin` are passed over."""
    at = start = 0
    depth = 0
    line_of = Lines(script)
    command = re.compile(r"\\[a-zA-Z;!?][^\n]*")
    while at < len(script):
        found = TOKEN.search(script, at)
        # a backslash outside of quotes before the next token
        slash = command.search(script, at, found.start() if found else len(script))
        if slash:
            before = bare(script[start : slash.start()])
            if before:
                yield line_of(start, script), None
            at = start = slash.end()
            depth = 0
            continue
        if not found:
            break
        at = found.end()
        if found["comment"] == "/*":
            at = end_of_comment(script, found.end())
        elif found["open"]:
            depth += 1
        elif found["close"]:
            depth -= 1
        elif found["end"] and depth <= 0:
            depth = 0
            statement = script[start : found.start()]
            here, start = line_of(start, script), at
            if bare(statement):
                yield here, statement.strip()
            if re.match(r"\s*copy\b.*\bfrom\s+stdin\b", bare(statement), re.I | re.S):
                stop = script.find("\n\\.\n", at)
                at = start = len(script) if stop < 0 else stop + 4
    if bare(script[start:]):
        yield line_of(start, script), script[start:].strip()


def end_of_comment(script, at):
    depth = 1
    for mark in re.compile(r"/\*|\*/").finditer(script, at):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(script)


def bare(statement):
    """The statement without comments."""
    kept, at = [], 0
    while found := TOKEN.search(statement, at):
        kept.append(statement[at : found.start()])
        at = found.end()
        if found["comment"] is None:
            kept.append(found[0])
        elif found["comment"] == "/*":
            at = end_of_comment(statement, at)
            kept.append(" ")
    kept.append(statement[at:])
    return "".join(kept).strip()


class Lines:
    """The line on which the statement that begins at a place has its first word."""

    def __init__(self, script):
        self.ends = [m.start() for m in re.finditer("\n", script)]

    def __call__(self, start, script):
        at = start
        while at < len(script):
            if script[at].isspace():
                at += 1
            elif script.startswith("--", at):
                at = (script.find("\n", at) + 1) or len(script)
            elif script.startswith("/*", at):
                at = end_of_comment(script, at + 2)
            else:
                break
        low, high = 0, len(self.ends)
        while low < high:
            middle = (low + high) // 2
            if self.ends[middle] < at:
                low = middle + 1
            else:
                high = middle
        return low + 1
