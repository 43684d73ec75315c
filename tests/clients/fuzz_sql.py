"""SQL for the fuzzers: statements to begin with, splices of them, expressions that use every function
and operator the server names, and nesting up to 100 kB."""

import re

SETUP = [
    "CREATE TABLE IF NOT EXISTS fuzz_t (b BOOL, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 FLOAT8, "
    "n NUMERIC(20,4), s TEXT, v VARCHAR(20), y BYTEA, d DATE, t TIME, ts TIMESTAMP, tz TIMESTAMPTZ, "
    "iv INTERVAL, u UUID, j JSON, jb JSONB, a INT[], sa TEXT[])",
    "CREATE STREAMING TABLE IF NOT EXISTS fuzz_s (id BIGINT NOT NULL, at TIMESTAMPTZ, name TEXT)",
    "TRUNCATE fuzz_t",
    "INSERT INTO fuzz_t VALUES (true, 1, 2, 3, 1.5, 2.5, 3.25, 'one', 'v', '\\x00ff', '2024-02-29', "
    "'23:59:59.999999', '2024-02-29 12:00:00', '2024-02-29 12:00:00+02', '1 mon 2 days', "
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\":[1,null]}', '{\"b\":{\"c\":2}}', '{1,NULL,3}', "
    "'{x,\"y z\"}'), (false, -32768, -2147483648, -9223372036854775808, 'NaN', 'Infinity', -0.0001, '', "
    "'', '', '0001-01-01', '00:00', '0001-01-01', '9999-12-31 23:59:59Z', '-1 day', "
    "'00000000-0000-0000-0000-000000000000', 'null', '[]', '{}', '{}')",
    "INSERT INTO fuzz_t (i4) VALUES (NULL)",
]
OIDS = [16, 17, 18, 19, 20, 21, 23, 25, 26, 28, 114, 199, 600, 700, 701, 705, 790, 829, 869, 1000, 1001, 1005,
        1007, 1009, 1015, 1016, 1021, 1022, 1042, 1043, 1082, 1083, 1114, 1115, 1182, 1183, 1184, 1185, 1186,
        1187, 1231, 1266, 1560, 1700, 2205, 2206, 2249, 2278, 2950, 2951, 3614, 3802, 3807, 3904, 4072, 0,
        999999, 2**32 - 1]
TYPES = ["bool", "smallint", "int", "bigint", "real", "float8", "numeric", "numeric(5,2)", "numeric(38,38)",
         "text", "varchar(3)", "bytea", "date", "time", "timestamp", "timestamptz", "interval", "uuid", "json",
         "jsonb", "int[]", "text[]", "numeric[]", "timestamptz[]", "oid", "regclass", "name", "float4[]",
         "jsonb[]", "interval[]"]
COLUMNS = ["b", "i2", "i4", "i8", "f4", "f8", "n", "s", "v", "y", "d", "t", "ts", "tz", "iv", "u", "j", "jb", "a",
           "sa"]
VALUES = ["0", "1", "-1", "2", "7", "32767", "2147483647", "(-2147483648)", "9223372036854775807",
          "(-9223372036854775808)", "9223372036854775808", "1e308", "1e-320", "0.1", "1.5", "'NaN'::float8",
          "'-Infinity'::float8", "99999999999999999999999999999999999999", "'a'", "''", "'%'", "'é𝄞'", "'\\\\'",
          "NULL", "true", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "'{\"a\":1}'::jsonb", "'[1,2]'::json",
          "'1 day'::interval", "interval '178000000 years'", "'-1 mon'::interval", "date '2024-02-29'",
          "date 'infinity'", "date '-infinity'", "date '0001-01-01'", "timestamp '294276-12-31'",
          "timestamptz '2024-01-01Z'", "timestamptz 'infinity'", "time '24:00'", "'{}'::int[]",
          "ARRAY[1,2,NULL]", "ARRAY['a','b']", "'\\x00ff'::bytea", "ARRAY[[1,2],[3,4]]", "'day'", "'UTC'",
          "'YYYY-MM-DD'", "'(a+)+$'", "repeat('a', 1000)", "current_date", "now()", "-5", "1000000", "'{a,0}'",
          "'$.a'", "'en'", "'1 year'::interval", "'hex'", "'FM999.00'", "timestamp '-infinity'"]
