use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNanoType, Schema, SchemaRef,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use catalog::{Column, SqlType};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions, Value};
use serde_json::json;
use serde_json::value::RawValue;

use super::schema::{by_indexes, choose, compile, kept, offered};
use super::{indexes, only};
use crate::error::Result;
use crate::kafka::decode::Decoder;
use crate::kafka::messages::Messages;
use crate::kafka::options::{Options, declare};
use crate::types;

const ROW: &str = r#"
syntax = "proto3";
package t;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/any.proto";
enum Color { NONE = 0; RED = 1; }
message Inner {
  message Deeper { int32 x = 1; }
  map<string, int32> counts = 1;
  int64 a = 2;
  repeated Inner more = 3;
  optional bool flag = 4;
  bytes raw = 5;
  Color color = 6;
  message Deepest { int32 y = 1; }
}
message Row {
  int32 i = 1;
  sint64 l = 2;
  uint64 u = 3;
  double d = 4;
  float f = 5;
  bool ok = 6;
  string s = 7;
  Color color = 8;
  google.protobuf.Timestamp at = 9;
  Inner inner = 10;
  repeated int64 list = 11;
  map<string, int32> counts = 12;
  optional int32 maybe = 13;
  google.protobuf.StringValue wrapped = 14;
  fixed32 fx = 15;
  oneof which { string left = 16; int64 right = 17; }
  repeated string names = 18;
  google.protobuf.Struct extra = 19;
  google.protobuf.Int64Value boxed = 20;
  bytes raw = 21;
  google.protobuf.Duration span = 22;
  repeated bytes pieces = 23;
  google.protobuf.Any any = 24;
  int64 camelCase = 25;
}
"#;

fn array(of: SqlType) -> SqlType {
    SqlType::Array(Box::new(of))
}

fn whole() -> SqlType {
    SqlType::Numeric {
        precision: 20,
        scale: 0,
    }
}

/// The columns whose values are the same by way of JSON.
fn columns() -> Vec<(&'static str, SqlType)> {
    vec![
        ("i", SqlType::Int4),
        ("l", SqlType::Int8),
        ("u", whole()),
        ("d", SqlType::Float8),
        ("f", SqlType::Float4),
        ("ok", SqlType::Bool),
        ("s", SqlType::Text),
        ("color", SqlType::Text),
        ("at", SqlType::Timestamptz),
        ("inner", SqlType::Jsonb),
        ("list", array(SqlType::Int8)),
        ("counts", SqlType::Jsonb),
        ("maybe", SqlType::Int4),
        ("wrapped", SqlType::Text),
        ("fx", SqlType::Int8),
        ("left", SqlType::Text),
        ("right", SqlType::Int8),
        ("names", array(SqlType::Text)),
        ("extra", SqlType::Jsonb),
        ("boxed", SqlType::Int8),
    ]
}

fn row_type() -> MessageDescriptor {
    only(ROW, Some("t.Row")).unwrap()
}

fn rows(format: &str, columns: &[(&str, SqlType)], values: &[&[u8]]) -> Result<Vec<RecordBatch>> {
    let columns: Vec<Column> = columns
        .iter()
        .map(|(name, ty)| Column {
            since: None,
            name: (*name).to_owned(),
            sql_type: ty.clone(),
            nullable: true,
            default: None,
            generated: None,
            comment: None,
        })
        .collect();
    let mut given = BTreeMap::from([("brokers", "h"), ("topic", "t"), ("format", format)]);
    if format == "protobuf" {
        given.extend([("schema", ROW), ("message", "t.Row")]);
    }
    let given = given
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let options = Options::of(&declare(&given, &columns)?, &columns)?;
    let fields: Vec<_> = columns
        .iter()
        .map(|c| types::field(&c.name, &c.sql_type, true))
        .collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let values: Vec<Option<&[u8]>> = values.iter().map(|v| Some(*v)).collect();
    let messages = Messages::of(&options, &values);
    Decoder::new(&options, None).decode(&messages, 0..values.len(), &schema)
}

fn message(json: &serde_json::Value) -> DynamicMessage {
    DynamicMessage::deserialize(row_type(), json).unwrap()
}

fn one(column: &str, ty: SqlType, json: &serde_json::Value) -> Result<RecordBatch> {
    let bytes = message(json).encode_to_vec();
    Ok(rows("protobuf", &[(column, ty)], &[&bytes])?.remove(0))
}

