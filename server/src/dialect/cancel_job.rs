//! `CANCEL JOB n`. Executed in `exec/cancel_job.rs`.

use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are};

/// What the statement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelJob {
    /// The job's number in `weir.jobs`.
    pub id: u64,
}

impl CancelJob {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["CANCEL", "JOB"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["CANCEL", "JOB"])?;
        Ok(Self {
            id: p.parse_literal_uint()?,
        })
    }
}
