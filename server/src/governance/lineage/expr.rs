//! Lineage through expressions.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::{Expr, Subquery};

use super::{Flow, Scope, Sources, Tracer, union};

impl Tracer {
    /// Sources of an expression's value. What only decides rows or groups inside it goes to
    /// `flow.indirect`.
    #[recursive::recursive]
    pub(super) fn value(&mut self, expr: &Expr, scope: &Scope, flow: &mut Flow) -> Sources {
        match expr {
            Expr::Column(column) => self.column(column, scope),
            Expr::OuterReferenceColumn(_, column) => self.outer_column(column),
            Expr::AggregateFunction(call) => {
                let AggregateFunctionParams {
                    args,
                    distinct: _,
                    filter,
                    order_by,
                    null_treatment: _,
                } = &call.params;
                let deciding = filter.as_deref().into_iter();
                let deciding = deciding.chain(order_by.iter().map(|s| &s.expr));
                self.decides(deciding, scope, flow);
                self.values(args, scope, flow)
            }
            Expr::WindowFunction(call) => {
                let WindowFunctionParams {
                    args,
                    partition_by,
                    order_by,
                    window_frame: _,
                    filter,
                    null_treatment: _,
                    distinct: _,
                } = &call.params;
                let deciding = partition_by.iter().chain(filter.as_deref());
                let deciding = deciding.chain(order_by.iter().map(|s| &s.expr));
                self.decides(deciding, scope, flow);
                self.values(args, scope, flow)
            }
            Expr::ScalarSubquery(subquery) => {
                let inner = self.subquery(subquery, scope, flow);
                flow.indirect.extend(inner.indirect);
                union(&inner.columns)
            }
            Expr::Exists(exists) => {
                let inner = self.subquery(&exists.subquery, scope, flow);
                flow.indirect.extend(inner.all());
                Sources::new()
            }
            Expr::InSubquery(test) => {
                let inner = self.subquery(&test.subquery, scope, flow);
                flow.indirect.extend(inner.all());
                self.value(&test.expr, scope, flow)
            }
            Expr::SetComparison(test) => {
                let inner = self.subquery(&test.subquery, scope, flow);
                flow.indirect.extend(inner.all());
                self.value(&test.expr, scope, flow)
            }
            other => self.children(other, scope, flow),
        }
    }

    fn values<'a>(
        &mut self,
        exprs: impl IntoIterator<Item = &'a Expr>,
        scope: &Scope,
        flow: &mut Flow,
    ) -> Sources {
        let mut out = Sources::new();
        for expr in exprs {
            out.extend(self.value(expr, scope, flow));
        }
        out
    }

    fn decides<'a>(
        &mut self,
        exprs: impl IntoIterator<Item = &'a Expr>,
        scope: &Scope,
        flow: &mut Flow,
    ) {
        let sources = self.values(exprs, scope, flow);
        flow.indirect.extend(sources);
    }

    /// Any other expression: its value depends on all of its parts.
    fn children(&mut self, expr: &Expr, scope: &Scope, flow: &mut Flow) -> Sources {
        let mut out = Sources::new();
        let walked: Result<_, DataFusionError> = expr.apply_children(|child| {
            out.extend(self.value(child, scope, flow));
            Ok(TreeNodeRecursion::Continue)
        });
        match walked {
            Ok(_) => out,
            Err(_) => union(&scope.columns),
        }
    }

    fn subquery(&mut self, subquery: &Subquery, scope: &Scope, flow: &mut Flow) -> Flow {
        self.outer.push(scope.clone());
        let inner = self.plan(&subquery.subquery);
        self.outer.pop();
        flow.tables.extend(inner.tables.iter().cloned());
        inner
    }

    /// A column of the scope, or else of a query around; when it is found nowhere, all there is.
    fn column(&self, column: &Column, scope: &Scope) -> Sources {
        find(column, scope)
            .or_else(|| self.find_outer(column))
            .unwrap_or_else(|| &union(&scope.columns) | &self.all_outer())
    }

    fn outer_column(&self, column: &Column) -> Sources {
        self.find_outer(column).unwrap_or_else(|| self.all_outer())
    }

    fn find_outer(&self, column: &Column) -> Option<Sources> {
        self.outer
            .iter()
            .rev()
            .find_map(|scope| find(column, scope))
    }

    fn all_outer(&self) -> Sources {
        self.outer.iter().flat_map(|s| union(&s.columns)).collect()
    }
}

/// What reaches a column of a scope. An ambiguous name means all that carry it.
fn find(column: &Column, scope: &Scope) -> Option<Sources> {
    let exact = scope.schema.maybe_index_of_column(column);
    if let Some(sources) = exact.and_then(|i| scope.columns.get(i)) {
        return Some(sources.clone());
    }
    let fields = scope.schema.iter().zip(&scope.columns);
    let named: Vec<&Sources> = fields
        .filter(|((_, field), _)| field.name() == &column.name)
        .map(|(_, sources)| sources)
        .collect();
    (!named.is_empty()).then(|| named.into_iter().flatten().cloned().collect())
}
