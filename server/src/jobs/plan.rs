//! Which files are merged. Knows sizes, partitions and positions, reads nothing.

use std::collections::HashMap;

use datafusion::common::ScalarValue;

use crate::lake::{LakeFile, TARGET_FILE_BYTES};

/// Files below this are of one size: what a flush writes.
const SMALLEST: u64 = 64 * 1024;
/// Files of one size differ by less than this factor.
const STEP: u64 = 4;
/// Files that are merged at once, at most.
const MOST: usize = 256;

/// Files of one partition that become one, or few.
#[derive(Debug, Clone, Default)]
pub struct Bin {
    /// The files, by position.
    pub files: Vec<LakeFile>,
}

impl Bin {
    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Their rows, when every file says how many it has.
    pub fn rows(&self) -> Option<usize> {
        let rows = |f: &LakeFile| f.statistics.num_rows.get_value().copied();
        self.files.iter().map(rows).sum()
    }

    /// Every file begins after the position that the one before it ends with.
    pub fn follows_the_log(&self) -> bool {
        let mut before = None;
        self.files.iter().all(|file| {
            let Some((first, last)) = positions(file) else {
                return false;
            };
            before.replace(last).is_none_or(|end| end < first)
        })
    }
}

/// The lowest and the highest position of a streaming table's file: bounds of its first stored column.
fn positions(file: &LakeFile) -> Option<(i64, i64)> {
    let lsn = file.statistics.column_statistics.first()?;
    match (lsn.min_value.get_value()?, lsn.max_value.get_value()?) {
        (ScalarValue::Int64(Some(first)), ScalarValue::Int64(Some(last))) => Some((*first, *last)),
        _ => None,
    }
}

/// Small files that are worth merging by themselves: `trigger` files of about one size. So a row is
/// written again each time its file has grown by that factor, not each time a file comes.
pub fn tiers(files: &[LakeFile], trigger: usize) -> Vec<Bin> {
    let trigger = trigger.max(2);
    let mut bins = Vec::new();
    for of_partition in partitions(files) {
        let mut by_size: HashMap<u32, Vec<LakeFile>> = HashMap::new();
        for file in of_partition.into_iter().filter(is_small) {
            by_size.entry(tier(file.size)).or_default().push(file);
        }
        let mut by_size: Vec<_> = by_size.into_iter().collect();
        by_size.sort_by_key(|(tier, _)| *tier);
        for (_, files) in by_size {
            bins.extend(
                packed(files)
                    .into_iter()
                    .filter(|b| b.files.len() >= trigger),
            );
        }
    }
    bins
}

/// Everything that can become fewer files.
pub fn full(files: &[LakeFile]) -> Vec<Bin> {
    let small = |files: Vec<LakeFile>| files.into_iter().filter(is_small).collect();
    partitions(files)
        .into_iter()
        .flat_map(|files| packed(small(files)))
        .filter(|bin| bin.files.len() > 1)
        .collect()
}

/// All files, by partition.
pub fn whole(files: &[LakeFile]) -> Vec<Bin> {
    let bins = partitions(files).into_iter().map(|files| Bin { files });
    bins.collect()
}

/// A file that is near its target stays as it is.
fn is_small(file: &LakeFile) -> bool {
    file.size < TARGET_FILE_BYTES / 4 * 3
}

fn tier(size: u64) -> u32 {
    (size / SMALLEST).max(1).ilog(STEP)
}

/// Neighbours together, up to the target.
fn packed(files: Vec<LakeFile>) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    let mut bytes = 0;
    for file in files {
        match bins.last_mut() {
            Some(bin) if bytes + file.size <= TARGET_FILE_BYTES && bin.files.len() < MOST => {
                bytes += file.size;
                bin.files.push(file);
            }
            _ => {
                bytes = file.size;
                bins.push(Bin { files: vec![file] });
            }
        }
    }
    bins
}

/// The files of each partition, in the order of their positions.
fn partitions(files: &[LakeFile]) -> Vec<Vec<LakeFile>> {
    let mut order: Vec<&[ScalarValue]> = Vec::new();
    let mut found: HashMap<&[ScalarValue], Vec<LakeFile>> = HashMap::new();
    for file in files {
        let key = file.partition_values.as_slice();
        let there = found.entry(key).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        there.push(file.clone());
    }
    let sorted = order.into_iter().filter_map(|key| found.remove(key));
    sorted
        .map(|mut files| {
            files.sort_by_key(position);
            files
        })
        .collect()
}

