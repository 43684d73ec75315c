//! Kills a process at every crash point, again and again over one directory, and looks at what it
//! left: every acknowledged row exactly once, of the others whole appends or nothing.
//!
//! The process is this test binary running [`child`] alone, told by two environment variables.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::*;

const DIRECTORY: &str = "WEIR_CRASH_TEST_DIR";
const SIGABRT: i32 = 6;
/// Rows of one append to the streaming and one to the ordinary table.
const ROWS: i64 = 400;
const ROUNDS: i64 = 60;
const VIEW: Oid = Oid(7);

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_point_keeps_acknowledged_rows_exactly_once() {
    // RESTORE and ALTER TABLE are statements, publishing is a job: tests/crash reaches their points
    let elsewhere = ["restore-", "alter-", "publish-"];
    let here = |point: &&&str| !elsewhere.iter().any(|other| point.starts_with(other));
    for point in CRASH_POINTS.iter().filter(here) {
        let dir = TempDir::new().unwrap();
        for skip in [0, 1, 5] {
            let action = if skip == 0 {
                format!("{point}=return")
            } else {
                format!("{point}={skip}*off->return")
            };
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "stream::tests::crash::child", "--nocapture"])
                .env(DIRECTORY, dir.path())
                .env("FAILPOINTS", &action)
                .output()
                .unwrap();
            let status = output.status;
            assert_eq!(
                status.signal(),
                Some(SIGABRT),
                "{action}: {status}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            check(&dir, &action).await;
        }
    }
}

/// What the killed process runs; as a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let scenario = fail::FailScenario::setup();
    work(Path::new(&dir)).await;
    scenario.teardown();
}

fn small(dir: &Path) -> StreamOptions {
    StreamOptions {
        flush_interval: Duration::from_secs(3600),
        segment_bytes: 48 * 1024,
        ..StreamOptions::new(dir.join("wal"))
    }
}

fn table(dir: &Path, oid: u32, streaming: bool) -> TableSpec {
    TableSpec {
        oid: Oid(oid),
        name: format!("t{oid}"),
        schema: schema(),
        partition_by: Vec::new(),
        streaming,
        root: Url::from_directory_path(dir.join(format!("t{oid}"))).unwrap(),
        flush_interval: None,
        dedup: None,
        bloom_filters: Vec::new(),
    }
}

fn view(dir: &Path) -> ViewSpec {
    ViewSpec {
        oid: VIEW,
        name: "v".to_owned(),
        schema: schema(),
        partition_by: Vec::new(),
        source: Oid(1),
        sources: vec![Oid(1)],
        root: Url::from_directory_path(dir.join("v")).unwrap(),
    }
}

/// Opens what is there and makes what a crash at the very start left out.
async fn reopen(dir: &Path) -> Arc<Stream> {
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for (oid, streaming) in [(1, true), (2, true), (3, false)] {
        let spec = table(dir, oid, streaming);
        match lake::open(&spec.root, lake::At::Latest).await {
            Ok(_) => there.push(spec),
            Err(_) => missing.push(spec),
        }
    }
    let stream = Stream::open(small(dir), there).await.unwrap();
    for spec in missing {
        stream.create_table(spec).await.unwrap();
    }
    if stream.open_view(view(dir)).await.is_err() {
        stream.create_view(view(dir)).await.unwrap();
    }
    stream
}

async fn work(dir: &Path) {
    let stream = reopen(dir).await;
    let base = stream.head().visible.0 * 1000;
    for round in 0..ROUNDS {
        let from = base + round * ROWS;
        let rows = || batch(from..from + ROWS);
        let parts = vec![(Oid(1), vec![rows()]), (Oid(2), vec![rows()])];
        let source = position(from + ROWS).to_bytes();
        let origin = Origin {
            source: &source,
            wait: Some(Duration::from_secs(20)),
        };
        stream
            .append_from(parts, origin, Turn::default(), None)
            .await
            .unwrap();
        acknowledge(dir, "streaming", from);
        if round % 4 == 1 {
            stream
                .lake_append(Oid(3), stream::iter([Ok(rows())]))
                .await
                .unwrap();
            acknowledge(dir, "ordinary", from);
        }
        if round % 5 == 2 {
            refresh(&stream).await;
        }
        if round % 3 == 2 {
            stream.flush(Oid(1)).await.unwrap();
            stream.flush(Oid(2)).await.unwrap();
        }
        upkeep(&stream, round % 6).await;
    }
    // pruning is the log's own business: give it the time to reach its crash point
    stream.shutdown(Duration::from_secs(20)).await.unwrap();
}

