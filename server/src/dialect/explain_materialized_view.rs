//! `EXPLAIN CREATE MATERIALIZED VIEW v AS query` and `EXPLAIN MATERIALIZED VIEW v`.
//! Executed in `exec/explain_materialized_view.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::create_materialized_view::CreateMaterializedView;
use super::words::{Source, expect_words, next_words_are};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainMaterializedView {
    /// The view.
    pub name: ObjectName,
    /// The statement that would create it.
    pub create: Option<CreateMaterializedView>,
}

impl ExplainMaterializedView {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["EXPLAIN", "MATERIALIZED", "VIEW"])
            || next_words_are(p, &["EXPLAIN", "CREATE", "MATERIALIZED"])
            || next_words_are(p, &["EXPLAIN", "CREATE", "OR", "REPLACE", "MATERIALIZED"])
    }

    pub(super) fn parse(p: &mut Parser<'_>, source: &Source<'_>) -> Result<Self, ParserError> {
        p.expect_keyword_is(Keyword::EXPLAIN)?;
        if CreateMaterializedView::starts(p) {
            let create = CreateMaterializedView::parse(p, source)?;
            return Ok(Self {
                name: create.name.clone(),
                create: Some(create),
            });
        }
        expect_words(p, &["MATERIALIZED", "VIEW"])?;
        Ok(Self {
            name: p.parse_object_name(false)?,
            create: None,
        })
    }
}
