//! `session_window(ts, gap)` in `GROUP BY`: one group per session.
//!
//! It is no function of a row: which rows belong together depends on their neighbours. The analyzer
//! rule turns the aggregate over it into plain operators (number the sessions with `session_id`, group by
//! that number), so plans need nothing of their own. What is left of it after the rule stood where it
//! has no meaning and is refused.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Documentation, Expr, ExprFunctionExt, ExprSchemable, Filter,
    LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility, Window,
    WindowUDF, col, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion_macros::user_doc;

use super::hop_window;
use super::session_id::{self, SessionId, time_and_gap};
use crate::FunctionError;
use crate::duration::{constant, positive_micros};

const NAME: &str = "session_window";
const NUMBER: &str = "__session_number";
const START: &str = "__session_start";
const LAST: &str = "__session_last";

#[user_doc(
    doc_section(label = "Sessions"),
    description = "Groups rows into sessions: only in `GROUP BY`, beside the columns that say whose session it is. A new session starts \
where the time since the group's previous row is longer than the gap; a pause of exactly the gap stays inside. The value is a struct: \
`start` is the time of the first row, `end` the time of the last row plus the gap (when the session is over if nothing follows). Rows whose \
time is NULL are left out. NULL in another group column is a group as usual.",
    syntax_example = "session_window(ts, gap)",
    sql_example = r#"```sql
