//! Queries: `SELECT`, `VALUES`, `WITH`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement as PlanStatement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArguments, Query, SelectItem, SetExpr, Statement as Ast, VisitMut,
    VisitorMut,
};

use super::{Outcome, Run, origins, rows, series, set_config};
use crate::dialect::column_names::{self, numbered};
use crate::dialect::words::fold;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::semantics;
use crate::session::Description;
use crate::types::LSN;

/// Runs a query; its rows stream.
pub(super) async fn execute(run: &Run, query: &Query) -> Result<Outcome> {
    check(query)?;
    if let Some(found) = super::lookup::ask(run, query).await? {
        return Ok(found);
    }
    let (scope, mut shown) = with_lsn(&run.scope, query);
    set_config::perform(run, &mut shown)?;
    let state = scope.state()?;
    let plan = bound_plan(&state, Ast::Query(Box::new(shown)), &run.params).await?;
    let stream = match constants(&plan)? {
        Some(row) => rows::ready(row),
        None => stream(run, &state, &plan).await?,
    };
    let schema = output_schema(query, &stream.schema());
    let schema = origins::noted(&schema, &plan, &run.scope);
    Ok(Outcome::Rows {
        tag: "SELECT",
        schema: Arc::clone(&schema),
        stream: rows::renamed(stream, schema),
    })
}

async fn stream(
    run: &Run,
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<SendableRecordBatchStream> {
    let plan = state.optimize(plan)?;
    if let Some(row) = constants(&plan)? {
        return Ok(rows::ready(row));
    }
    let planner = state.query_planner();
    let physical = planner.create_physical_plan(&plan, state).await?;
    Ok(rows::run_physical(run, physical, state.task_ctx()))
}

/// The row of a plan that reads nothing and has nothing left to compute, as after `SELECT 1` and much
/// that tools ask when they connect: such a row needs no operator and no thread.
fn constants(plan: &LogicalPlan) -> Result<Option<RecordBatch>> {
    let LogicalPlan::Projection(row) = plan else {
        return Ok(None);
    };
    if !matches!(&*row.input, LogicalPlan::EmptyRelation(one) if one.produce_one_row) {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(row.expr.len());
    for (expr, field) in row.expr.iter().zip(row.schema.fields()) {
        match expr.clone().unalias() {
            PlanExpr::Literal(value, _)
                if value.data_type() == *field.data_type()
                    && (field.is_nullable() || !value.is_null()) =>
            {
                columns.push(value.to_array()?);
            }
            _ => return Ok(None),
        }
    }
    let schema = Arc::clone(row.schema.inner());
    Ok(Some(RecordBatch::try_new(schema, columns)?))
}

/// Parameters and columns of a query.
pub(super) async fn describe(
    run: &Run,
    query: &Query,
    hints: &[Option<DataType>],
) -> Result<Description> {
    check(query)?;
    let (scope, mut shown) = with_lsn(&run.scope, query);
    set_config::put_values(&mut shown)?;
    let state = scope.state()?;
    let (params, written) = parameters(&state, Ast::Query(Box::new(shown)), hints).await?;
    let plan = written.clone();
    let plan = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?;
    let schema = output_schema(query, plan.schema().as_arrow());
    let schema = origins::noted(&schema, &written, &run.scope);
    Ok(Description {
        params,
        schema: Some(schema),
    })
}

/// Plans a statement and puts the parameters in.
///
/// # Errors
/// 42P02 when the statement has parameters and none were given, 08P01 when too few were.
pub(super) async fn bound_plan(
    state: &SessionState,
    mut statement: Ast,
    params: &[ScalarValue],
) -> Result<LogicalPlan> {
    series::bind(&mut statement, params)?;
    let plan = Box::pin(planned(state, statement)).await?;
    let wanted = semantics::parameters::types(&plan)?.len();
    if wanted > 0 && params.is_empty() {
        return Err(Error::refused(
            SqlState::UNDEFINED_PARAMETER,
            "there is no parameter $1",
        ));
    }
    if wanted > params.len() {
        return Err(Error::refused(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "the statement has {wanted} parameters, but {} were given",
                params.len()
            ),
        ));
    }
    let plan = match params.is_empty() {
        true => plan,
        false => semantics::parameters::keep_bigint(plan, params)?
            .with_param_values(ParamValues::from(params.to_vec()))?,
    };
    Ok(semantics::apply(plan)?)
}

/// Plans a statement. PostgreSQL lets columns of a result share a name, the planner does not: when it
/// complains, unnamed columns get names of their own (clients see PostgreSQL's, see [`output_names`]).
pub(super) async fn planned(state: &SessionState, mut statement: Ast) -> Result<LogicalPlan> {
    let again = match &mut statement {
        Ast::Query(query) => {
            let mut named = query.clone();
            name_columns(&mut named.body).then_some(Ast::Query(named))
        }
        _ => None,
    };
    let plan = |s| Box::pin(state.statement_to_plan(PlanStatement::Statement(Box::new(s))));
    match (plan(statement).await, again) {
        (Err(e), Some(named)) if e.to_string().contains("require unique expression names") => {
            Ok(plan(named).await?)
        }
        (result, _) => Ok(result?),
    }
}

/// Gives every unnamed column of a select list a name, and those whose name is taken another one; false where
/// there is none to give.
fn name_columns(body: &mut SetExpr) -> bool {
    let SetExpr::Select(select) = body else {
        return false;
    };
    let mut changed = false;
    let mut taken = HashMap::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            let name = fold(alias);
            let times: &mut usize = taken.entry(name.clone()).or_default();
            if *times > 0 {
                *alias = ast::Ident::with_quote('"', numbered(&name, *times));
                changed = true;
            }
            *times += 1;
        }
        if let SelectItem::UnnamedExpr(expr) = item {
            let alias = ast::Ident::with_quote('"', format!("column {at}"));
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias,
            };
            changed = true;
        }
    }
    changed
}

