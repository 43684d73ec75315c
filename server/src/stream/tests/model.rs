//! Random histories against a model that is a vector of rows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Rows of a size for one table or for two in one record.
    Append(u32, Option<u32>, i64),
    Flush(u32),
    DropAndMake(u32),
    Delete(u32),
    Crash,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let table = 0..3u32;
    let size = prop_oneof![4 => 1..4i64, 2 => 50..400i64, 1 => 3000..9000i64];
    prop_oneof![
        8 => (table.clone(), proptest::option::of(0..3u32), size)
            .prop_map(|(a, b, n)| Step::Append(a, b, n)),
        3 => table.clone().prop_map(Step::Flush),
        1 => table.clone().prop_map(Step::DropAndMake),
        1 => table.prop_map(Step::Delete),
        2 => Just(Step::Crash),
        1 => Just(Step::Stop),
    ]
}

/// The stream under test and what it should hold.
struct World {
    dir: TempDir,
    stream: Arc<Stream>,
    /// Current oid of each table, and its rows.
    tables: Vec<(u32, Vec<i64>)>,
    next_id: i64,
    next_oid: u32,
}

impl World {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let stream = open(&dir, &[]).await.unwrap();
        let mut tables = Vec::new();
        for oid in 1..=3 {
            stream.create_table(spec(&dir, oid, true)).await.unwrap();
            tables.push((oid, Vec::new()));
        }
        Self {
            dir,
            stream,
            tables,
            next_id: 0,
            next_oid: 4,
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Append(a, b, size) => self.append(a, b, size).await,
            Step::Flush(table) => {
                let oid = Oid(self.tables[table as usize].0);
                self.stream.flush(oid).await.unwrap();
            }
            Step::DropAndMake(table) => {
                let oid = Oid(self.tables[table as usize].0);
                self.stream.drop_table(oid).await.unwrap();
                let made = spec(&self.dir, self.next_oid, true);
                self.stream.create_table(made).await.unwrap();
                self.tables[table as usize] = (self.next_oid, Vec::new());
                self.next_oid += 1;
            }
            Step::Delete(table) => {
                let (oid, rows) = &mut self.tables[table as usize];
                rows.retain(|id| id % 3 != 0);
                self.stream
                    .exclusive(Oid(*oid), |table| async {
                        let (table, _) = table.delete().with_predicate("id % 3 = 0").await?;
                        Ok((table, ()))
                    })
                    .await
                    .unwrap();
            }
            Step::Crash => self.reopen(false).await,
            Step::Stop => self.reopen(true).await,
        }
    }

    async fn append(&mut self, a: u32, b: Option<u32>, size: i64) {
        let mut rows: BTreeMap<u32, Vec<RecordBatch>> = BTreeMap::new();
        for table in [Some(a), b].into_iter().flatten() {
            let ids = self.next_id..self.next_id + size;
            self.next_id += size;
            let (oid, known) = &mut self.tables[table as usize];
            known.extend(ids.clone());
            rows.entry(*oid).or_default().push(batch(ids));
        }
        let rows = rows.into_iter().map(|(oid, b)| (Oid(oid), b)).collect();
        let before = self.stream.head().visible;
        let lsn = self.stream.append(rows).await.unwrap();
        assert!(lsn > before);
        assert_eq!(self.stream.head().visible, lsn);
    }

    async fn reopen(&mut self, clean: bool) {
        let visible = self.stream.head().visible;
        if clean {
            self.stream.shutdown(Duration::from_secs(30)).await.unwrap();
        } else {
            let (done, ended) = oneshot::channel();
            self.stream.wal.send(Request::Stop(done)).await.unwrap();
            let _ = ended.await;
        }
        let tables: Vec<(u32, bool)> = self.tables.iter().map(|(oid, _)| (*oid, true)).collect();
        self.stream = open(&self.dir, &tables).await.unwrap();
        assert_eq!(self.stream.head().visible, visible);
    }

    async fn check(&self) {
        for (oid, rows) in &self.tables {
            let mut expected = rows.clone();
            expected.sort_unstable();
            let found = visible(&self.stream, &self.dir, *oid).await;
            assert!(
                found == expected,
                "table {oid}: {} rows, not {}",
                found.len(),
                expected.len()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_rows_are_there_exactly_once(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.run(step).await;
            }
            world.check().await;
            world.reopen(false).await;
            world.check().await;
        });
    }
}
