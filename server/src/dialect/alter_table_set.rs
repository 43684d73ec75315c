//! `ALTER TABLE | MATERIALIZED VIEW name SET (option = value, …)`. Executed in `exec/alter_table_set.rs`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{expect_words, fold, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterTableSet {
    /// The table or materialized view.
    pub name: ObjectName,
    /// New values.
    pub options: BTreeMap<String, String>,
}

impl AlterTableSet {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        let after = if next_words_are(p, &["ALTER", "TABLE"]) {
            2
        } else if next_words_are(p, &["ALTER", "STREAMING", "TABLE"])
            || next_words_are(p, &["ALTER", "MATERIALIZED", "VIEW"])
        {
            3
        } else {
            return false;
        };
        // name or schema.name, then SET (
        [1, 3].iter().any(|name_length| {
            let at = after + name_length;
            p.peek_nth_token_ref(at)
                .token
                .to_string()
                .eq_ignore_ascii_case("SET")
                && p.peek_nth_token_ref(at + 1).token == Token::LParen
        })
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["ALTER"])?;
        if !take_words(p, &["MATERIALIZED", "VIEW"]) {
            take_words(p, &["STREAMING"]);
            expect_words(p, &["TABLE"])?;
        }
        let name = p.parse_object_name(false)?;
        expect_words(p, &["SET"])?;
        p.expect_token(&Token::LParen)?;
        let pairs = p.parse_comma_separated(|p| {
            let key = fold(&p.parse_identifier()?);
            p.expect_token(&Token::Eq)?;
            let next = p.next_token();
            match next.token {
                Token::SingleQuotedString(value) | Token::Number(value, _) => Ok((key, value)),
                Token::Word(word) => Ok((key, word.value)),
                _ => p.expected("a literal", next),
            }
        })?;
        p.expect_token(&Token::RParen)?;
        Ok(Self {
            name,
            options: pairs.into_iter().collect(),
        })
    }
}
