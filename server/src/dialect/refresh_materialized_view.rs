//! `REFRESH MATERIALIZED VIEW v [FULL]`. Executed in `exec/refresh_materialized_view.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct RefreshMaterializedView {
    /// The view.
    pub name: ObjectName,
    /// `FULL`: rebuild from the source.
    pub full: bool,
}

impl RefreshMaterializedView {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["REFRESH", "MATERIALIZED", "VIEW"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["REFRESH", "MATERIALIZED", "VIEW"])?;
        let name = p.parse_object_name(false)?;
        Ok(Self {
            name,
            full: take_words(p, &["FULL"]),
        })
    }
}
