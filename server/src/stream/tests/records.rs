//! Bytes of the log: what is read back, what is cut off, what is refused.

use std::path::{Path, PathBuf};

use super::super::record::{HEADER, NoRecord, Record, read_payload};
use super::super::segment::{self, SEGMENT_HEADER, seed_of};
use super::*;

fn encoded(oids: &[u32], rows: i64) -> Encoded {
    let parts: Vec<Part> = oids
        .iter()
        .map(|oid| Part {
            oid: Oid(*oid),
            batches: vec![batch(0..rows)],
            rows: rows.unsigned_abs(),
        })
        .collect();
    Encoded::new(&parts, b"offset 12").unwrap()
}

/// The record's bytes as they stand in the log.
fn placed(mut record: Encoded, seed: u32, first: Lsn, synced: u64) -> Vec<u8> {
    record.place(seed, first, synced, 77);
    let bytes: Vec<u8> = record.pieces().flatten().copied().collect();
    assert_eq!(bytes.len(), record.len());
    bytes
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let bytes = bytes::Bytes::from(placed(encoded(&[4, 9], 3), 77, Lsn(100), 64));
    assert_eq!(bytes.len() % 8, 0);
    let (record, length) = Record::read(&bytes, 77).unwrap();
    assert_eq!(length, bytes.len());
    assert_eq!((record.first, record.end()), (Lsn(100), Lsn(106)));
    assert_eq!(record.source.as_ref(), b"offset 12");
    let parts: Vec<_> = record.parts().collect();
    assert_eq!(
        (parts[0].0, parts[0].1, parts[0].2),
        (Oid(4), Lsn(100), Lsn(102))
    );
    assert_eq!(
        (parts[1].0, parts[1].1, parts[1].2),
        (Oid(9), Lsn(103), Lsn(105))
    );
    assert_eq!(read_payload(parts[1].3).unwrap(), [batch(0..3)]);
    // another segment's seed, another byte anywhere
    assert_eq!(Record::read(&bytes, 78).unwrap_err(), NoRecord::Damaged);
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 0x10;
        assert!(Record::read(&changed.into(), 77).is_err(), "byte {at}");
    }
}

/// A log of three records, one group each, in one segment.
async fn three_records(dir: &TempDir) -> PathBuf {
    let stream = open(dir, &[]).await.unwrap();
    stream.create_table(spec(dir, 1, true)).await.unwrap();
    for n in 0..3 {
        let rows = batch(n * 2..n * 2 + 2);
        stream.append(vec![(Oid(1), vec![rows])]).await.unwrap();
    }
    crash(stream).await;
    dir.path().join("wal/00000000000000000001.wal")
}

/// Where the records of a segment start, and where the last one ends.
fn offsets(path: &Path) -> Vec<usize> {
    let bytes = bytes::Bytes::from(std::fs::read(path).unwrap());
    let seed = seed_of(&bytes, path);
    let mut offsets = vec![SEGMENT_HEADER];
    while let Ok((_, length)) = Record::read(&bytes.slice(offsets[offsets.len() - 1]..), seed) {
        offsets.push(offsets[offsets.len() - 1] + length);
    }
    offsets
}

