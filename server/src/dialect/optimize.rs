//! `OPTIMIZE [TABLE] t [WHERE e] [ZORDER BY (c, …)]`. Executed in `exec/optimize.rs`.

use datafusion::sql::sqlparser::ast::{Expr, ObjectName};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{expect_words, fold, next_words_are, parse_name_list, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimize {
    /// The table.
    pub name: ObjectName,
    /// Only files that may hold such rows.
    pub selection: Option<Expr>,
    /// Columns to order by.
    pub order: Vec<String>,
}

impl Optimize {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["OPTIMIZE"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["OPTIMIZE"])?;
        take_words(p, &["TABLE"]);
        let name = p.parse_object_name(false)?;
        let selection = match take_words(p, &["WHERE"]) {
            true => Some(p.parse_expr()?),
            false => None,
        };
        let mut order = Vec::new();
        if take_words(p, &["ZORDER"]) {
            expect_words(p, &["BY"])?;
            order = match p.peek_token_ref().token == Token::LParen {
                true => parse_name_list(p)?,
                false => {
                    let names = p.parse_comma_separated(|p| p.parse_identifier())?;
                    names.iter().map(fold).collect()
                }
            };
        }
        Ok(Self {
            name,
            selection,
            order,
        })
    }
}
