//! Training: options, validation, the hold-out split; then one of the algorithms.
//!
//! The result depends on the rows and the options alone, not on the order the rows came in: rows are
//! ordered by a hash of their contents first, which also decides the split (equal rows stay on one side).

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use serde_json::Value;

use super::{kmeans, logistic};
use crate::error::{Error, Result, SqlState};

/// Numbers a training matrix may hold; more would not fit beside a running server.
const MAX_CELLS: usize = 50_000_000;

/// A trained model, ready for the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// An [`super::artifact::Artifact`].
    pub artifact: Value,
    /// Metrics by name, all finite.
    pub metrics: Value,
}

/// Trains a model of `kind` on the rows of the training query.
///
/// Runs on a blocking thread; a panic in a library becomes an error. Once begun it runs to its end, which
/// `max_iterations` bounds.
///
/// # Errors
/// `0A000` for an unknown kind, `22023` for options and data that cannot be trained on, `54000` for too much.
pub async fn train(
    kind: &str,
    options: BTreeMap<String, String>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<Trained> {
    let algorithm = match kind {
        "logistic_regression" => logistic::train,
        "kmeans" => kmeans::train,
        other => {
            return Err(Error::unsupported(
                format!("model type \"{other}\" is not supported"),
                "use logistic_regression or kmeans",
            ));
        }
    };
    let work = tokio::task::spawn_blocking(move || {
        let mut options = Options(options);
        let rows = concat_batches(&schema, &batches)?;
        drop(batches);
        algorithm(&mut options, &rows)
    });
    match work.await {
        Ok(result) => result,
        Err(e) => {
            tracing::warn!(error = %e, "training ended abnormally");
            Err(
                Error::refused(SqlState::DATA_EXCEPTION, "training failed on this data")
                    .with_hint("look for columns with extreme or equal values"),
            )
        }
    }
}

/// `WITH (…)` options; what is taken is gone, what is left over is unknown.
#[derive(Debug)]
pub(super) struct Options(BTreeMap<String, String>);

impl Options {
    /// A text option.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// An option that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<String> {
        self.text(name).ok_or_else(|| {
            Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" is missing"),
            )
        })
    }

    /// A parsed option within bounds, or its default.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        default: T,
        bounds: std::ops::RangeInclusive<T>,
    ) -> Result<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        match self.text(name) {
            Some(text) => number(name, &text, &bounds),
            None => Ok(default),
        }
    }

    /// As [`Options::parsed`], and it must be there.
    pub(super) fn required_number<T>(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<T>,
    ) -> Result<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        number(name, &self.required(name)?, &bounds)
    }

    /// A boolean option, or its default.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" must be true or false"),
            )),
        }
    }

    /// Refuses whatever nobody took.
    pub(super) fn finish(&self, kind: &str) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" is unknown for models of type {kind}"),
            )),
        }
    }
}

fn number<T>(name: &str, text: &str, bounds: &std::ops::RangeInclusive<T>) -> Result<T>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.trim().parse() {
        Ok(value) if bounds.contains(&value) => Ok(value),
        _ => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("\"{text}\" is no value for option \"{name}\""),
        )
        .with_detail(format!(
            "it must be a number from {} to {}",
            bounds.start(),
            bounds.end()
        ))),
    }
}

/// The rows in an order that depends on their contents and the seed alone.
pub(super) fn shuffled(rows: &RecordBatch, seed: u64) -> Result<RecordBatch> {
    let fields = rows.schema_ref().fields().iter();
    let fields = fields.map(|f| SortField::new(f.data_type().clone()));
    let converter = RowConverter::new(fields.collect())?;
    let keys = converter.convert_columns(rows.columns())?;
    let mut order: Vec<(u64, u32)> = (0_u32..)
        .zip(keys.iter())
        .map(|(i, key)| (hash(key.as_ref(), seed), i))
        .collect();
    order.sort_unstable();
    let order: UInt32Array = order.into_iter().map(|(_, i)| i).collect();
    Ok(take_record_batch(rows, &order)?)
}

/// FNV-1a, then a finalizer: the same in every release, unlike the standard library's hasher.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    let mut h = bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, step);
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// The columns but `target`, with their names.
pub(super) fn feature_columns(
    rows: &RecordBatch,
    target: Option<&str>,
) -> Result<Vec<(String, ArrayRef)>> {
    let mut out: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if Some(field.name().as_str()) == target {
            continue;
        }
        if out.iter().any(|(name, _)| name == field.name()) {
            return Err(Error::refused(
                SqlState::DUPLICATE_COLUMN,
                format!(
                    "column \"{}\" appears twice in the training query",
                    field.name()
                ),
            ));
        }
        out.push((field.name().clone(), std::sync::Arc::clone(column)));
    }
    match out.is_empty() {
        true => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            "the training query has no feature columns",
        )),
        false => Ok(out),
    }
}

/// Refuses a matrix that would not fit in memory.
pub(super) fn check_size(rows: usize, width: usize) -> Result<()> {
    if rows.saturating_mul(width) <= MAX_CELLS {
        return Ok(());
    }
    Err(Error::refused(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("{rows} rows of {width} encoded features are too many to train on"),
    )
    .with_hint("train on a sample: WHERE random() < 0.1"))
}
