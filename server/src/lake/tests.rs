//! Tables on the local disk: types, statistics, time travel, history.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use catalog::{Column, SqlType};
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use futures::stream;
use tempfile::TempDir;
use url::Url;

use super::*;
use crate::error::{Result, SqlState};
use crate::types;

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

fn every_type() -> SchemaRef {
    types::schema(&[
        column("i", SqlType::Int8, false),
        column("s", SqlType::Text, true),
        column("u", SqlType::Uuid, false),
        column("j", SqlType::Jsonb, true),
        column("v", SqlType::Varchar(10), true),
        column("t", SqlType::Timestamptz, true),
        column("n", SqlType::Timestamp, true),
        column("d", SqlType::Date, true),
        column(
            "m",
            SqlType::Numeric {
                precision: 12,
                scale: 2,
            },
            true,
        ),
        column("f", SqlType::Float8, true),
        column("b", SqlType::Bytea, true),
        column("o", SqlType::Bool, true),
        column("i2", SqlType::Int2, true),
        column("i4", SqlType::Int4, true),
        column("r", SqlType::Float4, true),
        column("a", SqlType::Array(Box::new(SqlType::Text)), true),
    ])
}

fn root(dir: &TempDir, name: &str) -> Url {
    Url::from_directory_path(dir.path().join(name)).unwrap()
}

fn small() -> SchemaRef {
    types::schema(&[
        column("i", SqlType::Int8, false),
        column("t", SqlType::Timestamptz, true),
        column("d", SqlType::Date, true),
        column("s", SqlType::Text, true),
        column(
            "m",
            SqlType::Numeric {
                precision: 12,
                scale: 2,
            },
            true,
        ),
        column("f", SqlType::Float8, true),
    ])
}

