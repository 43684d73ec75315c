//! `REPLAY DEAD LETTERS FOR t [WHERE …] [DRY RUN]`. Executed in `exec/replay_dead_letters.rs`.

use datafusion::sql::sqlparser::ast::{Expr, ObjectName};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayDeadLetters {
    /// The streaming table.
    pub name: ObjectName,
    /// A condition over the columns of `weir.dead_letters`.
    pub selection: Option<Expr>,
    /// Only tell what would happen.
    pub dry_run: bool,
}

impl ReplayDeadLetters {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["REPLAY", "DEAD", "LETTERS"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["REPLAY", "DEAD", "LETTERS", "FOR"])?;
        let name = p.parse_object_name(false)?;
        let selection = match p.parse_keyword(Keyword::WHERE) {
            true => Some(p.parse_expr()?),
            false => None,
        };
        Ok(Self {
            name,
            selection,
            dry_run: take_words(p, &["DRY", "RUN"]),
        })
    }
}
