//! `UPDATE t [AS a] SET c = e, … [FROM s, …] [WHERE e]`.
//!
//! A row that several rows of `FROM` match is refused (21000), as MERGE refuses it: which of them gave
//! the new values would be left to chance.

use arrow::datatypes::DataType;
use catalog::{Privilege, Relation, RelationKind};
use datafusion::sql::sqlparser::ast::{
    SelectItem, Statement as Ast, TableWithJoins, Update, UpdateTableFromKind,
};

use super::delete::{check_rights, target};
use super::rewrite::{self, Change, Named, Part, RowKind, once};
use super::{Outcome, Run, query};
use crate::dialect::refuse::clause;
use crate::error::{Error, Result, SqlState};
use crate::session::Description;

/// Changes the rows.
pub(super) async fn execute(run: &Run, update: &Update) -> Result<Outcome> {
    let (relation, table, others) = understand(run, update)?;
    check_rights(run, relation, Privilege::Update, !others.is_empty())?;
    run.scope.touch(relation.oid);
    let views = rewrite::check_views(&run.scope, relation)?;
    let streaming = relation.kind == RelationKind::StreamingTable;
    let values = rewrite::assignments(relation, &update.assignments)?;
    let changed = rewrite::changed_items(relation, &table.alias, streaming, &values);
    let (mut others, mut condition) = (others.to_vec(), update.selection.clone());
    let sources = once::ask(run, &mut others, &mut condition).await?;
    let hit = query::select(changed, joined(&table, &others), condition.clone())?;
    let rest = rewrite::all_items(relation, &table.alias, streaming);
    let kept = match (others.is_empty(), &condition) {
        (true, None) => None,
        (true, Some(condition)) => Some(rewrite::unmet(rest, vec![table.from], condition)?),
        (false, condition) => Some(rewrite::unmatched(
            rest,
            table.from,
            others,
            condition.as_ref(),
        )?),
    };
    let part = |query, kind| Part { query, kind };
    let mut parts = vec![part(hit, RowKind::Updated)];
    parts.extend(kept.map(|query| part(query, RowKind::Kept)));
    let change = Change {
        parts,
        must_be_zero: Vec::new(),
        sources,
        one_to_one: Some(ambiguity),
    };
    let count = rewrite::apply(run, relation, change, views, "UPDATE")
        .await?
        .updated;
    Ok(Outcome::Command {
        tag: format!("UPDATE {count}"),
        rows: Some(count),
    })
}

/// The table beside what it is updated from.
fn joined(table: &Named, others: &[TableWithJoins]) -> Vec<TableWithJoins> {
    std::iter::once(&table.from)
        .chain(others)
        .cloned()
        .collect()
}

fn ambiguity() -> Error {
    Error::refused(
        SqlState::CARDINALITY_VIOLATION,
        "UPDATE command cannot affect row a second time",
    )
    .with_hint("ensure that not more than one row of FROM matches any one row of the table")
}

/// Parameters of an UPDATE: assigned ones take their column's type.
pub(super) async fn describe(
    run: &Run,
    update: &Update,
    hints: &[Option<DataType>],
) -> Result<Description> {
    use datafusion::sql::sqlparser::ast::{Expr, Value};
    let (relation, table, others) = understand(run, update)?;
    check_rights(run, relation, Privilege::Update, !others.is_empty())?;
    let values = rewrite::assignments(relation, &update.assignments)?;
    let mut hints = hints.to_vec();
    for (name, value) in &values {
        let Expr::Value(v) = value else { continue };
        let Value::Placeholder(text) = &v.value else {
            continue;
        };
        let Ok(n @ 1..) = text.trim_start_matches('$').parse::<usize>() else {
            continue;
        };
        let ty = relation
            .columns
            .iter()
            .find(|c| c.name == *name)
            .map(|c| crate::types::arrow_type(&c.sql_type));
        if hints.len() < n {
            hints.resize(n, None);
        }
        if let Some(hint) = hints.get_mut(n - 1) {
            *hint = hint.take().or(ty);
        }
    }
    let items: Vec<SelectItem> = rewrite::changed_items(relation, &table.alias, false, &values);
    let rows = query::select(items, joined(&table, others), update.selection.clone())?;
    let state = run.scope.writing(relation.oid, Privilege::Update).state()?;
    let (params, _) = query::parameters(&state, Ast::Query(Box::new(rows)), &hints).await?;
    Ok(Description {
        params,
        schema: None,
    })
}

/// The table, and what stands beside it in FROM.
fn understand<'a>(
    run: &'a Run,
    update: &'a Update,
) -> Result<(&'a Relation, Named, &'a [TableWithJoins])> {
    let Update {
        update_token: _,
        optimizer_hints: _,
        table,
        assignments: _,
        from,
        selection: _,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    clause(
        returning.is_some() || output.is_some(),
        "RETURNING",
        "read the rows afterwards",
    )?;
    clause(or.is_some(), "UPDATE OR …", "use UPDATE")?;
    clause(
        !order_by.is_empty() || limit.is_some(),
        "UPDATE … LIMIT",
        "use WHERE",
    )?;
    clause(
        !table.joins.is_empty(),
        "UPDATE of a join",
        "use UPDATE … FROM",
    )?;
    let others = match from {
        None => &[],
        Some(UpdateTableFromKind::AfterSet(others)) => others.as_slice(),
        Some(UpdateTableFromKind::BeforeSet(_)) => {
            return Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                "FROM comes after SET",
            ));
        }
    };
    let (relation, named) = target(run, &table.relation)?;
    Ok((relation, named, others))
}
