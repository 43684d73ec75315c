//! Flushing to object stores that fail: whatever they answer, acknowledged rows are there once.

use std::sync::atomic::{AtomicU64, Ordering};

use deltalake::DeltaTableBuilder;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::lake::faulty::FaultyStore;
use crate::lake::stores;

/// Times a request of the test itself is made again.
const PATIENCE: usize = 200;

/// A bucket of its own with one table in it.
pub(super) struct Bucket {
    honest: Arc<InMemory>,
    pub(super) faulty: Arc<FaultyStore>,
    pub(super) dir: TempDir,
    root: Url,
}

impl Bucket {
    pub(super) fn new(seed: u64, percent: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = NEXT.fetch_add(1, Ordering::SeqCst);
        let root = Url::parse(&format!("s3://weir-faulty-{name}/lake/t1/")).unwrap();
        let honest = Arc::new(InMemory::new());
        let faulty = Arc::new(FaultyStore::new(Arc::clone(&honest) as _, seed, percent));
        stores::install(&root, Arc::clone(&honest) as _);
        Self {
            honest,
            faulty,
            dir: TempDir::new().unwrap(),
            root,
        }
    }

    pub(super) fn spec(&self) -> TableSpec {
        TableSpec {
            root: self.root.clone(),
            ..spec(&self.dir, 1, true)
        }
    }

    /// Faults from now on: tables opened before keep the store they were opened over.
    pub(super) fn be_faulty(&self) {
        stores::install(&self.root, Arc::clone(&self.faulty) as _);
    }

    async fn open(&self) -> Arc<Stream> {
        for _ in 0..PATIENCE {
            match Stream::open(options(&self.dir), vec![self.spec()]).await {
                Ok(stream) => return stream,
                // a listing of before its first commit shows no table
                Err(e) => assert!(
                    [SqlState::IO_ERROR, SqlState::UNDEFINED_TABLE].contains(&e.state()),
                    "{e:?}"
                ),
            }
        }
        panic!("the table does not open");
    }

    /// What another reader sees in the bucket.
    pub(super) async fn stored(&self) -> Vec<i64> {
        let honest: Arc<dyn ObjectStore> = Arc::clone(&self.honest) as _;
        let mut table = DeltaTableBuilder::from_url(self.root.clone())
            .unwrap()
            .with_storage_backend(honest, self.root.clone())
            .build()
            .unwrap();
        table.load().await.unwrap();
        let (_, rows) = table.scan_table().await.unwrap();
        let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        let mut ids: Vec<i64> = rows.iter().flat_map(|b| int_column(b, "id")).collect();
        ids.sort_unstable();
        ids
    }
}

async fn flush(stream: &Stream) {
    for _ in 0..PATIENCE {
        if stream.flush(Oid(1)).await.is_ok() {
            return;
        }
    }
    panic!("no flush succeeds");
}

/// Appends, flushes, kills and opens again over a store of which one request in seven goes wrong.
async fn history(seed: u64) -> u64 {
    let bucket = Bucket::new(seed, 14);
    let first = Stream::open(options(&bucket.dir), Vec::new())
        .await
        .unwrap();
    first.create_table(bucket.spec()).await.unwrap();
    crash(first).await;
    bucket.be_faulty();
    let mut random = StdRng::seed_from_u64(seed);
    let mut stream = bucket.open().await;
    let mut sent = 0;
    for _ in 0..12 {
        match random.random_range(0..10) {
            0..5 => {
                let rows = random.random_range(1..40);
                let rows = vec![(Oid(1), vec![batch(sent..sent + rows)])];
                sent += i64::try_from(rows[0].1[0].num_rows()).unwrap();
                stream.append(rows).await.unwrap();
            }
            5..8 => {
                // its failure loses and doubles nothing
                let _ = stream.flush(Oid(1)).await;
            }
            8 => {
                // neither does that of merging all files
                let all = exchange::all_in_one(&stream, 1, exchange::merged(), |_| true).await;
                if let Ok(all) = all {
                    let _ = stream.exchange(Oid(1), all).await;
                }
            }
            _ => {
                crash(stream).await;
                stream = bucket.open().await;
            }
        }
        let stored = bucket.stored().await;
        assert_eq!(
            stored,
            (0..stored.len() as i64).collect::<Vec<_>>(),
            "{seed}"
        );
        assert!(stored.len() as i64 <= sent, "{seed}");
    }
    flush(&stream).await;
    assert_eq!(
        bucket.stored().await,
        (0..sent).collect::<Vec<_>>(),
        "{seed}"
    );
    assert!(stream.head().tables[&Oid(1)].tail.is_empty());
    crash(stream).await;
    bucket.faulty.faults()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_stored_once_whatever_the_store_answers() {
    // a longer search: WEIR_STORE_SEEDS=1000
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test searches is no setting"
    )]
    let seeds = std::env::var("WEIR_STORE_SEEDS").ok();
    let seeds: u64 = seeds.and_then(|n| n.parse().ok()).unwrap_or(25);
    let mut faults = 0;
    for seed in 0..seeds {
        faults += history(seed).await;
    }
    assert!(faults > seeds, "{faults} faults in {seeds} histories");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_holds_rows_back_and_loses_none() {
    let bucket = Bucket::new(1, 0);
    let first = Stream::open(options(&bucket.dir), Vec::new())
        .await
        .unwrap();
    first.create_table(bucket.spec()).await.unwrap();
    crash(first).await;
    bucket.be_faulty();
    let stream = bucket.open().await;
    bucket.faulty.set_out(true);
    for n in 0..5 {
        let rows = vec![(Oid(1), vec![batch(n * 10..n * 10 + 10)])];
        stream.append(rows).await.unwrap();
        let failed = stream.flush(Oid(1)).await.unwrap_err();
        assert_eq!(failed.state(), SqlState::IO_ERROR);
    }
    assert_eq!(bucket.stored().await, Vec::<i64>::new());
    assert_eq!(stream.head().visible, Lsn(50));
    bucket.faulty.set_out(false);
    flush(&stream).await;
    assert_eq!(bucket.stored().await, (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_for_room_are_known() {
    let bucket = Bucket::new(2, 0);
    let often = StreamOptions {
        flush_interval: Duration::from_millis(20),
        ..options(&bucket.dir)
    };
    let first = Stream::open(often.clone(), Vec::new()).await.unwrap();
    first.create_table(bucket.spec()).await.unwrap();
    crash(first).await;
    bucket.be_faulty();
    let stream = Stream::open(often, vec![bucket.spec()]).await.unwrap();
    let becomes = async |wanted: bool| {
        for _ in 0..2000 {
            if stream.cannot_flush() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("cannot_flush stays {}", !wanted);
    };
    assert!(!stream.cannot_flush());
    bucket.faulty.set_out(true);
    let rows = vec![(Oid(1), vec![batch(0..10)])];
    stream.append(rows).await.unwrap();
    becomes(true).await;
    bucket.faulty.set_out(false);
    becomes(false).await;
    assert_eq!(bucket.stored().await, (0..10).collect::<Vec<_>>());
}
