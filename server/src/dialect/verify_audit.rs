//! `VERIFY AUDIT`. Executed in `exec/verify_audit.rs`.

use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are};

/// What the statement says: nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyAudit;

impl VerifyAudit {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["VERIFY", "AUDIT"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["VERIFY", "AUDIT"])?;
        Ok(Self)
    }
}
