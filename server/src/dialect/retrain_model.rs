//! `RETRAIN MODEL name`. Executed in `exec/retrain_model.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrainModel {
    /// The model.
    pub name: ObjectName,
}

impl RetrainModel {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["RETRAIN", "MODEL"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["RETRAIN", "MODEL"])?;
        Ok(Self {
            name: p.parse_object_name(false)?,
        })
    }
}
