"""What the client checks share: arguments, addresses, one line per check, the exit code."""

import argparse
import json
import os
import pathlib
import sys
import time
import traceback


class Count:
    """Runs checks one by one and keeps count. A failed check does not stop the next."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, name, function):
        """Runs one check; what it returns is printed behind its name."""
        started = time.monotonic()
        try:
            told = function()
        except Exception as error:  # any failure is a result here
            self.failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}")
            traceback.print_exc(limit=-2, file=sys.stdout)
            return
        self.passed += 1
        milliseconds = round(1000 * (time.monotonic() - started))
        shown = "" if told is None else f": {str(told)[:100]}"
        print(f"ok   {name} ({milliseconds} ms){shown}")

    def end(self):
        """Prints the count and leaves with 1 when a check failed."""
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


class Checks(Count):
    """Checks of a running server, given by the arguments."""

    def __init__(self, title, more=None):
        parser = argparse.ArgumentParser(
            description=title, epilog="The password of the user weir is read from WEIR_PASSWORD."
        )
        parser.add_argument("addresses", type=pathlib.Path, help="the server's addresses.json")
        parser.add_argument("warehouse", type=pathlib.Path, help="directory of its Delta tables")
        if more:
            more(parser)
        arguments = self.arguments = parser.parse_args()
        doors = json.loads(arguments.addresses.read_text())
        self.pg_host, self.pg_port = doors["pg"].rsplit(":", 1)
        self.flight = "grpc://" + doors["flight"]
        self.http = "http://" + doors["http"]
        self.warehouse = arguments.warehouse
        self.user = "weir"
        self.password = os.environ["WEIR_PASSWORD"]
        super().__init__()

    @property
    def pg(self):
        """Connection arguments for psycopg."""
        return {
            "host": self.pg_host,
            "port": int(self.pg_port),
            "user": self.user,
            "password": self.password,
            "dbname": "weir",
            "connect_timeout": 10,
        }


def equal(got, expected):
    """Both values in the message when they differ."""
    if got != expected:
        raise AssertionError(f"got {got!r}, expected {expected!r}")
    return got
