//! `SHOW LINEAGE FOR name [COLUMN c] [UPSTREAM | DOWNSTREAM]`. Executed in `exec/show_lineage.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, fold, next_words_are, take_words};

/// Which way to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineageDirection {
    /// To what it was made of (the default).
    Upstream,
    /// To what is made of it.
    Downstream,
}

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct ShowLineage {
    /// The relation or model.
    pub name: ObjectName,
    /// Only this column.
    pub column: Option<String>,
    /// Which way.
    pub direction: LineageDirection,
}

impl ShowLineage {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["SHOW", "LINEAGE", "FOR"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["SHOW", "LINEAGE", "FOR"])?;
        let name = p.parse_object_name(false)?;
        let column = match take_words(p, &["COLUMN"]) {
            true => Some(fold(&p.parse_identifier()?)),
            false => None,
        };
        let direction = if take_words(p, &["DOWNSTREAM"]) {
            LineageDirection::Downstream
        } else {
            take_words(p, &["UPSTREAM"]);
            LineageDirection::Upstream
        };
        Ok(Self {
            name,
            column,
            direction,
        })
    }
}
