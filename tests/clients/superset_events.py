"""Events that charts are made of, and what Python says of them."""

import collections
import datetime
import decimal
import random

from common import equal

SCHEMA = "superset_check"
COLUMNS = {
    "id": "INTEGER",
    "ts": "TIMESTAMP",
    "seen": "TIMESTAMP",
    "day": "DATE",
    "country": "TEXT",
    "page": "VARCHAR(40)",
    "price": "NUMERIC(10, 2)",
    "ok": "BOOLEAN",
    "clicks": "BIGINT",
    "ratio": "DOUBLE PRECISION",
}
Event = collections.namedtuple("Event", COLUMNS)


def made_up(count):
    """Events over half a year, with NULLs, and some whose seconds have a fraction."""
    chance = random.Random(7)
    begin = datetime.datetime(2025, 11, 20, tzinfo=datetime.UTC)
    for number in range(count):
        ts = begin + datetime.timedelta(microseconds=chance.randrange(180 * 24 * 3600 * 4) * 250_000)
        yield Event(
            number,
            ts,
            ts.replace(tzinfo=None) - datetime.timedelta(hours=chance.randrange(3)),
            ts.date(),
            chance.choice(["SE", "DE", "FR", "NO", "Åland", None]),
            chance.choice(["/Shop", "/shop/sale", "/about_us", "/100%", "/it's", ""]),
            None if number % 11 == 0 else decimal.Decimal(chance.randrange(-500, 20_000)) / 100,
            chance.choice([True, False, None]),
            None if number % 13 == 0 else chance.randrange(2**40),
            chance.randrange(1, 1000) / 8,
        )


EVENTS = list(made_up(700))


def stamp(moment):
    """What a chart's data says of a time: milliseconds."""
    if isinstance(moment, datetime.datetime):
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return round((moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) / datetime.timedelta(milliseconds=1))
    return 86_400_000 * (moment - datetime.date(1970, 1, 1)).days


def plain(value):
    """A value as JSON has it, with numbers to 12 digits."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime.date):
        return stamp(value)
    return float(f"{float(value):.12g}")


def same(got, expected, ordered=False):
    """Rows are the same; without an order when none was asked for."""
    rows = [[tuple(map(plain, row)) for row in side] for side in (got, expected)]
    if not ordered:
        rows = [sorted(side, key=repr) for side in rows]
    for number, (left, right) in enumerate(zip(*rows)):
        if left != right:
            raise AssertionError(f"row {number}: got {left!r}, expected {right!r}")
    equal(len(rows[0]), len(rows[1]))
    return f"{len(rows[0])} rows"


def grouped(key, events=EVENTS):
    groups = collections.defaultdict(list)
    for event in events:
        groups[key(event)].append(event)
    return groups


def total(values):
    """SUM: NULL when there is nothing but NULLs."""
    values = [value for value in values if value is not None]
    return sum(values) if values else None


def given(events, name):
    return [value for event in events if (value := getattr(event, name)) is not None]


def metric(aggregate, column, label):
    return {"expressionType": "SIMPLE", "column": {"column_name": column}, "aggregate": aggregate, "label": label}


def formula(text, label):
    return {"expressionType": "SQL", "sqlExpression": text, "label": label}


COUNT = formula("COUNT(*)", "n")
GRAINS = {
    "PT1S": lambda t: t.replace(microsecond=0),
    "PT5S": lambda t: t.replace(microsecond=0, second=t.second // 5 * 5),
    "PT30S": lambda t: t.replace(microsecond=0, second=t.second // 30 * 30),
    "PT1M": lambda t: t.replace(microsecond=0, second=0),
    "PT5M": lambda t: t.replace(microsecond=0, second=0, minute=t.minute // 5 * 5),
    "PT10M": lambda t: t.replace(microsecond=0, second=0, minute=t.minute // 10 * 10),
    "PT15M": lambda t: t.replace(microsecond=0, second=0, minute=t.minute // 15 * 15),
    "PT30M": lambda t: t.replace(microsecond=0, second=0, minute=t.minute // 30 * 30),
    "PT1H": lambda t: t.replace(microsecond=0, second=0, minute=0),
    "P1D": lambda t: midnight(t),
    "P1W": lambda t: midnight(t) - datetime.timedelta(days=t.weekday()),
    "P1M": lambda t: midnight(t).replace(day=1),
    "P3M": lambda t: midnight(t).replace(day=1, month=(t.month - 1) // 3 * 3 + 1),
    "P1Y": lambda t: midnight(t).replace(day=1, month=1),
}


def midnight(moment):
    return moment.replace(microsecond=0, second=0, minute=0, hour=0)
