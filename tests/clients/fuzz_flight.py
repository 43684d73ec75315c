"""The Flight SQL door: commands, tickets, handles, actions and batches, valid, damaged and forged.

Steps: `info`, `schema`, `get` (bytes of a command or ticket), `action` (name, bytes), `put` (bytes of a
command or a path, rows as a name), `exchange`, `list`, `anonymous` (what follows is sent without a login).
`{"handle": n}` is the handle or ticket that the n-th step answered.
"""

import base64

import pyarrow as pa
import pyarrow.flight as flight

import fuzz_extended
from fuzz_case import TEXTS, evaluate, fields_of
from fuzz_sql import Sql

SECONDS = 15
COMMANDS = [
    ("CommandGetCatalogs", []), ("CommandGetTableTypes", []), ("CommandGetSqlInfo", [[1, 0], [1, 500]]),
    ("CommandGetDbSchemas", [[1, "weir"], [2, "%"]]), ("CommandGetXdbcTypeInfo", [[1, 4]]),
    ("CommandGetTables", [[1, "weir"], [2, "%"], [3, "fuzz_%"], [4, "TABLE"], [5, 1]]),
    ("CommandGetPrimaryKeys", [[3, "fuzz_t"]]), ("CommandGetExportedKeys", [[3, "fuzz_t"]]),
    ("CommandGetImportedKeys", [[3, "fuzz_t"]]), ("CommandGetCrossReference", [[3, "fuzz_t"], [6, "fuzz_s"]]),
    ("CommandStatementSubstraitPlan", [[1, "x"]]), ("Unknown", [[1, "x"]]),
]
ACTIONS = ["CreatePreparedStatement", "ClosePreparedStatement", "BeginTransaction", "EndTransaction",
           "CancelFlightInfo", "SetSessionOptions", "GetSessionOptions", "BeginSavepoint", "EndSavepoint", "", "é"]
ROWS = {
    "ints": pa.table({"id": pa.array([1, 2, None], pa.int64())}),
    "texts": pa.table({"id": ["a", None, "é"]}),
    "none": pa.table({"id": pa.array([], pa.int64())}),
    "bare": pa.table({}),
    "nulls": pa.table({"id": pa.nulls(3)}),
    "twice": pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"]),
    "nested": pa.table({"id": [[{"a": [1]}], None]}),
    "dates": pa.table({"id": pa.array([2**62, -2**62], pa.timestamp("ns", "UTC"))}),
    "decimal": pa.table({"id": pa.array([None, 1], pa.decimal256(70, 3))}),
    "codes": pa.table({"id": pa.array(["a", "b", "a"]).dictionary_encode()}),
    "row": pa.table({"id": pa.array([5], pa.int64()), "at": pa.array([0], pa.timestamp("us", "UTC")), "name": ["n"]}),
}


