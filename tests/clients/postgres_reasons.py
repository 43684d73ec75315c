"""Why weir answers otherwise than PostgreSQL 15: for statements that a look at the answers does not explain."""

import re

# the first that is found in a statement, in whatever case, holds
ANSWERS = (
    (r"100000003", "variances of numbers far from zero are rounded otherwise"),
    (r"json_object_agg\((name, type|serial_num)", "rows of a table have another order"),
    (r"(var|stddev)_(pop|samp)\(", "the variance of one infinite value is 0"),
    (r"\brow\(|search_graph", "rows are jsonb"),
    (r"'MSK'|\bMSK'", "times that Moscow's clocks skipped in 2011 count from the later offset"),
    (r"205000-07-10", "time zones have no rules after the year 262143"),
    (r"generate_series\(.*infinity", "a series of timestamps up to infinity is empty"),
    (r"group by (rollup\(not a\)|grouping sets)", "PostgreSQL 15 mistakes expressions over grouping sets; 18 answers as weir"),
    (r"group by alias1, rollup\(alias2\)", "one column under two names in GROUP BY is one group"),
    (r"\^ ", "powers of numerics are double precision"),
    (r"e-16383", "numbers below 10^-308 are refused or 0"),
    (r"OVER \(ORDER BY i ROWS", "sums of floats over sliding windows keep rounding errors of rows that left"),
    (r"to_char\('100'::numeric", "a quote behind a backslash in a number's pattern"),
    (r"TZH", "a sign behind a blank belongs to the zone"),
    (r"array_to_json\(ARRAY \[jsonb", "jsonb inside of arrays is text"),
    (r"::text\[\]::varchar\[\]", "arrays of varchar are told as arrays of text"),
    (r"current_schema", "pg_catalog in the search path is no schema to create in"),
    (r"bug6051", "a rule of PostgreSQL's filled the table"),
    (r"FROM DATE '-?infinity'", "fields of infinite dates"),
    (r"placing E'Th", "bytes written in octal"),
)

ACCEPTED = (
    (r"array_reverse|array_sort|\breverse\('|(min|max)\(v\) from bytea|(min|max)\(row\(", "PostgreSQL 18 answers it too"),
    (r"any_value", "PostgreSQL 16 answers it too"),
    (r"FROM \(\(SELECT 1 AS x\)\)|from \(select null as val|from \(select x::numeric", "PostgreSQL 16 needs no alias either"),
    (r"WITH RECURSIVE", "recursion with fewer restrictions"),
    (r"date_bin\('5 (months|years)", "strides of months are an extension"),
    (r"date_bin\('-2 days", "a negative stride counts from the other end"),
    (r"CASE WHEN i > 100 THEN 1/0", "no branch is computed that is not taken"),
    (r"\b(gcd|lcm)\(", "gcd and lcm are bigint"),
    (r"exp\(f\.f1\)|f1 \* '1e200'|a(cos|tan)h\(", "arithmetic of doubles ends in infinity or NaN"),
    (r"infinity' - timestamp(tz)? '", "the difference of infinite times is 0"),
    (r"to_(date|timestamp)\(", "a pattern reads more than PostgreSQL's"),
    (r"array_agg\(|array_positions\(|select array\[\]$", "arrays of arrays need not have one shape"),
    (r"\b(min|max|count)\(generate_series|VALUES\(1, generate_series", "a set-returning function inside of another is an array"),
    (r"UNION SELECT 'foo'", "a quoted literal beside a number in UNION makes both text"),
    (r"length\(42\)|format\('%\*0|chr\(0\)", "arguments that PostgreSQL refuses"),
    (r"timestamp (with|without) time zone '2000-01-01' - ", "times before 4714 BC are kept"),
    (r"1999-08-Jan|time zone 'T04'|make_timestamptz", "a spelling of dates and zones more"),
)


def of_answer(statement):
    """Why weir's answer is another one; None when nobody has looked."""
    return _first(ANSWERS, statement)


def of_acceptance(statement):
    """Why weir answers what PostgreSQL 15 refuses; None when nobody has looked."""
    return _first(ACCEPTED, statement)


def _first(reasons, statement):
    plain = " ".join(statement.split())
    return next((why for pattern, why in reasons if re.search(pattern, plain, re.I)), None)
