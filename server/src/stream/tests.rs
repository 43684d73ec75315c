//! The log's promises: acknowledged rows are there exactly once, whatever happened before.

mod acknowledge;
mod alter;
#[cfg(feature = "failpoints")]
mod crash;
mod dedup;
mod exchange;
mod model;
mod positions;
mod records;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use catalog::Oid;
use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use url::Url;

use super::line::Turn;
use super::record::{Encoded, Part};
use super::*;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]))
}

pub(super) fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let names: StringArray = ids.clone().map(|n| Some(format!("name {n}"))).collect();
    let ids: Int64Array = ids.collect();
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

pub(super) fn options(dir: &TempDir) -> StreamOptions {
    StreamOptions {
        flush_interval: Duration::from_secs(3600),
        append_wait: Duration::from_secs(20),
        segment_bytes: 32 * 1024,
        ..StreamOptions::new(dir.path().join("wal"))
    }
}

pub(super) fn spec(dir: &TempDir, oid: u32, streaming: bool) -> TableSpec {
    TableSpec {
        oid: Oid(oid),
        name: format!("t{oid}"),
        schema: schema(),
        partition_by: Vec::new(),
        streaming,
        root: Url::from_directory_path(dir.path().join(format!("t{oid}"))).unwrap(),
        flush_interval: None,
        dedup: None,
        bloom_filters: Vec::new(),
    }
}

/// What a statement would see: tail and storage, read by delta-rs on its own, sorted.
pub(super) async fn visible(stream: &Stream, dir: &TempDir, oid: u32) -> Vec<i64> {
    let head = stream.head();
    let table = &head.tables[&Oid(oid)];
    let root = spec(dir, oid, table.streaming).root;
    let version = u64::try_from(table.lake.version).unwrap();
    let delta = deltalake::open_table_with_version(root, version)
        .await
        .unwrap();
    let (_, rows) = delta.scan_table().await.unwrap();
    let stored: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    if table.streaming {
        let lsns = stored.iter().flat_map(|b| int_column(b, "_lsn"));
        assert!(lsns.max().is_none_or(|max| max <= table.flushed.0));
        assert!(table.tail.iter().all(|b| b.lo > table.flushed));
        assert!(table.tail.is_sorted_by(|a, b| a.hi < b.lo));
        assert!(table.tail.last().is_none_or(|b| b.hi <= head.visible));
        for part in &table.tail {
            assert_eq!(part.batch.schema_ref(), &table.lake.schema);
            let lsns = int_column(&part.batch, "_lsn");
            assert!(lsns.is_sorted());
            assert_eq!((lsns[0], lsns[lsns.len() - 1]), (part.lo.0, part.hi.0));
        }
    }
    let tail = table.tail.iter().map(|b| &b.batch);
    let mut ids: Vec<i64> = stored
        .iter()
        .chain(tail)
        .flat_map(|b| int_column(b, "id"))
        .collect();
    ids.sort_unstable();
    ids
}

fn int_column(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let column = batch.column_by_name(name).unwrap();
    column.as_primitive::<Int64Type>().values().to_vec()
}

async fn open(dir: &TempDir, tables: &[(u32, bool)]) -> Result<Arc<Stream>> {
    let specs = tables.iter().map(|(oid, s)| spec(dir, *oid, *s)).collect();
    Stream::open(options(dir), specs).await
}

