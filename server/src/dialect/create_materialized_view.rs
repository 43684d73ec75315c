//! `CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] v [(c, …)] [WITH (…)] AS query`.
//! Executed in `exec/create_materialized_view.rs`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{ObjectName, Query};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{
    Source, expect_words, next_words_are, parse_name_list, parse_options, take_words,
};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateMaterializedView {
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// Column names in place of the query's own.
    pub columns: Vec<String>,
    /// `WITH`
    pub options: BTreeMap<String, String>,
    /// The defining query.
    pub query: Box<Query>,
    /// Its text.
    pub query_text: String,
}

impl CreateMaterializedView {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["CREATE", "MATERIALIZED", "VIEW"])
            || next_words_are(p, &["CREATE", "OR", "REPLACE", "MATERIALIZED", "VIEW"])
    }

    pub(super) fn parse(p: &mut Parser<'_>, source: &Source<'_>) -> Result<Self, ParserError> {
        p.expect_keyword_is(Keyword::CREATE)?;
        let or_replace = take_words(p, &["OR", "REPLACE"]);
        expect_words(p, &["MATERIALIZED", "VIEW"])?;
        let if_not_exists = take_words(p, &["IF", "NOT", "EXISTS"]);
        let name = p.parse_object_name(false)?;
        let columns = match p.peek_token_ref().token {
            Token::LParen => parse_name_list(p)?,
            _ => Vec::new(),
        };
        let options = parse_options(p)?;
        p.expect_keyword_is(Keyword::AS)?;
        let query_text = source.rest(p);
        let query = p.parse_query()?;
        Ok(Self {
            or_replace,
            if_not_exists,
            name,
            columns,
            options,
            query,
            query_text,
        })
    }
}
