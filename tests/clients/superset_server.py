"""A Superset over a metadata database of its own, driven by its REST API."""

import contextlib
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import time

import requests

START_LIMIT = 180
ANSWER_LIMIT = 120

PROGRAM = pathlib.Path(sys.executable).with_name("superset")

CONFIG = """
import contextlib
import os

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = "sqlite:///" + os.path.join(os.environ["SUPERSET_HOME"], "superset.db")
TALISMAN_ENABLED = False
RATELIMIT_ENABLED = False
FEATURE_FLAGS = {"ESTIMATE_QUERY_COST": True}
"""


class Superset:
    """A Superset over a metadata database of its own, and a session of its administrator."""

    def __init__(self, home):
        self.home = home
        self.log = home / "log"
        (home / "superset_config.py").write_text(CONFIG)
        self.environment = os.environ | {
            "SUPERSET_HOME": str(home),
            "SUPERSET_CONFIG_PATH": str(home / "superset_config.py"),
            "SUPERSET_SECRET_KEY": secrets.token_urlsafe(42),
            "FLASK_APP": "superset",
            "HOME": str(home),
        }
        self.password = secrets.token_urlsafe(18)
        self.process = None
        self.session = requests.Session()

    def command(self, *words):
        with open(self.log, "ab") as log:
            told = subprocess.run([PROGRAM, *words], cwd=self.home, env=self.environment, stdout=log, stderr=log,
                                  timeout=600, check=False)
        if told.returncode != 0:
            raise AssertionError(self.log.read_text(errors="replace")[-1500:])

    def set_up(self):
        self.command("db", "upgrade")
        names = ("--username", "admin", "--firstname", "a", "--lastname", "b", "--email", "admin@localhost")
        self.command("fab", "create-admin", *names, "--password", self.password)
        self.command("init")

    def start(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % probe.getsockname()[1]
        command = [PROGRAM.with_name("gunicorn"), "--bind", address, "--worker-class", "gthread", "--threads", "4"]
        command += ["--timeout", str(ANSWER_LIMIT), "superset.app:create_app()"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.home, env=self.environment, stdout=log, stderr=log)
        self.url = "http://" + address
        end = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(self.url + "/health", timeout=START_LIMIT).text == "OK":
                    return
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(self.log.read_text(errors="replace")[-1500:])
            time.sleep(0.2)

    def log_in(self):
        """A token for the API, and a cookie for what is no part of it (samples)."""
        self.session.headers["Referer"] = self.url
        who = {"username": "admin", "password": self.password}
        token = self.post("/api/v1/security/login", {**who, "provider": "db", "refresh": True})["access_token"]
        self.session.headers["Authorization"] = "Bearer " + token
        for _ in range(2):
            self.session.headers["X-CSRFToken"] = self.get("/api/v1/security/csrf_token/")["result"]
            self.ask("POST", "/login/", data=who)

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, method, path, status=(200, 201), **more):
        """The answer, which must have one of these statuses. A GET is sent without a Content-Type."""
        answer = self.session.request(method, self.url + path, timeout=ANSWER_LIMIT, **more)
        if answer.status_code not in status:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text[:600]}")
        return answer

    def get(self, path, **parameters):
        return self.ask("GET", path, params=parameters).json()

    def post(self, path, body):
        return self.ask("POST", path, json=body).json()

    def put(self, path, body):
        return self.ask("PUT", path, json=body).json()

    def refused(self, path, body):
        """The first of the errors that a request is refused with."""
        return self.ask("POST", path, status=(400, 422, 500), json=body).json()["errors"][0]
