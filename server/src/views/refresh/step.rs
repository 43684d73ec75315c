//! What a view's state lacks: the next run, and what stands in the log with it.

use std::collections::BTreeMap;

use catalog::{Oid, Strategy};

use super::{now, oldest};
use crate::lake::LakeFile;
use crate::stream::head::{DbHead, Floor, Lsn, ViewHead};
use crate::views::options::Kept;
use crate::views::read::is_current;
use crate::views::source::Range;

/// Positions that one run of states covers at most: bounds the rows that are looked at for it.
const STATES_SLICE: i64 = 1 << 22;
/// The same where runs hold the rows themselves.
const ROWS_SLICE: i64 = 1 << 19;
/// Files that a fold takes at least.
const LEAST_FOLDED: usize = 4;
/// Bytes of files that are folded before they are too many.
const MOST_SCATTERED: u64 = 128 << 20;

/// What is to be stored next.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) range: Range,
    pub(super) replace: bool,
}

/// The next run, of `most` positions at most where it need not be of all, or nothing when the state has
/// everything up to the target.
pub(super) fn next(
    kept: &Kept,
    state: &ViewHead,
    head: &DbHead,
    target: Lsn,
    anew: bool,
    most: i64,
) -> Option<Step> {
    if kept.strategy == Strategy::Full {
        let range = Range {
            after: Lsn::default(),
            upto: None,
        };
        let stale = anew || !is_current(kept, state, head);
        return stale.then_some(Step {
            range,
            replace: true,
        });
    }
    // the first commit also says that there was one, for views that are read as of it
    let replace = anew || moved(kept, state, head) || state.refreshed_at.is_none();
    if !replace && state.durable >= target {
        return None;
    }
    let after = match replace {
        true => Lsn::default(),
        false => state.durable,
    };
    let slice = match kept.strategy {
        Strategy::Append | Strategy::Top => ROWS_SLICE,
        _ => STATES_SLICE,
    };
    let mut upto = match kept.strategy {
        // a key's results are made of all its rows
        Strategy::Keyed => target,
        _ => target.min(Lsn(after.0.saturating_add(slice.min(most)))),
    };
    if !replace && after < state.floor.from {
        // up to there rows count whatever their time
        upto = upto.min(state.floor.from);
    }
    Some(Step {
        range: Range {
            after,
            upto: Some(upto),
        },
        replace,
    })
}

/// Half of a step's positions, for a state that can be made of shorter runs.
pub(super) fn half(kept: &Kept, step: &Step) -> Option<i64> {
    let positions = step.range.upto?.0.saturating_sub(step.range.after.0);
    let parts = !matches!(kept.strategy, Strategy::Keyed | Strategy::Full);
    (parts && positions > 1).then_some(positions / 2)
}

/// True when rows that the state has counted were changed, and it has to follow.
pub(super) fn moved(kept: &Kept, state: &ViewHead, head: &DbHead) -> bool {
    !kept.ignores_changes() && !state.is_of(&kept.sources, head)
}

/// The epochs that a run's state is of. One that keeps what was changed stays of before: should it
/// have to follow one day, it is made anew.
pub(super) fn epochs(
    kept: &Kept,
    state: &ViewHead,
    head: &DbHead,
    step: &Step,
) -> BTreeMap<Oid, i64> {
    let epoch = |oid: &Oid| head.tables.get(oid).map(|t| (*oid, t.epoch()));
    if kept.ignores_changes() && !step.replace {
        let known = |oid: &Oid| (*oid, state.epochs.get(oid).copied().unwrap_or(0));
        return kept.sources.iter().map(known).collect();
    }
    kept.sources.iter().filter_map(epoch).collect()
}

/// What retention had dropped when a run's state was last made from all rows.
pub(super) fn drops(
    kept: &Kept,
    state: &ViewHead,
    head: &DbHead,
    step: &Step,
) -> BTreeMap<Oid, i64> {
    match step.replace {
        false => state.drops.clone(),
        true => {
            let dropped = |oid: &Oid| head.tables.get(oid).map(|t| (*oid, t.upkeep.drops));
            kept.sources.iter().filter_map(dropped).collect()
        }
    }
}

/// The floor that a step leaves. A state that is made anew counts all rows there are, however late.
pub(super) fn floor_after(kept: &Kept, state: &ViewHead, step: &Step, target: Lsn) -> Floor {
    let retention = kept.options.retention.filter(|_| kept.ages_by.is_some());
    let lowest = retention.map(|keep| oldest(keep, now()));
    match step.replace {
        true => Floor {
            at: state.floor.at.max(lowest),
            from: target,
            late: state.floor.late,
        },
        false => state.floor,
    }
}

/// By which column and from when on the rows of a step are in time, when some may be too late. A session
/// that is made anew needs all its rows; buckets below the floor are not seen, with or without theirs.
pub(super) fn in_time_from(
    kept: &Kept,
    state: &ViewHead,
    step: &Step,
    floor: Floor,
) -> Option<(usize, i64)> {
    let may_be = may_be_late(state, step) || kept.strategy != Strategy::Session;
    kept.ages_by.zip(floor.at).filter(|_| may_be)
}

/// True when a step's rows have come since the floor rose.
pub(super) fn may_be_late(state: &ViewHead, step: &Step) -> bool {
    !step.replace && step.range.after >= state.floor.from
}

/// True when a state has too many files, or more than twice the rows of its greatest run: a key that is in
/// many runs is read as often. What is too big to be folded at once stays as it is.
pub(super) fn is_scattered(strategy: Strategy, files: &[LakeFile], most: usize) -> bool {
    let merges = match strategy {
        Strategy::Full => return false,
        Strategy::Agg | Strategy::Agg2 | Strategy::Session => true,
        Strategy::Append | Strategy::Top | Strategy::Keyed => false,
    };
    let rows = |file: &LakeFile| file.statistics.num_rows.get_value().copied().unwrap_or(0);
    let all: usize = files.iter().map(rows).sum();
    let greatest = files.iter().map(rows).max().unwrap_or(0);
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    files.len() > most || (merges && all / 2 > greatest && bytes <= MOST_SCATTERED)
}

/// The files to fold: from the smallest on, as long as the next is not much bigger than all before it
/// together. So a row is rewritten as often as the state doubles, not at each fold.
pub(super) fn smallest(files: &[LakeFile]) -> Vec<LakeFile> {
    let mut files = files.to_vec();
    files.sort_by_key(|f| f.size);
    let mut bytes = 0;
    let fits = |(i, file): &(usize, LakeFile)| {
        let taken = *i < LEAST_FOLDED || file.size <= bytes;
        bytes += file.size;
        taken
    };
    let folded = files.into_iter().enumerate().take_while(fits);
    folded.map(|(_, file)| file).collect()
}
