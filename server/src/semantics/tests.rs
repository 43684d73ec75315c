//! Rewritten plans against a naive model.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::error::{Error, Result};

/// The one value of a query with its type, planned by these rules.
async fn value(sql: &str) -> Result<(DataType, arrow::array::ArrayRef)> {
    let builder = SessionStateBuilder::new().with_default_features();
    let ctx = SessionContext::new_with_state(super::install(builder).build());
    let plan = super::apply(ctx.state().create_logical_plan(sql).await?)?;
    let batches = ctx.execute_logical_plan(plan).await?.collect().await?;
    let batch = batches
        .first()
        .ok_or_else(|| Error::Internal("no rows".to_owned()))?;
    let column = batch.column(0);
    Ok((column.data_type().clone(), std::sync::Arc::clone(column)))
}

async fn text(sql: &str) -> String {
    let (_, column) = value(&format!("SELECT ({sql})::text")).await.unwrap();
    column.as_string::<i32>().value(0).to_owned()
}

/// An integer type: its name, its Arrow form, its bounds.
const INTEGERS: [(&str, DataType, i64, i64); 3] = [
    ("smallint", DataType::Int16, -32_768, 32_767),
    ("integer", DataType::Int32, -2_147_483_648, 2_147_483_647),
    ("bigint", DataType::Int64, i64::MIN, i64::MAX),
];

#[tokio::test]
async fn integer_arithmetic_is_exact_or_refused() {
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let [left, right] = [0, 1].map(|_| rng.random_range(0..INTEGERS.len()));
        let mut pick = |of: usize| {
            let (_, _, low, high) = INTEGERS[of];
            let near = [low, low + 1, -1, 0, 1, 2, high - 1, high];
            match rng.random_bool(0.6) {
                true => *near.choose(&mut rng).unwrap(),
                false => rng.random_range(low..=high),
            }
        };
        let (a, b) = (pick(left), pick(right));
        let op = *["+", "-", "*"].choose(&mut rng).unwrap();
        let exact = match op {
            "+" => i128::from(a) + i128::from(b),
            "-" => i128::from(a) - i128::from(b),
            _ => i128::from(a) * i128::from(b),
        };
        let (_, wider, low, high) = &INTEGERS[left.max(right)];
        // as text, so that the smallest bigint can be written
        let (x, y) = (INTEGERS[left].0, INTEGERS[right].0);
        let sql = match rng.random_bool(0.5) {
            true => format!("SELECT '{a}'::{x} {op} '{b}'::{y}"),
            false => format!(
                "SELECT x {op} y FROM (VALUES ('{a}'::{x}, '{b}'::{y}), (NULL, NULL)) AS t (x, y)"
            ),
        };
        match (value(&sql).await, i64::try_from(exact)) {
            (Ok((ty, column)), Ok(exact)) if (*low..=*high).contains(&exact) => {
                assert_eq!(&ty, wider, "{sql}");
                let wide = arrow::compute::cast(&column, &DataType::Int64).unwrap();
                assert_eq!(wide.as_primitive::<Int64Type>().value(0), exact, "{sql}");
            }
            (Ok((_, column)), _) => panic!("{sql}: {column:?}, exact {exact}"),
            (Err(e), Ok(exact)) if (*low..=*high).contains(&exact) => panic!("{sql}: {e}"),
            (Err(e), _) => assert_eq!(e.state().0, "22003", "{sql}: {e}"),
        }
    }
}

#[tokio::test]
async fn sums_are_exact_or_refused() {
    let mut rng = StdRng::seed_from_u64(8);
    for _ in 0..100 {
        let size = rng.random_range(1..6);
        let values: Vec<i64> = (0..size)
            .map(|_| match rng.random_bool(0.4) {
                true => rng.random_range(i64::MIN..=i64::MAX),
                false => rng.random_range(-9..9),
            })
            .collect();
        // every beginning of the sum must fit, whatever the order
        let fits = |keep: fn(&i64) -> bool| {
            let sum: i128 = values
                .iter()
                .filter(|v| keep(v))
                .map(|v| i128::from(*v))
                .sum();
            i64::try_from(sum).is_ok()
        };
        let surely = fits(|v| *v > 0) && fits(|v| *v < 0);
        let exact: i128 = values.iter().map(|v| i128::from(*v)).sum();
        let rows: Vec<String> = values
            .iter()
            .map(|v| format!("(1, '{v}'::bigint)"))
            .collect();
        for group in ["", " GROUP BY g"] {
            let sql = format!(
                "SELECT sum(x) FROM (VALUES {}) AS t (g, x){group}",
                rows.join(", ")
            );
            match value(&sql).await {
                Ok((_, column)) => {
                    let sum = column.as_primitive::<Int64Type>().value(0);
                    assert_eq!(i128::from(sum), exact, "{sql}");
                }
                Err(e) => {
                    assert_eq!(e.state().0, "22003", "{sql}: {e}");
                    assert!(!surely, "{sql}: {e}");
                }
            }
        }
    }
}

/// What PostgreSQL 15 answers.
#[tokio::test]
async fn intervals_scale_as_in_postgresql() {
    for (sql, expected) in [
        ("INTERVAL '1 month' * 1.5", "1 mon 15 days"),
        ("INTERVAL '1 day' * 0.5", "12:00:00"),
        ("INTERVAL '1 month' / 30", "1 day"),
        ("INTERVAL '1 year' / 5", "2 mons 12 days"),
        ("-2 * '1 day 02:00'::interval", "-2 days -04:00:00"),
        ("INTERVAL '10 hours' / 3", "03:20:00"),
    ] {
        assert_eq!(text(sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn casts_round_and_read_as_in_postgresql() {
    for (sql, expected) in [
        ("'2.5'::float8::int", "2"),
        ("'3.5'::float8::int", "4"),
        ("2.5::numeric::int", "3"),
        ("'-2.5'::numeric(4,1)::int", "-3"),
        ("' 42 '::int", "42"),
        ("'yes'::bool", "true"),
        ("'2026-02-28 12:00'::timestamp", "2026-02-28 12:00:00"),
        ("'Infinity'::float8", "Infinity"),
        ("'{1,2}'::int[]", "{1,2}"),
    ] {
        assert_eq!(text(sql).await, expected, "{sql}");
    }
    for (sql, code) in [
        ("'x'::int", "22P02"),
        ("'99999999999'::int", "22003"),
        ("'2026-02-30'::date", "22008"),
        ("'soon'::date", "22007"),
        ("1::int = lower('1')", "42883"),
        (
            "CASE WHEN random() < 2 THEN 1 ELSE DATE '2026-01-01' END",
            "42804",
        ),
        ("'1'::float8 / 0", "22012"),
    ] {
        let refused = value(&format!("SELECT {sql}")).await.unwrap_err();
        assert_eq!(refused.state().0, code, "{sql}: {refused}");
    }
}
