//! A model over Arrow columns: pure computation, a batch at a time.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
};
use arrow::datatypes::DataType;
use serde_json::Value;

use super::artifact::{Artifact, Encoder, Feature, Label, Model};
use super::encode;
use crate::error::{Error, Result, SqlState};

/// A probability from here on is a positive prediction.
pub const THRESHOLD: f64 = 0.5;

/// A trained model ready to score. Cheap to share, never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoringModel {
    name: String,
    artifact: Artifact,
}

/// One row of `ml_weights`.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Feature; `(intercept)` for the constant term.
    pub feature: String,
    /// Category the weight is for; `(other)` for everything else and missing values.
    pub category: Option<String>,
    /// Added to the log-odds of the positive class: per standard deviation for numbers, when it applies for categories.
    pub weight: f64,
    /// Mean the number is centered on.
    pub center: Option<f64>,
    /// Standard deviation the number is divided by.
    pub scale: Option<f64>,
}

impl ScoringModel {
    /// Reads a stored artifact. `name` is for messages.
    ///
    /// # Errors
    /// See [`Artifact::from_json`].
    pub fn from_json(name: &str, artifact: &Value) -> Result<Self> {
        Ok(Self::new(name, Artifact::from_json(name, artifact)?))
    }

    pub(super) fn new(name: &str, artifact: Artifact) -> Self {
        Self {
            name: name.to_owned(),
            artifact,
        }
    }

    /// The form [`ScoringModel::from_json`] reads.
    pub fn to_json(&self) -> Result<Value> {
        serde_json::to_value(&self.artifact)
            .map_err(|e| Error::Internal(format!("model artifact: {e}")))
    }

