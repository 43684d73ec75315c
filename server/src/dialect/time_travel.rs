//! `t VERSION AS OF 3` and `t TIMESTAMP AS OF '…'`: moves the version into the table's name, where
//! name resolution finds it again ([`TableVersion::of`]). The planner would drop the clause.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectNamePart, Query, Statement, TableAlias, TableFactor, Value, VisitMut,
    VisitorMut,
};

use super::words::fold;
use crate::error::{Error, Result, SqlState};

/// Cannot be typed in an unquoted name.
const MARK: char = '\u{1}';

/// Which state of a table is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableVersion {
    /// A Delta version.
    Version(i64),
    /// A time, as the user wrote it.
    Timestamp(String),
}

impl TableVersion {
    /// Splits a resolved table name into the name proper and the version put into it.
    pub fn of(name: &str) -> (&str, Option<Self>) {
        let Some((bare, version)) = name.split_once(MARK) else {
            return (name, None);
        };
        let version = match version.split_once(':') {
            Some(("version", n)) => n.parse().ok().map(Self::Version),
            Some(("timestamp", at)) => Some(Self::Timestamp(at.to_owned())),
            _ => None,
        };
        (bare, version)
    }
}

/// Rewrites every versioned table of a statement in place.
///
/// # Errors
/// 0A000 for a version that is no literal, and for the foreign forms.
pub fn rewrite(statement: &mut Statement) -> Result<()> {
    into_result(VisitMut::visit(statement, &mut Rewriter))
}

/// The same for a query.
///
/// # Errors
/// As [`rewrite`].
pub fn rewrite_query(query: &mut Query) -> Result<()> {
    into_result(VisitMut::visit(query, &mut Rewriter))
}

fn into_result(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Error> {
        match rewrite_table(table) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }
}

fn rewrite_table(table: &mut TableFactor) -> Result<()> {
    let TableFactor::Table {
        name,
        alias,
        version,
        ..
    } = table
    else {
        return Ok(());
    };
    let Some(version) = version.take() else {
        return Ok(());
    };
    let suffix = match &version {
        ast::TableVersion::VersionAsOf(n) => format!("version:{}", literal(n)?),
        ast::TableVersion::TimestampAsOf(at) | ast::TableVersion::ForSystemTimeAsOf(at) => {
            format!("timestamp:{}", literal(at)?)
        }
        ast::TableVersion::Function(_) | ast::TableVersion::Changes { .. } => {
            return Err(Error::unsupported(
                "AT, BEFORE and CHANGES are not supported",
                "use VERSION AS OF n or TIMESTAMP AS OF '…'",
            ));
        }
    };
    let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() else {
        return Ok(());
    };
    let bare = fold(last);
    *last = Ident::with_quote('"', format!("{bare}{MARK}{suffix}"));
    alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', bare),
        columns: Vec::new(),
        at: None,
    });
    Ok(())
}

fn literal(expr: &Expr) -> Result<String> {
    let value = match expr {
        Expr::Value(v) => Some(&v.value),
        Expr::TypedString(typed) => Some(&typed.value.value),
        Expr::Cast { expr, .. } => return literal(expr),
        _ => None,
    };
    match value {
        Some(Value::Number(n, _)) => Ok(n.clone()),
        Some(Value::SingleQuotedString(s)) => Ok(s.clone()),
        _ => Err(Error::refused(
            SqlState::FEATURE_NOT_SUPPORTED,
            "the version of a table must be a literal",
        )
        .with_hint("write VERSION AS OF 3 or TIMESTAMP AS OF '2026-01-01'")),
    }
}
