//! Exchanges of files: the same rows once, whatever happens between reading files and committing.

use super::*;
use crate::lake::Horizon;

/// The rows of a table's stored files, as delta-rs reads them.
pub(super) async fn stored_rows(lake: &LakeSnapshot) -> Result<Vec<RecordBatch>> {
    let (_, rows) = lake.table.scan_table().await?;
    Ok(rows.try_collect().await?)
}

/// All stored files for one with the same rows, or with those that `keep` takes.
pub(super) async fn all_in_one(
    stream: &Stream,
    oid: u32,
    reason: Reason,
    keep: impl Fn(i64) -> bool,
) -> Result<Exchange> {
    let base = Arc::clone(&stream.head().tables[&Oid(oid)].lake);
    let mut kept = Vec::new();
    for batch in stored_rows(&base).await? {
        let ids = int_column(&batch, "id");
        let wanted: arrow::array::BooleanArray = ids.iter().map(|id| Some(keep(*id))).collect();
        kept.push(Ok(arrow::compute::filter_record_batch(&batch, &wanted)?));
    }
    let staged = stream.stage(&base, stream::iter(kept)).await?;
    Ok(Exchange {
        removes: base.files.iter().map(|f| f.path.clone()).collect(),
        base,
        staged: vec![staged],
        reason,
        guard: Box::new(|_| true),
    })
}

pub(super) fn merged() -> Reason {
    Reason::Compacted { predicate: None }
}

pub(super) fn expired() -> Reason {
    Reason::Expired {
        predicate: "id < 5".to_owned(),
    }
}

async fn three_flushes(dir: &TempDir) -> Arc<Stream> {
    let stream = open(dir, &[]).await.unwrap();
    stream.create_table(spec(dir, 1, true)).await.unwrap();
    for n in 0..3 {
        append(&stream, n * 10..n * 10 + 10).await;
        stream.flush(Oid(1)).await.unwrap();
    }
    stream
}

async fn append(stream: &Stream, ids: std::ops::Range<i64>) {
    let rows = vec![(Oid(1), vec![batch(ids)])];
    stream.append(rows).await.unwrap();
}

