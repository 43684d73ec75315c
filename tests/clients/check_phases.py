#!/usr/bin/env python3
"""An independent Delta reader after every phase of a table's life: it reads the rows that weir reads.

Each phase ends with a flush; then deltalake's reader (pyarrow over the files that the log names) and a query give
the same rows, value by value, and the same again after a kill -9."""

import argparse
import datetime
import pathlib
import secrets
import shutil
import threading
import time

from deltalake import DeltaTable

from common import Count, equal
from served import Served

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("weir", type=pathlib.Path, help="the server's program")
parser.add_argument("scratch", type=pathlib.Path, help="directory for data")
arguments = parser.parse_args()
SETTINGS = {
    "WEIR__AUTH__ADMIN_PASSWORD": secrets.token_urlsafe(18),
    "WEIR__STREAM__FLUSH_INTERVAL": "200 ms",
    "WEIR__JOBS__COMPACTION_INTERVAL": "300 ms",
    "WEIR__JOBS__COMPACTION_FILES": "3",
    "WEIR__JOBS__CHECKPOINT_INTERVAL": "500 ms",
    "WEIR__JOBS__RETENTION_INTERVAL": "1 s",
}
COLUMNS = ["_lsn", "id", "name", "amount", "at", "ok"]
TABLE = """
    CREATE STREAMING TABLE t (id BIGINT NOT NULL, name TEXT, amount DOUBLE PRECISION, at TIMESTAMPTZ, ok BOOLEAN)
    WITH (event_time = 'at')"""
SOME = """
    INSERT INTO t (id, name, amount, at, ok)
    SELECT g + {first}, 'n' || g % 97, (g % 1000) * 1.25, now() - (g % 50) * INTERVAL '1 hour', g % 3 = 0
    FROM generate_series(1, {rows}) AS s (g)"""


class Life:
    """One table, phase by phase."""

    def __init__(self, server):
        self.server = server
        self.next = 0
        self.connection = server.connect()
        self.run(TABLE)

    def run(self, sql):
        return self.connection.execute(sql)

    def insert(self, rows):
        self.run(SOME.format(first=self.next, rows=rows))
        self.next += rows

    def copy(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        with self.connection.cursor().copy("COPY t (id, name, amount, at, ok) FROM STDIN") as copy:
            for i in range(5000):
                name = None if i % 11 == 0 else f"ü{i}"
                copy.write_row((self.next + i, name, i / 7, now, i % 2 == 0))
        self.next += 5000

    def together(self):
        """Everything at once for some seconds."""
        over = threading.Event()

        def repeat(*statements):
            with self.server.connect() as connection:
                while not over.is_set():
                    for statement in statements:
                        try:
                            connection.execute(statement)
                        except Exception as error:
                            # others were faster
                            if getattr(error, "sqlstate", None) != "40001":
                                raise

        work = [
            threading.Thread(target=repeat, args=["DELETE FROM t WHERE id % 50 = 7", "FLUSH TABLE t"]),
            threading.Thread(target=repeat, args=["OPTIMIZE t", "OPTIMIZE t ZORDER BY (name, at)"]),
        ]
        for thread in work:
            thread.start()
        for _ in range(200):
            self.insert(500)
        over.set()
        for thread in work:
            thread.join()

    def kill(self):
        self.insert(3000)
        self.server.kill()
        self.server.start()
        self.connection = self.server.connect()

    def widen(self):
        self.run("ALTER TABLE t ADD COLUMN more TEXT")
        self.run(f"INSERT INTO t (id, more) VALUES ({self.next}, 'x'), ({self.next + 1}, NULL)")
        self.next += 2

    def restore(self):
        version = max(row[0] for row in self.run("DESCRIBE HISTORY t"))
        self.run("DELETE FROM t WHERE id % 2 = 0")
        self.run(f"RESTORE TABLE t TO VERSION AS OF {version}")

    def expire(self):
        self.run("ALTER TABLE t SET (retention = '92000 s')")
        old = "SELECT count(*) FROM t WHERE at < now() - INTERVAL '92000 seconds'"
        assert self.run(old).fetchone()[0] > 0
        end = time.monotonic() + 60
        while self.run(old).fetchone()[0] > 0:
            assert time.monotonic() < end, "old rows stay"
            time.sleep(0.2)

    def inside(self):
        return self.run(f"SELECT {', '.join(COLUMNS)} FROM t ORDER BY _lsn").fetchall()

    def outside(self):
        logs = self.server.warehouse.glob("public/t-*/_delta_log")
        (log,) = logs
        table = DeltaTable(str(log.parent)).to_pyarrow_table(columns=COLUMNS).sort_by("_lsn")
        return list(zip(*(table.column(name).to_pylist() for name in COLUMNS)))

    def phase(self, work):
        work()
        self.run("FLUSH TABLE t")
        # upkeep goes on meanwhile: it changes files, never rows
        inside, outside = self.inside(), self.outside()
        equal(len(outside), len(inside))
        for mine, theirs in zip(inside, outside):
            equal(theirs, mine)
        return f"{len(inside)} rows"


def main():
    directory = arguments.scratch / "phases"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    server = Served(arguments.weir, directory / "data", directory / "lake", directory / "server.log", SETTINGS)
    count = Count()
    try:
        life = Life(server)
        phases = {
            "empty": lambda: None,
            "INSERT": lambda: life.insert(20000),
            "COPY": life.copy,
            "kill -9": life.kill,
            "DELETE": lambda: life.run("DELETE FROM t WHERE id % 10 = 3"),
            "UPDATE": lambda: life.run("UPDATE t SET name = 'changed', amount = NULL WHERE id % 10 = 4"),
            "OPTIMIZE": lambda: life.run("OPTIMIZE t"),
            "ZORDER": lambda: life.run("OPTIMIZE t ZORDER BY (name, id)"),
            "VACUUM": lambda: life.run("VACUUM t RETAIN 0 HOURS"),
            "everything at once": life.together,
            "another kill -9": life.kill,
            "a new column": life.widen,
            "RESTORE": life.restore,
            "retention": life.expire,
            "a last kill -9": life.kill,
        }
        for name, work in phases.items():
            count.check(name, lambda: life.phase(work))
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
    count.end()


if __name__ == "__main__":
    main()
