"""The door before the login: start-up packets and SCRAM, whole, damaged, cut, in any order.

Steps: `packet` (a length, unless null, and bytes), `msg` (kind, bytes, length or null), `first` and
`final` (SCRAM texts; `{nonce}`, `{proof}`, `{badproof}` are filled in), `wait` (ms), `half` (no more is
sent), `reset`. Without the right proof no connection may get past the login.
"""

import socket
import struct
import time

from fuzz_case import BORDERS, TEXTS, evaluate
from fuzz_pg import Line, Malformed, Scram, frame, packet

USER = {"cat": [{"x": "00030000"}, "user\0weir\0database\0weir\0\0"]}
FINAL = "c=biws,r={nonce},p={badproof}"
BAD_FINALS = ["", "c=biws", "c=,r={nonce},p={badproof}", "c=biws,r={nonce}", "c=biws,r=x,p={badproof}", "p=",
              "c=biws,r={nonce},p=", "c=biws,r={nonce},p=====", "c=biws,r={nonce},p=AAAA", ",,,,", "=,=,=", "m=1",
              "c=eSws,r={nonce},p={badproof}", "c=biws,r={nonce},x=1,p={badproof}", "r={nonce},p={badproof}",
              "c=biws,r={nonce},p={badproof},p={badproof}", "c=\0,r=\0,p=\0", "p={badproof}"]
BAD_FIRSTS = ["", "n", "n,,", "n,,n=,r=", "n,,n=weir,r=x", "y,,n=,r=abc", "p=tls-server-end-point,,n=,r=abc",
              "n,a=other,n=,r=abc", "n,,m=x,n=,r=abc", "n,,n=,r=a,b=c", ",,,", "n,,n=" + "x" * 5000 + ",r=a",
              "n,,n==2C=3D,r=\u00e9", "n,,r=abc,n=", "n,,n=,r=abc\0"]


