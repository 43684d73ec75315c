"""A server's process over a data directory and a warehouse: started, killed, stopped."""

import json
import os
import signal
import subprocess
import time

import psycopg

PATIENCE = 120


class Served:
    """A server that was started; its doors are at `pg`, `flight` and `http`, as `host:port`.

    `settings` are environment variables, with the superuser's password among them.
    """

    def __init__(self, program, data, warehouse, log, settings):
        self.program, self.log, self.settings = program, log, settings
        self.data, self.warehouse = data, warehouse
        self.start()

    def start(self):
        addresses = self.data / "addresses.json"
        self.data.mkdir(parents=True, exist_ok=True)
        addresses.unlink(missing_ok=True)
        doors = [flag for door in ("pg", "flight", "http") for flag in (f"--{door}-addr", "127.0.0.1:0")]
        command = [self.program, "serve", "--data", self.data, "--warehouse", self.warehouse, *doors]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | self.settings, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log.read_text()[-800:]}")
            try:
                found = json.loads(addresses.read_text())
                self.pg, self.flight, self.http = (found[door] for door in ("pg", "flight", "http"))
                return
            except (FileNotFoundError, ValueError):
                time.sleep(0.05)
        raise RuntimeError("the server did not open its doors")

    def connect(self):
        """A session of the superuser."""
        host, port = self.pg.rsplit(":", 1)
        password = self.settings["WEIR__AUTH__ADMIN_PASSWORD"]
        return psycopg.connect(
            host=host, port=port, user="weir", password=password, dbname="weir", autocommit=True
        )

    def alive(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self):
        self.process.terminate()
        self.process.wait(90)
