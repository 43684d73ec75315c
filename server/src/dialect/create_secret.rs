//! `CREATE SECRET [IF NOT EXISTS] name TYPE tokenization`. Executed in `exec/create_secret.rs`.

use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, fold, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSecret {
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: String,
}

impl CreateSecret {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["CREATE", "SECRET"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["CREATE", "SECRET"])?;
        let if_not_exists = take_words(p, &["IF", "NOT", "EXISTS"]);
        let name = fold(&p.parse_identifier()?);
        expect_words(p, &["TYPE"])?;
        let kind = fold(&p.parse_identifier()?);
        Ok(Self {
            if_not_exists,
            name,
            kind,
        })
    }
}
