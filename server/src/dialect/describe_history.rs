//! `DESCRIBE HISTORY t`. Executed in `exec/describe_history.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeHistory {
    /// The table.
    pub name: ObjectName,
}

impl DescribeHistory {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["DESCRIBE", "HISTORY"]) || next_words_are(p, &["DESC", "HISTORY"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        if !take_words(p, &["DESC"]) {
            expect_words(p, &["DESCRIBE"])?;
        }
        expect_words(p, &["HISTORY"])?;
        Ok(Self {
            name: p.parse_object_name(false)?,
        })
    }
}
