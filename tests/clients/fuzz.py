#!/usr/bin/env python3
"""Fuzzes a door of a weir server: no panic, hang, crash, internal error or unbounded memory.

    fuzz.py --door extended --seconds 1800 --seed 1 --serve target/debug/weir
    fuzz.py --door flight --host 127.0.0.1 --flight-port 50051 --pid 1234 --log server.log

With --serve the server is started in a directory of its own, started again when it died, and ended;
else --pid and --log name the one that runs. The password comes from WEIR_PASSWORD (with --serve: any).

First every file of the corpus is played; those that show a fault tell so. Then cases are made: valid
sequences of the door's messages with damaged fields, and variations of the corpus. What a case must
not do: keep the server from answering in time, answer with a malformed message or SQLSTATE XX000, let
someone in who does not know the password, panic, or make the server grow. A new fault is made smaller
and stored as `found-….json` in the corpus (unless --keep is absent); the same fault is then not told
again. A debug build finds more: it checks overflows. --ignore takes regular expressions of faults
that are known. The exit code is 1 when a fault was found.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import signal
import sys
import time
import traceback

import fuzz_extended
import fuzz_flight
import fuzz_startup
from fuzz_case import dump, smaller, vary
from fuzz_server import Server

DOORS = {"startup": fuzz_startup.Door, "extended": fuzz_extended.Door, "flight": fuzz_flight.Door}
HERE = pathlib.Path(__file__).resolve().parent


def signature(text):
    """The same text for the same fault: without numbers, names and literals."""
    text = re.sub(r"error_id=\S+", "", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'…'", text)
    text = re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}", "N", text)
    place = re.search(r"panicked at \S+?:\d+", text)
    return place[0] if place else re.sub(r"\d+", "N", text)[:110]


class Fuzzer:
    def __init__(self, arguments):
        self.arguments = arguments
        self.server = Server(arguments)
        self.door = DOORS[arguments.door](self.server)
        self.corpus = arguments.corpus or HERE / "fuzz" / arguments.door
        self.known, self.found = set(), collections.Counter()
        self.recent = collections.deque(maxlen=4)
        self.cases = self.played = 0
        self.checked = 0.0

    def play(self, case):
        """Runs a case; the faults it shows, by signature."""
        self.played += 1
        try:
            faults = self.door.run(case)
        except OSError as error:
            faults = [f"connection: {type(error).__name__}: {error}"]
        if any(f.startswith(("connection", "closed")) for f in faults):
            time.sleep(0.5)  # a process that aborts is not gone at once
        if self.server.process and any(f.startswith("hang") for f in faults):
            self.server.kill()  # it may be stuck for good
            self.server.restart()
            self.door.prepare()
        told = self.server.told()
        dead = self.server.dead()
        if dead:
            faults = [f"crash: the server ended: {dead}", *told]
            self.server.restart()
            self.door.prepare()
        elif told:
            # the log has the text that the client is not told
            faults = [f for f in faults if not f.startswith(("XX000: internal", "closed without"))] + told
        return {signature(f): f for f in faults}

    def check(self):
        """Faults of the server as a whole."""
        self.checked = time.monotonic()
        return {signature(f): f for f in self.server.health()}

    def one(self, case, origin):
        self.cases += 1
        self.recent.append(case)
        faults = self.play(case)
        if time.monotonic() - self.checked > 3:
            faults |= self.check()
        for key, text in faults.items():
            if any(re.search(p, text) for p in self.arguments.ignore):
                continue
            self.found[key] += 1
            if key in self.known:
                continue
            self.known.add(key)
            print(f"FAULT [{self.played} cases, {origin}] {text[:600]}", flush=True)
            small = case if key.startswith(("memory", "fds", "health", "hang")) else self.shrink(case, key)
            print("      " + json.dumps(small["steps"])[:1500], flush=True)
            if self.arguments.keep:
                self.save(small, key, text)
        return faults

    def shrink(self, case, key):
        """The smallest case found that shows the same fault."""
        end = time.monotonic() + self.arguments.shrink
        again = True
        while again and time.monotonic() < end:
            again = False
            for smaller_case in smaller(case):
                if time.monotonic() > end:
                    break
                try:
                    shows = key in self.play(smaller_case)
                except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                    continue  # no case at all
                if shows:
                    case, again = smaller_case, True
                    break
        return case

    def save(self, case, key, text):
        slug = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:70]
        path = self.corpus / f"found-{slug}.json"
        content = dump({**case, "fault": key, "text": text[:300]})
        if len(content) < 20000:
            path.write_text(content)

    def replay(self):
        """Plays the corpus; names of the files that show a fault."""
        files = sorted(self.corpus.glob("*.json"))
        cases, failing = [], []
        for path in files:
            case = json.loads(path.read_text())
            if "fault" in case:
                self.known.add(case["fault"])
            faults = self.one(case, path.name)
            if "fault" in case and any(not any(re.search(p, f) for p in self.arguments.ignore)
                                       for f in faults.values()):
                failing.append(path.name)
                print(f"still {path.name}: {'; '.join(faults)[:200]}", flush=True)
            cases.append(case)
        print(f"corpus: {len(files)} files, {len(failing)} of those found before still show a fault", flush=True)
        return cases

    def run(self):
        rng = random.Random(self.arguments.seed)
        self.door.prepare()
        self.server.told()
        self.server.baseline()
        end = time.monotonic() + self.arguments.seconds
        cases = self.replay()
        prepared = time.monotonic()
        while time.monotonic() < end:
            if cases and rng.random() < 0.25:
                case = vary(rng.choice(cases), rng, rng.choice(cases))
            else:
                case = self.door.generate(rng)
            try:
                self.one(case, f"seed {self.arguments.seed}")
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                if self.arguments.verbose:
                    traceback.print_exc()  # a variation that is no case
            if time.monotonic() - prepared > 20:
                self.door.prepare()
                prepared = time.monotonic()
        faults = self.check() | {signature(f): f for f in self.server.leaks()}
        for key, text in faults.items():
            self.found[key] += 1
            print(f"FAULT at the end: {text}", flush=True)

    def report(self):
        print(f"{self.arguments.door}: {self.cases} cases ({self.played} played), {len(self.found)} distinct faults, "
              f"{self.server.summary()}")
        for key, count in self.found.most_common():
            print(f"  {count:6} {key}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", choices=DOORS, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=pathlib.Path, help="default: fuzz/DOOR beside this script")
    parser.add_argument("--write-corpus", action="store_true", help="write what the corpus begins with, and end")
    parser.add_argument("--keep", action="store_true", help="store new faults in the corpus")
    parser.add_argument("--ignore", action="append", default=[], help="faults that are known")
    parser.add_argument("--shrink", type=float, default=20, help="seconds for making a case smaller")
    parser.add_argument("--serve", type=pathlib.Path, help="a weir binary to start")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--pg-port", type=int, default=5433)
    parser.add_argument("--flight-port", type=int, default=50051)
    parser.add_argument("--user", default="weir")
    parser.add_argument("--pid", type=int, help="the server's process, for its memory and files")
    parser.add_argument("--log", type=pathlib.Path, help="the server's log, for panics and internal errors")
    parser.add_argument("--memory", type=int, default=1500, help="MB the server may grow by")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    if arguments.write_corpus:
        directory = arguments.corpus or HERE / "fuzz" / arguments.door
        for name, steps in DOORS[arguments.door](None).corpus():
            (directory / f"{name}.json").write_text(dump({"door": arguments.door, "steps": steps}))
        return
    os.environ.setdefault("WEIR_PASSWORD", "x")
    fuzzer = Fuzzer(arguments)
    try:
        fuzzer.run()
    finally:
        fuzzer.report()
        fuzzer.server.end()
    sys.exit(1 if fuzzer.found else 0)


if __name__ == "__main__":
    main()
