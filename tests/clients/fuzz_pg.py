"""The PostgreSQL protocol as the fuzzers speak it: frames, SCRAM, and a strict reader of answers."""

import base64
import hashlib
import hmac
import select
import socket
import struct
import time

# length of a binary value by type oid
FIXED = {16: 1, 20: 8, 21: 2, 23: 4, 26: 4, 700: 4, 701: 8, 1082: 4, 1083: 8, 1114: 8, 1184: 8, 1186: 16,
         2950: 16}


class Malformed(Exception):
    """An answer that is no message of the protocol."""


def frame(kind, body, length=None):
    size = len(body) + 4 if length is None else length
    return kind.encode("latin-1")[:1] + struct.pack(">I", size & 0xFFFFFFFF) + body


def packet(body, length=None):
    size = len(body) + 4 if length is None else length
    return struct.pack(">I", size & 0xFFFFFFFF) + body


def startup(parameters, version=196608):
    body = struct.pack(">I", version)
    for name, value in parameters:
        body += name.encode() + b"\0" + value.encode() + b"\0"
    return packet(body + b"\0")


class Reader:
    """Takes frames out of what came and checks each."""

    def __init__(self):
        self.data = bytearray()
        self.columns = None  # [(oid, format)] of the rows to come

    def feed(self, data):
        self.data += data

    def messages(self):
        while len(self.data) >= 5:
            kind, size = chr(self.data[0]), struct.unpack_from(">I", self.data, 1)[0]
            if size < 4 or size > 1 << 28 or kind not in "RSKZTDCEN123sntIGHdcAv":
                raise Malformed(f"frame {bytes(self.data[:16])!r}")
            if len(self.data) < size + 1:
                return
            body = bytes(self.data[5:size + 1])
            del self.data[:size + 1]
            try:
                yield kind, self.read(kind, body)
            except (struct.error, ValueError, IndexError) as error:
                raise Malformed(f"{kind}: {error}: {body[:60]!r}") from error

    def read(self, kind, body):
        if kind in "123snIc" and body:
            raise ValueError("a body where none is")
        if kind == "2":
            # a portal's rows may come without having been described
            self.columns = None
        if kind == "Z" and body not in (b"I", b"T", b"E"):
            raise ValueError("status")
        if kind in "EN":
            fields = {}
            *parts, end, last = body.split(b"\0")
            if end or last:
                raise ValueError("no end")
            for part in parts:
                fields[chr(part[0])] = part[1:].decode()
            if not {"S", "C", "M"} <= fields.keys() or len(fields["C"]) != 5:
                raise ValueError("fields are missing")
            return fields
        if kind == "T":
            count, at, self.columns = struct.unpack_from(">H", body)[0], 2, []
            for _ in range(count):
                at = body.index(b"\0", at) + 1
                _, _, oid, _, _, form = struct.unpack_from(">IhIhih", body, at)
                self.columns.append((oid, form))
                at += 18
            if at != len(body):
                raise ValueError("length")
            return self.columns
        if kind == "D":
            count, at, row = struct.unpack_from(">H", body)[0], 2, []
            for _ in range(count):
                size = struct.unpack_from(">i", body, at)[0]
                at += 4
                row.append(None if size < 0 else body[at:at + size])
                at += max(size, 0)
            if at != len(body):
                raise ValueError("length")
            return row
        if kind in "CS" and body[-1:] != b"\0":
            raise ValueError("no end")
        return body


def check_row(columns, row):
    """Text that is no UTF-8, or a binary value of a wrong length."""
    if len(columns) != len(row):
        raise Malformed(f"{len(row)} values for {len(columns)} columns")
    for (oid, form), value in zip(columns, row):
        if value is None:
            continue
        if form == 0:
            value.decode()
        elif oid in FIXED and len(value) != FIXED[oid]:
            raise Malformed(f"a binary value of {len(value)} bytes for oid {oid}")


class Scram:
    """The client's side of SCRAM-SHA-256, with texts that may be anything."""

    def __init__(self, password):
        self.password = password.encode()
        self.first = b"n=,r=rOprNGfwEbeRWgbNEkqO"
        self.nonce, self.proof = b"none", b""

    def challenge(self, body):
        """Takes the server's first message."""
        parts = dict(p.split(b"=", 1) for p in body.split(b",") if b"=" in p)
        self.nonce = parts[b"r"]
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(parts[b"s"]), int(parts[b"i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        told = self.first + b"," + body + b",c=biws,r=" + self.nonce
        signature = hmac.digest(hashlib.sha256(key).digest(), told, "sha256")
        self.proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature)))

    def fill(self, text):
        """The placeholders of a client-final message. Only `{proof}` knows the password."""
        wrong = base64.b64encode(bytes(32))
        text = text.replace(b"{nonce}", self.nonce).replace(b"{badproof}", wrong)
        return text.replace(b"{proof}", self.proof)


class Line:
    """A socket with a reader; everything that came is kept."""

    def __init__(self, host, port, timeout=10):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader()
        self.got = []
        self.row = None  # the last one that came
        self.closed = False

    def exchange(self, data, until, seconds):
        """Sends while it reads, so that neither side waits for the other. True when `until` came
        true or the server closed; False at the deadline."""
        end = time.monotonic() + seconds
        self.socket.setblocking(False)
        view = memoryview(data)
        while True:
            if not view and until(self.got):
                return True
            left = end - time.monotonic()
            if self.closed or left <= 0:
                return self.closed
            writable = [self.socket] if view else []
            readable, writable, _ = select.select([self.socket], writable, [], min(left, 1))
            try:
                if readable:
                    came = self.socket.recv(1 << 16)
                    self.closed = not came
                    self.reader.feed(came)
                    for kind, body in self.reader.messages():
                        # rows are checked, not kept: there may be many
                        if kind == "D":
                            self.row = body
                        if kind != "D" or len(self.got) < 2000:
                            self.got.append((kind, body))
                        if kind == "D" and self.reader.columns and len(self.reader.columns) == len(body):
                            check_row(self.reader.columns, body)
                if writable:
                    view = view[self.socket.send(view[:1 << 16]):]
            except BlockingIOError:
                continue
            except (ConnectionError, BrokenPipeError):
                view = view[:0]
                self.closed = True

    def login(self, user, password):
        """The plain way in."""
        scram = Scram(password)
        ready = startup([("user", user), ("database", "weir")])
        self.exchange(ready, lambda got: got, 10)
        first = b"n,," + scram.first
        body = b"SCRAM-SHA-256\0" + struct.pack(">I", len(first)) + first
        self.exchange(frame("p", body), lambda got: len(got) > 1, 10)
        if self.closed or not self.got or self.got[-1][0] != "R":
            return False
        scram.challenge(self.got[-1][1][4:])
        final = scram.fill(b"c=biws,r={nonce},p={proof}")
        self.exchange(frame("p", final), lambda got: got[-1][0] in "ZE", 10)
        return not self.closed and self.got[-1][0] == "Z"

    def close(self):
        self.socket.close()
