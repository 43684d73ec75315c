//! Bad rows among good ones against the plain way: each row by itself, one after the other.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::super::*;
use crate::config::Config;
use crate::decode::{self, Decoded, TextFormat};
use crate::engine::Engine;
use crate::engine::scope::Caller;
use crate::exec::ingest::{self, Delivery, Stored};
use crate::session::{Door, Session};
use crate::stream::letters::Piece;

/// `n` cannot become wider, `w` can.
const COLUMNS: &str = "(id BIGINT NOT NULL, n INT, w INT, v TEXT, \
                       g INT GENERATED ALWAYS AS (n + 1) STORED, CHECK (n <> 7)) \
                       WITH (schema_evolution = 'add', flush_interval = '1 hour')";

struct World {
    engine: Arc<Engine>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Config::for_test(dir.path())).await.unwrap();
        Self { engine, _dir: dir }
    }

    async fn create(&self, table: &str) {
        let session = Session::open(&self.engine, "weir", Door::System).unwrap();
        let sql = format!("CREATE STREAMING TABLE {table} {COLUMNS}");
        for statement in session.parse(&sql).unwrap() {
            session.execute(&statement, Vec::new()).await.unwrap();
        }
    }

    fn scope(&self) -> Arc<Scope> {
        Arc::new(Scope::new(&self.engine, Caller::system()))
    }

    fn columns(&self, table: &str) -> BTreeSet<String> {
        let scope = self.scope();
        let table = scope.catalog.relation("public", table).unwrap();
        table.columns.iter().map(|c| c.name.clone()).collect()
    }

    /// The places of rows that were refused, from 1.
    async fn send(&self, table: &str, rows: Decoded) -> (Stored, BTreeSet<usize>) {
        let delivery = Delivery::by("test");
        let scope = self.scope();
        let stored = ingest::store(&scope, "public", table, rows, BadRows::Collect, delivery);
        let (stored, refused) = stored.await.unwrap();
        let place = |position: Option<String>| {
            let position = position.unwrap();
            position.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let places = refused.into_iter().map(|r| place(r.position)).collect();
        (stored, places)
    }

    fn decoded(&self, table: &str, text: String) -> Decoded {
        let scope = self.scope();
        let relation = scope.catalog.relation("public", table).unwrap();
        let columns = ingest::accepted_schema(relation);
        decode::text(TextFormat::NdJson, &text.into(), &columns, BadRows::Collect).unwrap()
    }
}

fn row(rng: &mut StdRng, id: usize) -> Value {
    let mut row = Map::new();
    let id = if rng.random_bool(0.05) {
        Value::Null
    } else {
        json!(id)
    };
    row.insert("id".to_owned(), id);
    let values = [
        json!(5),
        json!(7),
        json!(3_000_000_000_i64),
        json!(0.5),
        json!("many"),
        json!(true),
        json!({"k": [1]}),
        json!("ab"),
        Value::Null,
    ];
    let keys = [
        "n", "w", "v", "g", "a", "A", "b", "B", "bé", "a b", "", "_lsn", "ID", "_rescued",
    ];
    for _ in 0..rng.random_range(0..3) {
        let most = rng.random_range(1..=keys.len());
        let key = keys[rng.random_range(0..most)];
        row.insert(key.to_owned(), values.choose(rng).unwrap().clone());
    }
    Value::Object(row)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_refused_as_if_each_came_alone() {
    let world = World::new().await;
    let mut rng = StdRng::seed_from_u64(31);
    for case in 0..24 {
        let (whole, alone) = (format!("whole_{case}"), format!("alone_{case}"));
        world.create(&whole).await;
        world.create(&alone).await;
        let rows: Vec<String> = (0..8).map(|id| row(&mut rng, id).to_string()).collect();
        let mut expected = BTreeSet::new();
        for (at, row) in rows.iter().enumerate() {
            let (_, refused) = world.send(&alone, world.decoded(&alone, row.clone())).await;
            expected.extend(refused.into_iter().map(|_| at + 1));
        }
        let decoded = world.decoded(&whole, rows.join("\n"));
        let (stored, refused) = world.send(&whole, decoded).await;
        assert_eq!(refused, expected, "{case}: {rows:#?}");
        assert_eq!(stored.accepted as usize, rows.len() - expected.len());
        assert_eq!(world.columns(&whole), world.columns(&alone), "{rows:#?}");
    }
}

fn batch(rng: &mut StdRng) -> RecordBatch {
    let rows = rng.random_range(1..12);
    let ids = (0..rows).map(|id| rng.random_bool(0.9).then_some(id));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter(ids));
    let texts = ["1", "7", "many", "3000000000", "0.5"];
    let number: ArrayRef = match rng.random_range(0..3) {
        0 => {
            Arc::new(StringArray::from_iter((0..rows).map(|_| {
                rng.random_bool(0.9).then(|| *texts.choose(rng).unwrap())
            })))
        }
        1 => Arc::new(Float64Array::from_iter((0..rows).map(|_| {
            rng.random_bool(0.9)
                .then(|| f64::from(rng.random_range(0..9)) / 2.0)
        }))),
        _ => {
            Arc::new(Int64Array::from_iter((0..rows).map(|_| {
                rng.random_bool(0.9).then(|| rng.random_range(0..9) << 30)
            })))
        }
    };
    let new = (0..rows).map(|_| rng.random_bool(0.3).then_some(0.25));
    let new: ArrayRef = Arc::new(Float64Array::from_iter(new));
    let kept = [
        None,
        None,
        Some("{\"a\": 1}"),
        Some("{\"A\": 1}"),
        Some("[]"),
        Some("{\"g\": 1}"),
    ];
    let kept = (0..rows).map(|_| *kept.choose(rng).unwrap());
    let kept: ArrayRef = Arc::new(StringArray::from_iter(kept));
    let name = ["n", "w"][rng.random_range(0..2)];
    RecordBatch::try_from_iter_with_nullable([
        ("id", ids, true),
        (name, number, true),
        ("x", new, true),
        (RESCUED, kept, true),
    ])
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_arrow_data_are_refused_as_if_each_came_alone() {
    let world = World::new().await;
    let mut rng = StdRng::seed_from_u64(32);
    let decoded = |batch: RecordBatch| Decoded {
        pieces: vec![Piece::arrow(batch, 1)],
        ..Decoded::default()
    };
    for case in 0..24 {
        let (whole, alone) = (format!("whole_{case}"), format!("alone_{case}"));
        world.create(&whole).await;
        world.create(&alone).await;
        let batch = batch(&mut rng);
        let mut expected = BTreeSet::new();
        for row in 0..batch.num_rows() {
            let (_, refused) = world.send(&alone, decoded(batch.slice(row, 1))).await;
            expected.extend(refused.into_iter().map(|_| row + 1));
        }
        let (_, refused) = world.send(&whole, decoded(batch.clone())).await;
        assert_eq!(refused, expected, "{case}: {batch:#?}");
        assert_eq!(world.columns(&whole), world.columns(&alone), "{batch:#?}");
    }
}