fn rows(from: i64, count: i64) -> RecordBatch {
    let range = || from..from + count;
    let days: Vec<Option<i32>> = range()
        .map(|n| (n % 3 != 2).then(|| i32::try_from(n % 3).unwrap() + 20_000))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(range().collect::<Int64Array>()),
        Arc::new(
            range()
                .map(|n| Some(1_700_000_000_000_000 + n))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        Arc::new(Date32Array::from(days)),
        Arc::new(
            range()
                .map(|n| Some(format!("s{n}")))
                .collect::<StringArray>(),
        ),
        Arc::new(
            range()
                .map(|n| Some(i128::from(n)))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(range().map(|_| Some(f64::NAN)).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(small(), columns).unwrap()
}

async fn add(snapshot: &LakeSnapshot, batch: RecordBatch) -> Result<LakeSnapshot> {
    let adds = write_files(snapshot, stream::iter([Ok(batch)])).await?;
    commit(
        snapshot,
        Commit {
            adds,
            ..Commit::default()
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_storable_type_and_its_sql_name_survive() {
    let dir = TempDir::new().unwrap();
    let schema = every_type();
    let made = create(&root(&dir, "t"), &schema, &[]).await.unwrap();
    assert_eq!(made.schema, schema);
    let opened = open(&root(&dir, "t"), At::Latest).await.unwrap();
    assert_eq!(opened.schema, schema);
    assert_eq!(opened.version, 0);
    assert!(opened.root.as_str().ends_with("/t/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_without_a_delta_form_are_refused_with_the_column() {
    let dir = TempDir::new().unwrap();
    for (sql, shown) in [(SqlType::Time, "time"), (SqlType::Interval, "interval")] {
        let schema = types::schema(&[column("when", sql, true)]);
        let e = create(&root(&dir, "t"), &schema, &[]).await.unwrap_err();
        assert_eq!(e.state(), SqlState::FEATURE_NOT_SUPPORTED);
        let message = e.report().message;
        assert!(
            message.contains("\"when\"") && message.contains(shown),
            "{message}"
        );
    }
    let unsigned = Schema::new(vec![arrow::datatypes::Field::new(
        "n",
        DataType::UInt64,
        true,
    )]);
    let e = create(&root(&dir, "t"), &unsigned, &[]).await.unwrap_err();
    assert_eq!(e.state(), SqlState::FEATURE_NOT_SUPPORTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_bounds_that_lose_no_row() {
    let dir = TempDir::new().unwrap();
    let empty = create(&root(&dir, "t"), &small(), &[]).await.unwrap();
    let snapshot = add(&empty, rows(10, 5)).await.unwrap();
    assert_eq!(snapshot.files.len(), 1);
    let stats = &snapshot.files[0].statistics;
    assert_eq!(stats.num_rows, Precision::Exact(5));
    let [i, t, _, s, m, f] = stats.column_statistics.as_slice() else {
        panic!("six columns");
    };
    assert_eq!(i.min_value, Precision::Exact(ScalarValue::Int64(Some(10))));
    assert_eq!(i.max_value, Precision::Exact(ScalarValue::Int64(Some(14))));
    let utc: Option<Arc<str>> = Some("UTC".into());
    let micros =
        |n: i64| ScalarValue::TimestampMicrosecond(Some(1_700_000_000_000_000 + n), utc.clone());
    assert!(*t.min_value.get_value().unwrap() <= micros(10));
    assert!(*t.max_value.get_value().unwrap() >= micros(14));
    assert_eq!(s.min_value, Precision::Inexact(ScalarValue::from("s10")));
    assert_eq!(
        m.max_value,
        Precision::Inexact(ScalarValue::Decimal128(Some(14), 12, 2))
    );
    assert_eq!(f.min_value, Precision::Absent);
    assert_eq!(snapshot.rows(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_values_are_typed_and_null_is_one() {
    let dir = TempDir::new().unwrap();
    let empty = create(&root(&dir, "t"), &small(), &["d".to_owned()])
        .await
        .unwrap();
    let snapshot = add(&empty, rows(0, 9)).await.unwrap();
    let mut values: Vec<ScalarValue> = snapshot
        .files
        .iter()
        .map(|file| file.partition_values[0].clone())
        .collect();
    values.sort_by_key(|v| format!("{v:?}"));
    assert_eq!(
        values,
        [
            ScalarValue::Date32(Some(20_000)),
            ScalarValue::Date32(Some(20_001)),
            ScalarValue::Date32(None),
        ]
    );
    let again = open(&root(&dir, "t"), At::Latest).await.unwrap();
    assert_eq!(again.rows(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_times_are_found_or_refused_with_the_range() {
    let dir = TempDir::new().unwrap();
    let url = root(&dir, "t");
    let mut snapshot = create(&url, &small(), &[]).await.unwrap();
    for n in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        snapshot = add(&snapshot, rows(n * 10, 10)).await.unwrap();
    }
    let records = history(&snapshot, 10).await.unwrap();
    let versions: Vec<i64> = records.iter().map(|r| r.version).collect();
    assert_eq!(versions, [3, 2, 1, 0]);
    assert_eq!(records[0].operation, "WRITE");
    assert_eq!(records[0].rows_added, Some(10));
    assert_eq!(history(&snapshot, 2).await.unwrap().len(), 2);

    let second = open(&url, At::Version(2)).await.unwrap();
    assert_eq!((second.version, second.rows()), (2, Some(20)));
    let at = open(&url, At::Timestamp(records[2].at_micros))
        .await
        .unwrap();
    assert_eq!(at.version, 1);
    let late = open(&url, At::Timestamp(i64::MAX / 2)).await.unwrap();
    assert_eq!(late.version, 3);

    for missing in [At::Version(4), At::Version(-1), At::Timestamp(0)] {
        let e = open(&url, missing).await.unwrap_err();
        assert_eq!(e.state(), SqlState::INVALID_PARAMETER_VALUE, "{missing:?}");
        assert!(e.report().detail.is_some(), "{missing:?}");
    }
    let e = open(&root(&dir, "none"), At::Latest).await.unwrap_err();
    assert_eq!(e.state(), SqlState::UNDEFINED_TABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_txn_commits_once() {
    let dir = TempDir::new().unwrap();
    let empty = create(&root(&dir, "t"), &small(), &[]).await.unwrap();
    let adds = write_files(&empty, stream::iter([Ok(rows(0, 4))]))
        .await
        .unwrap();
    let same = || Commit {
        adds: adds.clone(),
        txn: Some(("app".to_owned(), 7)),
        ..Commit::default()
    };
    let first = commit(&empty, same()).await.unwrap();
    // The state from before the first commit: as after an answer that got lost.
    let second = commit(&empty, same()).await.unwrap();
    assert_eq!((first.version, second.version), (1, 1));
    assert_eq!(second.rows(), Some(4));
    assert_eq!(second.txn_version("app").await.unwrap(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_is_complete_and_repeatable() {
    let dir = TempDir::new().unwrap();
    let url = root(&dir, "t");
    create(&url, &small(), &[]).await.unwrap();
    delete(&url).await.unwrap();
    delete(&url).await.unwrap();
    assert!(!dir.path().join("t").exists());
}
