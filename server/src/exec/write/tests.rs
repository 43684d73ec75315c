//! Telling rows of a batch apart against the plain way: each row by itself.

use arrow::array::{Int64Array, StringArray};
use arrow::compute::concat_batches;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::scope::Caller;
use crate::session::{Door, Session};

const TABLE: &str = "CREATE STREAMING TABLE t (id BIGINT NOT NULL, n INT, v VARCHAR(3), \
                     d INT GENERATED ALWAYS AS (100 / n) STORED, CHECK (n <> 7), CHECK (id % 5 <> 0))";

fn batch(rng: &mut StdRng, bad: f64) -> RecordBatch {
    let rows = rng.random_range(0..60);
    let mut ids = Vec::new();
    let mut numbers = Vec::new();
    let mut texts = Vec::new();
    for _ in 0..rows {
        let odd = rng.random_bool(bad);
        let kind = if odd { rng.random_range(0..6) } else { 9 };
        ids.push(match kind {
            0 => None,
            1 => Some(rng.random_range(0..9) * 5),
            _ => Some(rng.random_range(0..9) * 5 + 1),
        });
        numbers.push(match kind {
            2 => Some("x".to_owned()),
            3 => Some("0".to_owned()),
            4 => Some("7".to_owned()),
            _ => rng
                .random_bool(0.8)
                .then(|| rng.random_range(8..99).to_string()),
        });
        texts.push(match kind {
            5 => Some("long".to_owned()),
            _ => rng.random_bool(0.8).then(|| "ok".to_owned()),
        });
    }
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(ids)) as ArrayRef, true),
        ("n", Arc::new(StringArray::from(numbers)) as ArrayRef, true),
        ("v", Arc::new(StringArray::from(texts)) as ArrayRef, true),
    ])
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_sorted_as_if_each_came_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::for_test(dir.path())).await.unwrap();
    let session = Session::open(&engine, "weir", Door::System).unwrap();
    for statement in session.parse(TABLE).unwrap() {
        session.execute(&statement, Vec::new()).await.unwrap();
    }
    let scope = Arc::new(Scope::new(&engine, Caller::system()));
    let relation = scope.catalog.relation("public", "t").unwrap().clone();
    let intake = Intake::new(&scope, &relation).unwrap();
    let mut rng = StdRng::seed_from_u64(30);
    for round in 0..200 {
        let batch = batch(&mut rng, [0.0, 0.05, 0.5, 1.0][round % 4]);
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for row in 0..batch.num_rows() {
            match intake.apply(&batch.slice(row, 1)) {
                Ok(rows) => good.push(rows),
                Err(e) => bad.push((row, e.to_string())),
            }
        }
        let sorted = intake.sort(&batch).unwrap();
        let found: Vec<_> = sorted
            .bad
            .iter()
            .map(|(row, e)| (*row, e.to_string()))
            .collect();
        assert_eq!(found, bad, "round {round}");
        let schema = types::schema(&relation.columns);
        let expected = concat_batches(&schema, &good).unwrap();
        let found = concat_batches(&schema, &sorted.good).unwrap();
        assert_eq!(found, expected, "round {round}");
    }
    // what is no row's fault is nobody's letter
    let strange =
        RecordBatch::try_from_iter([("nope", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let refused = intake.sort(&strange.unwrap()).unwrap_err();
    assert_eq!(refused.state(), SqlState::UNDEFINED_COLUMN);
    drop(session);
    engine.close().await.unwrap();
}