/// Plans a statement with typed NULLs in place of its parameters, and says their types: what the
/// client declared, else what the plan wants, else text.
pub(super) async fn parameters(
    state: &SessionState,
    mut statement: Ast,
    hints: &[Option<DataType>],
) -> Result<(Vec<DataType>, LogicalPlan)> {
    let mut hints = hints.to_vec();
    series::describe(&mut statement, &mut hints)?;
    let plan = Box::pin(planned(state, statement)).await?;
    let inferred = semantics::parameters::types(&plan)?;
    let count = inferred
        .keys()
        .filter_map(|name| name.trim_start_matches('$').parse::<usize>().ok())
        .max()
        .unwrap_or(0)
        .max(hints.len());
    let types: Vec<DataType> = (1..=count)
        .map(|n| {
            let hint = hints.get(n - 1).cloned().flatten();
            hint.or_else(|| inferred.get(&format!("${n}")).cloned().flatten())
                .unwrap_or(DataType::Utf8)
        })
        .map(canonical)
        .collect();
    if types.is_empty() {
        return Ok((types, semantics::apply(plan)?));
    }
    let nulls = types
        .iter()
        .map(ScalarValue::try_from)
        .collect::<datafusion::error::Result<Vec<_>>>()?;
    let plan = plan.with_param_values(ParamValues::from(nulls))?;
    Ok((types, semantics::apply(plan)?))
}

fn canonical(ty: DataType) -> DataType {
    match ty {
        DataType::Null | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other,
    }
}

/// A query that names `_lsn` sees that column of streaming tables; its wildcards do not.
fn with_lsn(scope: &Arc<Scope>, query: &Query) -> (Arc<Scope>, Query) {
    let mut shown = query.clone();
    if VisitMut::visit(&mut shown, &mut Lsns::default()).is_continue() {
        return (Arc::clone(scope), shown);
    }
    let mut hide = Lsns { hide: true };
    let _ = VisitMut::visit(&mut shown, &mut hide);
    (scope.showing_lsn(), shown)
}

/// Stops at the first mention of `_lsn`, or hides it from every wildcard.
#[derive(Default)]
struct Lsns {
    hide: bool,
}

impl VisitorMut for Lsns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let named = match expr {
            Expr::Identifier(ident) => ident.value == LSN,
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|p| p.value == LSN),
            _ => false,
        };
        if named && !self.hide {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item
                && self.hide
                && options.opt_except.is_none()
            {
                let lsn = ast::ObjectName::from(vec![ast::Ident::new(LSN)]);
                options.opt_exclude = match options.opt_exclude.take() {
                    None => Some(ast::ExcludeSelectItem::Single(lsn)),
                    Some(ast::ExcludeSelectItem::Multiple(mut names)) => {
                        names.push(lsn);
                        Some(ast::ExcludeSelectItem::Multiple(names))
                    }
                    single => single,
                };
            }
        }
        ControlFlow::Continue(())
    }
}

