//! `CREATE [STREAMING | TEMPORARY] TABLE [IF NOT EXISTS] s.t (columns, constraints)
//! [PARTITIONED BY (c, …)] [WITH (…)] [ON COMMIT …] [FROM KAFKA (…)]` and `CREATE TABLE [IF NOT EXISTS] t [(c, …)] [WITH (…)] AS query`.
//! Executed in `exec/create_table.rs`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{ColumnDef, ObjectName, OnCommit, Query, TableConstraint};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{
    next_words_are, parse_dotted_options, parse_name_list, parse_options, take_words,
};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    /// `STREAMING`
    pub streaming: bool,
    /// `TEMPORARY`
    pub temporary: bool,
    /// `ON COMMIT`
    pub on_commit: Option<OnCommit>,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// Column definitions.
    pub columns: Vec<ColumnDef>,
    /// Table constraints.
    pub constraints: Vec<TableConstraint>,
    /// `PARTITIONED BY`
    pub partitioned_by: Vec<String>,
    /// `WITH`
    pub options: BTreeMap<String, String>,
    /// `FROM <word> (…)`: what feeds it.
    pub source: Option<SourceClause>,
    /// `AS query`
    pub query: Option<Box<Query>>,
    /// `WITH NO DATA`
    pub no_data: bool,
}

/// `FROM <word> (option = value, …)`.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceClause {
    /// What kind of source: `kafka`.
    pub kind: String,
    /// Its options; names may have dots.
    pub options: BTreeMap<String, String>,
}

impl CreateTable {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        const OPENINGS: [&[&str]; 8] = [
            &["CREATE", "TABLE"],
            &["CREATE", "STREAMING", "TABLE"],
            &["CREATE", "TEMP", "TABLE"],
            &["CREATE", "TEMPORARY", "TABLE"],
            &["CREATE", "LOCAL", "TEMPORARY"],
            &["CREATE", "LOCAL", "TEMP"],
            &["CREATE", "GLOBAL", "TEMPORARY"],
            &["CREATE", "GLOBAL", "TEMP"],
        ];
        OPENINGS.iter().any(|words| next_words_are(p, words))
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        p.expect_keyword_is(Keyword::CREATE)?;
        let streaming = take_words(p, &["STREAMING"]);
        // PostgreSQL makes no difference either
        let _ = take_words(p, &["LOCAL"]) || take_words(p, &["GLOBAL"]);
        let temporary = take_words(p, &["TEMP"]) || take_words(p, &["TEMPORARY"]);
        p.expect_keyword_is(Keyword::TABLE)?;
        let if_not_exists = take_words(p, &["IF", "NOT", "EXISTS"]);
        let name = p.parse_object_name(false)?;
        let (columns, constraints) = parse_columns(p)?;
        let mut table = Self {
            streaming,
            temporary,
            on_commit: None,
            if_not_exists,
            name,
            columns,
            constraints,
            partitioned_by: Vec::new(),
            options: BTreeMap::new(),
            source: None,
            query: None,
            no_data: false,
        };
        loop {
            if take_words(p, &["PARTITIONED", "BY"]) && table.partitioned_by.is_empty() {
                table.partitioned_by = parse_name_list(p)?;
            } else if next_words_are(p, &["WITH"]) && table.options.is_empty() {
                table.options = parse_options(p)?;
            } else if take_words(p, &["FROM"]) && table.source.is_none() {
                table.source = Some(SourceClause {
                    kind: p.parse_identifier()?.value.to_lowercase(),
                    options: parse_dotted_options(p)?,
                });
            } else if take_words(p, &["ON", "COMMIT"]) && table.on_commit.is_none() {
                table.on_commit = Some(parse_on_commit(p)?);
            } else if take_words(p, &["AS"]) {
                table.query = Some(p.parse_query()?);
                table.no_data = take_words(p, &["WITH", "NO", "DATA"]);
                take_words(p, &["WITH", "DATA"]);
                return Ok(table);
            } else {
                return Ok(table);
            }
        }
    }
}

fn parse_on_commit(p: &mut Parser<'_>) -> Result<OnCommit, ParserError> {
    if take_words(p, &["PRESERVE", "ROWS"]) {
        Ok(OnCommit::PreserveRows)
    } else if take_words(p, &["DELETE", "ROWS"]) {
        Ok(OnCommit::DeleteRows)
    } else if take_words(p, &["DROP"]) {
        Ok(OnCommit::Drop)
    } else {
        p.expected_ref("PRESERVE ROWS, DELETE ROWS or DROP", p.peek_token_ref())
    }
}

pub(super) fn parse_columns(
    p: &mut Parser<'_>,
) -> Result<(Vec<ColumnDef>, Vec<TableConstraint>), ParserError> {
    if p.peek_token_ref().token == Token::LParen {
        p.parse_columns()
    } else {
        Ok((Vec::new(), Vec::new()))
    }
}
