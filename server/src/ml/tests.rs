//! The models through training, storage and SQL.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{CsvReadOptions, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use serde_json::{Value, json};

use super::*;
use crate::error::{Error, SqlState};

type Rows = RecordBatch;
type Given = &'static [(&'static str, &'static str)];

/// Deterministic numbers in [0, 1).
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    }
}

/// Customers of whom `share` churn, mostly those with few visits and a monthly plan.
fn customers(n: usize, share: f64) -> Rows {
    let mut random = noise(11);
    let (mut churned, mut visits, mut plan, mut active) = (vec![], vec![], vec![], vec![]);
    for i in 0..n {
        let leaves = random() < share;
        churned.push(if leaves { "Yes" } else { "No" });
        let visit = if leaves { 3.0 } else { 8.0 } + 4.0 * random();
        visits.push((i % 17 != 0).then_some(visit));
        let monthly = random() < if leaves { 0.8 } else { 0.3 };
        plan.push(if monthly { "monthly" } else { "yearly" });
        active.push((i % 13 != 0).then(|| random() < if leaves { 0.2 } else { 0.7 }));
    }
    RecordBatch::try_from_iter([
        ("churned", Arc::new(StringArray::from(churned)) as ArrayRef),
        ("visits", Arc::new(Float64Array::from(visits))),
        ("plan", Arc::new(StringArray::from(plan))),
        ("active", Arc::new(BooleanArray::from(active))),
    ])
    .unwrap()
}

async fn fit(kind: &str, options: &[(&str, &str)], rows: &Rows) -> crate::error::Result<Trained> {
    let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    let options: BTreeMap<String, String> = options.iter().map(own).collect();
    train(kind, options, rows.schema(), vec![rows.clone()]).await
}

async fn refusal(kind: &str, options: &[(&str, &str)], rows: &Rows) -> Error {
    fit(kind, options, rows).await.unwrap_err()
}

fn model(name: &str, trained: &Trained) -> Arc<ScoringModel> {
    // through text, as the catalog keeps it
    let stored: Value = serde_json::from_str(&trained.artifact.to_string()).unwrap();
    Arc::new(ScoringModel::from_json(name, &stored).unwrap())
}

#[derive(Debug, Default)]
struct Models(HashMap<String, Arc<ScoringModel>>);

impl ModelResolver for Models {
    fn resolve(&self, spec: &str) -> crate::error::Result<Arc<ScoringModel>> {
        self.0.get(spec).cloned().ok_or_else(|| {
            Error::refused(
                SqlState::UNDEFINED_OBJECT,
                format!("model \"{spec}\" does not exist"),
            )
        })
    }
}

fn context(models: &[(&str, &Trained)]) -> SessionContext {
    let models = models
        .iter()
        .map(|(name, t)| ((*name).to_owned(), model(name, t)));
    let resolver: Arc<dyn ModelResolver> = Arc::new(Models(models.collect()));
    let ctx = SessionContext::new();
    for function in functions(&resolver) {
        ctx.register_udf(function.as_ref().clone());
    }
    ctx.register_relation_planner(relation_planner(resolver))
        .unwrap();
    ctx
}

/// Parses, binds relation arguments, plans and runs: as a session does.
async fn run(ctx: &SessionContext, sql: &str) -> crate::error::Result<Vec<RecordBatch>> {
    let state = ctx.state();
    let dialect = state.config_options().sql_parser.dialect;
    let mut statement = state.sql_to_statement(sql, &dialect)?;
    if let DfStatement::Statement(inner) = &mut statement {
        bind_relation_arguments(inner)?;
    }
    let plan = state.statement_to_plan(statement).await?;
    Ok(ctx.execute_logical_plan(plan).await?.collect().await?)
}

async fn number(ctx: &SessionContext, sql: &str) -> f64 {
    let batches = run(ctx, sql).await.unwrap();
    let column = arrow::compute::cast(batches[0].column(0), &DataType::Float64).unwrap();
    column.as_primitive::<Float64Type>().value(0)
}

async fn state_of(ctx: &SessionContext, sql: &str) -> &'static str {
    run(ctx, sql).await.expect_err(sql).state().0
}

