//! Which queries a materialized view can keep, by which strategy, and why not.

use std::fmt::Write as _;
use std::sync::Arc;

use catalog::{Oid, Strategy};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, JoinType, LogicalPlan, TableScan, Volatility,
};

use super::split::Split;
use super::state::Layout;
use crate::engine::scan::WeirTable;
use crate::error::{Error, Result};
use crate::types::LSN;

/// Aggregates whose state has a fixed size and merges in any order.
const MERGEABLE: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
];

/// Aggregates that count rows in their unsigned state; the others keep values there.
const COUNTERS_ONLY: &[&str] = &[
    "count",
    "avg",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
];

const USE_VIEW: &str = "use an ordinary view";

/// How a view is kept.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The strategy.
    pub strategy: Strategy,
    /// Reason codes, `AGG_OK` and the like.
    pub codes: Vec<String>,
    /// The streaming table it reads.
    pub source: Oid,
    pub(super) layout: Layout,
}

/// One remark about one node of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The node, as EXPLAIN shows it.
    pub node: String,
    /// `APPEND`, `AGG` or `REFUSED`.
    pub strategy: &'static str,
    /// Reason code.
    pub code: String,
    /// What it means here.
    pub detail: String,
    /// What to do instead; empty when nothing is wrong.
    pub fix: String,
}

/// Everything there is to say about a query.
#[derive(Debug, Clone)]
pub struct Examination {
    /// Remarks, outermost node first.
    pub findings: Vec<Finding>,
    accepted: Option<Analysis>,
}

impl Examination {
    /// The analysis, or the refusal `CREATE` answers with: 0A000 with every code.
    pub fn accept(self, name: &str) -> Result<Analysis> {
        if let Some(analysis) = self.accepted {
            return Ok(analysis);
        }
        let mut detail = String::new();
        for f in self.findings.iter().filter(|f| f.strategy == REFUSED) {
            let separator = if detail.is_empty() { "" } else { "; " };
            // writing to a text cannot fail
            let _ = write!(detail, "{separator}{}: {}", f.code, f.detail);
        }
        let message = format!("materialized view \"{name}\" cannot be kept incrementally");
        Err(Error::unsupported(message, USE_VIEW).with_detail(detail))
    }
}

/// Says how a query would be kept. It has been analyzed (types coerced) and not optimized, and its
/// table scans are [`WeirTable`]s.
pub fn examine(plan: &LogicalPlan) -> Result<Examination> {
    let plan = prepared(plan.clone())?;
    let mut walk = Walk::default();
    walk.columns(&plan);
    walk.node(&plan)?;
    let accepted = walk.accept(&plan)?;
    Ok(Examination {
        findings: walk.findings,
        accepted,
    })
}

/// [`examine`], for callers that want the strategy or the refusal; `name` is the view's.
pub fn analyze(name: &str, plan: &LogicalPlan) -> Result<Analysis> {
    examine(plan)?.accept(name)
}

