//! `CREATE [OR REPLACE] MODEL name TYPE kind [WITH (…)] AS query`. Executed in `exec/create_model.rs`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{ObjectName, Query};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{Source, expect_words, fold, next_words_are, parse_options, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateModel {
    /// `OR REPLACE`: train a new version when the model is there.
    pub or_replace: bool,
    /// Its name.
    pub name: ObjectName,
    /// `logistic_regression`, `kmeans`, …
    pub kind: String,
    /// `WITH`
    pub options: BTreeMap<String, String>,
    /// The training query.
    pub query: Box<Query>,
    /// Its text.
    pub query_text: String,
}

impl CreateModel {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["CREATE", "MODEL"])
            || next_words_are(p, &["CREATE", "OR", "REPLACE", "MODEL"])
    }

    pub(super) fn parse(p: &mut Parser<'_>, source: &Source<'_>) -> Result<Self, ParserError> {
        p.expect_keyword_is(Keyword::CREATE)?;
        let or_replace = take_words(p, &["OR", "REPLACE"]);
        expect_words(p, &["MODEL"])?;
        let name = p.parse_object_name(false)?;
        expect_words(p, &["TYPE"])?;
        let kind = fold(&p.parse_identifier()?);
        let options = parse_options(p)?;
        p.expect_keyword_is(Keyword::AS)?;
        let query_text = source.rest(p);
        let query = p.parse_query()?;
        Ok(Self {
            or_replace,
            name,
            kind,
            options,
            query,
            query_text,
        })
    }
}
