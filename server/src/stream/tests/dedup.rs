//! Duplicates against a model that compares every row with every row.

use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::{TimeUnit, TimestampMicrosecondType};
use proptest::prelude::*;

use super::*;

const WINDOW: i64 = 3_600_000_000;
const TABLE: Oid = Oid(1);

/// Key and time of a row.
type Row = (Option<i64>, Option<i64>);

fn events() -> SchemaRef {
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", ts, true),
    ]))
}

fn rows_of(rows: &[Row]) -> RecordBatch {
    let ids: Int64Array = rows.iter().map(|row| row.0).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.1).collect();
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(ids), Arc::new(times.with_timezone("UTC"))];
    RecordBatch::try_new(events(), columns).unwrap()
}

fn keyed(dir: &TempDir, event_time: bool) -> TableSpec {
    TableSpec {
        schema: events(),
        dedup: Some(DedupSpec {
            key: vec!["id".to_owned()],
            window: Duration::from_micros(WINDOW.unsigned_abs()),
            event_time: event_time.then(|| "ts".to_owned()),
        }),
        ..spec(dir, 1, true)
    }
}

async fn read(stream: &Stream, dir: &TempDir) -> Vec<Row> {
    let head = stream.head();
    let table = &head.tables[&TABLE];
    let root = spec(dir, 1, true).root;
    let version = u64::try_from(table.lake.version).unwrap();
    let delta = deltalake::open_table_with_version(root, version)
        .await
        .unwrap();
    let (_, rows) = delta.scan_table().await.unwrap();
    let mut batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    batches.extend(table.tail.iter().map(|part| part.batch.clone()));
    let mut all = Vec::new();
    for batch in batches {
        let ids = batch.column_by_name("id").unwrap();
        let times = batch.column_by_name("ts").unwrap();
        let ids = ids.as_primitive::<Int64Type>();
        let times = times.as_primitive::<TimestampMicrosecondType>();
        all.extend(ids.iter().zip(times.iter()));
    }
    all.sort_unstable();
    all
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<Row>>),
    Flush,
    Delete(i64),
    Crash,
    Stop,
}

/// Few keys, and times that are often just a window apart.
fn row() -> impl Strategy<Value = Row> {
    let near = -2..3i64;
    let time = (0..4i64, near).prop_map(|(windows, off)| windows * WINDOW + off);
    let odd = -5 * WINDOW..5 * WINDOW;
    let time = prop_oneof![6 => time, 2 => odd, 1 => Just(i64::MAX), 1 => Just(i64::MIN + 1)];
    (
        proptest::option::weighted(0.95, 0..12i64),
        proptest::option::weighted(0.95, time),
    )
}

fn step() -> impl Strategy<Value = Step> {
    let batch = proptest::collection::vec(row(), 0..12);
    prop_oneof![
        10 => proptest::collection::vec(batch, 1..3).prop_map(Step::Append),
        2 => Just(Step::Flush),
        1 => (0..12i64).prop_map(Step::Delete),
        1 => Just(Step::Crash),
        1 => Just(Step::Stop),
    ]
}

/// The stream under test and the rows that it should hold.
struct World {
    dir: TempDir,
    stream: Arc<Stream>,
    event_time: bool,
    rows: Vec<Row>,
}

impl World {
    async fn new(event_time: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let stream = Stream::open(options(&dir), Vec::new()).await.unwrap();
        stream.create_table(keyed(&dir, event_time)).await.unwrap();
        Self {
            dir,
            stream,
            event_time,
            rows: Vec::new(),
        }
    }

