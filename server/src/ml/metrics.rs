//! What is reported about a classifier, in double precision, from (probability, label) pairs alone.

use serde_json::{Map, Value};

/// Metrics of a binary classifier at threshold 0.5. What is undefined (AUC over one class, precision
/// without a positive prediction) is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metrics {
    /// Rows.
    pub n: u64,
    /// Share of positives: the accuracy of always saying the more frequent class is `max(b, 1 - b)`.
    pub base_rate: Option<f64>,
    /// Share of right predictions.
    pub accuracy: Option<f64>,
    /// Area under the ROC curve; ties count half.
    pub auc: Option<f64>,
    /// Mean negative log likelihood, probabilities kept 1e-15 away from 0 and 1.
    pub log_loss: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Right among the predicted positives.
    pub precision: Option<f64>,
    /// Found among the positives.
    pub recall: Option<f64>,
    /// Mean squared error of the probability.
    pub brier: Option<f64>,
}

/// Names of the metrics but `n`, in the order of [`Metrics::values`].
pub const NAMES: [&str; 8] = [
    "base_rate",
    "accuracy",
    "auc",
    "log_loss",
    "f1",
    "precision",
    "recall",
    "brier",
];

impl Metrics {
    /// Computes all of them. Sorts the pairs.
    pub fn of(pairs: &mut [(f64, bool)]) -> Self {
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let n = pairs.len() as f64;
        let mean = |sum: f64| (n > 0.0).then(|| sum / n);
        let count =
            |keep: fn(&(f64, bool)) -> bool| pairs.iter().filter(|p| keep(p)).count() as f64;
        let positives = count(|(_, label)| *label);
        let predicted = count(|(p, _)| *p >= 0.5);
        let hits = count(|(p, label)| *p >= 0.5 && *label);
        let right = count(|(p, label)| (*p >= 0.5) == *label);
        Self {
            n: pairs.len() as u64,
            base_rate: mean(positives),
            accuracy: mean(right),
            auc: auc(pairs),
            log_loss: mean(pairs.iter().map(|(p, label)| loss(*p, *label)).sum()),
            f1: ratio(2.0 * hits, predicted + positives),
            precision: ratio(hits, predicted),
            recall: ratio(hits, positives),
            brier: mean(
                pairs
                    .iter()
                    .map(|(p, label)| (p - f64::from(u8::from(*label))).powi(2))
                    .sum(),
            ),
        }
    }

    /// The values in the order of [`NAMES`].
    pub fn values(&self) -> [Option<f64>; 8] {
        [
            self.base_rate,
            self.accuracy,
            self.auc,
            self.log_loss,
            self.f1,
            self.precision,
            self.recall,
            self.brier,
        ]
    }

    /// By name; undefined ones are left out.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("n".to_owned(), self.n.into());
        for (name, value) in NAMES.iter().zip(self.values()) {
            if let Some(value) = value {
                out.insert((*name).to_owned(), value.into());
            }
        }
        out
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn loss(p: f64, label: bool) -> f64 {
    let p = p.clamp(1e-15, 1.0 - 1e-15);
    -(if label { p } else { 1.0 - p }).ln()
}

/// Mann-Whitney: the share of (positive, negative) pairs in the right order. `pairs` is sorted.
fn auc(pairs: &[(f64, bool)]) -> Option<f64> {
    let (mut below, mut wins, mut positives) = (0.0, 0.0, 0.0);
    for tie in pairs.chunk_by(|a, b| a.0 == b.0) {
        let up = tie.iter().filter(|(_, label)| *label).count() as f64;
        let down = tie.len() as f64 - up;
        wins += up * (below + down / 2.0);
        below += down;
        positives += up;
    }
    ratio(wins, positives * below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_ties_half() {
        let mut pairs = [(0.1, false), (0.5, true), (0.5, false), (0.9, true)];
        let metrics = Metrics::of(&mut pairs);
        // pairs: (.5,.1) win, (.5,.5) half, (.9,.1) win, (.9,.5) win
        assert_eq!(metrics.auc, Some(3.5 / 4.0));
        let mut same = [(0.5, true), (0.5, false), (0.5, false)];
        assert_eq!(Metrics::of(&mut same).auc, Some(0.5));
    }

    #[test]
    fn known_values() {
        let mut pairs = [(0.8, true), (0.6, false), (0.4, true), (0.2, false)];
        let m = Metrics::of(&mut pairs);
        assert_eq!((m.n, m.base_rate, m.accuracy), (4, Some(0.5), Some(0.5)));
        assert_eq!(
            (m.precision, m.recall, m.f1),
            (Some(0.5), Some(0.5), Some(0.5))
        );
        assert!((m.brier.unwrap() - 0.2).abs() < 1e-12);
        let want = -(0.8_f64.ln() + 0.4_f64.ln() + 0.4_f64.ln() + 0.8_f64.ln()) / 4.0;
        assert!((m.log_loss.unwrap() - want).abs() < 1e-12);
        assert_eq!(m.auc, Some(0.75));
    }

    #[test]
    fn what_is_undefined_is_none_and_nothing_is_infinite() {
        let empty = Metrics::of(&mut []);
        assert_eq!((empty.n, empty.values()), (0, [None; 8]));
        let one_class = Metrics::of(&mut [(0.0, true), (0.2, true)]);
        assert_eq!((one_class.auc, one_class.precision), (None, None));
        assert!(one_class.log_loss.unwrap().is_finite());
        assert!(!one_class.to_json().contains_key("auc"));
    }
}
