//! Where sources stand: with their rows, over crashes, flushes and rows that never came.

use super::*;

fn positions(table: u32, next: &[(i32, i64)]) -> Vec<u8> {
    Positions {
        table: Oid(table),
        topic: "topic".into(),
        next: next.iter().copied().collect(),
    }
    .to_bytes()
}

async fn append(stream: &Stream, rows: Vec<(Oid, Vec<RecordBatch>)>, source: &[u8]) -> Lsn {
    let origin = Origin {
        source,
        wait: Some(Duration::from_secs(20)),
    };
    let appended = stream.append_from(rows, origin, Turn::default(), None);
    appended.await.unwrap().lsn
}

async fn known(stream: &Stream, table: u32) -> Vec<(i32, i64)> {
    let found = stream.source_positions(Oid(table), "topic", &[0, 1, 2]);
    found.await.unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_go_with_their_rows() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    assert_eq!(known(&stream, 1).await, []);
    let rows = vec![(Oid(1), vec![batch(0..5)])];
    append(&stream, rows, &positions(1, &[(0, 3), (1, 2)])).await;
    assert_eq!(known(&stream, 1).await, [(0, 3), (1, 2)]);
    crash(stream).await;

    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 3), (1, 2)]);
    stream.flush(Oid(1)).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 3), (1, 2)]);
    crash(stream).await;

    // from storage alone, and then storage and log together
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 3), (1, 2)]);
    let rows = vec![(Oid(1), vec![batch(5..6)])];
    append(&stream, rows, &positions(1, &[(1, 3)])).await;
    assert_eq!(known(&stream, 1).await, [(0, 3), (1, 3)]);
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 3), (1, 3)]);
    assert_eq!(visible(&stream, &dir, 1).await, (0..6).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_without_rows_takes_a_place_of_its_own() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream.create_table(spec(&dir, 2, true)).await.unwrap();
    let at = append(&stream, Vec::new(), &positions(1, &[(0, 10)])).await;
    assert_eq!(at, Lsn(1));
    let at = append(
        &stream,
        vec![(Oid(1), Vec::new())],
        &positions(1, &[(2, 4)]),
    )
    .await;
    assert_eq!(at, Lsn(2));
    // rows of another table carry it too
    let rows = vec![(Oid(2), vec![batch(0..3)])];
    assert_eq!(
        append(&stream, rows, &positions(1, &[(0, 13)])).await,
        Lsn(5)
    );
    crash(stream).await;

    let stream = open(&dir, &[(1, true), (2, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 13), (2, 4)]);
    assert_eq!(visible(&stream, &dir, 2).await, [0, 1, 2]);
    stream.flush(Oid(2)).await.unwrap();
    assert_eq!(stream.flush(Oid(1)).await.unwrap(), Lsn(5));
    // nothing new: no further commit
    let version = stream.head().tables[&Oid(1)].lake.version;
    assert_eq!(stream.flush(Oid(1)).await.unwrap(), Lsn(5));
    assert_eq!(stream.head().tables[&Oid(1)].lake.version, version);
    let next = append(&stream, vec![(Oid(1), vec![batch(0..1)])], &[]).await;
    assert_eq!(next, Lsn(6));
    crash(stream).await;
    let stream = open(&dir, &[(1, true), (2, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 13), (2, 4)]);
    assert_eq!(visible(&stream, &dir, 1).await, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_wait_for_positions_to_be_stored() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream.create_table(spec(&dir, 2, true)).await.unwrap();
    append(&stream, Vec::new(), &positions(1, &[(0, 1)])).await;
    for n in 0..40 {
        let rows = vec![(Oid(2), vec![batch(n * 100..n * 100 + 100)])];
        append(&stream, rows, &[]).await;
        stream.flush(Oid(2)).await.unwrap();
    }
    crash(stream).await;
    let stream = open(&dir, &[(1, true), (2, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 1)]);
    // a clean end stores it though the table has no rows
    stream.shutdown(Duration::from_secs(20)).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("wal")).unwrap();
    let stream = open(&dir, &[(1, true), (2, true)]).await.unwrap();
    assert_eq!(known(&stream, 1).await, [(0, 1)]);
}