SELECT user_id, session_window(ts, INTERVAL '30 minutes') AS w, count(*) AS events
FROM events GROUP BY user_id, session_window(ts, INTERVAL '30 minutes') ORDER BY user_id, w;
```"#,
    argument(
        name = "ts",
        description = "Time of the row: `timestamptz`, `timestamp` or `date`"
    ),
    argument(
        name = "gap",
        description = "Longest pause inside a session, a constant interval without months"
    )
)]
/// `session_window(ts, gap)`: name and type only; [`analyzer_rule`] gives it its meaning.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SessionWindow {
    signature: Signature,
}

impl Default for SessionWindow {
    fn default() -> Self {
        Self {
            // volatile, so that no rule folds or moves it before ours has seen it
            signature: Signature::user_defined(Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for SessionWindow {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(time_and_gap(NAME, arg_types)?.to_vec())
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let [time, _] = time_and_gap(NAME, arg_types)?;
        let fields = ["start", "end"].map(|name| Field::new(name, time.clone(), true));
        Ok(DataType::Struct(Fields::from(fields.to_vec())))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(misplaced().into())
    }
}

/// The rule that plans aggregates over `session_window` and `hop_window` and checks calls of `session_id`. Works before and after
/// type coercion.
pub fn analyzer_rule() -> Arc<dyn AnalyzerRule + Send + Sync> {
    Arc::new(SessionWindowRule)
}

#[derive(Debug)]
struct SessionWindowRule;

impl AnalyzerRule for SessionWindowRule {
    fn name(&self) -> &str {
        NAME
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(rewrite)?.data;
        plan.transform_up_with_subqueries(hop_window::expand)
            .map(|t| t.data)
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Window(window) = &plan {
        check_session_ids(&window.window_expr)?;
    }
    if !mentions(&plan)? {
        return Ok(Transformed::no(plan));
    }
    match plan {
        LogicalPlan::Aggregate(aggregate) => Ok(Transformed::yes(plan_sessions(aggregate)?)),
        _ => Err(misplaced().into()),
    }
}

/// Aggregate(keys…, session_window) over input, as
/// Projection(Aggregate(keys…, number; …, min, max) over Window(session_id) over Filter(ts) over input).
fn plan_sessions(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate {
        input,
        group_expr,
        aggr_expr,
        schema,
        ..
    } = aggregate;
    let place = window_position(&group_expr, &aggr_expr)?;
    let (time, gap) = time_and_literal(&group_expr[place], &input)?;
    let keys: Vec<Expr> = group_expr
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != place)
        .map(|(_, key)| key.clone())
        .collect();

    let dated = Filter::try_new(time.clone().is_not_null(), input)?;
    let partition = keys.iter().map(|key| key.clone().unalias()).collect();
    let udwf = Arc::new(WindowUDF::from(SessionId::default()));
    let number = Expr::from(WindowFunction::new(udwf, vec![time.clone(), gap.clone()]))
        .partition_by(partition)
        .order_by(vec![time.clone().sort(true, false)])
        .build()?;
    let numbered = Window::try_new(
        vec![number.alias(NUMBER)],
        Arc::new(LogicalPlan::Filter(dated)),
    )?;

    let mut groups = keys;
    groups.push(col(NUMBER));
    let mut values = aggr_expr;
    values.push(min(time.clone()).alias(START));
    values.push(max(time).alias(LAST));
    let grouped = Aggregate::try_new(Arc::new(LogicalPlan::Window(numbered)), groups, values)?;

    // the same names and types in the same order as before, so everything above still resolves
    let output = schema.iter().enumerate().map(|(i, (qualifier, field))| {
        if i == place {
            let window = named_struct(vec![
                lit("start"),
                col(START),
                lit("end"),
                col(LAST) + gap.clone(),
            ]);
            window.alias_qualified(qualifier.cloned(), field.name())
        } else {
            Expr::Column(Column::new(qualifier.cloned(), field.name()))
        }
    });
    let projection =
        Projection::try_new(output.collect(), Arc::new(LogicalPlan::Aggregate(grouped)))?;
    Ok(LogicalPlan::Projection(projection))
}

/// The engine would ignore what makes no sense on `session_id`; this refuses it.
fn check_session_ids(exprs: &[Expr]) -> Result<()> {
    for expr in exprs {
        expr.apply(|e| {
            if let Expr::WindowFunction(call) = e {
                session_id::check(call)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}

/// Where in the group list the window stands. Every other place of it is refused.
fn window_position(groups: &[Expr], aggregates: &[Expr]) -> Result<usize> {
    let mut found = None;
    for (i, group) in groups.iter().enumerate() {
        if !contains(group)? {
            continue;
        }
        if matches!(group, Expr::GroupingSet(_)) {
            return Err(FunctionError::unsupported(
                "session_window cannot stand in GROUPING SETS, ROLLUP or CUBE",
            )
            .with_hint("group by it in a subquery and roll up around it")
            .into());
        }
        if arguments(group).is_none() {
            return Err(FunctionError::unsupported(
                "an expression over session_window cannot be a GROUP BY key",
            )
            .with_hint("GROUP BY session_window(…) itself and take its fields in the select list")
            .into());
        }
        if found.replace(i).is_some() {
            return Err(
                FunctionError::unsupported("GROUP BY takes one session_window only").into(),
            );
        }
    }
    for aggregate in aggregates {
        if contains(aggregate)? {
            return Err(misplaced().into());
        }
    }
    found.ok_or_else(|| misplaced().into())
}

/// The time in microseconds and the checked gap of a call.
fn time_and_literal(window: &Expr, input: &LogicalPlan) -> Result<(Expr, Expr)> {
    let Some([time, gap]) = arguments(window) else {
        return Err(misplaced().into());
    };
    let types = [
        time.get_type(input.schema())?,
        gap.get_type(input.schema())?,
    ];
    let [time_type, _] = time_and_gap(NAME, &types)?;
    let gap = constant(gap)
        .ok_or_else(|| FunctionError::invalid("gap of session_window must be a constant"))?;
    let micros = positive_micros(&gap, "gap of session_window")?;
    let gap = ScalarValue::new_interval_mdn(0, 0, micros.saturating_mul(1000));
    Ok((time.clone().cast_to(&time_type, input.schema())?, lit(gap)))
}

/// The arguments, when the expression is a call of `session_window`, also behind aliases.
fn arguments(expr: &Expr) -> Option<&[Expr; 2]> {
    match expr {
        Expr::Alias(alias) => arguments(&alias.expr),
        Expr::ScalarFunction(call) if call.func.inner().is::<SessionWindow>() => {
            call.args.as_slice().try_into().ok()
        }
        _ => None,
    }
}

fn contains(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(arguments(e).is_some()))
}

fn mentions(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = contains(expr)?;
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

fn misplaced() -> FunctionError {
    FunctionError::misplaced("session_window is only allowed in GROUP BY").with_hint(
        "GROUP BY session_window(ts, gap), or use session_id(ts, gap) OVER (PARTITION BY … ORDER BY ts)",
    )
}

/// What the rule made of an aggregate over `session_window`, found again in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSessions {
    /// Longest pause inside a session, an interval.
    pub gap: ScalarValue,
    /// Which group key is the session's number within the other keys.
    pub number: usize,
}

/// Recognizes an aggregation that the rule made: its last group key numbers the sessions of the others,
/// and its last two aggregates are a session's first and last time.
pub fn planned_sessions(aggregate: &Aggregate) -> Option<PlannedSessions> {
    let named = |expr: &Expr, name: &str| match expr {
        Expr::Column(column) => column.name == name,
        Expr::Alias(alias) => alias.name == name,
        _ => false,
    };
    let (last, keys) = aggregate.group_expr.split_last()?;
    let [.., start, end] = aggregate.aggr_expr.as_slice() else {
        return None;
    };
    let LogicalPlan::Window(window) = aggregate.input.as_ref() else {
        return None;
    };
    let [Expr::Alias(number)] = window.window_expr.as_slice() else {
        return None;
    };
    let Expr::WindowFunction(call) = number.expr.as_ref() else {
        return None;
    };
    let partition = keys.iter().map(|key| key.clone().unalias());
    let ours = call.fun.name() == "session_id"
        && number.name == NUMBER
        && named(last, NUMBER)
        && named(start, START)
        && named(end, LAST)
        && partition.eq(call.params.partition_by.iter().cloned());
    match call.params.args.get(1) {
        Some(Expr::Literal(gap, _)) if ours => Some(PlannedSessions {
            gap: gap.clone(),
            number: keys.len(),
        }),
        _ => None,
    }
}
