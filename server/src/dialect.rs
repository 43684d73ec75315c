//! Text → [`Statement`]: wraps sqlparser with PostgreSQL's dialect and adds weir's own statements,
//! one file each. Parses once; nothing downstream renders SQL again.
//!
//! It must not know the catalog or run anything. What PostgreSQL or sqlparser would accept and weir
//! does not honour is refused by [`refuse`], so no clause is ever ignored.

mod alter_model;
mod alter_streaming_table;
mod alter_table_set;
pub(crate) mod array_of;
mod cancel_job;
pub(crate) mod column_names;
mod create_external_table;
mod create_materialized_view;
mod create_model;
mod create_secret;
mod create_table;
pub mod data_type;
mod describe_history;
mod drop_object;
mod explain_materialized_view;
mod flush_table;
mod grant;
mod list_rows;
mod numbers;
mod optimize;
mod place;
mod postgres;
mod query_clauses;
mod refresh_materialized_view;
pub mod refuse;
mod renamed;
mod replay_dead_letters;
mod restore_table;
mod retrain_model;
mod row_comparisons;
mod rows_in;
mod set_returning;
mod show_lineage;
mod spellings;
mod split;
pub mod time_travel;
mod using;
mod vacuum;
mod verify_audit;
mod view_query;
pub mod words;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

pub use alter_model::AlterModel;
pub use alter_streaming_table::{AlterStreamingTable, SourceAction};
pub use alter_table_set::AlterTableSet;
pub use cancel_job::CancelJob;
pub use create_external_table::CreateExternalTable;
pub use create_materialized_view::CreateMaterializedView;
pub use create_model::CreateModel;
pub use create_secret::CreateSecret;
pub use create_table::CreateTable;
pub use describe_history::DescribeHistory;
pub use drop_object::{DropKind, DropObject};
pub use explain_materialized_view::ExplainMaterializedView;
pub use flush_table::FlushTable;
pub use grant::{Grant, GrantTarget};
pub use optimize::Optimize;
pub use place::Start;
pub use refresh_materialized_view::RefreshMaterializedView;
pub use renamed::rename_relations;
pub use replay_dead_letters::ReplayDeadLetters;
pub use restore_table::RestoreTable;
pub use retrain_model::RetrainModel;
pub use show_lineage::{LineageDirection, ShowLineage};
pub use vacuum::Vacuum;
pub use verify_audit::VerifyAudit;
pub use view_query::view_query_text;

use crate::error::{Error, Report, Result, SqlState};
use postgres::WeirDialect;
use split::Piece;

/// A parsed statement with its text.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its text, without the semicolon.
    pub text: String,
    /// Where that stands among the statements that were sent with it.
    pub start: Start,
    /// What it says.
    pub kind: Kind,
}

/// Every statement weir knows: its own, and those sqlparser reads.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `CREATE [STREAMING] TABLE`
    CreateTable(Box<CreateTable>),
    /// `CREATE EXTERNAL TABLE`
    CreateExternalTable(Box<CreateExternalTable>),
    /// `CREATE [OR REPLACE] MATERIALIZED VIEW`
    CreateMaterializedView(Box<CreateMaterializedView>),
    /// `REFRESH MATERIALIZED VIEW`
    RefreshMaterializedView(RefreshMaterializedView),
    /// `EXPLAIN [CREATE] MATERIALIZED VIEW`
    ExplainMaterializedView(Box<ExplainMaterializedView>),
    /// `CREATE MODEL`
    CreateModel(Box<CreateModel>),
    /// `RETRAIN MODEL`
    RetrainModel(RetrainModel),
    /// `ALTER MODEL … SET ALIAS`
    AlterModel(AlterModel),
    /// `CREATE SECRET`
    CreateSecret(CreateSecret),
    /// `ALTER STREAMING TABLE … PAUSE | RESUME`
    AlterStreamingTable(AlterStreamingTable),
    /// `ALTER TABLE … SET (…)`
    AlterTableSet(AlterTableSet),
    /// `DROP TABLE | VIEW | … | MODEL | SECRET`
    DropObject(DropObject),
    /// `GRANT` and `REVOKE`
    Grant(Grant),
    /// `FLUSH TABLE`
    FlushTable(FlushTable),
    /// `OPTIMIZE`
    Optimize(Box<Optimize>),
    /// `VACUUM`
    Vacuum(Vacuum),
    /// `RESTORE TABLE`
    RestoreTable(RestoreTable),
    /// `CANCEL JOB`
    CancelJob(CancelJob),
    /// `REPLAY DEAD LETTERS FOR`
    ReplayDeadLetters(Box<ReplayDeadLetters>),
    /// `DESCRIBE HISTORY`
    DescribeHistory(DescribeHistory),
    /// `SHOW LINEAGE FOR`
    ShowLineage(ShowLineage),
    /// `VERIFY AUDIT`
    VerifyAudit(VerifyAudit),
    /// Everything sqlparser reads by itself.
    Native(Box<ast::Statement>),
}