/// The query in the form that analysis and reading share: DISTINCT is an aggregation without
/// aggregates.
pub(super) fn prepared(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let keys = input
                .schema()
                .columns()
                .into_iter()
                .map(Expr::Column)
                .collect();
            let aggregate = Aggregate::try_new(input, keys, Vec::new())?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

const REFUSED: &str = "REFUSED";

#[derive(Default)]
struct Walk {
    findings: Vec<Finding>,
    source: Option<Oid>,
    layout: Option<Layout>,
    refused: bool,
}

impl Walk {
    fn refuse(
        &mut self,
        node: impl Into<String>,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.refused = true;
        self.findings.push(Finding {
            node: node.into(),
            strategy: REFUSED,
            code: code.into(),
            detail: detail.into(),
            fix: USE_VIEW.to_owned(),
        });
    }

    /// Result columns must leave the log position alone.
    fn columns(&mut self, plan: &LogicalPlan) {
        if plan.schema().fields().iter().any(|f| f.name() == LSN) {
            let detail = format!("a result column cannot be named \"{LSN}\"");
            self.refuse(plan.display().to_string(), "RESERVED_COLUMN", detail);
        }
    }

    /// Walks down the single chain that can be kept, and names every node that breaks it.
    fn node(&mut self, plan: &LogicalPlan) -> Result<()> {
        self.expressions(plan)?;
        let (code, detail) = match plan {
            LogicalPlan::TableScan(scan) => {
                self.scan(scan);
                return Ok(());
            }
            LogicalPlan::Aggregate(aggregate) => {
                self.aggregate(aggregate)?;
                return self.node(&aggregate.input);
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                return self.inputs(plan);
            }
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => (
                "SORT_LIMIT_INSIDE",
                "order and limit belong to the query that reads the view",
            ),
            LogicalPlan::Join(join) => match join.join_type {
                JoinType::Inner => ("JOIN", "joins are not kept yet"),
                JoinType::Left | JoinType::Right | JoinType::Full => {
                    ("OUTER_JOIN", "outer joins are not kept")
                }
                JoinType::LeftSemi
                | JoinType::RightSemi
                | JoinType::LeftAnti
                | JoinType::RightAnti
                | JoinType::LeftMark
                | JoinType::RightMark => ("ANTI_JOIN", "semi and anti joins are not kept"),
            },
            LogicalPlan::Window(_) => ("WINDOW", "window functions are not kept"),
            LogicalPlan::Union(_) => ("SET_OP:UNION", "unions are not kept yet"),
            LogicalPlan::Distinct(_) => ("DISTINCT_ON", "DISTINCT ON depends on an order"),
            LogicalPlan::Unnest(_) => ("UNNEST", "unnesting is not kept yet"),
            LogicalPlan::RecursiveQuery(_) => ("RECURSIVE", "recursive queries are not kept"),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                ("SOURCE_NOT_STREAMING", "it reads no streaming table")
            }
            LogicalPlan::Extension(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => ("UNSUPPORTED_NODE", "this step is not kept"),
        };
        self.refuse(plan.display().to_string(), code, detail);
        self.inputs(plan)
    }

    fn inputs(&mut self, plan: &LogicalPlan) -> Result<()> {
        plan.inputs()
            .into_iter()
            .try_for_each(|input| self.node(input))
    }

    fn scan(&mut self, scan: &TableScan) {
        let table = WeirTable::behind(&scan.source);
        let streaming = table
            .filter(|t| t.head().streaming && WeirTable::new(Arc::clone(t.head()), true).has_lsn());
        match streaming {
            Some(table) => self.source = Some(table.head().oid),
            None => self.refuse(
                format!("TableScan: {}", scan.table_name),
                "SOURCE_NOT_STREAMING",
                format!("\"{}\" is not a streaming table", scan.table_name),
            ),
        }
    }

    /// Every expression of a node must give the same value whenever it is evaluated.
    fn expressions(&mut self, plan: &LogicalPlan) -> Result<()> {
        for expr in plan.expressions() {
            expr.apply(|e| {
                let Some((code, detail)) = unsteady(e) else {
                    return Ok(TreeNodeRecursion::Continue);
                };
                self.refuse(plan.display().to_string(), code, detail);
                Ok(TreeNodeRecursion::Jump)
            })?;
        }
        Ok(())
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<()> {
        let node = LogicalPlan::Aggregate(aggregate.clone())
            .display()
            .to_string();
        if self.layout.is_some() {
            self.refuse(
                node,
                "NESTED_AGGREGATE",
                "an aggregation over an aggregation is not kept yet",
            );
            return Ok(());
        }
        let mut plain = true;
        if aggregate
            .group_expr
            .iter()
            .any(|e| matches!(e, Expr::GroupingSet(_)))
        {
            self.refuse(&node, "GROUPING_SETS", "grouping sets are not kept yet");
            plain = false;
        }
        for call in &aggregate.aggr_expr {
            match call.clone().unalias_nested().data {
                Expr::AggregateFunction(f) => {
                    if let Some((code, detail)) = unmergeable(&f) {
                        self.refuse(&node, format!("NON_MERGEABLE_AGG:{code}"), detail);
                        plain = false;
                    }
                }
                other => {
                    self.refuse(
                        &node,
                        "UNSUPPORTED_NODE",
                        format!("\"{other}\" is no plain aggregate"),
                    );
                    plain = false;
                }
            }
        }
        if !plain {
            // a placeholder, so that a second aggregation is still told apart
            self.layout = Some(Layout::Append(Vec::new()));
            return Ok(());
        }
        let (keys, states) = Split::new(aggregate)?.partial_fields()?;
        for (call, state) in aggregate.aggr_expr.iter().zip(&states) {
            let Expr::AggregateFunction(f) = call.clone().unalias_nested().data else {
                continue;
            };
            let values = !COUNTERS_ONLY.contains(&f.func.name());
            if values
                && state
                    .iter()
                    .any(|s| *s.data_type() == arrow::datatypes::DataType::UInt64)
            {
                self.refuse(
                    &node,
                    "STATE_TYPE_UNSUPPORTED:UInt64",
                    format!("of \"{call}\""),
                );
            }
        }
        self.layout = Some(Layout::Agg { keys, states });
        Ok(())
    }

    fn accept(&mut self, plan: &LogicalPlan) -> Result<Option<Analysis>> {
        let (strategy, code, detail) = match &self.layout {
            Some(_) => (
                Strategy::Agg,
                "AGG_OK",
                "partial states are stored and merged when read",
            ),
            None => (
                Strategy::Append,
                "APPEND_OK",
                "result rows are stored as source rows arrive",
            ),
        };
        let columns = || Layout::Append(plan.schema().fields().iter().cloned().collect());
        let layout = self.layout.take().unwrap_or_else(columns);
        if !self.refused
            && let Some(field) = layout.unsupported()
        {
            let code = format!("STATE_TYPE_UNSUPPORTED:{}", field.data_type());
            self.refuse(
                plan.display().to_string(),
                code,
                format!("column \"{}\" cannot be stored exactly", field.name()),
            );
        }
        let Some(source) = self.source.filter(|_| !self.refused) else {
            return Ok(None);
        };
        self.findings.insert(
            0,
            Finding {
                node: plan.display().to_string(),
                strategy: match strategy {
                    Strategy::Append => "APPEND",
                    Strategy::Agg => "AGG",
                },
                code: code.to_owned(),
                detail: detail.to_owned(),
                fix: String::new(),
            },
        );
        Ok(Some(Analysis {
            strategy,
            codes: vec![code.to_owned()],
            source,
            layout,
        }))
    }
}

/// Why an expression alone keeps a view from being kept, if so; its parts are asked one by one.
fn unsteady(expr: &Expr) -> Option<(String, &'static str)> {
    let called = |name: &str, volatility: Volatility| {
        (volatility != Volatility::Immutable).then(|| {
            let code = format!("NON_DETERMINISTIC:{name}");
            (code, "its value changes with time or chance")
        })
    };
    match expr {
        Expr::ScalarFunction(f) => called(f.func.name(), f.func.signature().volatility),
        Expr::AggregateFunction(f) => called(f.func.name(), f.func.signature().volatility),
        Expr::ScalarVariable(..) => {
            Some((format!("NON_DETERMINISTIC:{expr}"), "a setting may change"))
        }
        Expr::Placeholder(_) => Some((
            format!("NON_DETERMINISTIC:{expr}"),
            "a view takes no parameters",
        )),
        Expr::ScalarSubquery(_)
        | Expr::InSubquery(_)
        | Expr::Exists(_)
        | Expr::SetComparison(_) => Some((
            "SUBQUERY".to_owned(),
            "subqueries in expressions are not kept",
        )),
        Expr::HigherOrderFunction(f) => {
            let code = format!("UNSUPPORTED_FUNCTION:{}", f.name());
            Some((code, "functions over lambdas are not kept"))
        }
        _ => None,
    }
}

/// Why an aggregate's state cannot be stored and merged, if so.
fn unmergeable(f: &AggregateFunction) -> Option<(String, &'static str)> {
    let name = f.func.name();
    if !MERGEABLE.contains(&name) {
        Some((
            name.to_owned(),
            "its state has no fixed size or depends on order",
        ))
    } else if f.params.distinct {
        Some((
            format!("{name}(DISTINCT)"),
            "its state holds every distinct value",
        ))
    } else if !f.params.order_by.is_empty() || f.params.null_treatment.is_some() {
        Some((
            name.to_owned(),
            "an order or null treatment inside is not kept",
        ))
    } else {
        None
    }
}
