//! Relations over models in `FROM`, planned into ordinary operators.
//!
//! `ml_evaluate('churn', 'holdout')` reads another relation. Tables are looked up before planning, by
//! walking the statement; a name inside a text would be missed. [`bind_relation_arguments`] therefore
//! turns it into a subquery first: from there on name resolution, policies and lineage see it as any other.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Documentation, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Statement, TableFactor,
    Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::ModelResolver;
use crate::error::{Error, Result, SqlState};

pub mod ml_evaluate;
pub mod ml_weights;

/// Plans the relations of this module; everything else passes through.
pub fn relation_planner(resolver: Arc<dyn ModelResolver>) -> Arc<dyn RelationPlanner> {
    Arc::new(ModelRelations { resolver })
}

/// Documentation by name.
pub fn documentation() -> Vec<(&'static str, Documentation)> {
    vec![
        (ml_evaluate::NAME, ml_evaluate::documentation()),
        (ml_weights::NAME, ml_weights::documentation()),
    ]
}

/// Turns relation names in texts into subqueries: `ml_evaluate('churn', 'holdout')` into
/// `ml_evaluate('churn', (SELECT * FROM holdout))`. To be called on every parsed statement before its
/// tables are looked up.
///
/// # Errors
/// `22023` when the text is no relation name.
pub fn bind_relation_arguments(statement: &mut Statement) -> Result<()> {
    match statement.visit(&mut Binder) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Binder;

impl VisitorMut for Binder {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table {
            name,
            args: Some(args),
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        if function_name(name).as_deref() != Some(ml_evaluate::NAME) {
            return ControlFlow::Continue(());
        }
        if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(relation))) = args.args.get_mut(1)
            && let Some(text) = literal(relation)
        {
            match subquery(&text) {
                Ok(bound) => *relation = bound,
                Err(e) => return ControlFlow::Break(e),
            }
        }
        ControlFlow::Continue(())
    }
}

/// `(SELECT * FROM name)`, made by the parser so that quoting follows the usual rules.
fn subquery(name: &str) -> Result<SqlExpr> {
    let refused = || {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("\"{name}\" is no relation name"),
        )
    };
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .try_with_sql(name)
        .map_err(|_| refused())?;
    let parsed = parser.parse_object_name(false).map_err(|_| refused())?;
    if parser.peek_token().token != datafusion::sql::sqlparser::tokenizer::Token::EOF {
        return Err(refused());
    }
    let text = format!("(SELECT * FROM {parsed})");
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(&text)
        .and_then(|mut p| p.parse_expr())
        .map_err(|_| refused())
}

#[derive(Debug)]
struct ModelRelations {
    resolver: Arc<dyn ModelResolver>,
}

impl RelationPlanner for ModelRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let name = match &relation {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            } => function_name(name),
            _ => None,
        };
        let Some(name) =
            name.filter(|n| [ml_evaluate::NAME, ml_weights::NAME].contains(&n.as_str()))
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let (arguments, alias) = call(&name, relation)?;
        let plan = match name.as_str() {
            ml_evaluate::NAME => ml_evaluate::plan(&self.resolver, &arguments, context)?,
            _ => ml_weights::plan(&self.resolver, &arguments)?,
        };
        let named = LogicalPlanBuilder::from(plan).alias(name)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            named, alias,
        ))))
    }
}

type Alias = Option<datafusion::sql::sqlparser::ast::TableAlias>;

/// Arguments and alias of a call; every modifier that would be ignored is refused.
fn call(function: &str, relation: TableFactor) -> Result<(Vec<SqlExpr>, Alias)> {
    let TableFactor::Table {
        name: _,
        alias,
        args: Some(args),
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = relation
    else {
        return Err(Error::Internal(format!("{function} without arguments")));
    };
    let modified = !with_hints.is_empty()
        || version.is_some()
        || with_ordinality
        || !partitions.is_empty()
        || json_path.is_some()
        || sample.is_some()
        || !index_hints.is_empty()
        || args.settings.is_some();
    if modified {
        return Err(Error::unsupported(
            format!("{function} takes no table modifiers"),
            "put them on the relation inside its argument",
        ));
    }
    let mut arguments = Vec::with_capacity(args.args.len());
    for argument in args.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(expr),
            other => {
                return Err(Error::unsupported(
                    format!("{function} does not take the argument {other}"),
                    "arguments go by position",
                ));
            }
        }
    }
    Ok((arguments, alias))
}

/// The model a call names.
fn model_argument(function: &str, argument: Option<&SqlExpr>) -> Result<String> {
    argument.and_then(literal).ok_or_else(|| {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the first argument of {function} must be a model's name"),
        )
        .with_hint("write it as a literal: 'churn', 'churn@3' or 'churn@champion'")
    })
}

fn literal(expr: &SqlExpr) -> Option<String> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The bare lower-case name of a function call.
fn function_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(
            |Ident {
                 value, quote_style, ..
             }| match quote_style {
                Some(_) => value.clone(),
                None => value.to_lowercase(),
            },
        ),
        _ => None,
    }
}

/// Refuses a wrong number of arguments.
fn expect_arguments(function: &str, arguments: &[SqlExpr], wanted: usize) -> Result<()> {
    if arguments.len() == wanted {
        return Ok(());
    }
    Err(Error::refused(
        SqlState::UNDEFINED_FUNCTION,
        format!(
            "{function} takes {wanted} argument(s), not {}",
            arguments.len()
        ),
    ))
}

/// The plan of a relation argument.
fn relation_argument(
    function: &str,
    argument: &SqlExpr,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<LogicalPlan> {
    let bound = match literal(argument) {
        Some(text) => subquery(&text)?,
        None => argument.clone(),
    };
    let SqlExpr::Subquery(subquery) = bound else {
        return Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the second argument of {function} must be a relation's name or a subquery"),
        )
        .into());
    };
    context.plan(TableFactor::Derived {
        lateral: false,
        subquery,
        alias: None,
        sample: None,
    })
}
