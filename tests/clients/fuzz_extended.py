"""A logged-in connection: messages of the extended and the simple flow, valid and damaged, any order.

Steps: Q sql; P name sql oids; B portal statement formats values result-formats; D kind name;
E portal rows; C kind name; H; S; X; d bytes; c; f text; F bytes; p bytes; raw kind bytes length; wait ms.
"""

import socket
import struct
import time

from fuzz_case import BORDERS, TEXTS, evaluate
from fuzz_pg import Line, Malformed, frame
from fuzz_sql import OIDS, SEEDS, SETUP, Sql

MARK = "fuzz-end-marker"
STATEMENT_SECONDS = 2
# binary forms that hold, or nearly hold, a value
BINARY = ["00", "01", "0001", "00000001", "0000000000000001", "ffffffffffffffff", "7fffffff", "8000000000000000",
          "7fffffffffffffff", "7ff8000000000000", "7fc00000", "", "00" * 16, "ff" * 16, "7fffffff" * 4, "80000000",
          "0001000040000000" + "0001", "0000000000000000", "00010000c0000000", "0001000000000000270f",
          "00017fff00000000270f", "0001800000000000270f", "ffff000000000000", "7fff000000007fff", "0002000000000000",
          "0000000100000000000000170000000100000001000000040000000a", "000000000000000000000017",
          "7fffffff0000000000000017", "0000000100000000000000177fffffff00000001",
          "000000010000000000000017ffffffff00000001", "00000002000000000000001700000000000000010000000100000001",
          "0000000100000001000003e90000000100000001ffffffff", "017b7d", "027b7d", "01", "0000000a", "616263",
          "00000001000000000000001700000001000000017fffffff", "00000000ffffffff00000019", "c328", "00000001" * 8]
TEXT_VALUES = ["1", "-1", "t", "2024-01-01", "24:00:00", "1 day", "{1,2}", "{{1},{2,3}}", "{\"a\"", "\\x00", "\\xzz",
               "NaN", "1e999999999", "9" * 400, "0." + "0" * 400 + "1", "infinity", "epoch", "{}", "{\"a\":", "P1Y",
               "294277-01-01", "4714-11-24 BC", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "1_000", "0x1F", "+", ".",
               "2024-02-30", "2024-01-01 00:00:00+99:99", "[1:2]={1,2}", "[2147483647:2147483647]={1}", *TEXTS]
COPY_TEXT = ["1\t2\t3\n", "\\N\n", "\\.\n", "t\\\t1\n", "\"a,b\n", "1,\"x\"\"y\"\r\n", "2,\\N\n", "id,name\n3,z\n", "\\x4",
             "5\t2024-01-01\tn\n" * 50, {"rep": ["a", 5000]}, {"rep": ["1\n", 3000]}]
COPY_BINARY = ["5047434f50590aff0d0a00" + "00000000" * 2, "5047434f50590aff0d0a00", "0003" + "00000008" + "00" * 8,
               "ffff", "7fff", "0003ffffffffffffffffffffffff", "00037fffffff", "5047434f50590aff0d0a00000100007fffffff"]
NAMES = ["", "", "", "a", "b", "c", "é" * 40, "x" * 300]