/// Splits a text at its semicolons and parses each piece once; nothing for blank text.
///
/// # Errors
/// 42601 with the position, or 0A000 for what is read but not supported.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    let dialect = WeirDialect::default();
    let pieces = split::split(&dialect, sql)?;
    let mut start = Start::default();
    pieces
        .into_iter()
        .map(|piece| {
            start = start.moved(sql, piece.range.start);
            parse_piece(&dialect, sql, piece, start)
        })
        .collect()
}

/// Parses one query, as stored in the catalog for a view or a model.
pub fn parse_query(sql: &str) -> Result<ast::Query> {
    let mut statements = parse(sql)?;
    match (statements.pop().map(|s| s.kind), statements.is_empty()) {
        (Some(Kind::Native(native)), true) => match *native {
            ast::Statement::Query(query) => Ok(*query),
            _ => Err(Error::Internal("a stored query is no query".to_owned())),
        },
        _ => Err(Error::Internal("a stored query is no query".to_owned())),
    }
}

/// Parses one scalar expression, as stored in the catalog for a default or a constraint.
pub fn parse_expr(sql: &str) -> Result<ast::Expr> {
    let dialect = WeirDialect::default();
    let piece = split::split(&dialect, sql)?.into_iter().next();
    let tokens = piece.map(|p| p.tokens).unwrap_or_default();
    dialect.limit(tokens.len());
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    parser.parse_expr().map_err(|e| syntax_error(sql, &e))
}

fn parse_piece(
    dialect: &WeirDialect,
    sql: &str,
    mut piece: Piece,
    start: Start,
) -> Result<Statement> {
    postgres::plain_names(&mut piece.tokens);
    let text = sql[piece.range.clone()].to_owned();
    dialect.limit(piece.tokens.len());
    let mut parser = Parser::new(dialect).with_tokens_with_locations(piece.tokens);
    if !AlterTableSet::starts(&parser)
        && !AlterStreamingTable::starts(&parser)
        && let Some(refusal) = refuse::later(&parser)
    {
        return Err(refusal);
    }
    let kind = parse_kind(&mut parser, sql, &piece.range).map_err(|e| syntax_error(sql, &e))?;
    let rest = parser.peek_token();
    if rest.token != datafusion::sql::sqlparser::tokenizer::Token::EOF {
        let e = parser.expected::<()>("end of statement", rest).err();
        return Err(e.map_or_else(
            || Error::refused(SqlState::SYNTAX_ERROR, "syntax error"),
            |e| syntax_error(sql, &e),
        ));
    }
    let mut statement = Statement { text, start, kind };
    if let Kind::Native(native) = &mut statement.kind {
        query_clauses::rewrite(native.as_mut());
        refuse::check(native)?;
        time_travel::rewrite(native)?;
        rewrite(native.as_mut())?;
    }
    if let Some(query) = statement.query_mut() {
        query_clauses::rewrite(query);
        refuse::check_query(query)?;
        time_travel::rewrite_query(query)?;
        rewrite(query)?;
    }
    Ok(statement)
}

/// What is written otherwise than the planner reads it.
fn rewrite<T: ast::Visit + ast::VisitMut>(tree: &mut T) -> Result<()> {
    numbers::rewrite(tree);
    spellings::rewrite(tree);
    row_comparisons::rewrite(tree);
    using::rewrite(tree)?;
    set_returning::rewrite(tree)?;
    rows_in::rewrite(tree);
    array_of::rewrite(tree);
    Ok(())
}

