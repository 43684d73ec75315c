//! What is measured: every metric's name and meaning, and the one registry.
//!
//! Callers record through the functions here, so a name is spelled once. The registry is the
//! process's: several servers in one process (tests) share it.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const STATEMENTS: &str = "weir_statements_total";
const STATEMENT_SECONDS: &str = "weir_statement_seconds";
const INGESTED_ROWS: &str = "weir_ingest_rows_total";
const DUPLICATE_ROWS: &str = "weir_ingest_duplicate_rows_total";
const INGEST_SECONDS: &str = "weir_ingest_seconds";
const WAL_FSYNCS: &str = "weir_wal_fsyncs_total";
const WAL_FSYNC_SECONDS: &str = "weir_wal_fsync_seconds";
const WAL_BYTES: &str = "weir_wal_bytes_total";
const LOOKUPS: &str = "weir_view_lookups_total";
const VIEW_SPILLED: &str = "weir_view_spilled_bytes_total";
const COMMITS: &str = "weir_delta_commits_total";
const CONNECTIONS: &str = "weir_connections";
const LOGIN_FAILURES: &str = "weir_login_failures_total";
const HTTP_REQUESTS: &str = "weir_http_requests_total";
const RESIDENT_BYTES: &str = "weir_process_resident_bytes";

/// Bounds of all time histograms, in seconds: a fast acknowledgement to a long query.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

static REGISTRY: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the registry for the process, once.
pub fn install() {
    REGISTRY.get_or_init(|| {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .and_then(PrometheusBuilder::install_recorder);
        match handle {
            Ok(handle) => {
                describe();
                Some(handle)
            }
            Err(e) => {
                tracing::error!(error = %e, "metrics are off");
                None
            }
        }
    });
}

/// All metrics in Prometheus' text form.
pub fn render() -> String {
    let Some(Some(handle)) = REGISTRY.get() else {
        return String::new();
    };
    if let Some(bytes) = resident_bytes() {
        gauge!(RESIDENT_BYTES).set(bytes);
    }
    handle.run_upkeep();
    handle.render()
}

/// A statement ended. `outcome` is `ok` or the SQLSTATE's class.
pub fn statement(door: &'static str, outcome: &'static str, took: Duration) {
    counter!(STATEMENTS, "door" => door, "outcome" => outcome).increment(1);
    histogram!(STATEMENT_SECONDS, "door" => door).record(took);
}

/// Rows were stored and acknowledged.
pub fn ingested(door: &'static str, rows: u64, took: Duration) {
    counter!(INGESTED_ROWS, "door" => door).increment(rows);
    histogram!(INGEST_SECONDS, "door" => door).record(took);
}

/// A key of a view was looked up.
pub fn looked_up() {
    counter!(LOOKUPS).increment(1);
}

/// Storing a view wrote so many bytes to disk, as they did not fit into its memory.
pub fn view_spilled(bytes: u64) {
    counter!(VIEW_SPILLED).increment(bytes);
}

/// Rows were not stored: their table had them already.
pub fn duplicates(rows: u64) {
    counter!(DUPLICATE_ROWS).increment(rows);
}

/// The log was synced, with `bytes` new in it.
pub fn wal_fsync(bytes: u64, took: Duration) {
    counter!(WAL_FSYNCS).increment(1);
    counter!(WAL_BYTES).increment(bytes);
    histogram!(WAL_FSYNC_SECONDS).record(took);
}

/// A Delta commit was made.
pub fn delta_commit() {
    counter!(COMMITS).increment(1);
}

/// A login was refused.
pub fn login_failed(door: &'static str) {
    counter!(LOGIN_FAILURES, "door" => door).increment(1);
}

/// An HTTP request was answered.
pub fn http_request(status: u16) {
    counter!(HTTP_REQUESTS, "status" => status.to_string()).increment(1);
}

/// Counts a connection as long as it lives.
#[derive(Debug)]
pub struct Connected(&'static str);

impl Connected {
    /// A connection came in.
    pub fn new(door: &'static str) -> Self {
        gauge!(CONNECTIONS, "door" => door).increment(1);
        Self(door)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        gauge!(CONNECTIONS, "door" => self.0).decrement(1);
    }
}

fn describe() {
    describe_counter!(STATEMENTS, "Statements by door and outcome");
    describe_histogram!(
        STATEMENT_SECONDS,
        Unit::Seconds,
        "Time of a statement until its last row"
    );
    describe_counter!(INGESTED_ROWS, "Rows stored and acknowledged");
    describe_counter!(
        DUPLICATE_ROWS,
        "Rows not stored because their table had their key already"
    );
    describe_histogram!(
        INGEST_SECONDS,
        Unit::Seconds,
        "Time from rows decoded to rows durable"
    );
    describe_counter!(WAL_FSYNCS, "Syncs of the log");
    describe_histogram!(
        WAL_FSYNC_SECONDS,
        Unit::Seconds,
        "Time of a sync of the log"
    );
    describe_counter!(WAL_BYTES, Unit::Bytes, "Bytes written to the log");
    describe_counter!(
        LOOKUPS,
        "Queries for one key of a view that were not planned"
    );
    describe_counter!(
        VIEW_SPILLED,
        Unit::Bytes,
        "Bytes that storing materialized views wrote to disk beside the state, for want of memory"
    );
    describe_counter!(COMMITS, "Commits to Delta tables");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(LOGIN_FAILURES, "Refused logins");
    describe_counter!(HTTP_REQUESTS, "HTTP requests by status");
    describe_gauge!(RESIDENT_BYTES, Unit::Bytes, "Memory of the process");
}

/// The process's resident memory, where the system tells it.
fn resident_bytes() -> Option<f64> {
    const PAGE: u32 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u32 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(f64::from(pages) * f64::from(PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_rendered() {
        install();
        install();
        statement("http", "ok", Duration::from_millis(3));
        wal_fsync(10, Duration::from_millis(1));
        let text = render();
        assert!(
            text.contains("weir_statements_total{door=\"http\",outcome=\"ok\"}"),
            "{text}"
        );
        assert!(text.contains("weir_wal_fsync_seconds_bucket"));
        assert!(text.contains("weir_process_resident_bytes"));
    }
}
