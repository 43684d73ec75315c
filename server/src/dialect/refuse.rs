//! Refuses what the parser reads and weir does not honour: locks, hints, samples, foreign clauses.
//! Without this, DataFusion's planner would drop several of them silently.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArguments, Query, Select, Statement, TableFactor, Visit, Visitor,
};

use datafusion::sql::sqlparser::parser::Parser;

use super::split::MAX_JOINS;
use super::words::next_words_are;
use crate::error::{Error, Result, SqlState};

/// Statements of the language that are not there yet, by their first words, with what to use instead.
const LATER: &[(&[&str], &str)] = &[
    (&["ERASE"], "use DELETE"),
    (&["DECLASSIFY"], "grant SELECT on a view"),
    (
        &["CREATE", "POLICY"],
        "grant SELECT on a view with a WHERE clause",
    ),
    (
        &["CREATE", "MASKING"],
        "grant SELECT on a view that masks the column",
    ),
    (&["CREATE", "UNLOGGED"], "use CREATE TABLE"),
    (
        &["CREATE", "TEMP", "STREAMING"],
        "use CREATE TEMPORARY TABLE",
    ),
    (
        &["CREATE", "TEMPORARY", "STREAMING"],
        "use CREATE TEMPORARY TABLE",
    ),
    (
        &["ALTER", "STREAMING", "TABLE"],
        "only SET (option = value), PAUSE and RESUME can be said",
    ),
    (
        &["ALTER", "MATERIALIZED", "VIEW"],
        "SET (option = value) can be altered; for the rest use CREATE OR REPLACE MATERIALIZED VIEW",
    ),
];

/// The refusal of a statement that is not there yet.
pub(super) fn later(p: &Parser<'_>) -> Option<Error> {
    let (words, hint) = LATER.iter().find(|(words, _)| next_words_are(p, words))?;
    Some(Error::unsupported(
        format!("{} is not supported", words.join(" ")),
        *hint,
    ))
}

/// Checks every query, table and function call inside a statement.
///
/// # Errors
/// 0A000 naming the clause.
pub fn check(statement: &Statement) -> Result<()> {
    into_result(statement.visit(&mut Refuser))
}

/// The same for a query inside one of weir's own statements.
///
/// # Errors
/// 0A000 naming the clause.
pub fn check_query(query: &Query) -> Result<()> {
    into_result(query.visit(&mut Refuser))
}