class Door:
    name = "flight"

    def __init__(self, target):
        self.target = target
        self.tables = fuzz_extended.Door(target)

    def prepare(self):
        self.tables.prepare()

    def generate(self, rng):
        sql = Sql(rng, self.tables.functions)
        text = sql.statement()
        handle = rng.choice([{"handle": 0}, {"handle": 0}, {"x": rng.randbytes(16).hex()}, "", {"rep": ["x", 5000]}])
        name, fields = rng.choice([
            *COMMANDS, *[("CommandStatementQuery", [[1, text]])] * 6, ("CommandStatementQuery", [[1, text], [2, handle]]),
            ("CommandPreparedStatementQuery", [[1, handle]]), ("TicketStatementQuery", [[1, handle]]),
            ("CommandPreparedStatementUpdate", [[1, handle]]), ("CommandStatementUpdate", [[1, text], [2, handle]]),
            ("CommandStatementUpdate", [[1, text]]),
            ("CommandStatementIngest", [[1, {"pb": [[1, rng.randrange(4)], [2, rng.randrange(5)]]}],
                                        [2, rng.choice(["fuzz_s", "fuzz_new", "", *TEXTS])]])])
        command = {"any": [name, {"pb": fields}]}
        if rng.random() < 0.2:
            command = {"mut": [command, rng.randrange(10**6)]}
        steps = [["anonymous"]] if rng.random() < 0.08 else []
        how = rng.randrange(10)
        if how < 4:
            steps += [["info", command], ["get", {"handle": len(steps)}], ["get", command]]
        elif how < 7:
            steps = [["action", "CreatePreparedStatement",
                      {"any": ["ActionCreatePreparedStatementRequest", {"pb": [[1, text]]}]}]]
            own = {"pb": [[1, {"handle": 0}]]}
            query = {"any": ["CommandPreparedStatementQuery", own]}
            steps += [["put", query, rng.choice(list(ROWS))] for _ in range(rng.randrange(2))]
            steps.append(rng.choice([["info", query], ["get", query], ["schema", query],
                                     ["put", {"any": ["CommandPreparedStatementUpdate", own]}, rng.choice(list(ROWS))]]))
            steps.append(["action", "ClosePreparedStatement", {"any": ["ActionClosePreparedStatementRequest", own]}])
        elif how == 7:
            steps.append(["action", rng.choice(ACTIONS), rng.choice([command, {"x": rng.randbytes(20).hex()}])])
            steps.append(["action", "EndTransaction", {"any": ["ActionEndTransactionRequest", {
                "pb": [[1, {"handle": 0}], [2, rng.randrange(4)]]}]}])
        elif how == 8:
            target = rng.choice([command, ["public", "fuzz_s"], ["public", "fuzz_t"], ["a"], [], ["", ""]])
            steps.append(["put", target, rng.choice(list(ROWS))])
        else:
            steps += [["schema", command], ["exchange", command], ["list", command]]
        return {"door": self.name, "steps": steps}

    def run(self, case):
        client = flight.FlightClient(f"grpc://{self.target.host}:{self.target.flight_port}")
        pair = base64.b64encode(f"{self.target.user}:{self.target.password}".encode())
        headers, answers, wrong = [(b"authorization", b"Basic " + pair)], [], []

        def look(number):
            return answers[number] if isinstance(number, int) and -1 < number < len(answers) else None

        with client:
            for step in case["steps"]:
                if step[0] == "anonymous":
                    headers = []
                    answers.append(b"")
                    continue
                try:
                    answers.append(self.call(client, headers, step, look))
                    if not headers:
                        wrong.append(f"unauthenticated: {step[0]} was answered")
                except flight.FlightTimedOutError:
                    wrong.append(f"hang: {step[0]} without an answer after {SECONDS} s")
                    break
                except (flight.FlightError, pa.ArrowException, OSError) as error:
                    text = str(error)
                    answers.append(b"")
                    if "XX000" in text or "XX001" in text:
                        wrong.append(f"XX000: internal {text[:200]}")
                    elif "RST_STREAM" in text or "Socket closed" in text or "Stream removed" in text:
                        wrong.append(f"closed without an ErrorResponse: {text[:200]}")
        return wrong

    @staticmethod
    def call(client, headers, step, look):
        """One call; the handle or ticket in its answer."""
        options = flight.FlightCallOptions(timeout=SECONDS, headers=headers)
        kind = step[0]
        path = isinstance(step[1], list)
        data = b"" if path else evaluate(step[2] if kind == "action" else step[1], look)
        descriptor = (flight.FlightDescriptor.for_path(*[str(p) for p in step[1]]) if path
                      else flight.FlightDescriptor.for_command(data))
        if kind == "info":
            info = client.get_flight_info(descriptor, options)
            return info.endpoints[0].ticket.ticket if info.endpoints else b""
        if kind == "schema":
            client.get_schema(descriptor, options)
        elif kind == "get":
            reader = client.do_get(flight.Ticket(data), options)
            for number, chunk in enumerate(reader):
                chunk.data.validate(full=True)
                if number > 20:
                    reader.cancel()
                    break
        elif kind == "action":
            for result in client.do_action(flight.Action(evaluate(step[1]).decode(errors="replace"), data), options):
                outer = dict(fields_of(result.body.to_pybytes()) or [])
                inner = dict(fields_of(outer.get(2, b"")) or []) if isinstance(outer.get(2), bytes) else {}
                return inner.get(1, b"") if isinstance(inner.get(1), bytes) else b""
        elif kind == "put":
            rows = ROWS.get(step[2] if isinstance(step[2], str) else "", ROWS["ints"])
            writer, reader = client.do_put(descriptor, rows.schema, options)
            try:
                writer.write_table(rows)
                writer.done_writing()
                reader.read()
            finally:
                writer.close()
        elif kind == "exchange":
            writer, reader = client.do_exchange(descriptor, options)
            writer.close()
        else:
            list(client.list_flights(data, options))
        return b""

    def corpus(self):
        """What the corpus begins with: name, steps."""
        for name, fields in COMMANDS:
            command = {"any": [name, {"pb": fields}]}
            yield name.lower(), [["info", command], ["schema", command], ["get", command]]
        query = {"any": ["CommandStatementQuery", {"pb": [[1, "SELECT * FROM fuzz_t"]]}]}
        yield "query", [["info", query], ["get", {"handle": 0}], ["get", {"handle": 0}]]
        yield "anonymous", [["anonymous"], ["info", query], ["get", query], ["schema", query], ["list", ""],
                            ["put", ["public", "fuzz_s"], "row"], ["action", "BeginTransaction", ""]]
        prepare = {"any": ["ActionCreatePreparedStatementRequest", {"pb": [[1, "SELECT $1::bigint"]]}]}
        own = {"any": ["CommandPreparedStatementQuery", {"pb": [[1, {"handle": 0}]]}]}
        yield "prepared-without-parameters", [["action", "CreatePreparedStatement", prepare], ["get", own]]
        for rows in ROWS:
            yield f"prepared-{rows}", [["action", "CreatePreparedStatement", prepare], ["put", own, rows], ["info", own],
                                       ["get", own]]
            yield f"put-{rows}", [["put", ["public", "fuzz_s"], rows]]