OPERATORS = ["+", "-", "*", "/", "%", "^", "||", "=", "<>", "<", ">=", "AND", "OR", "->", "->>", "#>", "#>>", "@>",
             "<@", "?", "?|", "&&", "~", "!~*", "LIKE", "NOT ILIKE", "SIMILAR TO", "&", "|", "#", "<<", ">>",
             "IS DISTINCT FROM", "AT TIME ZONE", "#-", "-|-", "~~", "= ANY", "<> ALL", "COLLATE"]
SEEDS = [
    "SELECT 1", "", ";", "SELECT $1", "SELECT $1::int + $2::bigint", "SELECT * FROM fuzz_t",
    "SELECT i4, s FROM fuzz_t WHERE i8 = $1 AND s LIKE $2 ORDER BY 1 LIMIT $3 OFFSET $4",
    "SELECT count(*), sum(i4), avg(n), max(ts) FROM fuzz_t GROUP BY b HAVING count(*) > $1",
    "SELECT a.i4, b.s FROM fuzz_t a LEFT JOIN fuzz_t b ON a.i4 = b.i4 AND b.n > $1",
    "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < $1) SELECT sum(n) FROM r",
    "SELECT s, row_number() OVER (PARTITION BY b ORDER BY i4 ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM fuzz_t",
    "SELECT lag(i4, 2, 0) OVER (ORDER BY i8), ntile(3) OVER (), nth_value(s, 2) OVER () FROM fuzz_t",
    "SELECT i FROM generate_series($1::int, $2::int, $3::int) AS g (i)",
    "SELECT generate_series(timestamp '2024-01-01', '2024-02-01', '1 day')",
    "SELECT * FROM fuzz_t WHERE i4 IN (SELECT i2 FROM fuzz_t WHERE d > $1) OR EXISTS (SELECT 1 FROM fuzz_s)",
    "SELECT CASE WHEN b THEN i4 WHEN i2 > 1 THEN i8 ELSE $1 END FROM fuzz_t",
    "INSERT INTO fuzz_t (i4, s, n, ts, a) VALUES ($1, $2, $3, $4, $5)", "DELETE FROM fuzz_t WHERE i4 = $1",
    "INSERT INTO fuzz_s (id, at, name) VALUES ($1, now(), 'x'), (2, NULL, $2) RETURNING id",
    "INSERT INTO fuzz_t SELECT * FROM fuzz_t LIMIT 2", "UPDATE fuzz_t SET i4 = i4 + 1, s = s || $1 WHERE b",
    "UPDATE fuzz_t SET n = x.n FROM (SELECT max(n) AS n FROM fuzz_t) x WHERE fuzz_t.i4 = 2 RETURNING *",
    "MERGE INTO fuzz_t t USING (SELECT 2 AS k) x ON t.i4 = x.k WHEN MATCHED THEN UPDATE SET s = 'm' "
    "WHEN NOT MATCHED THEN INSERT (i4) VALUES (k)",
    "COPY fuzz_t FROM STDIN", "COPY fuzz_s (id, name) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'x')",
    "COPY fuzz_s FROM STDIN (FORMAT binary)", "COPY fuzz_t TO STDOUT (FORMAT binary)",
    "COPY (SELECT i4, s FROM fuzz_t) TO STDOUT WITH (FORMAT csv, DELIMITER ';', QUOTE '''', FORCE_QUOTE *)",
    "BEGIN", "COMMIT", "ROLLBACK", "BEGIN READ ONLY", "SAVEPOINT p", "ROLLBACK TO SAVEPOINT p", "RELEASE p",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "DECLARE c CURSOR FOR SELECT * FROM fuzz_t",
    "DECLARE c CURSOR WITH HOLD FOR SELECT i FROM generate_series(1, 1000) g (i)", "FETCH 2 FROM c",
    "FETCH ALL FROM c", "MOVE 1 FROM c", "FETCH FORWARD $1 FROM c", "CLOSE c", "CLOSE ALL",
    "PREPARE p (int, text) AS SELECT $1, $2", "EXECUTE p (1, 'a')", "DEALLOCATE p", "DEALLOCATE ALL",
    "SET timezone = 'Europe/Berlin'", "SET DateStyle = 'German'", "SET search_path = a, b", "RESET ALL",
    "SET IntervalStyle = 'iso_8601'", "SET bytea_output = 'escape'", "SET extra_float_digits = 3",
    "SHOW ALL", "SHOW timezone", "EXPLAIN SELECT * FROM fuzz_t WHERE i4 = $1", "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN (VERBOSE, FORMAT json) SELECT count(*) FROM fuzz_t", "DISCARD ALL", "SET weir.as_of = '0'",
    "CREATE TABLE IF NOT EXISTS fuzz_x (a INT DEFAULT 1 CHECK (a > 0), b TEXT NOT NULL)", "DROP TABLE fuzz_x",
    "ALTER TABLE fuzz_x ADD COLUMN c NUMERIC(5,2)", "CREATE OR REPLACE VIEW fuzz_v AS SELECT i4, s FROM fuzz_t",
    "SELECT * FROM fuzz_v", "DROP VIEW IF EXISTS fuzz_v", "TRUNCATE fuzz_t", "ANALYZE fuzz_t",
    "CREATE MATERIALIZED VIEW fuzz_m AS SELECT name, count(*) AS n, max(at) AS m FROM fuzz_s GROUP BY name",
    "SELECT * FROM fuzz_m", "DROP MATERIALIZED VIEW IF EXISTS fuzz_m", "REFRESH MATERIALIZED VIEW fuzz_m",
    "CREATE TABLE fuzz_c AS SELECT i4, n, jb FROM fuzz_t", "DROP TABLE IF EXISTS fuzz_c", "FLUSH TABLE fuzz_s",
    "SELECT * FROM fuzz_s VERSION AS OF 0", "DESCRIBE HISTORY fuzz_t", "OPTIMIZE fuzz_t", "VACUUM fuzz_t DRY RUN",
    "SELECT * FROM pg_catalog.pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE relname = $1",
    "SELECT * FROM information_schema.columns WHERE table_name = $1::name", "VERIFY AUDIT",
    "SELECT pg_get_expr(adbin, adrelid), format_type(atttypid, atttypmod) FROM pg_attrdef, pg_attribute",
    "SELECT i4 FROM fuzz_t UNION SELECT i8 FROM fuzz_t EXCEPT SELECT 1 INTERSECT SELECT 2 ORDER BY 1",
    "SELECT DISTINCT ON (b) b, i4 FROM fuzz_t ORDER BY b, i4 DESC NULLS LAST", "VALUES (1, 'a'), ($1, $2)",
    "SELECT grouping(b), b, i4, count(*) FROM fuzz_t GROUP BY GROUPING SETS ((b), (b, i4), ())",
    "SELECT b, i4, sum(n) FROM fuzz_t GROUP BY ROLLUP (b, i4)", "TABLE fuzz_t", "SELECT (SELECT $1)",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY f8) FILTER (WHERE b), array_agg(s ORDER BY i4) FROM fuzz_t",
    "SELECT jb -> 'b' ->> 'c', j #>> '{a,0}', jb @> '{}', jb ? $1 FROM fuzz_t", "SELECT a[1], a[1:2], a[$1] FROM fuzz_t",
    "SELECT * FROM unnest(ARRAY[1,2], ARRAY['a','b']) WITH ORDINALITY", "SELECT unnest(a), s FROM fuzz_t",
    "SELECT x.* FROM fuzz_t, LATERAL (SELECT fuzz_t.i4 + 1 AS y) x", "SELECT fuzz_t FROM fuzz_t",
    "SELECT user_id, session_id(at, INTERVAL '30 minutes') OVER (PARTITION BY name ORDER BY at) FROM fuzz_s",
    "SELECT window_funnel(INTERVAL '1 hour', at, name = 'a', name = 'b') FROM fuzz_s GROUP BY name",
    "SELECT E'\\u00e9\\x41', U&'\\0041', $$x$$, $a$ $$ $a$, B'101', X'ff', 'a' 'b'", "LISTEN x", "DO 'x'",
    "SELECT date_bin('15 minutes', ts, '2001-01-01'), date_trunc($1, ts), extract(epoch FROM tz) FROM fuzz_t",
    "SELECT to_char(ts, $1), to_char(n, '999D99'), to_timestamp($2, 'YYYY') FROM fuzz_t", "GRANT SELECT ON fuzz_t TO x",
]
PIECES = re.compile(r"'(?:[^']|'')*'|\$\d+|\w+|\s+|::|<>|<=|>=|->>?|#>>?|\|\||.", re.DOTALL)
FORBIDDEN = re.compile(r"\b(password|role|user|owner|program|statement_timeout|schema|authorization)\b", re.I)


