//! Grouping sets over columns that are known to be equal or constant. A set leaves columns NULL, so what holds
//! of them below the grouping does not above; the engine goes on believing it and leaves them out when it
//! sorts. Below the grouping they pass through a function that tells nothing of its argument.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub(super) fn apply(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(rewrite)?.data)
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = plan else {
        return Ok(Transformed::no(plan));
    };
    let sets = |e: &Expr| matches!(e, Expr::GroupingSet(_));
    if !aggregate.group_expr.iter().any(sets) || is_done(&aggregate.input) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let grouped: HashSet<&Column> = aggregate
        .group_expr
        .iter()
        .flat_map(Expr::column_refs)
        .collect();
    let columns = aggregate.input.schema().iter().map(|(qualifier, field)| {
        let column = Column::new(qualifier.cloned(), field.name());
        let covered = grouped.contains(&column);
        let expr = Expr::Column(column);
        match covered {
            true => GROUPED
                .call(vec![expr])
                .alias_qualified(qualifier.cloned(), field.name()),
            false => expr,
        }
    });
    let input = Projection::try_new(columns.collect(), Arc::clone(&aggregate.input))?;
    let aggregate = Aggregate::try_new(
        Arc::new(LogicalPlan::Projection(input)),
        aggregate.group_expr.clone(),
        aggregate.aggr_expr.clone(),
    )?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

fn is_done(input: &LogicalPlan) -> bool {
    let LogicalPlan::Projection(projection) = input else {
        return false;
    };
    projection.expr.iter().any(|e| match e {
        Expr::Alias(alias) => matches!(
            alias.expr.as_ref(),
            Expr::ScalarFunction(f) if f.name() == NAME
        ),
        _ => false,
    })
}

static GROUPED: LazyLock<ScalarUDF> = LazyLock::new(|| {
    ScalarUDF::from(Grouped {
        // nothing is concluded about what might change from call to call
        signature: Signature::any(1, Volatility::Volatile),
    })
});

/// Gives its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Grouped {
    signature: Signature,
}

/// Its name. It is called volatile so that nothing is concluded, and changes nothing.
pub(super) const NAME: &str = "grouped";

impl ScalarUDFImpl for Grouped {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = args.arg_fields[0].as_ref().clone();
        Ok(Arc::new(field.with_name(NAME)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}
