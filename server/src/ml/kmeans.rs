//! `kmeans`: linfa's K-means++ with a fixed seed, then plain Lloyd steps to the exact local optimum.
//!
//! linfa averages the old centroid in as one more point and stops at a tolerance; the last steps here
//! make every centroid the mean of its rows, so that inertia compares with other libraries.

use std::collections::HashSet;

use arrow::array::{ArrayRef, RecordBatch};
use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::{KMeans, KMeansInit};
use ndarray::Array2;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng;
use serde_json::json;

use super::artifact::{Artifact, FORMAT, Feature, Model};
use super::encode;
use super::score::{ScoringModel, nearest};
use super::train::{Options, Trained, check_size, feature_columns, shuffled};
use crate::error::{Error, Result, SqlState};

struct Settings {
    k: usize,
    seed: u64,
    n_runs: usize,
    standardise: bool,
    max_iterations: u64,
}

impl Settings {
    fn take(options: &mut Options) -> Result<Self> {
        let settings = Self {
            k: options.required_number("k", 1..=10_000)?,
            seed: options.parsed("seed", 0, 0..=u64::MAX)?,
            n_runs: options.parsed("n_runs", 10, 1..=1000)?,
            standardise: options.flag("standardise", true)?,
            max_iterations: options.parsed("max_iterations", 300, 1..=100_000)?,
        };
        options.finish("kmeans")?;
        Ok(settings)
    }
}

/// Clusters all rows.
pub(super) fn train(options: &mut Options, rows: &RecordBatch) -> Result<Trained> {
    let settings = Settings::take(options)?;
    let ordered = shuffled(rows, settings.seed)?;
    let columns = feature_columns(&ordered, None)?;
    let features: Vec<Feature> = columns
        .iter()
        .map(|(name, column)| encode::fit(name, column, settings.standardise))
        .collect::<Result<_>>()?;
    let width: usize = features.iter().map(|f| f.encoder.width()).sum();
    check_size(ordered.num_rows(), width)?;
    let arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, c)| c).collect();
    let matrix = encode::matrix(&features, &arrays, width)?;
    check_distinct(&matrix, width, settings.k)?;

    let mut centroids = fit(&matrix, width, &settings)?;
    for _ in 0..settings.max_iterations {
        if !lloyd_step(&matrix, width, &mut centroids) {
            break;
        }
    }
    let mut sizes = vec![0_u64; centroids.len()];
    let mut inertia = 0.0;
    for row in matrix.chunks_exact(width) {
        let (cluster, distance) = nearest(&centroids, row);
        sizes[cluster] += 1;
        inertia += distance;
    }
    let artifact = Artifact {
        format: FORMAT,
        features,
        model: Model::Kmeans { centroids },
    };
    Ok(Trained {
        artifact: ScoringModel::new("", artifact).to_json()?,
        metrics: json!({"n": ordered.num_rows(), "k": settings.k, "inertia": inertia, "sizes": sizes}),
    })
}

/// Fewer different rows than clusters cannot be clustered (and would make linfa panic).
fn check_distinct(matrix: &[f64], width: usize, k: usize) -> Result<()> {
    let mut distinct: HashSet<Vec<u64>> = HashSet::new();
    for row in matrix.chunks_exact(width) {
        // adding 0.0 makes one of the two zeros
        distinct.insert(row.iter().map(|x| (x + 0.0).to_bits()).collect());
        if distinct.len() >= k {
            return Ok(());
        }
    }
    Err(Error::refused(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("{} different rows cannot make {k} clusters", distinct.len()),
    )
    .with_hint("use more rows or a smaller k"))
}

fn fit(matrix: &[f64], width: usize, settings: &Settings) -> Result<Vec<Vec<f64>>> {
    let records = Array2::from_shape_vec((matrix.len() / width, width), matrix.to_vec())
        .map_err(|e| Error::Internal(format!("training matrix: {e}")))?;
    let random = Xoshiro256Plus::seed_from_u64(settings.seed);
    // KMeansPlusPlus, as KMeansPara's result depends on the order of threads
    let model = KMeans::params_with_rng(settings.k, random)
        .init_method(KMeansInit::KMeansPlusPlus)
        .n_runs(settings.n_runs)
        .max_n_iterations(settings.max_iterations)
        .tolerance(1e-6)
        .fit(&DatasetBase::from(records))
        .map_err(|e| {
            Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                "training did not come to a result",
            )
            .with_detail(e.to_string())
        })?;
    Ok(model
        .centroids()
        .rows()
        .into_iter()
        .map(|r| r.to_vec())
        .collect())
}

/// Moves every centroid to the mean of its rows; an empty one stays. False when nothing moved.
fn lloyd_step(matrix: &[f64], width: usize, centroids: &mut [Vec<f64>]) -> bool {
    let mut sums = vec![vec![0.0; width]; centroids.len()];
    let mut counts = vec![0.0; centroids.len()];
    for row in matrix.chunks_exact(width) {
        let (cluster, _) = nearest(centroids, row);
        counts[cluster] += 1.0;
        for (sum, x) in sums[cluster].iter_mut().zip(row) {
            *sum += x;
        }
    }
    let mut moved = false;
    for ((centroid, sum), count) in centroids.iter_mut().zip(sums).zip(counts) {
        if count == 0.0 {
            continue;
        }
        let mean: Vec<f64> = sum.into_iter().map(|s| s / count).collect();
        moved |= mean != *centroid;
        *centroid = mean;
    }
    moved
}