#[tokio::test]
async fn the_positive_class_is_the_one_asked_for_whatever_the_majority() {
    for share in [0.2, 0.8] {
        let rows = customers(600, share);
        let trained = fit("logistic_regression", &[("target", "churned")], &rows)
            .await
            .unwrap();
        assert!(
            trained.metrics["auc"].as_f64().unwrap() > 0.9,
            "{}",
            trained.metrics
        );
        let base = trained.metrics["base_rate"].as_f64().unwrap();
        assert!((base - share).abs() < 0.1, "{base}");
        let turned = [("target", "churned"), ("positive", "No")];
        let turned = fit("logistic_regression", &turned, &rows).await.unwrap();
        let turned_base = turned.metrics["base_rate"].as_f64().unwrap();
        assert!((turned_base + base - 1.0).abs() < 1e-12);
        let args: Vec<ArrayRef> = rows.columns()[1..].to_vec();
        let p = model("m", &trained).probabilities(&args).unwrap();
        let q = model("m", &turned).probabilities(&args).unwrap();
        for (p, q) in p.values().iter().zip(q.values()) {
            assert!((p + q - 1.0).abs() < 1e-3);
        }
    }
}

#[tokio::test]
async fn training_does_not_depend_on_row_order() {
    let rows = customers(300, 0.3);
    let half = rows.num_rows() / 2;
    let swapped = [
        rows.slice(half, rows.num_rows() - half),
        rows.slice(0, half),
    ];
    let options: BTreeMap<_, _> = [("target".to_owned(), "churned".to_owned())].into();
    let a = train(
        "logistic_regression",
        options.clone(),
        rows.schema(),
        vec![rows.clone()],
    );
    let b = train(
        "logistic_regression",
        options,
        rows.schema(),
        swapped.to_vec(),
    );
    assert_eq!(a.await.unwrap(), b.await.unwrap());
    let seeded = fit(
        "logistic_regression",
        &[("target", "churned"), ("seed", "8")],
        &rows,
    );
    let unseeded = fit("logistic_regression", &[("target", "churned")], &rows);
    assert_ne!(
        seeded.await.unwrap().artifact,
        unseeded.await.unwrap().artifact
    );
}

#[tokio::test]
async fn bad_options_and_data_are_refused() {
    let rows = customers(50, 0.5);
    const TARGET: (&str, &str) = ("target", "churned");
    let cases: [(&str, Given, &str); 9] = [
        ("random_forest", &[TARGET], "0A000"),
        ("logistic_regression", &[], "22023"),
        ("logistic_regression", &[("target", "nope")], "42703"),
        ("logistic_regression", &[TARGET, ("depth", "3")], "22023"),
        (
            "logistic_regression",
            &[TARGET, ("test_fraction", "1.5")],
            "22023",
        ),
        ("logistic_regression", &[TARGET, ("l2", "NaN")], "22023"),
        (
            "logistic_regression",
            &[TARGET, ("positive", "Maybe")],
            "22023",
        ),
        (
            "logistic_regression",
            &[("target", "plan"), ("k", "2")],
            "22023",
        ),
        ("kmeans", &[("k", "0")], "22023"),
    ];
    for (kind, options, state) in cases {
        let error = refusal(kind, options, &rows).await;
        assert_eq!(error.state().0, state, "{kind} {options:?}: {error}");
    }
    let labels = |values: Vec<&str>| {
        let n = values.len();
        let f: Vec<f64> = (0..n).map(|i| i as f64).collect();
        RecordBatch::try_from_iter([
            ("y", Arc::new(StringArray::from(values)) as ArrayRef),
            ("x", Arc::new(Float64Array::from(f))),
        ])
        .unwrap()
    };
    let y = [("target", "y")];
    for rows in [
        labels(vec![]),
        labels(vec!["a"; 9]),
        labels(vec!["a", "b", "c"]),
    ] {
        assert_eq!(
            refusal("logistic_regression", &y, &rows).await.state().0,
            "22023"
        );
    }
    let holes = |x: Vec<Option<f64>>| {
        let y: Vec<i64> = (0..x.len()).map(|i| i64::from(i % 2 == 0)).collect();
        RecordBatch::try_from_iter([
            ("y", Arc::new(Int64Array::from(y)) as ArrayRef),
            ("x", Arc::new(Float64Array::from(x))),
        ])
        .unwrap()
    };
    for x in [Some(f64::NAN), Some(f64::INFINITY), None] {
        let rows = holes(vec![x; 8]);
        assert_eq!(
            refusal("logistic_regression", &y, &rows).await.state().0,
            "22023"
        );
    }
    let same = holes(vec![Some(1.0); 8]);
    assert!(fit("logistic_regression", &y, &same).await.is_ok());
    assert_eq!(
        refusal("kmeans", &[("k", "20")], &same).await.state().0,
        "22023"
    );
}

