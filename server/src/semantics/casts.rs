//! Casts as PostgreSQL does them: text is read and written by its input and output rules, numbers
//! are rounded, `varchar(n)` cuts. Runs after type coercion, so casts that nobody wrote are included.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit};
use chrono_tz::Tz;
use datafusion::common::DFSchema;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, lit, when};
use datafusion::optimizer::AnalyzerRule;

use super::arithmetic::{Op, checked};
use super::types::{Family, family};
use super::{functions, text, zones};
use crate::types::TYPE_KEY;

/// The rule.
#[derive(Debug)]
pub(super) struct Casts;

impl AnalyzerRule for Casts {
    fn name(&self) -> &'static str {
        "postgres_casts"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        walk(plan, Some(text::session_zone(config)))
    }
}

/// Every node from the leaves up. What lies below a view's edge has been analyzed in the zone that the view was
/// made in, and keeps it.
#[recursive::recursive]
fn walk(plan: LogicalPlan, zone: Option<Tz>) -> Result<LogicalPlan> {
    let below = match &plan {
        LogicalPlan::SubqueryAlias(alias) if is_view(&alias.alias) => None,
        _ => zone,
    };
    let plan = plan
        .map_children(|child| Ok(Transformed::yes(walk(child, below)?)))?
        .data;
    let plan = plan
        .map_subqueries(|query| Ok(Transformed::yes(walk(query, zone)?)))?
        .data;
    Ok(rewrite_node(plan, zone)?.data)
}

/// Only the alias of a view has all parts of a name.
fn is_view(alias: &TableReference) -> bool {
    matches!(alias, TableReference::Full { .. })
}

fn rewrite_node(plan: LogicalPlan, zone: Option<Tz>) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(
            scan.table_name.clone(),
            &scan.source.schema(),
        )?);
    }
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(transform(expr, &schema, zone)?.update_data(|expr| name.restore(expr)))
    })?;
    match rewritten.transformed {
        true => rewritten.map_data(LogicalPlan::recompute_schema),
        false => Ok(rewritten),
    }
}

/// One expression over columns.
pub(super) fn rewrite(expr: Expr, columns: &DFSchema) -> Result<Expr> {
    Ok(transform(expr, columns, None)?.data)
}

/// Without a zone, instants are those of UTC, and texts are read by the zone of the session that runs it.
fn transform(expr: Expr, schema: &DFSchema, zone: Option<Tz>) -> Result<Transformed<Expr>> {
    let zoned = zone.filter(|zone| *zone != Tz::UTC);
    expr.transform_up(|expr| match (expr, zoned) {
        (Expr::Cast(cast), Some(clocks)) => match zones::cast(&cast, schema, clocks)? {
            Some(moved) => Ok(Transformed::yes(moved)),
            None => rewrite_cast(cast, schema, zone),
        },
        (Expr::Cast(cast), None) => rewrite_cast(cast, schema, zone),
        (Expr::BinaryExpr(sum), Some(clocks)) => zones::sum(sum, schema, clocks),
        (Expr::ScalarFunction(call), _) if matches!(call.name(), "concat" | "concat_ws") => {
            concatenated(call, schema)
        }
        (Expr::ScalarFunction(call), clocks) => {
            if let Some(bound) = zone.and_then(|zone| functions::in_zone(&call, zone)) {
                return Ok(Transformed::yes(bound));
            }
            match clocks {
                Some(clocks) => zones::call(call, schema, clocks),
                None => Ok(Transformed::no(Expr::ScalarFunction(call))),
            }
        }
        (other, _) => Ok(Transformed::no(other)),
    })
}

fn rewrite_cast(cast: Cast, schema: &DFSchema, zone: Option<Tz>) -> Result<Transformed<Expr>> {
    let (_, source) = cast.expr.to_field(schema)?;
    let (from, to) = (source.data_type(), cast.field.data_type());
    if let (DataType::List(inner), DataType::List(wanted)) = (from, to)
        && matches!(inner.data_type(), DataType::List(_))
        && !matches!(wanted.data_type(), DataType::List(_))
    {
        // a type has arrays of any number of dimensions
        let field = cast.field.as_ref().clone();
        let field = field.with_data_type(as_deep_as(from, wanted));
        return Ok(Transformed::yes(Expr::Cast(Cast::new_from_field(
            cast.expr,
            Arc::new(field),
        ))));
    }
    if family(from) == Family::Text && is_read(&cast.field) {
        return Ok(Transformed::yes(text::read(*cast.expr, &cast.field, zone)));
    }
    if family(to) == Family::Text && is_written(from) {
        let written = text::write(*cast.expr, &source, zone);
        return Ok(Transformed::yes(match to {
            DataType::Utf8 => written,
            _ => Expr::Cast(Cast::new_from_field(Box::new(written), cast.field)),
        }));
    }
    let rounded = match from {
        _ if !to.is_integer() => return Ok(Transformed::no(Expr::Cast(cast))),
        DataType::Float32 | DataType::Float64 => checked(Op::Round, vec![*cast.expr]),
        DataType::Decimal128(precision, scale) if *scale > 0 => {
            let whole = DataType::Decimal128(*precision, 0);
            Expr::Cast(Cast::new(cast.expr, whole))
        }
        _ => return Ok(Transformed::no(Expr::Cast(cast))),
    };
    Ok(Transformed::yes(Expr::Cast(Cast::new_from_field(
        Box::new(rounded),
        cast.field,
    ))))
}

fn as_deep_as(from: &DataType, element: &FieldRef) -> DataType {
    match from {
        DataType::List(inner) => {
            let deeper = as_deep_as(inner.data_type(), element);
            match deeper == *element.data_type() {
                true => DataType::List(Arc::clone(element)),
                false => DataType::List(Arc::new(Field::new_list_field(deeper, true))),
            }
        }
        _ => element.data_type().clone(),
    }
}

/// `concat` writes truth values as `t` and `f`, as their output is, and not as a cast does.
fn concatenated(mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let mut changed = false;
    for arg in &mut call.args {
        if let Expr::Cast(cast) = arg
            && cast.expr.get_type(schema)? == DataType::Boolean
        {
            let value = cast.expr.as_ref().clone();
            let shown = when(value.clone(), lit("t")).when(value.is_false(), lit("f"));
            *arg = shown.clone().end()?;
            changed = true;
        }
    }
    Ok(match changed {
        true => Transformed::yes(Expr::ScalarFunction(call)),
        false => Transformed::no(Expr::ScalarFunction(call)),
    })
}

/// Types whose text form PostgreSQL's rules read.
fn is_read(to: &Field) -> bool {
    match to.data_type() {
        DataType::Utf8 => matches!(
            to.metadata().get(TYPE_KEY).map(String::as_str),
            Some(tag) if tag == "uuid" || tag == "json" || tag == "jsonb" || tag.starts_with("varchar:")
        ),
        DataType::List(of) => is_plain(of.data_type()) || of.data_type() == &DataType::Utf8,
        ty => is_plain(ty),
    }
}

fn is_plain(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Binary
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Interval(IntervalUnit::MonthDayNano)
    )
}

/// Types whose text form is not Arrow's.
fn is_written(from: &DataType) -> bool {
    matches!(
        from,
        DataType::Float32
            | DataType::Float64
            | DataType::Binary
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Interval(_)
            | DataType::List(_)
    )
}

/// The field a value is written by: its own, without a name.
pub(super) fn unnamed(field: &FieldRef) -> FieldRef {
    Arc::new(
        field
            .as_ref()
            .clone()
            .with_name("value")
            .with_nullable(true),
    )
}