fn replayed(path: &Path) -> Result<(u64, Lsn)> {
    let mut rows = 0;
    let replayed = segment::replay(path.parent().unwrap(), |record| {
        rows += record.rows;
        Ok(())
    })?;
    Ok((rows, replayed.end))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_record_is_cut_off_at_every_byte() {
    let dir = TempDir::new().unwrap();
    let path = three_records(&dir).await;
    let whole = std::fs::read(&path).unwrap();
    let offsets = offsets(&path);
    let (start, end) = (offsets[2], offsets[3]);
    assert_eq!(replayed(&path).unwrap(), (6, Lsn(7)));
    for cut in start..end {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        std::fs::write(&path, &torn).unwrap();
        // bytes of the record that are zero anyway are not missed
        let intact = torn == whole;
        let expected = if intact { (6, Lsn(7)) } else { (4, Lsn(5)) };
        assert_eq!(replayed(&path).unwrap(), expected, "cut at {cut}");
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(replayed(&path).unwrap(), (4, Lsn(5)), "file ends at {cut}");
    }
    // and the log goes on behind it
    let mut torn = whole.clone();
    torn[start + HEADER + 9] ^= 1;
    std::fs::write(&path, &torn).unwrap();
    for round in 0..3 {
        let stream = open(&dir, &[(1, true)]).await.unwrap();
        let expected: Vec<i64> = (0..4).chain((0..round).map(|n| 100 + n)).collect();
        assert_eq!(visible(&stream, &dir, 1).await, expected);
        let rows = vec![(Oid(1), vec![batch(100 + round..101 + round)])];
        stream.append(rows).await.unwrap();
        crash(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_before_a_durable_record_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = three_records(&dir).await;
    let whole = std::fs::read(&path).unwrap();
    let offsets = offsets(&path);
    for at in [
        0,
        20,
        offsets[0] + 3,
        offsets[0] + 70,
        offsets[1] + 40,
        offsets[2] - 20,
    ] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x44;
        std::fs::write(&path, &damaged).unwrap();
        let e = open(&dir, &[(1, true)]).await.unwrap_err();
        assert_eq!(e.state(), SqlState::DATA_CORRUPTED, "byte {at}");
        assert!(
            e.report().message.contains("is damaged"),
            "{}",
            e.report().message
        );
    }
    std::fs::write(&path, &whole).unwrap();
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    crash(stream).await;
    // a later segment knows where this one ended
    std::fs::write(&path, &whole[..offsets[2]]).unwrap();
    let e = open(&dir, &[(1, true)]).await.unwrap_err();
    assert!(
        e.report().message.contains("lost records"),
        "{}",
        e.report().message
    );
    std::fs::write(&path, &whole).unwrap();
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    crash(stream).await;
    std::fs::remove_file(dir.path().join("wal/00000000000000000002.wal")).unwrap();
    let e = open(&dir, &[(1, true)]).await.unwrap_err();
    assert!(
        e.report().message.contains("is missing"),
        "{}",
        e.report().message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_one_group_may_reach_the_disk_in_any_order() {
    let dir = TempDir::new().unwrap();
    let path = three_records(&dir).await;
    let offsets = offsets(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    let seed = seed_of(&bytes, &path);
    // The last two records as one group: both written when the first alone was durable.
    for (n, first) in [(1, 3), (2, 5)] {
        let at = offsets[n];
        let rows = batch(first - 1..first + 1);
        let part = Part {
            oid: Oid(1),
            batches: vec![rows],
            rows: 2,
        };
        let record = Encoded::new(&[part], &[]).unwrap();
        let placed = placed(record, seed, Lsn(first), offsets[1] as u64);
        bytes[at..at + placed.len()].copy_from_slice(&placed);
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(replayed(&path).unwrap(), (6, Lsn(7)));
    bytes[offsets[1] + 30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(replayed(&path).unwrap(), (2, Lsn(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_made_ahead_counts_once_it_has_begun() {
    let dir = TempDir::new().unwrap();
    let path = three_records(&dir).await;
    let wal = path.parent().unwrap();
    // died after rows went into it, before it had its name
    std::fs::rename(&path, path.with_extension("next")).unwrap();
    let whole = std::fs::read(path.with_extension("next")).unwrap();
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    std::fs::write(path.with_extension("next"), &damaged).unwrap();
    let e = open(&dir, &[(1, true)]).await.unwrap_err();
    assert_eq!(e.state(), SqlState::DATA_CORRUPTED);
    std::fs::write(path.with_extension("next"), &whole).unwrap();
    // and with one made ahead that never began, and one whose making had not ended
    segment::Prepared::make(wal, 2, 4096, None).unwrap();
    std::fs::write(wal.join("00000000000000000003.new"), b"").unwrap();
    for _ in 0..2 {
        let stream = open(&dir, &[(1, true)]).await.unwrap();
        let expected: Vec<i64> = (0..6).collect();
        assert_eq!(visible(&stream, &dir, 1).await, expected);
        crash(stream).await;
    }
    let left = |kind: &str| {
        let files = std::fs::read_dir(wal).unwrap();
        files
            .filter(|f| {
                f.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|e| e == kind)
            })
            .count()
    };
    assert_eq!((left("wal"), left("next"), left("new")), (3, 0, 0));
}