/// One kind of upkeep of the second table. Its rows stay.
async fn upkeep(stream: &Stream, kind: i64) {
    let lake = LakeSnapshot::clone(&stream.head().tables[&Oid(2)].lake);
    match kind {
        0 => lake::checkpoint(&lake).await.unwrap(),
        1 => {
            if let Some(base) = lake::last_checkpoint(&lake).await.unwrap() {
                assert!(stream.anchor(Oid(2)).await.unwrap());
                lake::clean_log(&lake, base, Duration::ZERO).await.unwrap();
            }
        }
        3 | 5 => {
            let reason = match kind {
                3 => exchange::merged(),
                _ => exchange::expired(),
            };
            let all = exchange::all_in_one(stream, 2, reason, |_| true).await;
            stream.exchange(Oid(2), all.unwrap()).await.unwrap();
        }
        4 => {
            let (lake, garbage) = stream.garbage(Oid(2), Duration::ZERO).await.unwrap();
            for file in garbage {
                lake::sweep(&lake, &file).await.unwrap();
            }
        }
        _ => {}
    }
}

/// A source of the first table whose offsets are the ids of its rows.
fn position(next: i64) -> Positions {
    Positions {
        table: Oid(1),
        topic: "ids".into(),
        next: [(0, next)].into(),
    }
}

/// Copies the source rows above the view's position into its state.
async fn refresh(stream: &Stream) {
    let head = stream.head();
    let view = &head.views[&VIEW];
    let table = &head.tables[&Oid(1)];
    // rows that left the tail are read from storage: a whole refresh
    let replace = view.durable < table.flushed;
    let batches: Vec<RecordBatch> = if replace {
        let all: Vec<RecordBatch> = stored(&table.lake.root).await;
        let tail = table.tail.iter().map(|b| b.batch.clone());
        all.into_iter().chain(tail).collect()
    } else {
        let above = |b: &Arc<_>| tail::above(b, view.durable);
        let rows = table.tail.iter().filter_map(above);
        rows.map(|b| b.batch).collect()
    };
    let change = StateChange {
        source: Oid(1),
        rows: batches.into(),
        replaces: match replace {
            true => Replaces::Everything,
            false => Replaces::Nothing,
        },
        base: view.run,
        durable: head.visible,
        epochs: [(Oid(1), 0)].into(),
        drops: [].into(),
        floor: Default::default(),
        at: 1,
    };
    stream.commit_state(VIEW, change).await.unwrap();
}

async fn stored(root: &Url) -> Vec<RecordBatch> {
    let delta = deltalake::open_table(root.clone()).await.unwrap();
    let (_, rows) = delta.scan_table().await.unwrap();
    rows.try_collect().await.unwrap()
}

fn acknowledge(dir: &Path, what: &str, from: i64) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(what))
        .unwrap();
    file.write_all(format!("{from}\n").as_bytes()).unwrap();
}

fn acknowledged(dir: &Path, what: &str) -> BTreeSet<i64> {
    let text = std::fs::read_to_string(dir.join(what)).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// The appends whose rows are all there; panics if one is there in part or twice.
fn appends(ids: &[i64], what: &str) -> BTreeSet<i64> {
    let chunks = ids.chunks(usize::try_from(ROWS).unwrap());
    let starts: Vec<i64> = chunks
        .map(|chunk| {
            let from = chunk[0];
            assert!(
                chunk.iter().copied().eq(from..from + ROWS),
                "{what}: append {from}"
            );
            from
        })
        .collect();
    starts.into_iter().collect()
}

async fn check(dir: &TempDir, action: &str) {
    let stream = reopen(dir.path()).await;
    let sent = acknowledged(dir.path(), "streaming");
    let first = visible(&stream, dir, 1).await;
    assert_eq!(
        first,
        visible(&stream, dir, 2).await,
        "{action}: one record, two tables"
    );
    let found = appends(&first, action);
    assert!(
        found.is_superset(&sent),
        "{action}: acknowledged rows are missing"
    );
    let next = stream.source_positions(Oid(1), "ids", &[0]).await.unwrap();
    assert_eq!(
        next.get(&0).copied(),
        first.last().map(|last| last + 1),
        "{action}: the source stands behind its last row"
    );
    // each killed process leaves one append unanswered at most
    assert!(found.len() <= sent.len() + 3, "{action}");
    let ordinary = appends(&visible(&stream, dir, 3).await, action);
    assert!(
        ordinary.is_superset(&acknowledged(dir.path(), "ordinary")),
        "{action}"
    );

    let head = stream.head();
    let durable = head.views[&VIEW].durable;
    assert!(durable <= head.visible, "{action}");
    let state = head.views[&VIEW].state.rows();
    assert_eq!(
        state.map(|rows| rows as i64 * 2),
        Some(durable.0),
        "{action}: a view's state is its source up to its position"
    );
    crash(stream).await;
}
