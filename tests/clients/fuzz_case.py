"""What a fuzz case is made of: byte expressions that fit in JSON, their mutation, and shrinking.

A case is an object with `door` and `steps`; a step is a list that starts with a word. Where a step
takes bytes it holds an expression: a text (its UTF-8), `{"x": hex}`, `{"cat": [...]}`,
`{"rep": [expression, count]}`, `{"mut": [expression, seed]}` (the same bytes, damaged the same way
each time), `{"pb": [[field, value], ...]}` (a protobuf message) or `{"any": [name, expression]}` (a
Flight SQL command). So 100 kB of parentheses take one line in a corpus file.
"""

import copy
import json
import random
import re
import struct

BORDERS = [0, 1, 2, 3, 4, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
TEXTS = [
    "", "\0", "a" * 70, "é", "\u202e", "\ud7ff", "𝄞", "'", '"', "\\", "%s%n", "--", "/*", "$1", "NaN",
    "-0", "1e400", "infinity", "{}", "{{", "[", "[]", "null", "NULL", "\t", "\n", "pg_catalog", "weir",
]
SQL_TYPE = "type.googleapis.com/arrow.flight.protocol.sql."


def varint(number):
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(fields, look):
    """A protobuf message: whole numbers become varints, floats doubles, all else has a length."""
    out = b""
    for number, value in fields:
        if isinstance(value, (bool, int)):
            out += varint(number << 3) + varint(int(value))
        elif isinstance(value, float):
            out += varint(number << 3 | 1) + struct.pack("<d", value)
        else:
            body = evaluate(value, look)
            out += varint(number << 3 | 2) + varint(len(body)) + body
    return out


def fields_of(body):
    """The fields of a protobuf message, as [number, int or bytes]; None when it is none."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    try:
        while at < len(body):
            tag = number()
            size = {0: None, 1: 8, 5: 4}.get(tag & 7, 0)
            if size is None:
                found.append([tag >> 3, number()])
                continue
            size = size or number()
            if at + size > len(body) or tag & 7 not in (1, 2, 5):
                return None
            found.append([tag >> 3, bytes(body[at:at + size])])
            at += size
    except IndexError:
        return None
    return found


def evaluate(expression, look=None):
    """The bytes an expression stands for; `look` knows what earlier steps answered."""
    if expression is None:
        return b""
    if isinstance(expression, bytes):
        return expression
    if isinstance(expression, str):
        return expression.encode("utf-8", "surrogatepass")
    (kind, value), = expression.items()
    if kind == "x":
        return bytes.fromhex(value)
    if kind == "cat":
        return b"".join(evaluate(part, look) for part in value)
    if kind == "rep":
        return evaluate(value[0], look) * value[1]
    if kind == "mut":
        return damage(evaluate(value[0], look), random.Random(value[1]))
    if kind == "pb":
        return message(value, look)
    if kind == "any":
        return message([[1, SQL_TYPE + value[0]], [2, value[1]]], look)
    return (look(value) if look else None) or b"forged"


def damage(data, rng):
    """A few bytes changed, cut, doubled or put in."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(8)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 1 and data:
            data[at % len(data)] = rng.choice([0, 1, 127, 128, 255, 39, 92])
        elif how == 2:
            del data[at:]
        elif how == 3:
            del data[at:at + rng.choice([1, 2, 4, 16])]
        elif how == 4:
            data[at:at] = data[at:at + rng.choice([1, 4, 64])] * rng.choice([1, 2, 20])
        elif how == 5:
            data[at:at] = rng.randbytes(rng.choice([1, 2, 4, 16]))
        elif how == 6:
            number = rng.choice(BORDERS) & 0xFFFFFFFF
            data[at:at + 4] = struct.pack(rng.choice(["<I", ">I"]), number)
        else:
            data[at:at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    return bytes(data)


def vary(case, rng, other=None):
    """A case like this one: steps dropped, doubled, swapped, taken from another, bytes damaged."""
    case = {"door": case["door"], "steps": copy.deepcopy(case["steps"])}
    steps = case["steps"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        if not steps:
            break
        at, how = rng.randrange(len(steps)), rng.randrange(6)
        if how == 0 and len(steps) > 1:
            del steps[at]
        elif how == 1:
            steps.insert(at, copy.deepcopy(steps[rng.randrange(len(steps))]))
        elif how == 2 and other and other["steps"]:
            steps.insert(at, copy.deepcopy(rng.choice(other["steps"])))
        elif how == 3 and len(steps[at]) > 1:
            field = rng.randrange(1, len(steps[at]))
            steps[at][field] = vary_field(steps[at][field], rng)
        elif how == 4 and len(steps) > 1:
            to = rng.randrange(len(steps))
            steps[at], steps[to] = steps[to], steps[at]
        else:
            fields = [f for f in range(1, len(steps[at])) if isinstance(steps[at][f], (str, dict))]
            if fields:
                field = rng.choice(fields)
                steps[at][field] = {"mut": [steps[at][field], rng.randrange(10**6)]}
    return case


def vary_field(value, rng):
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return rng.choice([*BORDERS, -1, value + 1, value - 1, -value])
    if isinstance(value, list):
        value = list(value)
        if value and rng.random() < 0.6:
            at = rng.randrange(len(value))
            value[at] = vary_field(value[at], rng)
        elif value and rng.random() < 0.5:
            del value[rng.randrange(len(value))]
        elif value:
            value = value * rng.choice([2, 3, 50])
        return value
    if isinstance(value, str) and rng.random() < 0.3:
        return rng.choice(TEXTS)
    return {"mut": [value, rng.randrange(10**6)]}


def smaller(case):
    """Cases with less in them, the boldest first."""
    steps = case["steps"]
    count = len(steps)
    size = count // 2
    while size >= 1:
        for at in range(0, count, size):
            if size < count:
                yield {**case, "steps": steps[:at] + steps[at + size:]}
        size //= 2
    for at, step in enumerate(steps):
        for field in range(1, len(step)):
            for value in less(step[field]):
                changed = [*step[:field], value, *step[field + 1:]]
                yield {**case, "steps": [*steps[:at], changed, *steps[at + 1:]]}


def less(value):
    if isinstance(value, str) and value:
        words = re.findall(r"\s+|\w+|'(?:[^']|'')*'|.", value, re.DOTALL)
        size = len(words) // 2
        while size >= 1:
            for at in range(0, len(words), size):
                yield "".join(words[:at] + words[at + size:])
            size //= 2
    elif isinstance(value, list) and value:
        for at in range(len(value)):
            yield value[:at] + value[at + 1:]
        for at, inner in enumerate(value):
            for changed in less(inner):
                yield value[:at] + [changed] + value[at + 1:]
    elif isinstance(value, dict):
        (kind, inner), = value.items()
        if kind == "rep":
            if inner[1] > 1:
                yield {"rep": [inner[0], inner[1] // 2]}
                yield {"rep": [inner[0], inner[1] * 9 // 10]}
        elif kind == "mut":
            yield inner[0]
            raw = evaluate(value)
            try:
                yield raw.decode()
            except UnicodeDecodeError:
                yield {"x": raw.hex()}
        elif kind == "cat":
            for changed in less(inner):
                yield {"cat": changed}
        elif kind == "x" and len(inner) > 2:
            half = len(inner) // 4 * 2
            yield {"x": inner[:half]}
            yield {"x": inner[half:]}
        elif kind in ("pb", "any"):
            for changed in less(inner):
                yield {kind: changed}


def dump(case):
    """The text of a corpus file: one step a line."""
    head = {k: v for k, v in case.items() if k != "steps"}
    lines = ",\n  ".join(json.dumps(step) for step in case["steps"])
    return json.dumps(head)[:-1] + f', "steps": [\n  {lines}\n]}}\n'