    /// Its name, as in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `logistic_regression`, `kmeans`.
    pub fn kind(&self) -> &'static str {
        self.artifact.model.kind()
    }

    /// Input columns in order.
    pub fn features(&self) -> &[Feature] {
        &self.artifact.features
    }

    /// Target column, negative and positive class, of a classifier.
    ///
    /// # Errors
    /// `42809` for another kind of model.
    pub fn classes(&self) -> Result<(&str, &Label, &Label)> {
        match &self.artifact.model {
            Model::LogisticRegression {
                target,
                negative,
                positive,
                ..
            } => Ok((target, negative, positive)),
            Model::Kmeans { .. } => Err(self.wrong_kind("a classifier", "cluster_of scores it")),
        }
    }

    /// Type of [`ScoringModel::labels`].
    pub fn label_type(&self) -> Result<DataType> {
        Ok(match self.classes()?.2 {
            Label::Bool(_) => DataType::Boolean,
            Label::Int(_) => DataType::Int64,
            Label::Text(_) => DataType::Utf8,
        })
    }

    /// Checks number and types of the arguments, naming the feature that does not fit.
    ///
    /// # Errors
    /// `42883` for a wrong number, `42804` for a wrong type.
    pub fn check_arguments(&self, types: &[&DataType]) -> Result<()> {
        let features = self.features();
        if types.len() != features.len() {
            let names: Vec<&str> = features.iter().map(|f| f.name.as_str()).collect();
            return Err(Error::refused(
                SqlState::UNDEFINED_FUNCTION,
                format!(
                    "model \"{}\" takes {} features, not {}",
                    self.name,
                    features.len(),
                    types.len()
                ),
            )
            .with_detail(format!("features in order: {}", names.join(", "))));
        }
        for (feature, ty) in features.iter().zip(types) {
            if !encode::takes(&feature.encoder, ty) {
                return Err(Error::refused(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "feature \"{}\" of model \"{}\" is {}, not {}",
                        feature.name,
                        self.name,
                        feature.encoder.type_name(),
                        crate::types::sql_type_of(ty)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Probability of the positive class per row.
    ///
    /// # Errors
    /// See [`ScoringModel::classes`] and [`ScoringModel::check_arguments`].
    pub fn probabilities(&self, columns: &[ArrayRef]) -> Result<Float64Array> {
        self.check_columns(columns)?;
        let Model::LogisticRegression {
            intercept,
            coefficients,
            ..
        } = &self.artifact.model
        else {
            return self
                .classes()
                .map(|_| Float64Array::from(Vec::<f64>::new()));
        };
        let rows = columns.first().map_or(0, |c| c.len());
        let mut scores = vec![*intercept; rows];
        let mut rest = coefficients.as_slice();
        for (feature, column) in self.features().iter().zip(columns) {
            let (own, others) = rest.split_at(feature.encoder.width());
            rest = others;
            encode::each(&feature.encoder, column, |row, offset, value| {
                scores[row] += own[offset] * value;
            })?;
        }
        Ok(scores.into_iter().map(sigmoid).map(Some).collect())
    }

    /// Predicted class per row, in the target's type.
    ///
    /// # Errors
    /// As [`ScoringModel::probabilities`].
    pub fn labels(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        let (_, negative, positive) = self.classes()?;
        let probabilities = self.probabilities(columns)?;
        let labels = probabilities
            .values()
            .iter()
            .map(|p| match *p >= THRESHOLD {
                true => positive,
                false => negative,
            });
        Ok(match positive {
            Label::Bool(_) => Arc::new(BooleanArray::from_iter(labels.map(|l| {
                if let Label::Bool(b) = l {
                    Some(*b)
                } else {
                    None
                }
            }))),
            Label::Int(_) => Arc::new(Int64Array::from_iter(labels.map(|l| {
                if let Label::Int(n) = l {
                    Some(*n)
                } else {
                    None
                }
            }))),
            Label::Text(_) => Arc::new(StringArray::from_iter(labels.map(|l| {
                if let Label::Text(t) = l {
                    Some(t)
                } else {
                    None
                }
            }))),
        })
    }

    /// Number of the nearest centroid per row, from 0.
    ///
    /// # Errors
    /// `42809` unless it is a clustering; see also [`ScoringModel::check_arguments`].
    pub fn clusters(&self, columns: &[ArrayRef]) -> Result<Int32Array> {
        self.check_clustering()?;
        self.check_columns(columns)?;
        let Model::Kmeans { centroids } = &self.artifact.model else {
            return Ok(Int32Array::from(Vec::<i32>::new()));
        };
        let width = self.artifact.width();
        let matrix = encode::matrix(self.features(), columns, width)?;
        let numbers = matrix.chunks_exact(width).map(|row| {
            let (cluster, _) = nearest(centroids, row);
            i32::try_from(cluster).unwrap_or(i32::MAX)
        });
        Ok(Int32Array::from_iter_values(numbers))
    }

    /// Refuses models that cluster nothing.
    ///
    /// # Errors
    /// `42809`.
    pub fn check_clustering(&self) -> Result<()> {
        match &self.artifact.model {
            Model::Kmeans { .. } => Ok(()),
            Model::LogisticRegression { .. } => {
                Err(self.wrong_kind("a clustering", "predict and predict_proba score it"))
            }
        }
    }

    /// What a classifier adds up.
    ///
    /// # Errors
    /// See [`ScoringModel::classes`].
    pub fn weights(&self) -> Result<Vec<Weight>> {
        self.classes()?;
        let Model::LogisticRegression {
            intercept,
            coefficients,
            ..
        } = &self.artifact.model
        else {
            return Ok(Vec::new());
        };
        let mut out = vec![Weight {
            feature: "(intercept)".to_owned(),
            category: None,
            weight: *intercept,
            center: None,
            scale: None,
        }];
        let mut rest = coefficients.as_slice();
        for feature in self.features() {
            let (own, others) = rest.split_at(feature.encoder.width());
            rest = others;
            push_weights(&mut out, feature, own);
        }
        Ok(out)
    }

    fn check_columns(&self, columns: &[ArrayRef]) -> Result<()> {
        let types: Vec<&DataType> = columns.iter().map(|c| c.data_type()).collect();
        self.check_arguments(&types)
    }

    fn wrong_kind(&self, wanted: &str, hint: &str) -> Error {
        Error::refused(
            SqlState::WRONG_OBJECT_TYPE,
            format!(
                "model \"{}\" of type {} is not {wanted}",
                self.name,
                self.kind()
            ),
        )
        .with_hint(hint)
    }
}

fn push_weights(out: &mut Vec<Weight>, feature: &Feature, weights: &[f64]) {
    let categories: Vec<Option<String>> = match &feature.encoder {
        Encoder::Number { .. } => vec![None],
        Encoder::Text { categories } => {
            let named = categories.iter().cloned();
            named.chain(["(other)".to_owned()]).map(Some).collect()
        }
        Encoder::Boolean => ["false", "true", "(other)"]
            .map(|c| Some(c.to_owned()))
            .to_vec(),
    };
    let (center, scale) = match &feature.encoder {
        Encoder::Number { center, scale, .. } => (Some(*center), Some(*scale)),
        Encoder::Text { .. } | Encoder::Boolean => (None, None),
    };
    for (category, weight) in categories.into_iter().zip(weights) {
        out.push(Weight {
            feature: feature.name.clone(),
            category,
            weight: *weight,
            center,
            scale,
        });
    }
}

/// The logistic function, exact at both ends.
pub(super) fn sigmoid(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        let e = z.exp();
        e / (1.0 + e)
    }
}

/// Index of the nearest centroid (the first of equals) and the squared distance to it.
pub(super) fn nearest(centroids: &[Vec<f64>], row: &[f64]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (i, centroid) in centroids.iter().enumerate() {
        let distance: f64 = centroid.iter().zip(row).map(|(c, x)| (c - x).powi(2)).sum();
        if distance < best.1 {
            best = (i, distance);
        }
    }
    best
}