#[tokio::test]
async fn predictions_in_sql_keep_the_type_of_the_target() {
    let rows = customers(400, 0.4);
    let churn = fit("logistic_regression", &[("target", "churned")], &rows)
        .await
        .unwrap();
    let is_active = fit("logistic_regression", &[("target", "active")], &rows)
        .await
        .unwrap();
    let segments = fit("kmeans", &[("k", "3")], &rows).await.unwrap();
    let ctx = context(&[
        ("churn", &churn),
        ("active@2", &is_active),
        ("seg", &segments),
    ]);
    ctx.register_batch("customers", rows).unwrap();
    let agree = "SELECT avg(CASE WHEN predict('churn', visits, plan, active) = churned THEN 1.0 ELSE 0.0 END) FROM customers";
    assert!(number(&ctx, agree).await > 0.85);
    let same = "SELECT count(*) FROM customers WHERE (predict_proba('churn', visits, plan, active) >= 0.5) \
        = (predict('churn', visits, plan, active) = 'Yes')";
    assert_eq!(number(&ctx, same).await, 400.0);
    let boolean = "SELECT count(*) FROM customers WHERE predict('active@2', churned, visits, plan) IS NOT NULL";
    assert_eq!(number(&ctx, boolean).await, 400.0);
    let clusters =
        "SELECT count(DISTINCT cluster_of('seg', churned, visits, plan, active)) FROM customers";
    assert_eq!(number(&ctx, clusters).await, 3.0);
    let missing = "SELECT predict_proba('churn', NULL, NULL, NULL) BETWEEN 0 AND 1 \
        AND predict_proba('churn', 'NaN'::double, 'weekly', true) BETWEEN 0 AND 1";
    assert!(
        run(&ctx, missing).await.unwrap()[0]
            .column(0)
            .as_boolean()
            .value(0)
    );
    for (sql, state) in [
        ("SELECT predict('nope', 1)", "42704"),
        ("SELECT predict('churn', 1)", "42883"),
        ("SELECT predict('churn', 'x', 'monthly', true)", "42804"),
        ("SELECT predict(plan, visits) FROM customers", "22023"),
        (
            "SELECT predict_proba('seg', churned, visits, plan, active) FROM customers",
            "42809",
        ),
        (
            "SELECT cluster_of('churn', visits, plan, active) FROM customers",
            "42809",
        ),
    ] {
        assert_eq!(state_of(&ctx, sql).await, state, "{sql}");
    }
}

