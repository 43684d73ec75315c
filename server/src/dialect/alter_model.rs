//! `ALTER MODEL name SET ALIAS alias = version`. Executed in `exec/alter_model.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{expect_words, fold, next_words_are};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterModel {
    /// The model.
    pub name: ObjectName,
    /// The alias to set.
    pub alias: String,
    /// The version it shall mean.
    pub version: u64,
}

impl AlterModel {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["ALTER", "MODEL"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["ALTER", "MODEL"])?;
        let name = p.parse_object_name(false)?;
        expect_words(p, &["SET", "ALIAS"])?;
        let alias = fold(&p.parse_identifier()?);
        p.expect_token(&Token::Eq)?;
        Ok(Self {
            name,
            alias,
            version: p.parse_literal_uint()?,
        })
    }
}
