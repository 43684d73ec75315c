//! Whether a query gives the same answer whenever it is asked over the same rows.

use std::collections::BTreeSet;

use catalog::Oid;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Distinct, Expr, LogicalPlan, TableScan, Volatility, WindowFunctionDefinition,
};

use super::analysis::Finding;
use crate::engine::scan::WeirTable;
use crate::types::LSN;

/// Aggregates whose value depends on the order rows come in.
const ORDERED: &[&str] = &[
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "nth_value",
];

/// What a query reads, and what about it no materialized view can keep.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Streaming tables, with every mention.
    pub(super) streams: Vec<Oid>,
    /// All tables.
    pub(super) tables: BTreeSet<Oid>,
    /// Reasons to refuse, outermost node first.
    pub(super) refusals: Vec<Finding>,
}

impl Survey {
    /// Looks through a whole query, its subqueries included.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut survey = Self::default();
        if plan.schema().fields().iter().any(|f| f.name() == LSN) {
            let detail = format!("a result column cannot be named \"{LSN}\"");
            let fix = "give the column another name";
            survey.refuse(plan, "RESERVED_COLUMN".to_owned(), detail, fix);
        }
        plan.apply_with_subqueries(|node| {
            survey.node(node);
            survey.expressions(node)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(survey)
    }

    fn refuse(&mut self, node: &LogicalPlan, code: String, detail: impl Into<String>, fix: &str) {
        let finding = Finding::refused(node, code, detail, fix);
        if !self.refusals.contains(&finding) {
            self.refusals.push(finding);
        }
    }

    fn node(&mut self, node: &LogicalPlan) {
        match node {
            LogicalPlan::TableScan(scan) => self.scan(node, scan),
            LogicalPlan::Limit(limit) if !sorted(&limit.input) => self.refuse(
                node,
                "UNORDERED_LIMIT".to_owned(),
                "which rows a LIMIT without ORDER BY keeps is left to chance",
                "add ORDER BY",
            ),
            LogicalPlan::Distinct(Distinct::On(on))
                if on.sort_expr.as_ref().is_none_or(Vec::is_empty) =>
            {
                self.refuse(
                    node,
                    "UNORDERED_DISTINCT_ON".to_owned(),
                    "which row DISTINCT ON keeps is left to chance",
                    "add ORDER BY",
                );
            }
            LogicalPlan::Extension(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => self.refuse(
                node,
                "UNSUPPORTED_NODE".to_owned(),
                "this step cannot be kept",
                "use an ordinary view",
            ),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_) => {}
        }
    }

    fn scan(&mut self, node: &LogicalPlan, scan: &TableScan) {
        match WeirTable::behind(&scan.source) {
            Some(table) => {
                let head = table.head();
                self.tables.insert(head.oid);
                if head.streaming {
                    self.streams.push(head.oid);
                }
            }
            None => self.refuse(
                node,
                "SYSTEM_SOURCE".to_owned(),
                format!("\"{}\" is no table that weir keeps", scan.table_name),
                "use an ordinary view",
            ),
        }
    }

    fn expressions(&mut self, node: &LogicalPlan) -> Result<()> {
        for expr in node.expressions() {
            expr.apply(|e| {
                if let Some((code, detail, fix)) = unsteady(e) {
                    self.refuse(node, code, detail, fix);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(())
    }
}

/// True when the rows come in an order that was asked for.
fn sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(p) => sorted(&p.input),
        LogicalPlan::SubqueryAlias(a) => sorted(&a.input),
        LogicalPlan::Limit(l) => sorted(&l.input),
        _ => false,
    }
}

type Reason = (String, &'static str, &'static str);

/// Why an expression alone keeps a view from being kept, if so; its parts are asked one by one.
fn unsteady(expr: &Expr) -> Option<Reason> {
    const ORDINARY: &str = "use an ordinary view";
    let called = |name: &str, volatility: Volatility| {
        (volatility != Volatility::Immutable).then(|| {
            let code = format!("NON_DETERMINISTIC:{name}");
            (code, "its value changes with time or chance", ORDINARY)
        })
    };
    match expr {
        // a view keeps the time zone it was made in
        Expr::ScalarFunction(f) if crate::semantics::is_text_conversion(f.func.name()) => None,
        Expr::ScalarFunction(f) => called(f.func.name(), f.func.signature().volatility),
        Expr::AggregateFunction(f) => {
            called(f.func.name(), f.func.signature().volatility).or_else(|| unordered(f))
        }
        Expr::WindowFunction(f) => {
            let name = f.fun.name();
            let ranks =
                matches!(f.fun, WindowFunctionDefinition::WindowUDF(_)) || ORDERED.contains(&name);
            match ranks && f.params.order_by.is_empty() {
                true => Some((
                    format!("UNORDERED_WINDOW:{name}"),
                    "its value depends on the order rows come in",
                    "give the window an ORDER BY",
                )),
                false => None,
            }
        }
        Expr::ScalarVariable(..) => Some((
            format!("NON_DETERMINISTIC:{expr}"),
            "a setting may change",
            ORDINARY,
        )),
        Expr::Placeholder(_) => Some((
            format!("NON_DETERMINISTIC:{expr}"),
            "a view takes no parameters",
            "write the value",
        )),
        _ => None,
    }
}

fn unordered(f: &AggregateFunction) -> Option<Reason> {
    let name = f.func.name();
    (ORDERED.contains(&name) && f.params.order_by.is_empty()).then(|| {
        (
            format!("UNORDERED_AGG:{name}"),
            "its value depends on the order rows come in",
            "give it an ORDER BY",
        )
    })
}