/// Batches as values in which the order of JSON's keys counts for nothing.
fn comparable(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = arrow::util::display::FormatOptions::default();
    let mut all = Vec::new();
    for batch in batches {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let texts = arrow::util::display::ArrayFormatter::try_new(column, &options).unwrap();
            let json = field.metadata().contains_key(types::TYPE_KEY);
            all.push(
                (0..column.len())
                    .map(|row| match (column.is_null(row), json) {
                        (true, _) => "NULL".to_owned(),
                        (_, false) => texts.value(row).to_string(),
                        (_, true) => {
                            let text = texts.value(row).to_string();
                            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                            value.to_string()
                        }
                    })
                    .collect(),
            );
        }
    }
    all
}

fn inner() -> impl Strategy<Value = serde_json::Value> {
    let leaf = (any::<i64>(), any::<Option<bool>>(), any::<Vec<u8>>(), 0..2).prop_map(
        |(a, flag, raw, color)| {
            let raw = BASE64_STANDARD.encode(raw);
            let color = if color == 0 { "NONE" } else { "RED" };
            json!({"a": a, "flag": flag, "raw": raw, "color": color, "counts": {"k": 1, "j": -2}})
        },
    );
    leaf.prop_recursive(3, 8, 3, |of| {
        (any::<i64>(), proptest::collection::vec(of, 0..3))
            .prop_map(|(a, more)| json!({"a": a, "more": more}))
    })
}

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-cäß\"\\\\\n\t€😀/]{0,9}").unwrap()
}

prop_compose! {
    fn row()(
        i in any::<i32>(),
        l in any::<i64>(),
        u in any::<u64>(),
        d in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        f in proptest::num::f32::NORMAL,
        ok in any::<bool>(),
        s in text(),
        red in any::<bool>(),
        at in proptest::option::of((-2_000_000_000_i64..4_000_000_000, 0..1_000_000_000_u32)),
        nested in proptest::option::of(inner()),
        list in any::<Vec<i64>>(),
        more in (
            proptest::collection::btree_map(text(), any::<i32>(), 0..4),
            any::<Option<i32>>(),
            proptest::option::of(text()),
            any::<u32>(),
            proptest::option::of(any::<i64>()),
            proptest::collection::vec(text(), 0..4),
            proptest::option::of(text()),
        ),
    ) -> serde_json::Value {
        let (counts, maybe, wrapped, fx, right, names, extra) = more;
        let at = at.and_then(|(seconds, nanos)| chrono::DateTime::from_timestamp(seconds, nanos))
            .map(|at| at.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string());
        let mut row = json!({
            "i": i, "l": l.to_string(), "u": u.to_string(), "d": d, "f": f, "ok": ok, "s": s,
            "color": if red { "RED" } else { "NONE" }, "at": at, "inner": nested, "list": list,
            "counts": counts, "maybe": maybe, "wrapped": wrapped, "fx": fx, "names": names,
            "boxed": maybe,
        });
        match right {
            Some(right) => row["right"] = json!(right),
            None => row["left"] = json!(s),
        }
        if let Some(extra) = extra {
            row["extra"] = json!({"x": extra, "y": [1.5, null, {"z": true}]});
        }
        row
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_is_what_its_json_is(given in proptest::collection::vec(row(), 1..6)) {
        let messages: Vec<DynamicMessage> = given.iter().map(message).collect();
        let bytes: Vec<Vec<u8>> = messages.iter().map(DynamicMessage::encode_to_vec).collect();
        let options = SerializeOptions::new()
            .stringify_64_bit_integers(false)
            .use_proto_field_name(true)
            .skip_default_fields(false);
        let texts: Vec<Vec<u8>> = messages
            .iter()
            .map(|message| {
                let mut to = serde_json::Serializer::new(Vec::new());
                message.serialize_with_options(&mut to, &options).unwrap();
                let text = to.into_inner();
                // as they are written: a number read and written again may be another
                let mut row: BTreeMap<String, Box<RawValue>> =
                    serde_json::from_slice(&text).unwrap();
                // fields that the table has no column for
                row.retain(|name, _| columns().iter().any(|(column, _)| column == name));
                serde_json::to_vec(&row).unwrap()
            })
            .collect();
        fn slices(all: &[Vec<u8>]) -> Vec<&[u8]> {
            all.iter().map(Vec::as_slice).collect()
        }
        let by_protobuf = rows("protobuf", &columns(), &slices(&bytes));
        let by_json = rows("json", &columns(), &slices(&texts));
        prop_assert_eq!(comparable(&by_protobuf.unwrap()), comparable(&by_json.unwrap()));
    }

    #[test]
    fn no_bytes_are_more_than_refused(
        given in row(),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message(&given).encode_to_vec();
        for (at, byte) in noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        // good or bad, it comes to an end
        let _ = rows("protobuf", &columns(), &[&bytes]);
        let _ = indexes(&bytes);
    }
}

#[test]
fn values_come_as_their_types() {
    let raw = BASE64_STANDARD.encode([0_u8; 16]);
    let batch = one("raw", SqlType::Bytea, &json!({"raw": raw})).unwrap();
    assert_eq!(batch.column(0).as_binary::<i32>().value(0), [0; 16]);
    let batch = one("raw", SqlType::Uuid, &json!({"raw": raw})).unwrap();
    assert_eq!(
        batch.column(0).as_string::<i32>().value(0),
        "00000000-0000-0000-0000-000000000000"
    );
    let batch = one("raw", SqlType::Jsonb, &json!({"raw": "AQI="})).unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "\"AQI=\"");
    let batch = one("span", SqlType::Interval, &json!({"span": "-90.25s"})).unwrap();
    let span = batch.column(0).as_primitive::<IntervalMonthDayNanoType>();
    assert_eq!(span.value(0).nanoseconds, -90_250_000_000);
    let batch = one("span", SqlType::Text, &json!({"span": "1.5s"})).unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "1.500s");
    let pieces = json!({"pieces": ["AQI=", ""]});
    let batch = one("pieces", array(SqlType::Bytea), &pieces).unwrap();
    let list = batch.column(0).as_list::<i32>().value(0);
    assert_eq!(*list.data_type(), DataType::Binary);
    assert_eq!(list.as_binary::<i32>().value(0), [1, 2]);
    let batch = one("d", SqlType::Float8, &json!({"d": "-Infinity"})).unwrap();
    let d = batch.column(0).as_primitive::<Float64Type>();
    assert_eq!(d.value(0), f64::NEG_INFINITY);
    // what a float is, not what it is printed as
    let batch = one("f", SqlType::Float8, &json!({"f": 0.1})).unwrap();
    let f = batch.column(0).as_primitive::<Float64Type>();
    assert_eq!(f.value(0), f64::from(0.1_f32));
    let batch = one("camelCase", SqlType::Text, &json!({"camelCase": 7})).unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "7");
    let batch = one("color", SqlType::Int8, &json!({"color": "RED"})).unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 1);
    let any = json!({"any": {"@type": "x/t.Inner", "a": 5}});
    let batch = one("any", SqlType::Jsonb, &any).unwrap();
    let text = batch.column(0).as_string::<i32>().value(0);
    assert!(text.starts_with("{\"@type\":\"x/t.Inner\","), "{text}");
    assert!(text.contains("\"a\":5"), "{text}");
    // what is not set has no value where that can be told, and its default otherwise
    let batch = one("maybe", SqlType::Int4, &json!({})).unwrap();
    assert!(batch.column(0).is_null(0));
    let batch = one("l", SqlType::Int8, &json!({})).unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 0);
    // a text in a column of JSON is JSON
    let batch = one("s", SqlType::Jsonb, &json!({"s": "{\"a\":1}"})).unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "{\"a\":1}");
}