fn parse_kind(
    p: &mut Parser<'_>,
    sql: &str,
    range: &std::ops::Range<usize>,
) -> Result<Kind, ParserError> {
    let source = words::Source::new(sql, range.end);
    Ok(if CreateTable::starts(p) {
        Kind::CreateTable(Box::new(CreateTable::parse(p)?))
    } else if CreateExternalTable::starts(p) {
        Kind::CreateExternalTable(Box::new(CreateExternalTable::parse(p)?))
    } else if CreateMaterializedView::starts(p) {
        Kind::CreateMaterializedView(Box::new(CreateMaterializedView::parse(p, &source)?))
    } else if RefreshMaterializedView::starts(p) {
        Kind::RefreshMaterializedView(RefreshMaterializedView::parse(p)?)
    } else if ExplainMaterializedView::starts(p) {
        Kind::ExplainMaterializedView(Box::new(ExplainMaterializedView::parse(p, &source)?))
    } else if CreateModel::starts(p) {
        Kind::CreateModel(Box::new(CreateModel::parse(p, &source)?))
    } else if RetrainModel::starts(p) {
        Kind::RetrainModel(RetrainModel::parse(p)?)
    } else if AlterModel::starts(p) {
        Kind::AlterModel(AlterModel::parse(p)?)
    } else if CreateSecret::starts(p) {
        Kind::CreateSecret(CreateSecret::parse(p)?)
    } else if AlterStreamingTable::starts(p) {
        Kind::AlterStreamingTable(AlterStreamingTable::parse(p)?)
    } else if AlterTableSet::starts(p) {
        Kind::AlterTableSet(AlterTableSet::parse(p)?)
    } else if DropObject::starts(p) {
        Kind::DropObject(DropObject::parse(p)?)
    } else if Grant::starts(p) {
        Kind::Grant(Grant::parse(p)?)
    } else if FlushTable::starts(p) {
        Kind::FlushTable(FlushTable::parse(p)?)
    } else if Optimize::starts(p) {
        Kind::Optimize(Box::new(Optimize::parse(p)?))
    } else if Vacuum::starts(p) {
        Kind::Vacuum(Vacuum::parse(p)?)
    } else if RestoreTable::starts(p) {
        Kind::RestoreTable(RestoreTable::parse(p)?)
    } else if CancelJob::starts(p) {
        Kind::CancelJob(CancelJob::parse(p)?)
    } else if ReplayDeadLetters::starts(p) {
        Kind::ReplayDeadLetters(Box::new(ReplayDeadLetters::parse(p)?))
    } else if DescribeHistory::starts(p) {
        Kind::DescribeHistory(DescribeHistory::parse(p)?)
    } else if ShowLineage::starts(p) {
        Kind::ShowLineage(ShowLineage::parse(p)?)
    } else if VerifyAudit::starts(p) {
        Kind::VerifyAudit(VerifyAudit::parse(p)?)
    } else {
        Kind::Native(Box::new(p.parse_statement()?))
    })
}

impl Statement {
    /// The query inside one of weir's own statements.
    fn query_mut(&mut self) -> Option<&mut ast::Query> {
        match &mut self.kind {
            Kind::CreateTable(s) => s.query.as_deref_mut(),
            Kind::CreateMaterializedView(s) => Some(&mut s.query),
            Kind::ExplainMaterializedView(s) => s.create.as_mut().map(|c| c.query.as_mut()),
            Kind::CreateModel(s) => Some(&mut s.query),
            Kind::CreateExternalTable(_)
            | Kind::RefreshMaterializedView(_)
            | Kind::RetrainModel(_)
            | Kind::AlterModel(_)
            | Kind::CreateSecret(_)
            | Kind::AlterStreamingTable(_)
            | Kind::AlterTableSet(_)
            | Kind::DropObject(_)
            | Kind::Grant(_)
            | Kind::FlushTable(_)
            | Kind::Optimize(_)
            | Kind::Vacuum(_)
            | Kind::RestoreTable(_)
            | Kind::CancelJob(_)
            | Kind::ReplayDeadLetters(_)
            | Kind::DescribeHistory(_)
            | Kind::ShowLineage(_)
            | Kind::VerifyAudit(_)
            | Kind::Native(_) => None,
        }
    }
}

/// PostgreSQL's wording and position for a parser's complaint.
fn syntax_error(sql: &str, e: &ParserError) -> Error {
    let text = match e {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => {
            return Error::refused(SqlState("54001"), "statement is nested too deeply");
        }
    };
    let (what, position) = match text.rsplit_once(" at Line: ") {
        Some((what, place)) => (what, split::offset_of(sql, place)),
        None => (text, None),
    };
    let message = match what.rsplit_once("found: ") {
        Some((_, "EOF")) => "syntax error at end of input".to_owned(),
        Some((_, token)) => format!("syntax error at or near \"{}\"", token.trim()),
        None => format!("syntax error: {what}"),
    };
    Error::Refused(Box::new(Report {
        state: SqlState::SYNTAX_ERROR,
        message,
        detail: Some(what.to_owned()),
        hint: None,
        position,
    }))
}

#[cfg(test)]
mod tests;