#[tokio::test]
async fn evaluation_and_weights_are_relations() {
    let rows = customers(400, 0.4);
    let options = [("target", "churned"), ("test_fraction", "0")];
    let trained = fit("logistic_regression", &options, &rows).await.unwrap();
    let ctx = context(&[("churn", &trained)]);
    ctx.register_batch("customers", rows).unwrap();
    for sql in [
        "SELECT auc FROM ml_evaluate('churn', 'customers')",
        "SELECT e.auc FROM ML_EVALUATE('churn', 'public.customers') AS e",
        "SELECT ml_evaluate.auc FROM ml_evaluate('churn', (SELECT * FROM customers WHERE churned <> 'Maybe'))",
        "WITH x AS (SELECT 1) SELECT (SELECT auc FROM ml_evaluate('churn', 'customers')) FROM x",
    ] {
        let auc = number(&ctx, sql).await;
        assert!(
            (auc - trained.metrics["auc"].as_f64().unwrap()).abs() < 1e-12,
            "{sql}"
        );
    }
    assert_eq!(
        number(&ctx, "SELECT n FROM ml_evaluate('churn', 'customers')").await,
        400.0
    );
    let twice = "SELECT n FROM ml_evaluate('churn', (SELECT * FROM customers UNION ALL SELECT * FROM customers))";
    assert_eq!(number(&ctx, twice).await, 800.0);
    let none = "SELECT count(auc) + count(accuracy) + n FROM ml_evaluate('churn', (SELECT * FROM customers WHERE false)) GROUP BY n";
    assert_eq!(number(&ctx, none).await, 0.0);

    let weights = run(&ctx, "SELECT feature, category FROM ml_weights('churn')")
        .await
        .unwrap();
    let table = pretty_format_batches(&weights).unwrap().to_string();
    for part in ["(intercept)", "visits", "monthly", "(other)", "true"] {
        assert!(table.contains(part), "{table}");
    }
    let visits = "SELECT weight FROM ml_weights('churn') WHERE feature = 'visits'";
    assert!(number(&ctx, visits).await < 0.0);
    for (sql, state) in [
        ("SELECT * FROM ml_evaluate('churn')", "42883"),
        ("SELECT * FROM ml_evaluate('churn', 'nope')", "42P01"),
        (
            "SELECT * FROM ml_evaluate('churn', 'customers; DROP')",
            "22023",
        ),
        (
            "SELECT * FROM ml_evaluate('churn', (SELECT visits FROM customers))",
            "42703",
        ),
        ("SELECT * FROM ml_evaluate('nope', 'customers')", "42704"),
    ] {
        assert_eq!(state_of(&ctx, sql).await, state, "{sql}");
    }
}

#[test]
fn damaged_artifacts_are_errors() {
    let good = json!({"format": 1, "features": [{"name": "x", "encoder":
        {"type": "number", "center": 1.0, "scale": 2.0, "fill": 1.0}}],
        "model": {"kind": "logistic_regression", "target": "y", "negative": 0, "positive": 1,
        "intercept": 0.0, "coefficients": [0.5]}});
    let old = ScoringModel::from_json("m", &good).unwrap();
    let x: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None]));
    let p = old.probabilities(&[x]).unwrap();
    assert_eq!(p.values().to_vec(), [1.0 / (1.0 + (-1.0_f64).exp()), 0.5]);
    for (pointer, value, state) in [
        ("/format", json!(2), "0A000"),
        ("/format", json!(0), "XX001"),
        ("/features", json!([]), "XX001"),
        ("/features/0/encoder/scale", json!(0.0), "XX001"),
        ("/model/coefficients", json!([0.5, 0.5]), "XX001"),
        ("/model/positive", json!("1"), "XX001"),
        ("/model/kind", json!("forest"), "XX001"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let error = ScoringModel::from_json("m", &bad).unwrap_err();
        assert_eq!(error.state().0, state, "{pointer}");
    }
    assert!(ScoringModel::from_json("m", &json!(null)).is_err());
}

/// The shared data sets lie beside a checkout; tests over them run where they are.
async fn shared(file: &str, query: &str) -> Option<Rows> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = package
        .ancestors()
        .map(|dir| dir.join("shared/data").join(file))
        .find(|path| path.exists())?;
    let ctx = SessionContext::new();
    ctx.register_csv(
        "t",
        path.to_str()?,
        CsvReadOptions::new().schema_infer_max_records(10_000),
    )
    .await
    .unwrap();
    let frame = ctx.sql(query).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.unwrap();
    Some(arrow::compute::concat_batches(&schema, &batches).unwrap())
}

#[tokio::test]
async fn telco_churn_reaches_the_reference() {
    let all = "SELECT * EXCEPT (row_id) FROM t WHERE row_id % 5";
    let file = "telco_churn/telco_churn.csv";
    let Some(rows) = shared(file, &format!("{all} <> 0")).await else {
        return;
    };
    let test = shared(file, &format!("{all} = 0")).await.unwrap();
    let options = [("target", "churn"), ("test_fraction", "0")];
    let trained = fit("logistic_regression", &options, &rows).await.unwrap();
    assert!(
        trained.metrics["gradient_norm"].as_f64().unwrap() < 1e-3,
        "{}",
        trained.metrics
    );
    let ctx = context(&[("churn", &trained)]);
    ctx.register_batch("test", test).unwrap();
    let auc = number(&ctx, "SELECT auc FROM ml_evaluate('churn', 'test')").await;
    let accuracy = number(&ctx, "SELECT accuracy FROM ml_evaluate('churn', 'test')").await;
    assert_eq!(
        number(&ctx, "SELECT n FROM ml_evaluate('churn', 'test')").await,
        1408.0
    );
    assert!((auc - 0.8373).abs() < 0.003, "{auc}");
    assert!((accuracy - 0.8054).abs() < 0.01, "{accuracy}");
}

