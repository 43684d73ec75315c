//! `PREPARE`, `EXECUTE`, `DEALLOCATE`: statements prepared in SQL, beside those of the protocol.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, SelectItem, Statement as Ast,
};

use super::{Outcome, Run, query, rows};
use crate::dialect::data_type::sql_type;
use crate::dialect::words::{fold, parts};
use crate::dialect::{Kind, Statement};
use crate::error::{Error, Result, SqlState};
use crate::session::cursors::Prepared;
use crate::types::arrow_type;

/// Bytes of one row of arguments.
const ARGUMENTS: usize = 64 << 20;

/// Plans a statement and keeps it under a name.
pub(super) async fn prepare(
    run: &Run,
    name: &Ident,
    types: &[ast::DataType],
    inner: &Ast,
) -> Result<Outcome> {
    let plain = matches!(
        inner,
        Ast::Query(_) | Ast::Insert(_) | Ast::Update(_) | Ast::Delete(_) | Ast::Merge(_)
    );
    if !plain {
        return Err(Error::unsupported(
            "PREPARE takes a query or a change of rows",
            "run other statements as they are",
        ));
    }
    let hints = types
        .iter()
        .map(|ty| Ok(Some(arrow_type(&sql_type(ty)?))))
        .collect::<Result<Vec<Option<DataType>>>>()?;
    let statement = Arc::new(Statement {
        text: run.statement.text.clone(),
        start: run.statement.start,
        kind: Kind::Native(Box::new(inner.clone())),
    });
    let described = Box::pin(super::describe(&with(run, &statement, Vec::new()), &hints)).await?;
    let prepared = Prepared {
        statement,
        params: described.params,
        schema: described.schema,
    };
    run.session()?
        .with_named(|named| named.prepare(&fold(name), prepared))?;
    Outcome::command("PREPARE")
}

/// The statement that an `EXECUTE` names.
pub(super) fn named(run: &Run, name: Option<&ObjectName>) -> Result<Prepared> {
    let name = name.map(|n| parts(n).join(".")).unwrap_or_default();
    run.session()?.with_named(|named| named.prepared(&name))
}

/// Runs a prepared statement with the values of its arguments.
pub(super) async fn execute(
    run: &Run,
    name: Option<&ObjectName>,
    arguments: &[Expr],
) -> Result<Outcome> {
    let prepared = named(run, name)?;
    if prepared.params.len() != arguments.len() {
        let name = name.map(ToString::to_string).unwrap_or_default();
        return Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            format!("wrong number of parameters for prepared statement \"{name}\""),
        )
        .with_detail(format!(
            "Expected {} parameters but got {}.",
            prepared.params.len(),
            arguments.len()
        )));
    }
    let params = match arguments.is_empty() {
        true => Vec::new(),
        false => values(run, arguments, &prepared.params).await?,
    };
    if super::commits_by_itself(&prepared.statement) {
        Box::pin(run.session()?.commit_held()).await?;
    }
    Box::pin(super::execute(&with(run, &prepared.statement, params))).await
}

/// The arguments' values in the parameters' types.
async fn values(run: &Run, arguments: &[Expr], types: &[DataType]) -> Result<Vec<ScalarValue>> {
    let items = arguments
        .iter()
        .enumerate()
        .map(|(at, expr)| SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: Ident::new(format!("p{at}")),
        });
    let select = query::select(items.collect(), Vec::new(), None)?;
    let (state, plan) = query::plan(&run.scope, select, &[]).await?;
    let batches = rows::collect(run, &state, &plan, ARGUMENTS).await?;
    let row = batches
        .first()
        .ok_or_else(|| Error::Internal("arguments gave no row".to_owned()))?;
    row.columns()
        .iter()
        .zip(types)
        .map(|(column, ty)| Ok(ScalarValue::try_from_array(column, 0)?.cast_to(ty)?))
        .collect()
}

/// Forgets a prepared statement, or all of them.
pub(super) fn deallocate(run: &Run, name: &Ident) -> Result<Outcome> {
    let session = run.session()?;
    if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all") {
        session.with_named(|named| named.deallocate_all());
        return Outcome::command("DEALLOCATE ALL");
    }
    session.with_named(|named| named.deallocate(&fold(name)))?;
    Outcome::command("DEALLOCATE")
}

fn with(run: &Run, statement: &Arc<Statement>, params: Vec<ScalarValue>) -> Run {
    Run {
        statement: Arc::clone(statement),
        params,
        ..run.clone()
    }
}
