//! `logistic_regression`: linfa's L-BFGS on standardised, one-hot encoded features.
//!
//! Minimises `Σ loss + l2/2 · ‖w‖²`, the intercept free; `l2` is 1/C of other libraries.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Int64Type};
use linfa::Dataset;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::artifact::{Artifact, FORMAT, Feature, Label, Model};
use super::encode;
use super::metrics::Metrics;
use super::score::ScoringModel;
use super::train::{Options, Trained, check_size, feature_columns, shuffled};
use crate::error::{Error, Result, SqlState};

struct Settings {
    target: String,
    positive: Option<String>,
    seed: u64,
    test_fraction: f64,
    l2: f64,
    max_iterations: u64,
}

impl Settings {
    fn take(options: &mut Options) -> Result<Self> {
        let settings = Self {
            target: options.required("target")?,
            positive: options.text("positive"),
            seed: options.parsed("seed", 0, 0..=u64::MAX)?,
            test_fraction: options.parsed("test_fraction", 0.2, 0.0..=0.9)?,
            l2: options.parsed("l2", 1.0, 0.0..=1e9)?,
            max_iterations: options.parsed("max_iterations", 500, 1..=100_000)?,
        };
        options.finish("logistic_regression")?;
        Ok(settings)
    }
}

/// Trains and, on the held-out rows (on the training rows when there are none), measures. Rows whose target is NULL are left out.
pub(super) fn train(options: &mut Options, rows: &RecordBatch) -> Result<Trained> {
    let settings = Settings::take(options)?;
    let target = rows.column_by_name(&settings.target).ok_or_else(|| {
        Error::refused(
            SqlState::UNDEFINED_COLUMN,
            format!(
                "target column \"{}\" is not in the training query",
                settings.target
            ),
        )
    })?;
    let labelled = filter_record_batch(rows, &is_not_null(target)?)?;
    let ordered = shuffled(&labelled, settings.seed)?;
    let n_test = (ordered.num_rows() as f64 * settings.test_fraction).round() as usize;
    let test = ordered.slice(0, n_test);
    let train = ordered.slice(n_test, ordered.num_rows() - n_test);

    let labels = labels(&column(&ordered, &settings.target)?, &settings)?;
    let (negative, positive) = classes(&labels, &settings)?;
    let is_positive: Vec<bool> = labels.iter().map(|l| *l == positive).collect();
    let (test_labels, train_labels) = is_positive.split_at(n_test);
    if train_labels.windows(2).all(|pair| pair[0] == pair[1]) {
        return Err(invalid("all training rows are of one class")
            .with_hint("use more rows, or a smaller test_fraction"));
    }

    let columns = feature_columns(&train, Some(&settings.target))?;
    let features: Vec<Feature> = columns
        .iter()
        .map(|(name, column)| encode::fit(name, column, true))
        .collect::<Result<_>>()?;
    let width = features.iter().map(|f| f.encoder.width()).sum();
    check_size(train.num_rows(), width)?;
    let arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, c)| c).collect();
    let matrix = encode::matrix(&features, &arrays, width)?;
    let fitted = fit(matrix, width, train_labels, &settings)?;

    let artifact = Artifact {
        format: FORMAT,
        features,
        model: Model::LogisticRegression {
            target: settings.target.clone(),
            negative,
            positive,
            intercept: fitted.intercept,
            coefficients: fitted.coefficients,
        },
    };
    let model = ScoringModel::new("", artifact);
    let (measured, truth) = match n_test {
        0 => (&train, train_labels),
        _ => (&test, test_labels),
    };
    let mut metrics = measure(&model, measured, truth)?.to_json();
    metrics.insert("n_train".to_owned(), train.num_rows().into());
    metrics.insert("n_test".to_owned(), n_test.into());
    metrics.insert("gradient_norm".to_owned(), fitted.gradient_norm.into());
    Ok(Trained {
        artifact: model.to_json()?,
        metrics: Value::Object(metrics),
    })
}

fn measure(model: &ScoringModel, rows: &RecordBatch, truth: &[bool]) -> Result<Metrics> {
    let arrays: Vec<ArrayRef> = model
        .features()
        .iter()
        .map(|f| column(rows, &f.name))
        .collect::<Result<_>>()?;
    let probabilities = model.probabilities(&arrays)?;
    let mut pairs: Vec<(f64, bool)> = probabilities
        .values()
        .iter()
        .copied()
        .zip(truth.iter().copied())
        .collect();
    Ok(Metrics::of(&mut pairs))
}

struct Fitted {
    intercept: f64,
    coefficients: Vec<f64>,
    /// Largest component of the loss gradient per row, 0 at the optimum: tells whether it converged.
    gradient_norm: f64,
}