class Door:
    name = "extended"

    def __init__(self, target):
        self.target = target
        self.functions = []

    def prepare(self):
        """Makes the tables anew and asks for the names of the functions."""
        line = Line(self.target.host, self.target.pg_port)
        if not line.login(self.target.user, self.target.password):
            raise ConnectionError("cannot log in")
        for sql in ["SELECT DISTINCT proname FROM pg_catalog.pg_proc ORDER BY 1", "DROP TABLE IF EXISTS fuzz_t CASCADE",
                    *SETUP]:
            ready = sum(k == "Z" for k, _ in line.got)
            line.exchange(frame("Q", sql.encode() + b"\0"),
                          lambda got, n=ready: sum(k == "Z" for k, _ in got) > n, 60)
        names = [body[0].decode() for kind, body in line.got if kind == "D" and len(body) == 1]
        line.close()
        self.functions = sorted(n for n in set(names) if n and not n.startswith(("pg_sleep", "pg_terminate")))

    def generate(self, rng):
        sql = Sql(rng, self.functions)
        steps = []
        for _ in range(rng.choice([1, 1, 2, 3, 5])):
            how = rng.randrange(12)
            if how < 3:
                steps.append(["Q", sql.statement()])
                if rng.random() < 0.3:
                    steps += self.copied(rng)
            elif how < 9:
                steps += self.flow(rng, sql)
            else:
                steps.append(self.odd(rng, sql))
        return {"door": self.name, "steps": steps}

    @staticmethod
    def copied(rng):
        steps = []
        for _ in range(rng.choice([0, 1, 2, 4])):
            steps.append(["d", rng.choice([rng.choice(COPY_TEXT), {"x": rng.choice(COPY_BINARY)},
                                           {"mut": [rng.choice(COPY_TEXT), rng.randrange(10**6)]}])])
        return [*steps, rng.choice([["c"], ["c"], ["f", "no"], ["S"], ["Q", "SELECT 1"], ["H"]])]

    def flow(self, rng, sql):
        """Parse, Bind, Describe, Execute, Sync over one statement, mostly fitting each other."""
        text = sql.statement()
        count = rng.choice([0, 1, 2, 3, 5])
        if isinstance(text, str):
            count = max([0, *(n for n in range(1, 6) if f"${n}" in text)])
        name, portal = rng.choice(NAMES), rng.choice(NAMES)
        oids = [rng.choice(OIDS) for _ in range(rng.choice([0, count, count, rng.randrange(4)]))]
        steps = [["P", name, text, oids]]
        if rng.random() < 0.5:
            steps.append(["D", "S", name])
        for _ in range(rng.choice([1, 1, 1, 2])):
            values, formats = [], []
            for _ in range(count if rng.random() < 0.95 else rng.randrange(6)):
                binary = rng.random() < 0.5
                value = {"x": rng.choice(BINARY)} if binary else rng.choice(TEXT_VALUES)
                if rng.random() < 0.1:
                    value = rng.choice([None, {"mut": [value, rng.randrange(10**6)]}])
                values.append(value)
                formats.append(int(binary))
            if rng.random() < 0.08:
                formats = rng.choice([[], [1], [0], [2], [-1], [0, 1, 0, 1, 0]])
            results = rng.choice([[], [], [0], [1], [1], [0, 1], [7]])
            steps.append(["B", portal, name, formats, values, results])
            if rng.random() < 0.6:
                steps.append(["D", "P", portal])
            for _ in range(rng.choice([1, 1, 2])):
                steps.append(["E", portal, rng.choice([0, 0, 0, 1, 2, -1, 2**31 - 1, -2**31])])
        if rng.random() < 0.15:
            steps += self.copied(rng)
        if rng.random() < 0.15:
            steps.append(["C", rng.choice("SP"), rng.choice([name, portal])])
        steps.append(rng.choice([["S"], ["S"], ["S"], ["H"]]))
        return steps

    def odd(self, rng, sql):
        kind = rng.choice("QPBDECHSXdcfFp")
        how = rng.randrange(12)
        if how == 0:
            return ["X"]
        if how == 1:
            return ["p", rng.choice(TEXTS)]
        if how < 4:
            return ["F", {"x": rng.choice(["", "0000000a", "000005de" + "0000" * 3, "ffffffff0001000100017fffffff"])}]
        if how < 6:
            return ["raw", kind, {"x": rng.randbytes(rng.choice([0, 1, 4, 20])).hex()}, None]
        if how == 6:
            return ["raw", rng.choice([kind, "A", "\0", "~"]), "x", rng.choice([*BORDERS, -1])]
        if how == 7:
            return ["raw", "P", {"cat": ["\0SELECT 1\0", {"x": rng.choice(["ffff", "7fff", "0001", "8000"])}]}, None]
        if how == 8:
            return ["raw", "B", {"x": "0000" + rng.choice(["ffff", "0001", "00000001ffffffff0000", "000000017fffffff",
                                                           "00000001fffffffe0000", "00000000ffff"])}, None]
        return rng.choice([["D", "X", ""], ["C", "\0", ""], ["f", "x"], ["d", "stray"], ["c"], ["H"], ["S"],
                           ["E", "missing", 1], ["Q", {"x": "c328"}], ["Q", "a\0b"], ["wait", 20]])

    @staticmethod
    def encode(step):
        def text(value):
            return evaluate(value) + b"\0"

        def shorts(values):
            return struct.pack(">H", len(values) & 0xFFFF) + b"".join(
                struct.pack(">H", v & 0xFFFF) for v in values)

        kind, fields = step[0], step[1:]
        if kind in "Qf":
            body = text(fields[0])
        elif kind == "P":
            body = text(fields[0]) + text(fields[1]) + struct.pack(">H", len(fields[2]) & 0xFFFF)
            body += b"".join(struct.pack(">I", oid & 0xFFFFFFFF) for oid in fields[2])
        elif kind == "B":
            body = text(fields[0]) + text(fields[1]) + shorts(fields[2])
            body += struct.pack(">H", len(fields[3]) & 0xFFFF)
            for value in fields[3]:
                raw = evaluate(value)
                body += struct.pack(">i", -1 if value is None else len(raw)) + raw
            body += shorts(fields[4])
        elif kind in "DC":
            body = evaluate(fields[0])[:1] + text(fields[1])
        elif kind == "E":
            body = text(fields[0]) + struct.pack(">I", fields[1] & 0xFFFFFFFF)
        elif kind in "dFp":
            body = evaluate(fields[0])
        elif kind == "raw":
            return frame(fields[0] or "\0", evaluate(fields[1]), fields[2])
        else:
            body = b""
        return frame(kind, body)

    def run(self, case):
        """Plays a case; what is wrong, as texts."""
        steps, wrong = case["steps"], []
        line = Line(self.target.host, self.target.pg_port)
        try:
            if not line.login(self.target.user, self.target.password):
                return [f"login failed: {line.got[-1:]}"]
            lies = any(s[0] == "raw" and s[3] is not None for s in steps)
            runs = sum(1 for s in steps if s[0] in ("Q", "E", "P", "F"))
            many = sum(evaluate(s[1]).count(b";") for s in steps if s[0] == "Q")
            deadline = min(15 + (STATEMENT_SECONDS + 1) * (runs + many), 120)
            data = frame("Q", b"SET statement_timeout = '%d s'\0" % STATEMENT_SECONDS)
            start = len(line.got)
            for step in steps:
                if step[0] == "wait":
                    line.exchange(data, lambda got: False, min(step[1], 500) / 1000)
                    data = b""
                else:
                    data += self.encode(step)
            if lies:
                ended = line.exchange(data, lambda got: False, 0.3)
                if not ended:
                    line.socket.shutdown(socket.SHUT_WR)
                    ended = line.exchange(b"", lambda got: False, deadline)
            else:
                end = frame("f", b"end\0") + frame("S", b"") + frame("Q", b"ROLLBACK\0")
                data += end + frame("Q", b"SELECT '%s'\0" % MARK.encode())

                def marked(got):
                    return got[-1][0] == "Z" and line.row == [MARK.encode()]

                ended = line.exchange(data, marked, deadline)
            if not ended:
                wrong.append(f"hang: no end within {deadline} s")
            wrong += self.judge(line, steps, start, lies)
        except Malformed as error:
            wrong.append(f"malformed answer: {error}")
        except UnicodeDecodeError as error:
            # a described statement has no formats yet: what comes as bytes is told as text
            binary = any(s[0] == "B" and any(s[5]) for s in steps)
            described = any(s[0] == "D" and evaluate(s[1])[:1] == b"S" for s in steps)
            if not (binary and described):
                wrong.append(f"malformed answer: a text that is no UTF-8: {error.reason}")
        finally:
            line.close()
        return wrong

    @staticmethod
    def judge(line, steps, start, lies):
        wrong = []
        got = line.got[start:]
        for kind, body in got:
            if kind == "E" and body["C"].startswith("XX"):
                wrong.append(f"{body['C']}: {body['M']}")
        fatal = any(kind == "E" and body["S"] != "ERROR" for kind, body in got)
        leaves = any(step[0] in ("X", "p", "raw") for step in steps)
        if line.closed and not fatal and not leaves and not lies:
            wrong.append("closed without an ErrorResponse")
        syncs = sum(step[0] == "S" for step in steps)
        most = syncs + sum(step[0] in ("Q", "F", "raw") for step in steps) + 4
        ready = sum(kind == "Z" for kind, _ in got)
        if not line.closed and not lies:
            if ready > most:
                wrong.append(f"{ready} ReadyForQuery for at most {most}")
            if ready < syncs and not any(kind == "G" for kind, _ in got):
                wrong.append(f"{ready} ReadyForQuery for {syncs} Sync")
        return wrong

    def corpus(self):
        """What the corpus begins with: name, steps."""
        for number, sql in enumerate(SEEDS):
            if number % 6 == 0:
                yield f"simple-{number:03}", [["Q", s] for s in SEEDS[number:number + 6]]
        yield "bind-every-type-text", [
            step for oid in OIDS for step in (["P", "", "SELECT $1", [oid]], ["B", "", "", [0], ["1"], [0]],
                                              ["D", "P", ""], ["E", "", 0], ["S"])]
        yield "bind-every-type-binary", [
            step for oid in OIDS for step in (["P", "", "SELECT $1", [oid]], ["B", "", "", [1], [{"x": "0001"}], [1]],
                                              ["D", "P", ""], ["E", "", 0], ["S"])]
        for form in ("text", "binary"):
            yield f"copy-in-{form}-garbage", [
                ["Q", f"COPY fuzz_s FROM STDIN (FORMAT {form})"], *(["d", {"x": b}] for b in COPY_BINARY), ["c"]]
        yield "portal-with-limit", [["P", "s", "SELECT * FROM generate_series(1, 10)", []], ["B", "p", "s", [], [], [1]],
                                    ["E", "p", 3], ["E", "p", 3], ["E", "p", 0], ["E", "p", 1], ["S"], ["E", "p", 1]]
        yield "function-call", [["F", {"x": "000005de" + "0000" * 3}], ["F", ""]]
        yield "length-lies", [["raw", "Q", "SELECT 1\0", 2**31 - 1]]
        yield "length-zero", [["raw", "S", "", 0]]
        yield "unknown-kind", [["raw", "~", "", None]]
        yield "nested-parentheses-100k", [["Q", {"cat": ["SELECT ", {"rep": ["(", 50000]}, "1", {"rep": [")", 50000]}]}]]
        for name, before, after in [("case", "CASE WHEN true THEN ", " END"), ("not", "NOT ", ""), ("minus", "- ", ""),
                                    ("array", "ARRAY[", "]"), ("subquery", "(SELECT ", ")"), ("plus", "1 + ", "")]:
            middle = {"cat": [{"rep": [before, 100000 // len(before + after)]}, "1", {
                "rep": [after, 100000 // len(before + after)]}]}
            yield f"nested-{name}-100k", [["Q", {"cat": ["SELECT ", middle]}]]
        yield "in-list-20k", [["Q", {"cat": ["SELECT 1 IN (1", {"rep": [", 1", 20000]}, ")"]}]]