class Sql:
    """Makes statements; the functions are those the server has."""

    def __init__(self, rng, functions):
        self.rng, self.functions = rng, functions or ["abs"]

    def expression(self, depth=2):
        rng = self.rng
        if depth <= 0 or rng.random() < 0.15:
            return rng.choice(rng.choice([VALUES, VALUES, COLUMNS, ["$1", "$2", "$3"]]))
        inner = [self.expression(depth - 1) for _ in range(3)]
        shape = rng.randrange(14)
        if shape < 6:
            return f"{rng.choice(self.functions)}({', '.join(inner[:rng.randrange(4)])})"
        if shape < 8:
            return f"({inner[0]} {rng.choice(OPERATORS)} ({inner[1]}))"
        return [
            f"({inner[0]})::{rng.choice(TYPES)}", f"CASE WHEN {inner[0]} THEN {inner[1]} ELSE {inner[2]} END",
            f"ARRAY[{inner[0]}, {inner[1]}]", f"({inner[0]}) IS NOT NULL", f"(-({inner[0]}))",
            f"({inner[0]} BETWEEN {inner[1]} AND {inner[2]})",
        ][shape - 8]

    def select(self):
        rng = self.rng
        items = ", ".join(self.expression(rng.randrange(1, 4)) for _ in range(rng.choice([1, 1, 1, 2, 3])))
        text = f"SELECT {items}"
        if rng.random() < 0.6 or any(re.search(rf"\b{c}\b", items) for c in COLUMNS):
            text += " FROM fuzz_t"
        if rng.random() < 0.2:
            text += f" WHERE {self.expression()}"
        if rng.random() < 0.12:
            text += f" GROUP BY {self.expression(1)}"
        if rng.random() < 0.12:
            text += f" ORDER BY {self.expression(1)}"
        return text

    def window(self):
        frame = self.rng.choice(["", "ROWS UNBOUNDED PRECEDING", "RANGE BETWEEN 1 PRECEDING AND 2 FOLLOWING",
                                 "GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
                                 f"ROWS BETWEEN {self.expression(0)} FOLLOWING AND 9223372036854775807 FOLLOWING"])
        return (f"SELECT {self.rng.choice(self.functions)}({self.expression(1)}) OVER (PARTITION BY "
                f"{self.expression(1)} ORDER BY {self.expression(1)} {frame}) FROM fuzz_t")

    def splice(self):
        rng = self.rng
        words = PIECES.findall(rng.choice(SEEDS))
        for _ in range(rng.choice([1, 1, 2, 3])):
            at, how = rng.randrange(len(words) + 1), rng.randrange(7)
            if how == 0:
                del words[at:at + rng.choice([1, 2, 3])]
            elif how == 1:
                words[at:at] = words[at - 2:at + 2]
            elif how in (2, 3):
                donor = PIECES.findall(rng.choice(SEEDS))
                start = rng.randrange(len(donor) + 1)
                words[at:at + rng.randrange(3)] = donor[start:start + rng.choice([1, 2, 4, 8])]
            elif how == 4:
                words[at:at + 1] = [" " + rng.choice(VALUES) + " "]
            elif how == 5:
                words[at:at + 1] = [" " + self.expression(2) + " "]
            elif words:
                words[at % len(words)] = rng.choice(["$65535", "$65536", "$0", "fuzz_t", "*", "NULL", "(", ")", ","])
        return "".join(words)

    def deep(self):
        """Nesting, as an expression of fuzz_case."""
        rng = self.rng
        count = rng.choice([20, 60, 100, 200, 500, 1000, 3000, 10000, 20000])
        before, core, after = rng.choice([
            ("(", "1", ")"), ("NOT ", "true", ""), ("- ", "1", ""), ("ARRAY[", "1", "]"), ("+", "1", ""),
            ("CASE WHEN true THEN ", "1", " ELSE 0 END"), ("(SELECT ", "1", ")"), ("abs(", "1", ")"),
            ("1+", "1", ""), ("", "1", "::int"), ("'a'||", "'b'", ""), ("true AND ", "true", ""), ("~", "1", ""),
            ("true OR (", "true", ")"), ("1 = ", "1", ""), ("", "1", " IS NULL"), ("coalesce(", "NULL", ", 1)"),
            ("CAST(", "1", " AS int)"), ("", "ARRAY[1]", "[1]"), ("", "'{}'::jsonb", "->'a'"), ("(1, ", "2", ")"),
            ("EXISTS (SELECT ", "1", ")"), ("", "1", " IN (1)"), ("", "1", " BETWEEN 0 AND 1"), ("[", "1", "]"),
            ("1 IN (", "1", ")"), ("'", "a", "'"), ("/*", "1", "*/"), ("x.", "y", ""), ("a(", "b", " => 1)"),
        ])
        middle = {"cat": [{"rep": [before, count]}, core, {"rep": [after, count]}]}
        return rng.choice([
            {"cat": ["SELECT ", middle]}, {"cat": ["SELECT * FROM fuzz_t WHERE ", middle, " = 1"]},
            {"cat": ["EXPLAIN SELECT ", middle]}, {"cat": ["INSERT INTO fuzz_t (i4) VALUES (", middle, ")"]},
            {"cat": [{"rep": ["SELECT * FROM (", count]}, "SELECT 1", {"rep": [") x", count]}]},
            {"cat": ["SELECT 1", {"rep": [" UNION ALL SELECT 1", count]}]},
            {"cat": [{"rep": ["WITH a AS (", count]}, "SELECT 1", {"rep": [") SELECT * FROM a", count]}]},
            {"cat": ["SELECT 1 IN (1", {"rep": [", 1", count]}, ")"]}, {"cat": ["SELECT 1", {"rep": [", 1", count]}]},
            {"cat": ["VALUES (1)", {"rep": [", (1)", count]}]}, {"rep": ["SELECT 1;", count // 10]},
            {"cat": ["SELECT '", {"rep": ["[", count]}, {"rep": ["]", count]}, "'::jsonb"]},
            {"cat": ["SELECT '", {"rep": ["{", count]}, {"rep": ["}", count]}, "'::int[]"]},
            {"cat": ["SELECT 'a' ~ '", {"rep": ["(", count]}, "a", {"rep": [")*", count]}, "'"]},
            {"cat": ["SELECT 1 FROM fuzz_t", {"rep": [" JOIN fuzz_t USING (i4)", min(count, 20)]}]},
            {"cat": ["SELECT ", {"rep": ["fuzz_t.", count]}, "i4 FROM fuzz_t"]},
        ])

    def statement(self):
        """Any statement, as an expression of fuzz_case."""
        rng = self.rng
        while True:
            text = rng.choice([self.select, self.select, self.select, self.splice, self.splice, self.window,
                               lambda: rng.choice(SEEDS), lambda: rng.choice(SEEDS)])()
            if not FORBIDDEN.search(text):
                break
        if rng.random() < 0.05:
            return self.deep()
        if rng.random() < 0.06:
            return {"mut": [text, rng.randrange(10**6)]}
        return text