#[test]
fn what_does_not_fit_is_told() {
    for (column, ty, given, state) in [
        ("s", SqlType::Int8, json!({"s": "many"}), "22P02"),
        ("s", SqlType::Jsonb, json!({"s": "{"}), "22P02"),
        ("s", SqlType::Text, json!({"s": "\0"}), "22021"),
        ("u", SqlType::Int8, json!({"u": u64::MAX}), "22003"),
        ("i", SqlType::Int2, json!({"i": 70_000}), "22003"),
        ("i", SqlType::Bool, json!({"i": 1}), "42804"),
        ("ok", SqlType::Int4, json!({"ok": true}), "42804"),
        (
            "at",
            SqlType::Int8,
            json!({"at": "2026-01-01T00:00:00Z"}),
            "42804",
        ),
        ("list", SqlType::Int8, json!({"list": [1]}), "42804"),
        ("d", SqlType::Int8, json!({"d": 1.5}), "22P02"),
        // a field that is set and has no column
        ("i", SqlType::Int4, json!({"s": "x"}), "42703"),
    ] {
        let e = one(column, ty, &given).unwrap_err();
        assert_eq!(e.state().0, state, "{given}: {e}");
    }
    for bytes in [&b"\x08"[..], b"\x0a\x01", b"{}"] {
        let e = rows("protobuf", &columns(), &[bytes]).unwrap_err();
        assert_eq!(e.state().0, "22P02", "{bytes:?}");
    }
    // seconds beyond the year 9999
    let mut far = DynamicMessage::new(row_type());
    let pool = row_type().parent_pool().clone();
    let ty = pool
        .get_message_by_name("google.protobuf.Timestamp")
        .unwrap();
    let mut at = DynamicMessage::new(ty);
    at.set_field_by_number(1, Value::I64(i64::MAX));
    far.set_field_by_name("at", Value::Message(at));
    let e = rows("protobuf", &columns(), &[&far.encode_to_vec()]).unwrap_err();
    assert_eq!(e.state().0, "22P02");
}

