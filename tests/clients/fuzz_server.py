"""The server a fuzzer plays against: its start and end, its log, memory, descriptors and health."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

from fuzz_pg import Line, Malformed, frame

TROUBLE = re.compile(r"panicked|internal error|overflow|RUST_BACKTRACE|SIGABRT|fatal runtime")
HEALTH_SECONDS = 2


class Server:
    def __init__(self, arguments):
        self.arguments = arguments
        self.host, self.user = arguments.host, arguments.user
        self.password = os.environ["WEIR_PASSWORD"]
        self.pg_port, self.flight_port = arguments.pg_port, arguments.flight_port
        self.pid, self.log = arguments.pid, arguments.log
        self.process = self.directory = None
        self.at = 0
        self.starts = 0
        self.samples = []
        self.base = self.base_fds = self.base_threads = 0
        if arguments.serve:
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-fuzz-"))
            self.log = self.directory / "log"
            self.start()
        elif self.log:
            self.at = self.log.stat().st_size

    def start(self):
        self.starts += 1
        data = self.directory / f"data-{self.starts}"
        command = [self.arguments.serve.resolve(), "serve", "--data", data]
        for door in ("pg", "http", "flight"):
            command += [f"--{door}-addr", "127.0.0.1:0"]
        environment = {**os.environ, "WEIR__AUTH__ADMIN_PASSWORD": self.password, "NO_COLOR": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.directory)
        self.pid = self.process.pid
        addresses = data / "addresses.json"
        for _ in range(600):
            if addresses.exists() and addresses.read_text().strip().endswith("}"):
                break
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            raise SystemExit("the server did not start")
        if self.process.poll() is not None:
            raise SystemExit(f"the server did not start: {self.log.read_text()[-500:]}")
        doors = json.loads(addresses.read_text())
        self.pg_port = int(doors["pg"].rsplit(":", 1)[1])
        self.flight_port = int(doors["flight"].rsplit(":", 1)[1])

    def dead(self):
        """How it ended; None while it runs."""
        if self.process is not None:
            code = self.process.poll()
            return None if code is None else f"exit code {code}"
        if self.pid and not pathlib.Path(f"/proc/{self.pid}").exists():
            return "gone"
        return None

    def restart(self):
        if self.process is None:
            raise SystemExit("the server is gone")
        self.process.wait()
        if self.starts > 60:
            raise SystemExit("the server died too often")
        self.start()
        self.told()
        self.baseline()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def told(self):
        """New lines of the log about panics and internal errors, each joined with its next."""
        if not self.log:
            return []
        with open(self.log, "rb") as log:
            log.seek(self.at)
            data = log.read()
        whole = data.rfind(b"\n") + 1
        self.at += whole
        lines = re.sub(r"\x1b\[[0-9;]*m", "", data[:whole].decode(errors="replace")).splitlines()
        found = []
        for number, line in enumerate(lines):
            if not TROUBLE.search(line) or "note: run with" in line:
                continue
            if " panicked at " in line:
                found.append(f"{line.strip()} {' '.join(lines[number + 1:number + 2])}")
            elif "task panicked" not in line:
                found.append(re.sub(r"^\S+ +\w+ \S+ ", "log: ", line))
        return found

    def status(self):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        memory = int(re.search(r"VmRSS:\s+(\d+)", text)[1]) // 1024
        threads = int(re.search(r"Threads:\s+(\d+)", text)[1])
        return memory, threads, len(os.listdir(f"/proc/{self.pid}/fd"))

    def baseline(self):
        if self.pid:
            self.base, self.base_threads, self.base_fds = self.status()

    def health(self):
        """Another connection's query, and the memory."""
        wrong = []
        started = time.monotonic()
        try:
            line = Line(self.host, self.pg_port)
            if not line.login(self.user, self.password):
                wrong.append(f"health: no login: {line.got[-1:]}")
            else:
                line.exchange(frame("Q", b"SELECT 41 + 1 AS health\0"), lambda got: got[-1][0] == "Z" and got[-2][0] == "C", 20)
                if ("D", [b"42"]) not in line.got:
                    wrong.append(f"health: no answer: {line.got[-1:]}")
            line.close()
        except (OSError, Malformed) as error:
            wrong.append(f"health: {type(error).__name__}: {error}")
        took = time.monotonic() - started
        if took > HEALTH_SECONDS:
            wrong.append(f"health: slow: a query took {took:.1f} s on another connection")
        if self.pid and not self.dead():
            memory, _, _ = self.status()
            self.samples.append((time.monotonic(), memory))
            if memory > self.base + self.arguments.memory:
                wrong.append(f"memory: grew from {self.base} to {memory} MB")
        return wrong

    def leaks(self):
        """Descriptors, threads and memory that stay when the clients are gone."""
        if not self.pid or self.dead():
            return []
        wrong = []
        for _ in range(30):
            memory, threads, fds = self.status()
            if fds <= self.base_fds + 20 and threads <= self.base_threads + 40:
                break
            time.sleep(1)
        else:
            wrong.append(f"fds: from {self.base_fds} to {fds} files, from {self.base_threads} to {threads} threads")
        # the trend: the last quarter of the samples against the second
        count = len(self.samples) // 4
        if count >= 10:
            values = [m for _, m in self.samples]
            second = sorted(values[count:2 * count])[count // 2]
            last = sorted(values[-count:])[count // 2]
            if last > second * 1.5 + 150:
                wrong.append(f"memory: trend from {second} to {last} MB")
        return wrong

    def summary(self):
        if not self.pid or self.dead() or not self.samples:
            return "server gone"
        memory, threads, fds = self.status()
        most = max(m for _, m in self.samples)
        return (f"memory {self.base} -> {memory} MB (most {most}), threads {self.base_threads} -> {threads}, "
                f"files {self.base_fds} -> {fds}, {self.starts} starts")