/// Ends a stream as a crash would, but lets the log's thread finish what it has.
async fn crash(stream: Arc<Stream>) {
    let (done, ended) = oneshot::channel();
    stream.wal.send(Request::Stop(done)).await.unwrap();
    let _ = ended.await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_visible_at_once_and_survive_a_crash_before_and_after_a_flush() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    let lsn = stream
        .append(vec![(Oid(1), vec![batch(0..5)])])
        .await
        .unwrap();
    assert_eq!(lsn, Lsn(5));
    assert_eq!(stream.head().visible, Lsn(5));
    assert_eq!(visible(&stream, &dir, 1).await, [0, 1, 2, 3, 4]);
    crash(stream).await;

    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, [0, 1, 2, 3, 4]);
    stream
        .append(vec![(Oid(1), vec![batch(5..7)])])
        .await
        .unwrap();
    assert_eq!(stream.flush(Oid(1)).await.unwrap(), Lsn(7));
    assert!(stream.head().tables[&Oid(1)].tail.is_empty());
    stream
        .append(vec![(Oid(1), vec![batch(7..8)])])
        .await
        .unwrap();
    crash(stream).await;

    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..8).collect::<Vec<_>>());
    assert_eq!(stream.head().tables[&Oid(1)].flushed, Lsn(7));
    let next = stream
        .append(vec![(Oid(1), vec![batch(8..9)])])
        .await
        .unwrap();
    assert_eq!(next, Lsn(9));
    stream.shutdown(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn single_rows_are_merged_and_many_writers_share_syncs() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream::iter(0..2000)
        .for_each_concurrent(64, |n| {
            let stream = Arc::clone(&stream);
            async move {
                let rows = vec![(Oid(1), vec![batch(n..n + 1)])];
                stream.append(rows).await.unwrap();
            }
        })
        .await;
    assert!(stream.head().tables[&Oid(1)].tail.len() < 20);
    assert_eq!(
        visible(&stream, &dir, 1).await,
        (0..2000).collect::<Vec<_>>()
    );
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(
        visible(&stream, &dir, 1).await,
        (0..2000).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_tables_is_one_record_and_empty_tables_pin_no_segment() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    for oid in 1..=3 {
        stream.create_table(spec(&dir, oid, true)).await.unwrap();
    }
    for n in 0..40 {
        let rows = batch(n * 100..n * 100 + 100);
        stream
            .append(vec![(Oid(1), vec![rows.clone()]), (Oid(2), vec![rows])])
            .await
            .unwrap();
    }
    assert_eq!(stream.head().visible, Lsn(8000));
    let segments = || {
        let files = std::fs::read_dir(dir.path().join("wal")).unwrap();
        let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.ends_with(".wal")).count()
    };
    assert!(segments() > 3);
    stream.flush(Oid(1)).await.unwrap();
    stream.flush(Oid(2)).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while segments() > 1 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(segments(), 1);
    // recycled segments hold old bytes: they must not come back
    stream
        .append(vec![(Oid(3), vec![batch(0..300)])])
        .await
        .unwrap();
    crash(stream).await;
    let stream = open(&dir, &[(1, true), (2, true), (3, true)])
        .await
        .unwrap();
    for oid in [1, 2] {
        assert_eq!(
            visible(&stream, &dir, oid).await,
            (0..4000).collect::<Vec<_>>()
        );
    }
    assert_eq!(
        visible(&stream, &dir, 3).await,
        (0..300).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_tables_are_skipped_and_unknown_ones_refused() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    for oid in [1, 2] {
        stream.create_table(spec(&dir, oid, true)).await.unwrap();
        stream
            .append(vec![(Oid(oid), vec![batch(0..3)])])
            .await
            .unwrap();
    }
    stream.drop_table(Oid(1)).await.unwrap();
    let e = stream
        .append(vec![(Oid(1), vec![batch(0..1)])])
        .await
        .unwrap_err();
    assert_eq!(e.state(), SqlState::UNDEFINED_TABLE);
    crash(stream).await;
    let stream = open(&dir, &[(2, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 2).await, [0, 1, 2]);
    assert_eq!(
        stream
            .append(vec![(Oid(2), vec![batch(3..4)])])
            .await
            .unwrap(),
        Lsn(7)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_and_wrong_types_are_refused_before_the_log() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    let nulls = RecordBatch::try_from_iter([(
        "id",
        Arc::new(Int64Array::from(vec![None, Some(1)])) as arrow::array::ArrayRef,
    )])
    .unwrap();
    let e = stream
        .append(vec![(Oid(1), vec![nulls])])
        .await
        .unwrap_err();
    assert_eq!(e.state(), SqlState::NOT_NULL_VIOLATION);
    assert_eq!(stream.head().visible, Lsn(0));
    assert_eq!(stream.append(vec![(Oid(1), vec![])]).await.unwrap(), Lsn(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tail_makes_writers_wait_and_a_flush_lets_them_on() {
    let dir = TempDir::new().unwrap();
    let options = StreamOptions {
        tail_bytes: 64 * 1024,
        append_wait: Duration::from_millis(100),
        ..options(&dir)
    };
    let stream = Stream::open(options, Vec::new()).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream.stop.cancel(); // no flusher: only this test flushes
    let rows = || vec![(Oid(1), vec![batch(0..1000)])];
    let mut stored = 0;
    let e = loop {
        match stream.append(rows()).await {
            Ok(_) => stored += 1,
            Err(e) => break e,
        }
    };
    assert!(stored > 0 && is_tail_full(&e), "{e:?}");
    stream.flush(Oid(1)).await.unwrap();
    stream.append(rows()).await.unwrap();
    // one append larger than the whole budget is taken when the tail is empty
    stream.flush(Oid(1)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..9000)])])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flusher_flushes_in_time_and_when_memory_is_short() {
    let dir = TempDir::new().unwrap();
    let options = StreamOptions {
        tail_bytes: 256 * 1024,
        ..options(&dir)
    };
    let stream = Stream::open(options, Vec::new()).await.unwrap();
    let mut quick = spec(&dir, 1, true);
    quick.flush_interval = Some(Duration::from_millis(20));
    stream.create_table(quick).await.unwrap();
    stream.create_table(spec(&dir, 2, true)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..10)])])
        .await
        .unwrap();
    for n in 0..30 {
        // far more than the budget: only flushes make room
        stream
            .append(vec![(Oid(2), vec![batch(n * 1000..n * 1000 + 1000)])])
            .await
            .unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !stream.head().tables[&Oid(1)].tail.is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        visible(&stream, &dir, 2).await,
        (0..30_000).collect::<Vec<_>>()
    );
    stream.shutdown(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_run_alone_while_appends_go_on() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..10)])])
        .await
        .unwrap();
    let deleted = stream
        .exclusive(Oid(1), |table| async {
            stream.append(vec![(Oid(1), vec![batch(10..15)])]).await?;
            let (table, metrics) = table.delete().with_predicate("id < 4").await?;
            Ok((table, metrics.num_deleted_rows))
        })
        .await
        .unwrap();
    assert_eq!(deleted, Some(4));
    assert_eq!(visible(&stream, &dir, 1).await, (4..15).collect::<Vec<_>>());
    stream.flush(Oid(1)).await.unwrap();
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (4..15).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_appends_are_one_commit_or_none() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, false)).await.unwrap();
    let batches = stream::iter([Ok(batch(0..5)), Ok(batch(5..7))]);
    assert_eq!(stream.lake_append(Oid(1), batches).await.unwrap(), 7);
    assert_eq!(stream.head().tables[&Oid(1)].lake.version, 1);
    let broken = stream::iter([Ok(batch(7..9)), Err(Error::Internal("boom".to_owned()))]);
    assert!(stream.lake_append(Oid(1), broken).await.is_err());
    let endless = stream::iter([Ok(batch(9..11))]).chain(stream::pending());
    let canceled = stream.lake_append(Oid(1), Box::pin(endless));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), canceled)
            .await
            .is_err()
    );
    assert_eq!(
        stream.lake_append(Oid(1), stream::iter([])).await.unwrap(),
        0
    );
    let (a, b) = tokio::join!(
        stream.lake_append(Oid(1), stream::iter([Ok(batch(20..22))])),
        stream.lake_append(Oid(1), stream::iter([Ok(batch(22..24))])),
    );
    assert_eq!((a.unwrap(), b.unwrap()), (2, 2));
    let expected: Vec<i64> = (0..7).chain(20..24).collect();
    assert_eq!(visible(&stream, &dir, 1).await, expected);
    let e = stream
        .append(vec![(Oid(1), vec![batch(0..1)])])
        .await
        .unwrap_err();
    assert_eq!(e.state(), SqlState::WRONG_OBJECT_TYPE);
}

