use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Field, Int64Type, Schema, SchemaRef};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use catalog::SqlType;
use proptest::prelude::*;

use super::{BadRows, TextFormat, table};
use crate::error::{Error, SqlState};
use crate::types::{self, DEFAULT_KEY, Evolution, RESCUED};

fn schema() -> SchemaRef {
    let numeric = SqlType::Numeric {
        precision: 12,
        scale: 3,
    };
    let columns = [
        ("b", SqlType::Bool),
        ("i", SqlType::Int4),
        ("n", SqlType::Int8),
        ("f", SqlType::Float8),
        ("d", numeric),
        ("t", SqlType::Text),
        ("u", SqlType::Uuid),
        ("j", SqlType::Jsonb),
        ("x", SqlType::Bytea),
        ("day", SqlType::Date),
        ("at", SqlType::Timestamptz),
        ("list", SqlType::Array(Box::new(SqlType::Int8))),
    ];
    let mut fields: Vec<Field> = columns
        .iter()
        .map(|(name, ty)| types::field(name, ty, true))
        .collect();
    fields.push(types::field("must", &SqlType::Int8, false));
    let mut metadata = std::collections::HashMap::new();
    metadata.insert(DEFAULT_KEY.to_owned(), "true".to_owned());
    fields.push(types::field("def", &SqlType::Text, true).with_metadata(metadata));
    Arc::new(Schema::new(fields))
}

fn strict(format: TextFormat, text: &str) -> Result<Vec<RecordBatch>, Error> {
    over(format, text, &schema())
}