fn into_result(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Refuses a clause when it is there.
pub fn clause(there: bool, clause: &str, hint: &str) -> Result<()> {
    match there {
        true => Err(Error::unsupported(
            format!("{clause} is not supported"),
            hint,
        )),
        false => Ok(()),
    }
}

struct Refuser;

impl Visitor for Refuser {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        flow(query_clauses(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        flow(lengths(select).and_then(|()| select_clauses(select)))
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Error> {
        flow(table_clauses(table))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) => flow(function_clauses(function)),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    }
}

fn query_clauses(query: &Query) -> Result<()> {
    let Query {
        with: _,
        body: _,
        order_by: _,
        limit_clause: _,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    clause(
        fetch.is_some(),
        "FETCH FIRST with TIES, PERCENT or LIMIT",
        "use LIMIT alone",
    )?;
    clause(
        !locks.is_empty(),
        "FOR UPDATE and FOR SHARE",
        "reads see one cut and need no locks",
    )?;
    clause(
        for_clause.is_some(),
        "FOR XML, FOR JSON and FOR BROWSE",
        "leave the clause out",
    )?;
    clause(settings.is_some(), "SETTINGS", "use SET")?;
    clause(
        format_clause.is_some(),
        "FORMAT",
        "use COPY (query) TO STDOUT for another format",
    )?;
    clause(
        !pipe_operators.is_empty(),
        "the pipe operator",
        "nest the query instead",
    )
}

/// Columns that a select list may name: planning takes the square of them. Wildcards are free.
const MAX_ITEMS: usize = 4_096;

/// What planning takes the square of: items, and tables that are joined by commas, to which the same limit
/// applies as to `JOIN`, which is counted while the text is split.
fn lengths(select: &Select) -> Result<()> {
    if select.projection.len() > MAX_ITEMS {
        return Err(Error::refused(
            SqlState("54011"),
            format!("target lists can have at most {MAX_ITEMS} entries"),
        ));
    }
    match select.from.len() > MAX_JOINS {
        true => Err(Error::refused(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("more than {MAX_JOINS} tables in FROM"),
        )),
        false => Ok(()),
    }
}

fn select_clauses(select: &Select) -> Result<()> {
    let Select {
        select_token: _,
        optimizer_hints: _, // comments
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from: _,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by: _,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window: _,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    clause(
        select_modifiers.is_some(),
        "a SELECT modifier",
        "leave it out",
    )?;
    clause(top.is_some(), "TOP", "use LIMIT")?;
    clause(
        exclude.is_some(),
        "SELECT … EXCLUDE after the list",
        "name the columns",
    )?;
    clause(into.is_some(), "SELECT INTO", "use CREATE TABLE … AS")?;
    clause(!lateral_views.is_empty(), "LATERAL VIEW", "use unnest")?;
    clause(prewhere.is_some(), "PREWHERE", "use WHERE")?;
    clause(!connect_by.is_empty(), "CONNECT BY", "use WITH RECURSIVE")?;
    clause(!cluster_by.is_empty(), "CLUSTER BY", "use ORDER BY")?;
    clause(!distribute_by.is_empty(), "DISTRIBUTE BY", "leave it out")?;
    clause(!sort_by.is_empty(), "SORT BY", "use ORDER BY")?;
    clause(
        value_table_mode.is_some(),
        "SELECT AS STRUCT and AS VALUE",
        "use named_struct",
    )
}

fn table_clauses(table: &TableFactor) -> Result<()> {
    match table {
        TableFactor::Table {
            name: _,
            alias: _,
            args: _,
            with_hints,
            version: _, // read by time_travel
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            clause(!with_hints.is_empty(), "a table hint", "leave it out")?;
            clause(
                *with_ordinality && !super::set_returning::is_numbered(table),
                "WITH ORDINALITY",
                "use row_number() OVER ()",
            )?;
            clause(
                !partitions.is_empty(),
                "PARTITION after a table",
                "use WHERE",
            )?;
            clause(
                json_path.is_some(),
                "a JSON path after a table",
                "use the json functions",
            )?;
            clause(
                sample.is_some(),
                "TABLESAMPLE",
                "use WHERE random() < fraction",
            )?;
            clause(!index_hints.is_empty(), "an index hint", "leave it out")
        }
        TableFactor::Derived { sample, .. } => clause(
            sample.is_some(),
            "TABLESAMPLE",
            "use WHERE random() < fraction",
        ),
        TableFactor::Function {
            with_ordinality, ..
        } => clause(
            *with_ordinality,
            "WITH ORDINALITY",
            "use row_number() OVER ()",
        ),
        TableFactor::UNNEST {
            with_offset,
            with_ordinality,
            ..
        } => clause(
            *with_offset || (*with_ordinality && !super::set_returning::is_numbered(table)),
            "WITH ORDINALITY",
            "use row_number() OVER ()",
        ),
        // the planner refuses the forms it does not know
        _ => Ok(()),
    }
}

fn function_clauses(function: &Function) -> Result<()> {
    let Function {
        name: _,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter: _,
        null_treatment: _,
        over: _,
        within_group: _,
    } = function;
    clause(
        !matches!(parameters, FunctionArguments::None),
        "a second argument list",
        "pass one list",
    )?;
    let FunctionArguments::List(list) = args else {
        return Ok(());
    };
    for extra in &list.clauses {
        use datafusion::sql::sqlparser::ast::FunctionArgumentClause as Clause;
        let honoured = matches!(extra, Clause::OrderBy(_) | Clause::IgnoreOrRespectNulls(_));
        clause(
            !honoured,
            &format!("\"{extra}\" in a function call"),
            "leave it out",
        )?;
    }
    Ok(())
}
