//! Crash points: places where a test may kill the process, one before and after each durable step.
//!
//! With the feature `failpoints`, `FAILPOINTS=<name>=return` (or `fail::cfg(name, "return")`)
//! aborts the process there; without it the calls compile to nothing.

/// Every crash point, in the order a row passes them.
pub const CRASH_POINTS: &[&str] = &[
    "wal-before-write",
    "wal-after-write-before-fsync",
    "wal-after-fsync-before-publish",
    "wal-after-publish-before-ack",
    "wal-roll-before-create",
    "wal-roll-after-create",
    "wal-roll-before-begin",
    "wal-roll-after-begin",
    "wal-roll-before-rename",
    "wal-roll-after-rename",
    "flush-before-parquet",
    "data-before-fsync",
    "flush-after-data-fsync-before-commit",
    "commit-before-link",
    "commit-after-link-before-fsync",
    "flush-after-commit-before-publish",
    "flush-after-publish-before-wal-removal",
    "arrivals-before-rename",
    "arrivals-after-rename",
    "wal-during-removal",
    "append-after-data-fsync-before-commit",
    "append-after-commit-before-publish",
    "alter-before-commit",
    "alter-after-commit-before-catalog",
    "state-before-parquet",
    "state-after-data-fsync-before-commit",
    "state-after-commit-before-publish",
    "publish-before-commit",
    "publish-after-commit",
    "compact-after-data-fsync-before-commit",
    "compact-after-commit-before-publish",
    "expire-after-data-fsync-before-commit",
    "expire-after-commit-before-publish",
    "restore-before-commit",
    "restore-after-commit-before-publish",
    "checkpoint-before-write",
    "checkpoint-after-write",
    "clean-log-before-delete",
    "clean-log-after-delete",
    "vacuum-before-delete",
    "vacuum-after-delete",
];

/// Aborts the process when a test armed the point `name` with the action `return`.
pub(crate) fn crash_point(name: &str) {
    debug_assert!(CRASH_POINTS.contains(&name), "unlisted crash point {name}");
    fail::fail_point!(name, |_| std::process::abort());
}