/// Where a file stands among its neighbours: the lowest position it holds (the first stored column of a
/// streaming table), or its age.
fn position(file: &LakeFile) -> (i64, i64) {
    let first = file.statistics.column_statistics.first();
    match first.and_then(|c| c.min_value.get_value()) {
        Some(ScalarValue::Int64(Some(lsn))) => (*lsn, file.modified_ms),
        _ => (file.modified_ms, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::common::stats::Precision;
    use datafusion::common::{ColumnStatistics, Statistics};
    use proptest::prelude::*;

    use super::*;

    fn file(number: i64, size: u64, day: i32) -> LakeFile {
        let mut lsn = ColumnStatistics::new_unknown();
        lsn.min_value = Precision::Exact(ScalarValue::Int64(Some(number)));
        LakeFile {
            path: format!("f{number}"),
            size,
            modified_ms: 0,
            partition_values: vec![ScalarValue::Date32(Some(day))],
            statistics: Arc::new(Statistics {
                num_rows: Precision::Exact(10),
                total_byte_size: Precision::Absent,
                column_statistics: vec![lsn],
            }),
        }
    }

    fn names(bins: &[Bin]) -> Vec<Vec<&str>> {
        bins.iter()
            .map(|b| b.files.iter().map(|f| f.path.as_str()).collect())
            .collect()
    }

    #[test]
    fn flushes_are_merged_when_there_are_enough_of_one_size() {
        let mut files: Vec<LakeFile> = (0..7).rev().map(|n| file(n, 9_000, 1)).collect();
        assert!(tiers(&files, 8).is_empty());
        files.push(file(7, 30_000, 1));
        files.push(file(8, 9_000, 2));
        files.push(file(9, 2_000_000, 1));
        let bins = tiers(&files, 8);
        assert_eq!(
            names(&bins),
            [["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"]]
        );
        assert_eq!(bins[0].rows(), Some(80));
    }

    #[test]
    fn files_follow_the_log_when_their_ranges_do() {
        let ranged = |first: i64, last: Option<i64>| {
            let mut file = file(first, 9_000, 1);
            let mut known = Statistics::clone(&file.statistics);
            known.column_statistics[0].max_value = match last {
                Some(last) => Precision::Exact(ScalarValue::Int64(Some(last))),
                None => Precision::Absent,
            };
            file.statistics = Arc::new(known);
            file
        };
        let follows = |ranges: &[(i64, Option<i64>)]| {
            let files = ranges.iter().map(|(a, b)| ranged(*a, *b)).collect();
            Bin { files }.follows_the_log()
        };
        assert!(follows(&[(1, Some(5)), (6, Some(6)), (9, Some(20))]));
        assert!(!follows(&[(1, Some(5)), (5, Some(6))]));
        assert!(!follows(&[(6, Some(9)), (1, Some(5))]));
        assert!(!follows(&[(1, Some(5)), (6, None)]));
    }

    #[test]
    fn a_merged_table_is_left_alone() {
        let big = TARGET_FILE_BYTES;
        let files = [
            file(1, big, 1),
            file(2, big / 10 * 8, 1),
            file(3, 5, 1),
            file(4, 5, 2),
        ];
        assert!(full(&files).is_empty());
        let more = [
            file(1, big / 2, 1),
            file(2, big / 2, 1),
            file(3, big / 2, 1),
        ];
        assert_eq!(names(&full(&more)), [["f1", "f2"]]);
    }

    proptest! {
        /// Every file is in one bin at most, bins keep partitions apart and the target, and merging
        /// again and again comes to an end.
        #[test]
        fn bins_are_sound(sizes in prop::collection::vec((1u64..200_000_000, 0i32..3), 0..60)) {
            let files: Vec<LakeFile> = sizes
                .iter()
                .enumerate()
                .map(|(n, (size, day))| file(i64::try_from(n).unwrap(), *size, *day))
                .collect();
            for bins in [tiers(&files, 3), full(&files)] {
                let mut seen = std::collections::HashSet::new();
                for bin in &bins {
                    prop_assert!(bin.files.len() > 1 && bin.bytes() <= TARGET_FILE_BYTES);
                    for f in &bin.files {
                        prop_assert!(seen.insert(f.path.clone()));
                        prop_assert_eq!(&f.partition_values, &bin.files[0].partition_values);
                    }
                }
            }
            let mut now = files;
            let mut rounds = 0;
            loop {
                let bins = full(&now);
                if bins.is_empty() {
                    break;
                }
                rounds += 1;
                prop_assert!(rounds < 70);
                for bin in bins {
                    let gone: Vec<String> = bin.files.iter().map(|f| f.path.clone()).collect();
                    let mut merged = bin.files[0].clone();
                    merged.size = bin.bytes();
                    now.retain(|f| !gone.contains(&f.path));
                    now.push(merged);
                }
            }
        }
    }
}