fn fit(matrix: Vec<f64>, width: usize, labels: &[bool], settings: &Settings) -> Result<Fitted> {
    let records = Array2::from_shape_vec((labels.len(), width), matrix)
        .map_err(|e| Error::Internal(format!("training matrix: {e}")))?;
    let dataset = Dataset::new(records, Array1::from(labels.to_vec()));
    let fitted = LogisticRegression::<f64>::default()
        .alpha(settings.l2)
        .max_iterations(settings.max_iterations)
        .fit(&dataset)
        .map_err(|e| invalid("training did not come to a result").with_detail(e.to_string()))?;
    // linfa calls the more frequent class positive; ours is the one that was asked for
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let intercept = sign * fitted.intercept();
    let coefficients: Vec<f64> = fitted.params().iter().map(|w| sign * w).collect();
    if !intercept.is_finite() || coefficients.iter().any(|w| !w.is_finite()) {
        return Err(invalid("training diverged").with_hint("raise l2, or scale the features"));
    }
    let gradient_norm = gradient_norm(&dataset, intercept, &coefficients, settings.l2);
    Ok(Fitted {
        intercept,
        coefficients,
        gradient_norm,
    })
}

fn gradient_norm(
    dataset: &Dataset<f64, bool, ndarray::Ix1>,
    intercept: f64,
    coefficients: &[f64],
    l2: f64,
) -> f64 {
    let mut gradient: Vec<f64> = coefficients.iter().map(|w| l2 * w).collect();
    let mut at_intercept = 0.0;
    for (x, label) in dataset.records.rows().into_iter().zip(&dataset.targets) {
        let z = intercept + x.iter().zip(coefficients).map(|(x, w)| x * w).sum::<f64>();
        let error = super::score::sigmoid(z) - f64::from(u8::from(*label));
        at_intercept += error;
        for (g, x) in gradient.iter_mut().zip(x) {
            *g += error * x;
        }
    }
    let largest = gradient
        .iter()
        .fold(at_intercept.abs(), |m, g| m.max(g.abs()));
    largest / dataset.targets.len() as f64
}

fn labels(target: &ArrayRef, settings: &Settings) -> Result<Vec<Label>> {
    let ty = target.data_type();
    let labels = match ty {
        DataType::Boolean => target
            .as_boolean()
            .iter()
            .flatten()
            .map(Label::Bool)
            .collect(),
        ty if ty.is_integer() => {
            let cast = cast(target, &DataType::Int64)?;
            let values = cast.as_primitive::<Int64Type>();
            values.iter().flatten().map(Label::Int).collect()
        }
        ty if is_text(ty) => {
            let cast = cast(target, &DataType::Utf8)?;
            let values = cast.as_string::<i32>().iter().flatten();
            values.map(|v| Label::Text(v.to_owned())).collect()
        }
        ty => {
            return Err(Error::refused(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "target column \"{}\" is {}, not boolean, integer or text",
                    settings.target,
                    crate::types::sql_type_of(ty)
                ),
            )
            .with_hint("cast it in the training query"));
        }
    };
    Ok(labels)
}

fn is_text(ty: &DataType) -> bool {
    match ty {
        DataType::Dictionary(_, value) => value.is_string(),
        ty => ty.is_string(),
    }
}

/// (negative, positive). The positive class is the one named by the option, else the greater label:
/// `true`, `1`, `Yes`.
fn classes(labels: &[Label], settings: &Settings) -> Result<(Label, Label)> {
    let mut seen: Vec<&Label> = Vec::new();
    for label in labels {
        if !seen.contains(&label) {
            seen.push(label);
        }
        if seen.len() > 2 {
            return Err(invalid(format!(
                "target column \"{}\" has more than two classes",
                settings.target
            ))
            .with_hint("compare it with one class in the training query: plan = 'pro' AS is_pro"));
        }
    }
    seen.sort_unstable();
    let [low, high] = seen.as_slice() else {
        return Err(invalid(format!(
            "target column \"{}\" has {} class, two are needed",
            settings.target,
            seen.len()
        )));
    };
    match &settings.positive {
        None => Ok(((*low).clone(), (*high).clone())),
        Some(name) if *name == high.to_string() => Ok(((*low).clone(), (*high).clone())),
        Some(name) if *name == low.to_string() => Ok(((*high).clone(), (*low).clone())),
        Some(name) => Err(invalid(format!(
            "\"{name}\" is no class of target column \"{}\"",
            settings.target
        ))),
    }
}

fn column(rows: &RecordBatch, name: &str) -> Result<ArrayRef> {
    rows.column_by_name(name)
        .cloned()
        .ok_or_else(|| Error::Internal(format!("column \"{name}\" is gone")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
}