fn over(format: TextFormat, text: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>, Error> {
    let decoded = super::text(format, &text.to_owned().into(), schema, BadRows::Refuse)?;
    assert!(decoded.letters.is_empty());
    Ok(decoded.pieces.into_iter().map(|p| p.batch).collect())
}

fn ndjson(text: &str) -> Result<Vec<RecordBatch>, Error> {
    strict(TextFormat::NdJson, text)
}

/// The values of `must` that were good, and position, bytes and code of what was not.
type Sorted = (Vec<i64>, Vec<(String, String, &'static str)>);

fn sorted(format: TextFormat, text: impl Into<bytes::Bytes>) -> Sorted {
    let decoded = super::text(format, &text.into(), &schema(), BadRows::Collect).unwrap();
    let mut good = Vec::new();
    for piece in &decoded.pieces {
        let must = piece.batch.column_by_name("must").unwrap();
        for row in 0..piece.batch.num_rows() {
            good.push(must.as_primitive::<Int64Type>().value(row));
            assert!(!piece.raw(row).unwrap().bytes.is_empty());
        }
    }
    let bad = decoded.letters.iter().map(|l| {
        let bytes = String::from_utf8_lossy(&l.raw.bytes).into_owned();
        (l.raw.position.clone().unwrap(), bytes, l.state.0)
    });
    (good, bad.collect())
}

fn letter(position: &str, bytes: &str, state: &'static str) -> (String, String, &'static str) {
    (position.to_owned(), bytes.to_owned(), state)
}

#[test]
fn bad_lines_are_left_out() {
    let text = b"{\"must\":1,\"list\":[1]}\n{\"must\":tru}\r\n\n{\"must\":2,\"i\":\"x\",\"t\":\"y\"}\n\xff\n{\"no\":1}\n{\"must\":3,\"list\":[true]}\n{\"must\":4}";
    let (good, bad) = sorted(TextFormat::NdJson, text.to_vec());
    assert_eq!(good, [1, 4]);
    assert_eq!(
        bad,
        [
            letter("line 2", "{\"must\":tru}", "22P02"),
            letter("line 4", "{\"must\":2,\"i\":\"x\",\"t\":\"y\"}", "22P02"),
            letter("line 5", "\u{fffd}", "22021"),
            letter("line 6", "{\"no\":1}", "42703"),
            letter("line 7", "{\"must\":3,\"list\":[true]}", "22P02"),
        ]
    );
}

#[test]
fn bad_elements_and_records_are_left_out() {
    let (good, bad) = sorted(
        TextFormat::JsonArray,
        "[{\"must\":1}, 5,\n{\"must\": null}]",
    );
    assert_eq!(good, [1]);
    assert_eq!(
        bad,
        [
            letter("line 1", "5", "22P02"),
            letter("line 2", "{\"must\": null}", "23502")
        ]
    );
    let text = b"must,t\n1,\"a\nb\"\n2\nx,\"c\nd\"\n3,\xff\n4,e".to_vec();
    let (good, bad) = sorted(TextFormat::Csv, text);
    assert_eq!(good, [1, 4]);
    assert_eq!(
        bad,
        [
            letter("line 4", "2", "22P04"),
            letter("line 5", "x,\"c\nd\"", "22P02"),
            letter("line 7", "3,\u{fffd}", "22021"),
        ]
    );
}

#[test]
fn bytes_of_rows_are_found_again() {
    let body = "{\"must\":1}\n{\"must\":bad}\n{\"must\":2,\"def\":\"x\"}\n{\"must\":3}".into();
    let columns = schema();
    let decoded = super::text(TextFormat::NdJson, &body, &columns, BadRows::Collect).unwrap();
    let raws: Vec<_> = decoded
        .pieces
        .iter()
        .flat_map(|p| (0..p.batch.num_rows()).map(|row| p.raw(row).unwrap().bytes))
        .collect();
    let all = ["{\"must\":1}", "{\"must\":3}", "{\"must\":2,\"def\":\"x\"}"];
    assert_eq!(raws, all);
}

fn one(text: &str) -> RecordBatch {
    let mut batches = ndjson(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

fn told(text: &str) -> (String, SqlState) {
    let e = ndjson(text).expect_err(text);
    (e.to_string(), e.state())
}

#[test]
fn every_type_is_read() {
    let batch = one(
        r#"{"must":1,"b":true,"i":-5,"n":9223372036854775807,"f":1.5e3,"d":12.3456,"t":"a\n\"b\"","u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","j":{"k": [1,{"z":null}]},"x":"\\x00fF","day":"2026-01-31","at":"2026-01-31T12:00:00+02:00","list":[1,null,3]}"#,
    );
    let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
    assert!(column("b").as_boolean().value(0));
    assert_eq!(column("n").as_primitive::<Int64Type>().value(0), i64::MAX);
    assert_eq!(column("f").as_primitive::<Float64Type>().value(0), 1500.0);
    assert_eq!(column("d").as_primitive::<Decimal128Type>().value(0), 12346);
    assert_eq!(column("t").as_string::<i32>().value(0), "a\n\"b\"");
    assert_eq!(
        column("u").as_string::<i32>().value(0),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    );
    assert_eq!(
        column("j").as_string::<i32>().value(0),
        r#"{"k": [1,{"z":null}]}"#
    );
    assert_eq!(column("x").as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(column("day").as_primitive::<Date32Type>().value(0), 20484);
    let at = column("at")
        .as_primitive::<TimestampMicrosecondType>()
        .value(0);
    assert_eq!(at, 1_769_853_600_000_000);
    let list = column("list").as_list::<i32>().value(0);
    assert_eq!(list.len(), 3);
    assert!(list.is_null(1));
    assert_eq!(
        batch.schema().field_with_name("at").unwrap().data_type(),
        column("at").data_type()
    );
}

#[test]
fn numbers_may_come_as_strings_and_strings_never_as_numbers() {
    let batch = one(r#"{"must":"7","n":3.0,"d":"0.0005","f":"NaN","j":"text","i":null}"#);
    assert_eq!(
        batch
            .column_by_name("must")
            .unwrap()
            .as_primitive::<Int64Type>()
            .value(0),
        7
    );
    assert_eq!(
        batch
            .column_by_name("n")
            .unwrap()
            .as_primitive::<Int64Type>()
            .value(0),
        3
    );
    assert_eq!(
        batch
            .column_by_name("d")
            .unwrap()
            .as_primitive::<Decimal128Type>()
            .value(0),
        1
    );
    assert_eq!(
        batch
            .column_by_name("j")
            .unwrap()
            .as_string::<i32>()
            .value(0),
        "\"text\""
    );
    assert!(batch.column_by_name("i").unwrap().is_null(0));
    assert!(batch.column_by_name("t").unwrap().is_null(0));
    for (text, state) in [
        (r#"{"must":1,"t":5}"#, "22P02"),
        (r#"{"must":1,"t":{"a":1}}"#, "22P02"),
        (r#"{"must":1,"b":"true"}"#, "22P02"),
        (r#"{"must":1,"i":1.5}"#, "22P02"),
        (r#"{"must":1,"i":3000000000}"#, "22003"),
        (r#"{"must":1,"n":92233720368547758070}"#, "22003"),
        (r#"{"must":1,"d":1e12}"#, "22003"),
        (r#"{"must":1,"at":1700000000}"#, "22P02"),
        (r#"{"must":1,"at":"yesterday"}"#, "22P02"),
        (r#"{"must":1,"u":"no"}"#, "22P02"),
        (r#"{"must":1,"x":"00"}"#, "22P02"),
        (r#"{"must":1,"t":"a\u0000b"}"#, "22021"),
        (r#"{"must":1,"list":["x"]}"#, "22P02"),
        (r#"{"must":null}"#, "23502"),
        ("{}", "23502"),
    ] {
        let (message, found) = told(text);
        assert_eq!(found.0, state, "{text}: {message}");
        assert!(message.starts_with("line 1, column \""), "{message}");
    }
}

#[test]
fn errors_name_the_line() {
    let good = "{\"must\":1}\n\n{\"must\":2}\r\n";
    assert_eq!(
        told(&format!("{good}{{\"must\":tru}}")).0,
        "line 4: invalid JSON at character 12: expected ident"
    );
    assert_eq!(
        told(&format!("{good}{{\"nope\":1}}")).0,
        "line 4: column \"nope\" does not exist"
    );
    assert_eq!(
        told(&format!("{good}{{\"nope\":1}}")).1,
        SqlState::UNDEFINED_COLUMN
    );
    assert!(told(&format!("{good}[1]")).0.starts_with("line 4: "));
    assert!(
        told(&format!("{good}{{\"must\":1}} x"))
            .0
            .starts_with("line 4: ")
    );
    assert_eq!(
        told("{\"must\":1,\"must\":2}").0,
        "line 1: a key appears twice"
    );
    assert!(
        told("{\"must\":1,\"list\":[1]}\n{\"must\":1,\"list\":[true]}")
            .0
            .starts_with("line 2, column \"list\"")
    );
    assert_eq!(
        table::utf8(b"{}\n\xff", 1).unwrap_err().to_string(),
        "line 2: the text is not UTF-8"
    );
}

#[test]
fn arrays_are_read_and_name_their_lines() {
    let read = |text: &str| strict(TextFormat::JsonArray, text);
    let batches = read("[\n  {\"must\": 1},\n  {\"must\": 2,\n   \"t\": \"x\"}\n]").unwrap();
    assert_eq!(batches[0].num_rows(), 2);
    assert!(read("[]").unwrap().is_empty());
    let told = |text: &str| read(text).unwrap_err().to_string();
    assert_eq!(
        told("[\n {\"must\": 1},\n {\"must\": \"x\"}]"),
        "line 3, column \"must\": invalid input for type bigint: \"x\""
    );
    assert!(told("[{\"must\": 1}").contains("invalid JSON"));
    assert!(told("{\"must\": 1}").contains("an array of objects"));
    assert!(told("[{\"must\": 1}, 5]").starts_with("line 1"));
    assert_eq!(
        told("[\n{\"no\": 1}]"),
        "line 2: column \"no\" does not exist"
    );
}

#[test]
fn csv_has_a_header_and_empty_is_null() {
    let read = |text: &str| strict(TextFormat::Csv, text);
    let batches =
        read("must,t,b,day,j\n1,\"a,\nb\",t,2026-01-01,\"{\"\"k\"\":1}\"\n2,,,,\n").unwrap();
    let batch = &batches[0];
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(
        batch
            .column_by_name("t")
            .unwrap()
            .as_string::<i32>()
            .value(0),
        "a,\nb"
    );
    assert!(batch.column_by_name("t").unwrap().is_null(1));
    let told = |text: &str| read(text).unwrap_err().to_string();
    assert_eq!(
        told("must,zz\n1,2\n"),
        "line 1: column \"zz\" does not exist"
    );
    assert_eq!(
        told("must,must\n1,2\n"),
        "line 1: column \"must\" appears twice"
    );
    assert_eq!(
        told("must,t\n1,a\n2\n"),
        "line 3: 1 fields where the header has 2"
    );
    assert!(told("must\n1\nx\n").starts_with("line 3, column \"must\": invalid input"));
}

#[test]
fn a_left_out_column_with_a_default_is_not_null() {
    let text = "{\"must\":1}\n{\"must\":2,\"def\":\"x\"}\n{\"must\":3}\n{\"must\":4,\"def\":null}";
    let batches = ndjson(text).unwrap();
    assert_eq!(batches.len(), 2);
    assert!(batches[0].column_by_name("def").is_none());
    assert_eq!(batches[0].num_rows(), 2);
    let def = batches[1].column_by_name("def").unwrap();
    assert_eq!(def.as_string::<i32>().value(0), "x");
    assert!(def.is_null(1));
}

#[test]
fn many_rows_come_in_several_batches() {
    let text: String = (0..70_000).map(|n| format!("{{\"must\":{n}}}\n")).collect();
    let batches = ndjson(&text).unwrap();
    assert_eq!(batches.len(), 2);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 70_000);
    assert_eq!(
        *batches[0]
            .schema()
            .field_with_name("must")
            .unwrap()
            .data_type(),
        DataType::Int64
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = ndjson(&text);
        let _ = strict(TextFormat::JsonArray, &text);
        let _ = strict(TextFormat::Csv, &text);
    }

    #[test]
    fn no_value_panics(key in "(b|i|n|f|d|t|u|j|x|day|at|list)", value in "(\"\\PC{0,12}\"|-?[0-9.eE+-]{1,12}|\\[[0-9,]{0,6}\\])") {
        let _ = ndjson(&format!("{{\"must\":1,\"{key}\":{value}}}"));
        let _ = strict(TextFormat::Csv, &format!("must,{key}\n1,{value}"));
    }
}

fn keeping(evolution: Evolution) -> SchemaRef {
    Arc::new(evolution.marking(schema().as_ref().clone()))
}

fn kept(batch: &RecordBatch) -> Vec<Option<serde_json::Value>> {
    let texts = batch.column_by_name(RESCUED).expect("strays");
    let texts = texts.as_string::<i32>().iter();
    texts
        .map(|t| t.map(|t| serde_json::from_str(t).unwrap()))
        .collect()
}

#[test]
fn what_has_no_column_is_kept_where_the_table_keeps_it() {
    let text = "{\"must\":1,\"i\":5}\n\
                {\"must\":2,\"x y\":[1, 2],\"i\":\"five\",\"new\":null}\n\
                {\"must\":3,\"\\u00e9\":\"q\\n\",\"t\":4}\n{\"must\":4}";
    let expected = [
        None,
        Some(serde_json::json!({"x y": [1, 2], "i": "five", "new": null})),
        Some(serde_json::json!({"é": "q\n", "t": 4})),
        None,
    ];
    for evolution in [Evolution::Add, Evolution::Rescue] {
        let batches = over(TextFormat::NdJson, text, &keeping(evolution)).unwrap();
        assert_eq!(kept(&batches[0]), expected);
        let array = format!("[{}]", text.replace('\n', ","));
        let batches = over(TextFormat::JsonArray, &array, &keeping(evolution)).unwrap();
        assert_eq!(kept(&batches[0]), expected);
        // no column for it when no row needs one
        let batches = over(TextFormat::NdJson, "{\"must\":1}", &keeping(evolution)).unwrap();
        assert!(batches[0].column_by_name(RESCUED).is_none());
    }
}

#[test]
fn what_cannot_be_kept_is_an_error() {
    for (line, state) in [
        ("{\"must\":1,\"z\":1,\"z\":2}", SqlState::DUPLICATE_COLUMN),
        (
            "{\"must\":1,\"z\":\"\\u0000\"}",
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        ),
        (
            "{\"must\":1,\"t\":\"\\u0000\"}",
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        ),
        ("{\"must\":\"x\"}", SqlState::INVALID_TEXT_REPRESENTATION),
    ] {
        let e = over(TextFormat::NdJson, line, &keeping(Evolution::Rescue)).expect_err(line);
        assert_eq!(e.state(), state, "{line}");
    }
    // a column of 'add' may become wider, whatever it takes now
    let batches = over(
        TextFormat::NdJson,
        "{\"must\":\"x\"}",
        &keeping(Evolution::Add),
    )
    .unwrap();
    assert_eq!(kept(&batches[0]), [Some(serde_json::json!({"must": "x"}))]);
}

#[test]
fn a_number_that_a_double_would_round_is_kept() {
    let text = "{\"must\":1,\"f\":9007199254740993}\n{\"must\":1,\"f\":0.30000000000000004}";
    let batches = over(TextFormat::NdJson, text, &keeping(Evolution::Add)).unwrap();
    let expected = [
        Some(serde_json::json!({"f": 9_007_199_254_740_993_u64})),
        None,
    ];
    assert_eq!(kept(&batches[0]), expected);
}
