//! What is stored of a trained model: weir's own JSON with a format version.
//!
//! A stored artifact is read by every later release: fields are added with a default, never renamed; a
//! change of meaning is a new [`FORMAT`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, SqlState};

/// The format this release writes.
pub const FORMAT: u32 = 1;

/// A trained model: how columns become numbers, and what is done with the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// [`FORMAT`] of the release that wrote it.
    pub format: u32,
    /// Input columns in the order of the training query, the target left out.
    pub features: Vec<Feature>,
    /// The model proper.
    pub model: Model,
}

/// One input column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Column name in the training query.
    pub name: String,
    /// How it becomes numbers.
    pub encoder: Encoder,
}

/// How a column becomes numbers. Missing values (NULL; for numbers also NaN and infinity) are part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Encoder {
    /// One number: `(x - center) / scale`; a missing one counts as `fill`.
    Number {
        /// Taken off; the training mean when standardised, else 0.
        center: f64,
        /// Divided by; the training standard deviation when standardised, else 1.
        scale: f64,
        /// The training mean.
        fill: f64,
    },
    /// One 0/1 number per category, then one for everything else and for missing values.
    Text {
        /// Categories in order.
        categories: Vec<String>,
    },
    /// As text, of `false` and `true`.
    Boolean,
}

impl Encoder {
    /// How many numbers it gives.
    pub fn width(&self) -> usize {
        match self {
            Self::Number { .. } => 1,
            Self::Text { categories } => categories.len() + 1,
            Self::Boolean => 3,
        }
    }

    /// The SQL type it takes.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Number { .. } => "a number",
            Self::Text { .. } => "text",
            Self::Boolean => "boolean",
        }
    }
}

/// The model proper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Model {
    /// `P(positive) = 1 / (1 + exp(-(intercept + Σ coefficient · x)))`.
    LogisticRegression {
        /// Name of the target column.
        target: String,
        /// The class that is not `positive`.
        negative: Label,
        /// The class whose probability is given.
        positive: Label,
        /// Constant term.
        intercept: f64,
        /// One per encoded number.
        coefficients: Vec<f64>,
    },
    /// The cluster of a row is its nearest centroid.
    Kmeans {
        /// Each one number per encoded number.
        centroids: Vec<Vec<f64>>,
    },
}

impl Model {
    /// Its name in `CREATE MODEL … TYPE`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LogisticRegression { .. } => "logistic_regression",
            Self::Kmeans { .. } => "kmeans",
        }
    }
}

/// A class label, in the type of the target column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// `boolean`
    Bool(bool),
    /// `bigint`
    Int(i64),
    /// `text`
    Text(String),
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Artifact {
    /// Reads a stored artifact and checks that its parts fit together.
    ///
    /// # Errors
    /// `XX001` when it is damaged, `0A000` when a newer release wrote it.
    pub fn from_json(name: &str, value: &serde_json::Value) -> Result<Self> {
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format.is_some_and(|f| f > u64::from(FORMAT)) {
            return Err(Error::unsupported(
                format!("model \"{name}\" was written by a newer release"),
                "upgrade weir, or train the model again",
            ));
        }
        let artifact = Self::deserialize(value)
            .map_err(|e| damaged(name).with_detail(format!("cannot be read: {e}")))?;
        if !artifact.is_sound() {
            return Err(damaged(name).with_detail("its parts do not fit together"));
        }
        Ok(artifact)
    }

    /// How many numbers a row becomes.
    pub fn width(&self) -> usize {
        self.features.iter().map(|f| f.encoder.width()).sum()
    }

    fn is_sound(&self) -> bool {
        let encoders_fit = self.features.iter().all(|f| match &f.encoder {
            Encoder::Number {
                center,
                scale,
                fill,
            } => center.is_finite() && fill.is_finite() && scale.is_normal(),
            Encoder::Text { .. } | Encoder::Boolean => true,
        });
        let width = self.width();
        let fits =
            |numbers: &[f64]| numbers.len() == width && numbers.iter().all(|n| n.is_finite());
        let model_fits = match &self.model {
            Model::LogisticRegression {
                negative,
                positive,
                intercept,
                coefficients,
                ..
            } => {
                intercept.is_finite()
                    && fits(coefficients)
                    && std::mem::discriminant(negative) == std::mem::discriminant(positive)
            }
            Model::Kmeans { centroids } => {
                !centroids.is_empty() && centroids.iter().all(|c| fits(c))
            }
        };
        self.format >= 1 && !self.features.is_empty() && encoders_fit && model_fits
    }
}

fn damaged(name: &str) -> Error {
    Error::refused(
        SqlState::DATA_CORRUPTED,
        format!("the stored form of model \"{name}\" is damaged"),
    )
    .with_hint("RETRAIN MODEL makes a new version")
}