#[tokio::test(flavor = "multi_thread")]
async fn view_state_and_its_position_change_together_and_once() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..9)])])
        .await
        .unwrap();
    let view = || ViewSpec {
        oid: Oid(7),
        name: "v".to_owned(),
        schema: schema(),
        partition_by: Vec::new(),
        source: Oid(1),
        sources: vec![Oid(1)],
        root: Url::from_directory_path(dir.path().join("v")).unwrap(),
    };
    stream.create_view(view()).await.unwrap();
    let state = |stream: &Stream| {
        let head = stream.head();
        (
            head.views[&Oid(7)].durable,
            head.views[&Oid(7)].state.rows(),
        )
    };
    assert_eq!(state(&stream), (Lsn(0), Some(0)));
    let change = |base, durable, anew| StateChange {
        source: Oid(1),
        rows: vec![batch(0..3)].into(),
        replaces: match anew {
            true => Replaces::Everything,
            false => Replaces::Nothing,
        },
        base,
        durable: Lsn(durable),
        epochs: [(Oid(1), 5)].into(),
        drops: [].into(),
        floor: Default::default(),
        at: 77,
    };
    stream
        .commit_state(Oid(7), change(0, 4, false))
        .await
        .unwrap();
    assert_eq!(state(&stream), (Lsn(4), Some(3)));
    // computed over a state that is not there any more
    stream
        .commit_state(Oid(7), change(0, 4, false))
        .await
        .unwrap();
    assert_eq!(state(&stream), (Lsn(4), Some(3)));
    stream
        .commit_state(Oid(7), change(1, 9, false))
        .await
        .unwrap();
    assert_eq!(state(&stream), (Lsn(9), Some(6)));
    stream
        .commit_state(Oid(7), change(2, 9, true))
        .await
        .unwrap();
    assert_eq!(state(&stream), (Lsn(9), Some(3)));
    // made anew from the start
    stream
        .commit_state(Oid(7), change(3, 2, true))
        .await
        .unwrap();
    stream
        .commit_state(Oid(7), change(4, 9, false))
        .await
        .unwrap();
    assert_eq!(state(&stream), (Lsn(9), Some(6)));
    stream
        .commit_state(Oid(7), change(5, 9, true))
        .await
        .unwrap();
    let ahead = stream.commit_state(Oid(7), change(6, 10, false)).await;
    assert!(ahead.is_err());
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    stream.open_view(view()).await.unwrap();
    assert_eq!(state(&stream), (Lsn(9), Some(3)));
    let kept = Arc::clone(&stream.head().views[&Oid(7)]);
    assert_eq!((kept.run, kept.refreshed_at), (6, Some(77)));
    assert_eq!(kept.epochs, [(Oid(1), 5)].into());
    stream.drop_table(Oid(7)).await.unwrap();
    assert!(stream.head().views.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_landed_unseen_is_not_repeated() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..10)])])
        .await
        .unwrap();
    // As when the commit's answer got lost: storage has rows 1 to 6, the head does not know.
    let head = stream.head();
    let table = &head.tables[&Oid(1)];
    let rows = stream::iter([Ok(table.tail[0].batch.slice(0, 6))]);
    let adds = lake::write_files(&table.lake, rows).await.unwrap();
    let commit = lake::Commit {
        adds,
        txn: Some((Owned::wal_app(Oid(1)), 6)),
        ..lake::Commit::default()
    };
    lake::commit(&table.lake, commit).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..10).collect::<Vec<_>>());
    assert_eq!(stream.flush(Oid(1)).await.unwrap(), Lsn(10));
    assert_eq!(visible(&stream, &dir, 1).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_taking_rows_but_is_read_on() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..10)])])
        .await
        .unwrap();
    std::fs::remove_dir_all(dir.path().join("wal")).unwrap();
    // larger than what is left of the segment: the next one cannot be made
    let rows = || vec![(Oid(1), vec![batch(10..3000)])];
    let e = stream.append(rows()).await.unwrap_err();
    assert_eq!(e.state(), SqlState::IO_ERROR);
    let e = stream
        .append(vec![(Oid(1), vec![batch(10..11)])])
        .await
        .unwrap_err();
    assert_eq!(e.state(), SqlState::IO_ERROR);
    assert!(e.report().message.contains("takes no more rows"));
    assert_eq!(visible(&stream, &dir, 1).await, (0..10).collect::<Vec<_>>());
    assert_eq!(stream.flush(Oid(1)).await.unwrap(), Lsn(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_column_reaches_the_head_and_older_log_records() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream
        .exclusive(Oid(1), |table| async {
            // accepted under the old schema, visible under the new one
            stream.append(vec![(Oid(1), vec![batch(0..4)])]).await?;
            let more = deltalake::kernel::StructField::nullable(
                "extra",
                deltalake::kernel::DataType::LONG,
            );
            let table = table.add_columns().with_fields([more]).await?;
            Ok((table, ()))
        })
        .await
        .unwrap();
    let wider = Arc::clone(&stream.head().tables[&Oid(1)].schema);
    assert_eq!(wider.field(2).name(), "extra");
    stream
        .append(vec![(Oid(1), vec![batch(4..6)])])
        .await
        .unwrap();
    crash(stream).await;
    let mut altered = spec(&dir, 1, true);
    altered.schema = wider;
    let stream = Stream::open(options(&dir), vec![altered]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..6).collect::<Vec<_>>());
    stream.flush(Oid(1)).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..6).collect::<Vec<_>>());
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let held = DirLock::take(&data).unwrap();
    let e = DirLock::take(&data).unwrap_err();
    assert_eq!(e.state(), SqlState::OBJECT_IN_USE);
    assert!(
        e.report()
            .message
            .contains("in use by another weir process")
    );
    drop(held);
    DirLock::take(&data).unwrap();
}
