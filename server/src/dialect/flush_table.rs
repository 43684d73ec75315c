//! `FLUSH TABLE t`. Executed in `exec/flush_table.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct FlushTable {
    /// The streaming table.
    pub name: ObjectName,
}

impl FlushTable {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["FLUSH", "TABLE"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["FLUSH", "TABLE"])?;
        Ok(Self {
            name: p.parse_object_name(false)?,
        })
    }
}