/// Refuses writing common table expressions: they would be planned as another statement.
fn check(query: &Query) -> Result<()> {
    match &*query.body {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(Error::unsupported(
                "WITH before a writing statement is not supported",
                "write INSERT INTO … WITH … SELECT …",
            ))
        }
        _ => Ok(()),
    }
}

/// The planned columns under PostgreSQL's names.
pub(super) fn output_schema(query: &Query, planned: &Schema) -> SchemaRef {
    let planned_names: Vec<String> = planned
        .fields()
        .iter()
        .map(|f| column_names::shown(f.name()).to_owned())
        .collect();
    let names = output_names(query, &planned_names);
    let fields: Vec<Field> = planned
        .fields()
        .iter()
        .zip(names)
        .map(|(f, name)| shown_field(f, name))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Counters that the engine keeps unsigned (`row_number`, `rank`) are bigint to clients.
fn shown_field(field: &Field, name: String) -> Field {
    let shown = field.clone().with_name(name);
    match field.data_type() {
        DataType::UInt64 => shown.with_data_type(DataType::Int64),
        _ => shown,
    }
}

/// What PostgreSQL would call a query's columns: a function call is its function's name, a cast its
/// operand's, anything else without a name `?column?`. Columns of wildcards keep their own names.
pub(super) fn output_names(query: &Query, planned: &[String]) -> Vec<String> {
    let Some(items) = column_names::select_list(&query.body) else {
        return planned.to_vec();
    };
    let wild = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(..)
                | SelectItem::ExprWithAliases { .. }
        )
    };
    let before = items.iter().take_while(|i| !wild(i)).count();
    let after = items.iter().rev().take_while(|i| !wild(i)).count();
    if before == items.len() && items.len() != planned.len() {
        return planned.to_vec();
    }
    let after = if before == items.len() { 0 } else { after };
    let mut names = planned.to_vec();
    for (name, item) in names.iter_mut().zip(&items[..before]) {
        rename(name, item);
    }
    for (name, item) in names
        .iter_mut()
        .rev()
        .zip(items[items.len() - after..].iter().rev())
    {
        rename(name, item);
    }
    names
}

fn rename(name: &mut String, item: &SelectItem) {
    if let SelectItem::UnnamedExpr(expr) = item {
        *name = column_names::of(expr).unwrap_or_else(|| "?column?".to_owned());
    }
}

/// Makes a query of a select list, its sources and a condition. A template is parsed and filled in,
/// so no SQL text is put together.
pub(super) fn select(
    items: Vec<SelectItem>,
    from: Vec<ast::TableWithJoins>,
    selection: Option<Expr>,
) -> Result<Query> {
    let mut query = crate::dialect::parse_query("SELECT 1")?;
    if let SetExpr::Select(select) = &mut *query.body {
        select.projection = items;
        select.from = from;
        select.selection = selection;
    }
    Ok(query)
}

/// A function call without clauses: `name(args)`.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Result<Expr> {
    let mut query = crate::dialect::parse_query("SELECT f()")?;
    let SetExpr::Select(select) = &mut *query.body else {
        return Err(Error::Internal("the call template is no select".to_owned()));
    };
    let Some(SelectItem::UnnamedExpr(Expr::Function(mut function))) = select.projection.pop()
    else {
        return Err(Error::Internal("the call template is no call".to_owned()));
    };
    function.name = ast::ObjectName::from(vec![ast::Ident::new(name)]);
    if let FunctionArguments::List(list) = &mut function.args {
        let unnamed = |e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e));
        list.args = args.into_iter().map(unnamed).collect();
    }
    Ok(Expr::Function(function))
}

/// Plans a query made by [`select`], with the parameters put in.
pub(super) async fn plan(
    scope: &Arc<Scope>,
    query: Query,
    params: &[ScalarValue],
) -> Result<(SessionState, LogicalPlan)> {
    let state = scope.state()?;
    let plan = bound_plan(&state, Ast::Query(Box::new(query)), params).await?;
    Ok((state, plan))
}
