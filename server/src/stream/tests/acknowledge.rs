//! Answers that wait for storage, and the Bloom filters of what is stored.

use std::collections::BTreeSet;
use std::ops::Range;

use deltalake::parquet::file::reader::{FileReader, SerializedFileReader};
use futures::future::join_all;

use super::stores::Bucket;
use super::*;

/// Positions of one append, answered when storage has them.
async fn acknowledged(stream: &Stream, ids: Range<i64>) -> Result<Lsn> {
    let lsn = stream.append(vec![(Oid(1), vec![batch(ids)])]).await?;
    stream.in_storage(&[Oid(1)], lsn).await?;
    Ok(lsn)
}

fn version(stream: &Stream) -> i64 {
    stream.head().tables[&Oid(1)].lake.version
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_wait_share_a_commit() {
    let dir = TempDir::new().unwrap();
    let options = StreamOptions {
        acknowledge_interval: Duration::from_millis(300),
        ..options(&dir)
    };
    let stream = Stream::open(options, Vec::new()).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    acknowledged(&stream, 0..1).await.unwrap();
    assert_eq!(stream.head().tables[&Oid(1)].flushed, Lsn(1));
    let before = version(&stream);
    let started = std::time::Instant::now();
    let all = (1..101).map(|n| acknowledged(&stream, n..n + 1));
    assert!(join_all(all).await.iter().all(std::result::Result::is_ok));
    // the first of them may be alone, what comes meanwhile is the next one's
    let commits = version(&stream) - before;
    let intervals = i64::try_from(started.elapsed().as_millis() / 300).unwrap();
    assert!(
        commits <= intervals + 2,
        "{commits} commits in {intervals} intervals"
    );
    assert!(stream.head().tables[&Oid(1)].tail.is_empty());
    assert_eq!(
        visible(&stream, &dir, 1).await,
        (0..101).collect::<Vec<_>>()
    );
    // what is stored already is answered at once, and so is a table that is gone
    stream.in_storage(&[Oid(1)], Lsn(50)).await.unwrap();
    stream.in_storage(&[Oid(9)], Lsn(50)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_holds_the_answer_back_and_says_so() {
    let bucket = Bucket::new(3, 0);
    let wait = |wait| StreamOptions {
        acknowledge_interval: Duration::from_millis(20),
        acknowledge_wait: wait,
        ..options(&bucket.dir)
    };
    let first = Stream::open(wait(Duration::from_secs(20)), Vec::new())
        .await
        .unwrap();
    first.create_table(bucket.spec()).await.unwrap();
    crash(first).await;
    bucket.be_faulty();
    let short = wait(Duration::from_millis(300));
    let stream = Stream::open(short, vec![bucket.spec()]).await.unwrap();
    bucket.faulty.set_out(true);
    let e = acknowledged(&stream, 0..10).await.unwrap_err();
    assert_eq!(e.state(), SqlState::STATEMENT_COMPLETION_UNKNOWN);
    let report = e.report();
    assert_eq!(
        report.message,
        "the rows are not yet committed to the storage of table \"t1\""
    );
    assert!(report.detail.unwrap().contains("will be committed"));
    assert_eq!(stream.head().visible, Lsn(10), "they are visible");
    assert_eq!(bucket.stored().await, Vec::<i64>::new());
    crash(stream).await;

    // a wait that outlasts the outage ends with it
    bucket.faulty.set_out(false);
    let long = wait(Duration::from_secs(60));
    let stream = Stream::open(long, vec![bucket.spec()]).await.unwrap();
    bucket.faulty.set_out(true);
    let waiting = acknowledged(&stream, 10..20);
    let outage = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bucket.stored().await, Vec::<i64>::new());
        bucket.faulty.set_out(false);
    };
    let (answer, ()) = tokio::join!(waiting, outage);
    answer.unwrap();
    assert_eq!(bucket.stored().await, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_log_a_table_has_what_storage_has() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    acknowledged(&stream, 0..5).await.unwrap();
    let only_logged = vec![(Oid(1), vec![batch(5..9)])];
    stream.append(only_logged).await.unwrap();
    let changes = stream.head().tables[&Oid(1)].changes;
    crash(stream).await;
    std::fs::remove_dir_all(dir.path().join("wal")).unwrap();
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..5).collect::<Vec<_>>());
    // states of views that count the lost rows are told by it
    assert_eq!(stream.head().tables[&Oid(1)].changes, changes + 1);
    assert_eq!(acknowledged(&stream, 5..7).await.unwrap(), Lsn(7));
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(stream.head().tables[&Oid(1)].changes, changes + 1);
    assert_eq!(visible(&stream, &dir, 1).await, (0..7).collect::<Vec<_>>());
}

/// Columns with a filter in the table's data files, and the bytes of all filters.
fn filtered(stream: &Stream, dir: &TempDir) -> (BTreeSet<String>, i64) {
    let mut found = BTreeSet::new();
    let mut bytes = 0;
    for file in stream.head().tables[&Oid(1)].lake.files.iter() {
        let file = std::fs::File::open(dir.path().join("t1").join(&file.path)).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                if column.bloom_filter_offset().is_some() {
                    found.insert(column.column_path().string());
                    bytes += i64::from(column.bloom_filter_length().unwrap_or(0));
                }
            }
        }
    }
    (found, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_keep_the_filters_that_their_table_asks_for() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    let with_filter = TableSpec {
        bloom_filters: vec!["id".to_owned()],
        ..spec(&dir, 1, true)
    };
    stream.create_table(with_filter).await.unwrap();
    for n in 0..3 {
        acknowledged(&stream, n * 100..n * 100 + 100).await.unwrap();
    }
    let id = BTreeSet::from(["id".to_owned()]);
    let (columns, bytes) = filtered(&stream, &dir);
    assert_eq!(columns, id);
    assert!(
        (1..=3 * 1024).contains(&bytes),
        "{bytes} bytes for 300 values"
    );
    // merged files have them too
    let all = exchange::all_in_one(&stream, 1, exchange::merged(), |_| true).await;
    stream
        .exchange(Oid(1), all.unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stream.head().tables[&Oid(1)].lake.files.len(), 1);
    assert_eq!(filtered(&stream, &dir).0, id);
    // and so have those after a restart; none once they are not wanted any more
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    acknowledged(&stream, 300..301).await.unwrap();
    assert_eq!(filtered(&stream, &dir).0, id);
    for _ in 0..2 {
        let change = |known| async move { lake::keep_bloom_filters(known, &[]).await };
        stream.alter(Oid(1), false, change).await.unwrap();
    }
    let version = version(&stream);
    acknowledged(&stream, 301..302).await.unwrap();
    assert_eq!(self::version(&stream), version + 1);
    let all = exchange::all_in_one(&stream, 1, exchange::merged(), |_| true).await;
    stream
        .exchange(Oid(1), all.unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(filtered(&stream, &dir), (BTreeSet::new(), 0));
    assert_eq!(
        visible(&stream, &dir, 1).await,
        (0..302).collect::<Vec<_>>()
    );
}