    /// As the definition says, row by row.
    fn accept(&mut self, row: Row) -> bool {
        let duplicate = match (row, self.event_time) {
            ((Some(key), Some(time)), true) => self.rows.iter().any(|(k, t)| {
                let near = |t: i64| t.abs_diff(time) <= WINDOW.unsigned_abs();
                *k == Some(key) && t.is_some_and(near)
            }),
            // nothing in this test takes an hour
            ((Some(key), _), false) => self.rows.iter().any(|(k, _)| *k == Some(key)),
            _ => false,
        };
        if !duplicate {
            self.rows.push(row);
        }
        !duplicate
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Append(batches) => {
                let sent = batches.iter().map(|rows| rows_of(rows)).collect();
                let mut duplicates = 0;
                for row in batches.into_iter().flatten() {
                    duplicates += u64::from(!self.accept(row));
                }
                let appended = self
                    .stream
                    .append_in_turn(vec![(TABLE, sent)], Turn::default())
                    .await
                    .unwrap();
                assert_eq!(appended.duplicates, duplicates);
                assert_eq!(self.stream.head().visible, appended.lsn);
            }
            Step::Flush => drop(self.stream.flush(TABLE).await.unwrap()),
            Step::Delete(id) => {
                self.rows.retain(|row| row.0 != Some(id));
                self.stream
                    .exclusive(TABLE, |table| async {
                        let snapshot = self.stream.head().tables[&TABLE].lake.refreshed().await?;
                        let (app, version) = next_change(&snapshot, TABLE).await?;
                        let txn = deltalake::kernel::Transaction::new(app, version);
                        let properties =
                            deltalake::kernel::transaction::CommitProperties::default()
                                .with_application_transaction(txn);
                        let (table, _) = table
                            .delete()
                            .with_predicate(format!("id = {id}"))
                            .with_commit_properties(properties)
                            .await?;
                        Ok((table, ()))
                    })
                    .await
                    .unwrap();
            }
            Step::Crash => {
                let (done, ended) = oneshot::channel();
                self.stream.wal.send(Request::Stop(done)).await.unwrap();
                let _ = ended.await;
                self.reopen().await;
            }
            Step::Stop => {
                self.stream.shutdown(Duration::from_secs(30)).await.unwrap();
                self.reopen().await;
            }
        }
    }

    async fn reopen(&mut self) {
        let tables = vec![keyed(&self.dir, self.event_time)];
        self.stream = Stream::open(options(&self.dir), tables).await.unwrap();
    }

    async fn check(&mut self) {
        self.rows.sort_unstable();
        assert_eq!(read(&self.stream, &self.dir).await, self.rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_the_definition_says(
        event_time in prop::bool::weighted(0.75),
        steps in proptest::collection::vec(step(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new(event_time).await;
            for step in steps {
                world.run(step).await;
            }
            world.check().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_and_writers_that_leave_store_each_key_once() {
    let mut world = World::new(true).await;
    let keys = 0..3000i64;
    let batch = |keys: std::ops::Range<i64>| {
        let rows: Vec<Row> = keys.map(|k| (Some(k), Some(k * 1_000_000))).collect();
        vec![(TABLE, vec![rows_of(&rows)])]
    };
    let sent: Vec<i64> = (0..4).flat_map(|_| keys.clone().step_by(10)).collect();
    stream::iter(sent.into_iter().enumerate())
        .for_each_concurrent(32, |(n, from)| {
            let stream = Arc::clone(&world.stream);
            async move {
                let work = stream.append(batch(from..from + 20));
                // some do not wait for the answer
                let patience = Duration::from_micros(if n % 3 == 0 {
                    n as u64 % 400
                } else {
                    60_000_000
                });
                let _ = tokio::time::timeout(patience, work).await;
                if n % 100 == 0 {
                    stream.flush(TABLE).await.unwrap();
                }
            }
        })
        .await;
    world.reopen().await;
    world.stream.append(batch(0..3010)).await.unwrap();
    world.rows = (0..3010).map(|k| (Some(k), Some(k * 1_000_000))).collect();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_larger_than_its_memory_is_read_again_or_refused() {
    let dir = TempDir::new().unwrap();
    let options = StreamOptions {
        dedup_bytes: 64 * 1024,
        ..options(&dir)
    };
    let stream = Stream::open(options, Vec::new()).await.unwrap();
    stream.create_table(keyed(&dir, true)).await.unwrap();
    // far more keys than fit, but few in each window
    let window = |n: i64| -> Vec<Row> {
        (0..300)
            .map(|k| (Some(k), Some(n * 5 * WINDOW + k)))
            .collect()
    };
    for n in 0..40 {
        let rows = vec![(TABLE, vec![rows_of(&window(n))])];
        let appended = stream.append_in_turn(rows, Turn::default()).await.unwrap();
        assert_eq!(appended.duplicates, 0);
        if n % 7 == 0 {
            stream.flush(TABLE).await.unwrap();
        }
    }
    for n in (0..40).rev() {
        let rows = vec![(TABLE, vec![rows_of(&window(n))])];
        let appended = stream.append_in_turn(rows, Turn::default()).await.unwrap();
        assert_eq!(appended.duplicates, 300, "{n}");
    }
    // in one window they must all be known at once
    let many: Vec<Row> = (1000..20_000).map(|k| (Some(k), Some(0))).collect();
    let e = stream
        .append(vec![(TABLE, vec![rows_of(&many)])])
        .await
        .unwrap_err();
    assert_eq!(e.state(), SqlState::OUT_OF_MEMORY);
    assert_eq!(read(&stream, &dir).await.len(), 40 * 300);
    let few = vec![(TABLE, vec![rows_of(&window(50))])];
    stream.append(few).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_arrival_a_key_comes_back_when_its_window_is_over() {
    let dir = TempDir::new().unwrap();
    let spec = || {
        let mut spec = keyed(&dir, false);
        if let Some(dedup) = &mut spec.dedup {
            dedup.window = Duration::from_millis(1500);
        }
        spec
    };
    let stream = Stream::open(options(&dir), Vec::new()).await.unwrap();
    stream.create_table(spec()).await.unwrap();
    let rows = || vec![(TABLE, vec![rows_of(&[(Some(1), None)])])];
    let duplicates = async |stream: &Stream| {
        let appended = stream.append_in_turn(rows(), Turn::default()).await;
        appended.unwrap().duplicates
    };
    assert_eq!(duplicates(&stream).await, 0);
    assert_eq!(duplicates(&stream).await, 1);
    tokio::time::sleep(Duration::from_millis(1700)).await;
    assert_eq!(duplicates(&stream).await, 0);
    // a restart neither forgets an arrival nor makes it younger
    stream.flush(TABLE).await.unwrap();
    stream.shutdown(Duration::from_secs(20)).await.unwrap();
    let stream = Stream::open(options(&dir), vec![spec()]).await.unwrap();
    assert_eq!(duplicates(&stream).await, 1);
    tokio::time::sleep(Duration::from_millis(1700)).await;
    let stream = Stream::open(options(&dir), vec![spec()]).await.unwrap();
    assert_eq!(duplicates(&stream).await, 0);
    assert_eq!(read(&stream, &dir).await.len(), 3);
}