class Door:
    name = "startup"

    def __init__(self, target):
        self.target = target

    def prepare(self):
        pass

    def generate(self, rng):
        steps = []
        for _ in range(rng.choice([0, 0, 0, 1, 2, 5])):
            code = rng.choice([80877103, 80877104, 80877103 + 5, 0, 80877102])
            steps.append(["packet", None, {"x": struct.pack(">I", code).hex() + rng.choice(["", "00", "ff" * 12])}])
        how = rng.randrange(10)
        if how < 4:
            steps.append(["packet", None, USER])
        elif how < 7:
            names = ["user", "database", "options", "client_encoding", "replication", "_pq_.x", "application_name",
                     "TimeZone", "DateStyle", "search_path", "statement_timeout", "", "role", "weir.as_of"]
            pairs = "".join(
                f"{rng.choice(names)}\0{rng.choice(['weir', 'x', '-c a=b', '-c', 'true', *TEXTS])}\0"
                for _ in range(rng.choice([0, 1, 2, 5, 30])))
            version = rng.choice(["00030000", "00030002", "0003ffff", "00020000", "00040000", "ffffffff", ""])
            steps.append(["packet", None, {"cat": [{"x": version}, rng.choice(["user\0weir\0", ""]), pairs, "\0"]}])
        elif how == 7:
            steps.append(["packet", None, {"cat": [{"x": "00030000"}, "user\0weir\0", {
                "rep": [rng.choice(["a\0b\0", "_pq_.y\0z\0", "options\0-c a=b\0", "x"]), rng.choice([10, 300, 4000])]}]}])
        elif how == 8:
            steps.append(["packet", rng.choice([*BORDERS, -1, 9, 10000, 16384, 16385]), USER])
        else:
            steps.append(["raw", {"x": rng.randbytes(rng.choice([1, 3, 4, 7, 8, 9, 100])).hex()}])
        if rng.random() < 0.75:
            steps.append(["first", rng.choice(["SCRAM-SHA-256", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "", "é"]),
                          rng.choice(["n,,n=,r=rOprNGfwEbeRWgbNEkqO", "n,,n=,r=rOprNGfwEbeRWgbNEkqO", *BAD_FIRSTS]),
                          rng.choice([None, None, None, None, -1, 0, 5, 2**31 - 1, 2**31, 2**32 - 2])])
        if rng.random() < 0.7:
            steps.append(["final", rng.choice([FINAL, *BAD_FINALS])])
        for _ in range(rng.choice([0, 0, 1, 3])):
            kind = rng.choice("QPBDEHSXCFcdfpA\0~")
            body = {"Q": "SELECT 1\0", "P": "\0SELECT 1\0\0\0", "B": "\0\0\0\0\0\0\0\0", "E": "\0\0\0\0\0",
                    "D": "S\0"}.get(kind, "")
            at = rng.randrange(len(steps) + 1)
            steps.insert(at, ["msg", kind, body, rng.choice([None, None, None, 0, 3, 2**31 - 1, 2**32 - 1, 20000])])
        for at, step in enumerate(steps):
            if rng.random() < 0.12 and isinstance(step[-1], (str, dict)):
                steps[at] = [*step[:-1], {"mut": [step[-1], rng.randrange(10**6)]}]
        if rng.random() < 0.15:
            steps.insert(rng.randrange(len(steps) + 1), rng.choice([["wait", 30], ["half"], ["reset"], ["cut", 3]]))
        return {"door": self.name, "steps": steps}

    def run(self, case):
        """Plays a case; what is wrong, as texts."""
        line = Line(self.target.host, self.target.pg_port)
        scram, knows, asked, wrong = Scram(self.target.password), False, False, []
        try:
            for step in case["steps"]:
                data, reply = b"", False
                if step[0] == "packet":
                    data = packet(evaluate(step[2]), step[1])
                    reply = step[1] is None
                elif step[0] == "raw":
                    data = evaluate(step[1])
                elif step[0] == "msg":
                    data = frame(step[1] or "\0", evaluate(step[2]), step[3])
                elif step[0] == "first":
                    text = evaluate(step[2])
                    scram.first = text.split(b",", 2)[-1]
                    size = len(text) if step[3] is None else step[3]
                    name = evaluate(step[1])
                    data = frame("p", name + b"\0" + struct.pack(">I", size & 0xFFFFFFFF) + text)
                    reply = True
                elif step[0] == "final":
                    text = evaluate(step[1])
                    knows = knows or b"{proof}" in text
                    asked = True
                    data = frame("p", scram.fill(text))
                elif step[0] == "wait":
                    time.sleep(min(step[1], 2000) / 1000)
                elif step[0] == "half" and not line.closed:
                    try:
                        line.socket.shutdown(socket.SHUT_WR)
                    except OSError:  # the server was first
                        line.closed = True
                elif step[0] == "reset":
                    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return wrong
                elif step[0] == "cut":
                    return wrong
                if data:
                    before = len(line.got), len(line.reader.data)
                    # an answer is only waited for where one is due; what does not come is no fault
                    self.exchange(line, data, lambda b=before: (len(line.got), len(line.reader.data)) != b,
                                  0.4 if reply else 0.02)
                if not asked and step[0] == "first":
                    for kind, body in line.got:
                        if kind == "R" and body[:4] == b"\0\0\0\x0b":
                            try:
                                scram.challenge(body[4:])
                            except (KeyError, ValueError):
                                wrong.append("a SCRAM challenge without r, s or i")
                if line.closed:
                    break
            if not line.closed:
                try:
                    try:
                        line.socket.shutdown(socket.SHUT_WR)
                    except OSError:  # the server was first
                        line.closed = True
                except OSError:
                    pass
                if not self.exchange(line, b"", lambda: False, 10):
                    wrong.append("hang: not closed 10 s after the client's last byte")
        except Malformed as error:
            wrong.append(f"malformed answer: {error}")
        finally:
            line.close()
        kinds = {k for k, _ in line.got}
        passed = any(k == "R" and body == b"\0\0\0\0" for k, body in line.got)
        if not knows and (passed or kinds & set("ZTDCK1")):
            wrong.append(f"unauthenticated: got {sorted(kinds)}")
        for kind, body in line.got:
            if kind == "E" and body["C"] == "XX000":
                wrong.append(f"XX000: {body['M']}")
        return wrong

    @staticmethod
    def exchange(line, data, until, seconds):
        # the answers to SSLRequest and GSSENCRequest are single bytes
        reader = line.reader
        feed = reader.feed

        def skim(came):
            if not reader.data:
                while came[:1] in (b"N", b"S") and (len(came) == 1 or came[1:2] in b"NSRE" or came[1:2] == b"v"):
                    line.got.append(("n", came[:1]))
                    came = came[1:]
            feed(came)

        reader.feed = skim
        try:
            return line.exchange(data, lambda _: until(), seconds)
        finally:
            reader.feed = feed


    def corpus(self):
        """What the corpus begins with: name, steps."""
        login = ["first", "SCRAM-SHA-256", "n,,n=,r=rOprNGfwEbeRWgbNEkqO", None]
        yield "whole-login-with-wrong-proof", [["packet", None, USER], login, ["final", FINAL]]
        yield "whole-login", [["packet", None, USER], login, ["final", FINAL.replace("bad", "")]]
        yield "query-before-login", [["packet", None, USER], ["msg", "Q", "SELECT 1\0", None]]
        yield "query-after-challenge", [["packet", None, USER], login, ["msg", "Q", "SELECT 1\0", None]]
        yield "ssl-then-gss-then-login", [["packet", None, {"x": "04d2162f"}], ["packet", None, {"x": "04d21630"}],
                                          ["packet", None, USER], login, ["final", FINAL]]
        yield "cancel-forged", [["packet", None, {"x": "04d2162e00000001deadbeef"}]]
        yield "cancel-short", [["packet", None, {"x": "04d2162e0000"}]]
        yield "length-negative", [["packet", -1, USER]]
        yield "length-huge", [["packet", 2**31 - 1, USER]]
        yield "length-too-small", [["packet", 3, USER]]
        yield "many-parameters", [["packet", None, {"cat": [{"x": "00030000"}, "user\0weir\0", {
            "rep": ["a\0b\0", 3000]}, "\0"]}]]
        yield "value-without-end", [["packet", None, {"cat": [{"x": "00030000"}, "user\0weir"]}]]
        yield "sasl-length-beyond-body", [["packet", None, USER], [*login[:3], 2**31 - 1]]
        for number, text in enumerate(BAD_FIRSTS):
            yield f"scram-first-{number:02}", [["packet", None, USER], [*login[:2], text, None]]
        for number, text in enumerate(BAD_FINALS):
            yield f"scram-final-{number:02}", [["packet", None, USER], login, ["final", text]]
