//! `RESTORE [TABLE] t TO VERSION AS OF n | TIMESTAMP AS OF '…'`. Executed in `exec/restore_table.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::time_travel::TableVersion;
use super::words::{expect_words, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreTable {
    /// The table.
    pub name: ObjectName,
    /// The state it goes back to.
    pub version: TableVersion,
}

impl RestoreTable {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["RESTORE"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["RESTORE"])?;
        take_words(p, &["TABLE"]);
        let name = p.parse_object_name(false)?;
        expect_words(p, &["TO"])?;
        let version = if take_words(p, &["VERSION", "AS", "OF"]) {
            let next = p.next_token();
            let number = match &next.token {
                Token::Number(text, _) => text.parse().ok(),
                _ => None,
            };
            match number {
                Some(number) => TableVersion::Version(number),
                None => return p.expected("a version number", next),
            }
        } else {
            expect_words(p, &["TIMESTAMP", "AS", "OF"])?;
            TableVersion::Timestamp(p.parse_literal_string()?)
        };
        Ok(Self { name, version })
    }
}