fn files(stream: &Stream) -> usize {
    stream.head().tables[&Oid(1)].lake.files.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_merged_beside_appends_and_flushes() {
    let dir = TempDir::new().unwrap();
    let stream = three_flushes(&dir).await;
    assert_eq!(files(&stream), 3);
    let exchange = all_in_one(&stream, 1, merged(), |_| true).await.unwrap();
    // meanwhile the table goes on
    append(&stream, 30..40).await;
    stream.flush(Oid(1)).await.unwrap();
    append(&stream, 40..45).await;
    let version = stream.exchange(Oid(1), exchange).await.unwrap();
    assert_eq!(version, Some(5));
    assert_eq!(files(&stream), 2);
    let head = stream.head();
    let table = &head.tables[&Oid(1)];
    assert_eq!((table.changes, table.epoch()), (0, 0));
    assert_eq!((table.upkeep.rewrites, table.upkeep.drops), (1, 0));
    assert_eq!(visible(&stream, &dir, 1).await, (0..45).collect::<Vec<_>>());
    crash(stream).await;

    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..45).collect::<Vec<_>>());
    let head = stream.head();
    let table = &head.tables[&Oid(1)];
    assert_eq!((table.flushed, table.upkeep.rewrites), (Lsn(40), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_comes_too_late_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let stream = three_flushes(&dir).await;
    let first = all_in_one(&stream, 1, merged(), |_| true).await.unwrap();
    let second = all_in_one(&stream, 1, merged(), |_| true).await.unwrap();
    let third = all_in_one(&stream, 1, expired(), |id| id >= 5)
        .await
        .unwrap();
    assert!(stream.exchange(Oid(1), first).await.unwrap().is_some());
    for late in [second, third] {
        assert_eq!(stream.exchange(Oid(1), late).await.unwrap(), None);
    }
    assert_eq!(visible(&stream, &dir, 1).await, (0..30).collect::<Vec<_>>());
    // what was written for nothing is gone again
    let held = stream.head().tables[&Oid(1)].lake.files.len();
    let lake = LakeSnapshot::clone(&stream.head().tables[&Oid(1)].lake);
    let all = Horizon {
        removed_before: i64::MAX,
        unknown_before: i64::MAX,
    };
    let garbage = lake::garbage(&lake, &Default::default(), all)
        .await
        .unwrap();
    assert_eq!((held, garbage.len()), (1, 3));

    let mut refused = all_in_one(&stream, 1, expired(), |id| id >= 5)
        .await
        .unwrap();
    refused.guard = Box::new(|head| head.tables.is_empty());
    assert_eq!(stream.exchange(Oid(1), refused).await.unwrap(), None);
    assert_eq!(visible(&stream, &dir, 1).await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_rows_go_without_a_change() {
    let dir = TempDir::new().unwrap();
    let stream = three_flushes(&dir).await;
    append(&stream, 30..33).await;
    let exchange = all_in_one(&stream, 1, expired(), |id| id >= 5)
        .await
        .unwrap();
    assert!(stream.exchange(Oid(1), exchange).await.unwrap().is_some());
    assert_eq!(visible(&stream, &dir, 1).await, (5..33).collect::<Vec<_>>());
    let head = stream.head();
    let table = &head.tables[&Oid(1)];
    assert_eq!((table.changes, table.upkeep.drops), (0, 1));
    let history = lake::history(&table.lake, 1).await.unwrap();
    assert_eq!(history[0].operation, "DELETE");
    assert_eq!(history[0].parameters["predicate"], "id < 5");
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (5..33).collect::<Vec<_>>());
    assert_eq!(stream.head().tables[&Oid(1)].upkeep.drops, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_what_nobody_holds() {
    let dir = TempDir::new().unwrap();
    let stream = three_flushes(&dir).await;
    let reader = stream.head();
    let exchange = all_in_one(&stream, 1, merged(), |_| true).await.unwrap();
    stream.exchange(Oid(1), exchange).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let garbage = async |keep: u64| {
        let keep = Duration::from_millis(keep);
        stream.garbage(Oid(1), keep).await.unwrap().1.len()
    };
    assert_eq!(garbage(0).await, 0);
    drop(reader);
    assert_eq!(garbage(60_000).await, 0);
    assert_eq!(garbage(0).await, 3);
    // files that nobody knows are somebody's, as long as they are young
    let root = spec(&dir, 1, true).root.to_file_path().unwrap();
    std::fs::write(root.join("part-unknown.parquet"), b"x").unwrap();
    std::fs::write(root.join("_hidden"), b"x").unwrap();
    let (lake, found) = stream.garbage(Oid(1), Duration::ZERO).await.unwrap();
    assert_eq!(found.len(), 3);
    for file in &found {
        lake::sweep(&lake, file).await.unwrap();
        lake::sweep(&lake, file).await.unwrap();
    }
    assert_eq!(garbage(0).await, 0);
    assert_eq!(visible(&stream, &dir, 1).await, (0..30).collect::<Vec<_>>());
}

/// The log may go up to its newest checkpoint, and everything that asks it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cleaned_log_answers_still() {
    let dir = TempDir::new().unwrap();
    let stream = three_flushes(&dir).await;
    let lake = || LakeSnapshot::clone(&stream.head().tables[&Oid(1)].lake);
    lake::checkpoint(&lake()).await.unwrap();
    let base = lake::last_checkpoint(&lake()).await.unwrap();
    assert_eq!(base, Some(3));
    append(&stream, 30..40).await;
    stream.flush(Oid(1)).await.unwrap();
    assert!(stream.anchor(Oid(1)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(5)).await;
    let gone = lake::clean_log(&lake(), 3, Duration::ZERO).await.unwrap();
    assert_eq!(gone, 3);
    let flushed = lake().txn_version("weir/1/wal").await.unwrap();
    assert_eq!(flushed, Some(40));
    assert_eq!(stream.garbage(Oid(1), Duration::ZERO).await.unwrap().1, []);
    // versions from the checkpoint on can be opened, those before are named as missing
    let root = spec(&dir, 1, true).root;
    assert!(lake::open(&root, lake::At::Version(3)).await.is_ok());
    let missing = lake::open(&root, lake::At::Version(2)).await.unwrap_err();
    assert_eq!(missing.state(), SqlState::INVALID_PARAMETER_VALUE);
    assert_eq!(
        missing.report().detail.unwrap(),
        "versions 3 to 4 are available"
    );
    append(&stream, 40..41).await;
    stream.flush(Oid(1)).await.unwrap();
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..41).collect::<Vec<_>>());
}