/// A scikit-learn toy set: a line about it, then rows of numbers with the class number last.
fn toy(file: &str) -> Option<Rows> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = package
        .ancestors()
        .map(|dir| dir.join("shared/data/sklearn_toy").join(file))
        .find(|path| path.exists())?;
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(path)
        .unwrap();
    let rows: Vec<Vec<f64>> = reader.deserialize().map(|r| r.unwrap()).collect();
    let column = |i: usize| rows.iter().map(|r| r[i]).collect::<Vec<f64>>();
    let last = rows[0].len() - 1;
    let mut columns: Vec<(String, ArrayRef)> = (0..last)
        .map(|i| {
            (
                format!("f{i}"),
                Arc::new(Float64Array::from(column(i))) as ArrayRef,
            )
        })
        .collect();
    let class: BooleanArray = column(last).into_iter().map(|c| Some(c > 0.5)).collect();
    columns.push(("class".to_owned(), Arc::new(class)));
    Some(RecordBatch::try_from_iter(columns).unwrap())
}

#[tokio::test]
async fn kmeans_on_iris_reaches_the_reference() {
    let Some(rows) = toy("iris.csv") else {
        return;
    };
    let rows = rows.project(&[0, 1, 2, 3]).unwrap();
    let runs = ("n_runs", "30");
    let raw = [("k", "3"), ("standardise", "false"), runs];
    let raw = fit("kmeans", &raw, &rows).await.unwrap();
    let inertia = raw.metrics["inertia"].as_f64().unwrap();
    assert!((inertia - 78.851_441).abs() < 1e-4, "{inertia}");
    let mut sizes: Vec<i32> = serde_json::from_value(raw.metrics["sizes"].clone()).unwrap();
    let mut counted = vec![0; 3];
    for cluster in model("m", &raw).clusters(rows.columns()).unwrap().values() {
        counted[usize::try_from(*cluster).unwrap()] += 1;
    }
    assert_eq!(sizes, counted);
    sizes.sort_unstable();
    assert_eq!(sizes, [38, 50, 62]);
    let scaled = fit("kmeans", &[("k", "3"), runs], &rows).await.unwrap();
    let inertia = scaled.metrics["inertia"].as_f64().unwrap();
    assert!((inertia - 139.820_496).abs() < 0.01, "{inertia}");
    assert_eq!(
        scaled,
        fit("kmeans", &[("k", "3"), runs], &rows).await.unwrap()
    );
}

#[tokio::test]
async fn logistic_regression_on_breast_cancer_matches_sklearn() {
    let Some(rows) = toy("breast_cancer.csv") else {
        return;
    };
    let options = [("target", "class"), ("test_fraction", "0")];
    let trained = fit("logistic_regression", &options, &rows).await.unwrap();
    for (name, want) in [
        ("auc", 0.997_449_92),
        ("brier", 0.012_799_67),
        ("log_loss", 0.053_391_86),
    ] {
        let got = trained.metrics[name].as_f64().unwrap();
        assert!((got - want).abs() < 1e-4, "{name} {got}");
    }
    let intercept = trained.artifact["model"]["intercept"].as_f64().unwrap();
    assert!((intercept - 0.214_503).abs() < 1e-3, "{intercept}");
    let first = trained.artifact["model"]["coefficients"][0]
        .as_f64()
        .unwrap();
    assert!((first + 0.363_093).abs() < 1e-3, "{first}");
}

#[test]
fn the_function_reference_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sql/FUNCTIONS.md");
    let wanted = udfs::functions_markdown(documentation());
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == wanted,
        "sql/FUNCTIONS.md is out of date: cargo run -p server -- functions > sql/FUNCTIONS.md"
    );
}
