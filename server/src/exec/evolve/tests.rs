//! Rows of Arrow data and of decoded text, in a table that rescues what has no place, and in one that
//! gets columns.

mod model;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use catalog::{Column, Oid, Relation, RelationKind, SqlType};
use serde_json::{Value, json};

use super::*;

fn column(name: &str, sql_type: SqlType, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        sql_type,
        nullable,
        default: None,
        generated: None,
        comment: None,
        since: None,
    }
}

fn table(evolution: &str) -> Relation {
    Relation {
        oid: Oid(1),
        schema: Oid(2),
        name: "t".to_owned(),
        kind: RelationKind::StreamingTable,
        owner: Oid(3),
        columns: vec![
            column("id", SqlType::Int8, false),
            column("n", SqlType::Int4, true),
            column("u", SqlType::Uuid, true),
            rescued_column(),
        ],
        partition_by: Vec::new(),
        checks: BTreeMap::new(),
        options: [("schema_evolution".to_owned(), evolution.to_owned())].into(),
        location: None,
        query: None,
        depends_on: Vec::new(),
        materialized: None,
        comment: None,
        version: 0,
    }
}

fn rescue(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, values)| (name, values, true)),
    );
    let prepared = rescue::rows(&batch.unwrap(), &table("rescue"), "UTC")?;
    first([&prepared.bad])?;
    Ok(prepared.batch)
}

fn kept(batch: &RecordBatch) -> Vec<Value> {
    let Some(texts) = batch.column_by_name(RESCUED) else {
        return vec![Value::Null; batch.num_rows()];
    };
    let texts = texts.as_string::<i32>().iter();
    texts
        .map(|t| t.map_or(Value::Null, |t| serde_json::from_str(t).expect(t)))
        .collect()
}

fn ids(ids: &[i64]) -> (&'static str, ArrayRef) {
    ("id", Arc::new(Int64Array::from(ids.to_vec())))
}

#[test]
fn options_count_on_streaming_tables() {
    assert_eq!(option(&table("RESCUE")), Some(Evolution::Rescue));
    assert_eq!(option(&table("add")), Some(Evolution::Add));
    assert_eq!(option(&table("reject")), None);
    let plain = Relation {
        kind: RelationKind::Table,
        ..table("add")
    };
    assert_eq!(option(&plain), None);
}

#[test]
fn rows_that_fit_stay_as_they_are() {
    let n: ArrayRef = Arc::new(Float64Array::from(vec![Some(4.0), None]));
    let batch = rescue(vec![ids(&[1, 2]), ("n", n)]).unwrap();
    assert!(batch.column_by_name(RESCUED).is_none());
    assert_eq!(batch.column(1).as_primitive::<Int32Type>().value(0), 4);
}

#[test]
fn single_values_are_rescued_and_the_others_stay() {
    let n: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), Some("x\n\"}"), None]));
    let u: ArrayRef = Arc::new(StringArray::from(vec!["nobody", "", "?"]));
    let batch = rescue(vec![ids(&[1, 2, 3]), ("n", n), ("u", u)]).unwrap();
    let n = batch.column(1).as_primitive::<Int32Type>();
    assert_eq!((n.value(0), n.null_count()), (7, 2));
    assert_eq!(batch.column(2).null_count(), 3);
    let expected = [
        json!({"u": "nobody"}),
        json!({"n": "x\n\"}", "u": ""}),
        json!({"u": "?"}),
    ];
    assert_eq!(kept(&batch), expected);
    // a fraction is not rounded away
    let n: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
    let batch = rescue(vec![ids(&[1]), ("n", n)]).unwrap();
    assert_eq!(kept(&batch), [json!({"n": 0.5})]);
}

#[test]
fn strangers_of_every_shape_become_json() {
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None]));
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        None,
    ]));
    let x: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let nested: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Utf8, true)),
        x,
    )]));
    let batch = rescue(vec![
        ids(&[1, 2]),
        ("at", at),
        ("list", list),
        ("s", nested),
    ])
    .unwrap();
    let kept = kept(&batch);
    assert_eq!(kept[0]["list"], json!([1, null]));
    assert_eq!(kept[0]["s"], json!({"x": "a"}));
    assert_eq!(kept[0]["at"], json!("1970-01-01T00:00:00"));
    assert!(kept[1].get("list").is_none());
}

#[test]
fn what_was_rescued_before_is_joined() {
    let before: ArrayRef = Arc::new(StringArray::from(vec![
        Some("{\"a\": 1}"),
        Some(" { } "),
        None,
    ]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None, Some(3)]));
    let batch = rescue(vec![ids(&[1, 2, 3]), (RESCUED, before), ("b", b)]).unwrap();
    let expected = [json!({"a": 1, "b": 2}), Value::Null, json!({"b": 3})];
    assert_eq!(kept(&batch), expected);
    let wrong: ArrayRef = Arc::new(StringArray::from(vec!["[1]"]));
    let e = rescue(vec![ids(&[1]), (RESCUED, wrong)]).unwrap_err();
    assert_eq!(e.state(), SqlState::INVALID_TEXT_REPRESENTATION);
}

#[test]
fn a_column_without_null_gives_nothing_away() {
    let id: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    let e = rescue(vec![("id", id)]).unwrap_err();
    assert_eq!(e.state(), SqlState::INVALID_TEXT_REPRESENTATION);
}

#[test]
fn a_bad_row_leaves_the_others() {
    let id: ArrayRef = Arc::new(StringArray::from(vec!["1", "two", "3", "4"]));
    let kept: ArrayRef = Arc::new(StringArray::from(vec![None, None, Some("[]"), Some("{}")]));
    let batch = RecordBatch::try_from_iter_with_nullable([("id", id, true), (RESCUED, kept, true)]);
    let prepared = rescue::rows(&batch.unwrap(), &table("rescue"), "UTC").unwrap();
    assert_eq!(prepared.bad.keys().copied().collect::<Vec<_>>(), [1, 2]);
    let ids = prepared.batch.column(0).as_primitive::<Int64Type>();
    assert_eq!(ids.values(), &[1, 4]);
    assert_eq!([prepared.given(0), prepared.given(1)], [0, 3]);
}

/// What does not fit is found in all places, and only there.
#[test]
fn misfits_are_found_by_halving() {
    let column = column("n", SqlType::Int4, true);
    for wrong in [vec![], vec![0], vec![6], vec![2, 3], (0..7).collect()] {
        let texts = (0..7).map(|n| match wrong.contains(&n) {
            true => "?".to_owned(),
            false => n.to_string(),
        });
        let given: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let found = misfits(&given, &column, "UTC");
        assert_eq!(found.iter().map(|(n, _)| *n).collect::<Vec<_>>(), wrong);
    }
}