#[test]
fn values_inside_values_end() {
    let any = row_type()
        .parent_pool()
        .get_message_by_name("google.protobuf.Any")
        .unwrap();
    let url = "x/google.protobuf.Any";
    let mut inner = DynamicMessage::new(any.clone());
    for _ in 0..5_000 {
        let mut outer = DynamicMessage::new(any.clone());
        outer.set_field_by_number(1, Value::String(url.to_owned()));
        outer.set_field_by_number(2, Value::Bytes(inner.encode_to_vec().into()));
        inner = outer;
    }
    let mut row = DynamicMessage::new(row_type());
    row.set_field_by_name("any", Value::Message(inner));
    let bytes = row.encode_to_vec();
    let e = rows("protobuf", &[("any", SqlType::Jsonb)], &[&bytes]).unwrap_err();
    assert!(format!("{:?}", e.report()).contains("too deep"), "{e}");
    // and so do options inside options
    let deep = "{ a ".repeat(100_000);
    let text = format!(
        "syntax = \"proto2\"; import \"google/protobuf/descriptor.proto\"; \
         message O {{ optional O a = 1; }} extend google.protobuf.FileOptions {{ optional O o = 50000; }} \
         option (o) = {deep}{}; message M {{ optional int32 x = 1; }}",
        "}".repeat(100_000)
    );
    let _ = offered(&text);
    let messages = "message M {".repeat(10_000);
    assert!(offered(&messages).is_err());
}

#[test]
fn schemas_are_texts_or_sets() {
    let all = offered(ROW).unwrap();
    assert_eq!(all.len(), 2);
    assert!(choose(&all, None).unwrap_err().contains("t.Row"));
    assert_eq!(
        choose(&all, Some("t.Inner.Deeper")).unwrap().name(),
        "Deeper"
    );
    assert!(choose(&all, Some("t.Inner.CountsEntry")).is_err());
    let set = row_type().parent_pool().encode_to_vec();
    let text = kept(set.clone());
    assert_ne!(text.as_bytes(), set);
    assert_eq!(only(&text, Some("t.Row")).unwrap().fields().count(), 25);
    assert_eq!(kept(ROW.as_bytes().to_vec()), ROW);
    // nothing is read from the disk
    for import in [
        "/etc/passwd",
        "../etc/passwd",
        "Cargo.toml",
        "google/protobuf/no.proto",
    ] {
        let text = format!("syntax = \"proto3\"; import \"{import}\"; message M {{}}");
        assert!(offered(&text).is_err(), "{import}");
    }
    for text in ["", "message", "AAAA", "syntax = \"proto3\";", "{}"] {
        assert!(only(text, None).is_err(), "{text}");
    }
    let imports = BTreeMap::from([(
        "a/b.proto".to_owned(),
        "syntax = \"proto3\"; package o; message B { int32 x = 1; }".to_owned(),
    )]);
    let text = "syntax = \"proto3\"; import \"a/b.proto\"; message A { o.B b = 1; }";
    assert!(compile(text, &imports).is_ok());
    assert!(compile(text, &BTreeMap::new()).is_err());
}

#[test]
fn indexes_lead_to_a_type() {
    let file = compile(ROW, &BTreeMap::new()).unwrap();
    let name = |at: &[usize]| by_indexes(&file, at).map(|m| m.full_name().to_owned());
    assert_eq!(name(&[0]).as_deref(), Some("t.Inner"));
    assert_eq!(name(&[1]).as_deref(), Some("t.Row"));
    // entries of maps do not count
    assert_eq!(name(&[0, 0]).as_deref(), Some("t.Inner.Deeper"));
    assert_eq!(name(&[0, 1]).as_deref(), Some("t.Inner.Deepest"));
    assert_eq!(name(&[0, 2]), None);
    assert_eq!(name(&[]), None);
    assert_eq!(indexes(b"\0rest"), Some((vec![0], &b"rest"[..])));
    assert_eq!(
        indexes(b"\x04\x02\x00rest"),
        Some((vec![1, 0], &b"rest"[..]))
    );
    for bad in [&b""[..], b"\x01", b"\x02", b"\x80", b"\xfe\xff\xff\xff\x0f"] {
        assert_eq!(indexes(bad), None, "{bad:?}");
    }
}
