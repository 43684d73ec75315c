//! Subqueries inside expressions → joins.
//!
//! The planner decorrelates aggregates and top-level `EXISTS`; catalog queries look things up by
//! key in the select list. A scalar subquery over a key is a left join with that table: at most one
//! row matches. `ARRAY(SELECT …)` is a left join with the arrays of all keys.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Distinct, Expr, Function, FunctionArguments, GroupByExpr, Ident,
    Join, JoinConstraint, JoinOperator, OrderByExpr, OrderByKind, Query, Select, SelectItem,
    SetExpr, Value, VisitMut, VisitorMut,
};

use super::build;
use super::casts::take;
use super::scope::{self, Scope};

/// Replaces what can be replaced in the select list and the WHERE clause.
pub(super) fn to_joins(select: &mut Select, count: &mut usize) {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if grouped || select.from.is_empty() {
        return;
    }
    let mut hoist = Hoist {
        count,
        joins: Vec::new(),
        depth: 0,
        condition: false,
    };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = expr.visit(&mut hoist);
        }
    }
    hoist.condition = true;
    if let Some(condition) = &mut select.selection {
        let _ = condition.visit(&mut hoist);
    }
    let joins = hoist.joins;
    if !joins.is_empty() {
        cross_join(select);
        if let Some(from) = select.from.first_mut() {
            from.joins.extend(joins);
        }
    }
}

/// Whether the function gives one row for many.
pub(super) fn is_aggregate(function: &Function) -> bool {
    let name = scope::parts(&function.name).pop().unwrap_or_default();
    function.over.is_none()
        && matches!(
            name.as_str(),
            "count"
                | "sum"
                | "min"
                | "max"
                | "avg"
                | "array_agg"
                | "string_agg"
                | "bool_and"
                | "bool_or"
                | "every"
                | "json_agg"
                | "jsonb_agg"
                | "first_value"
                | "last_value"
        )
}

/// `FROM a, b` as `FROM a CROSS JOIN b`, so that later joins may name both.
fn cross_join(select: &mut Select) {
    let mut tables = std::mem::take(&mut select.from).into_iter();
    let Some(mut first) = tables.next() else {
        return;
    };
    for table in tables {
        first.joins.push(Join {
            relation: table.relation,
            global: false,
            join_operator: JoinOperator::CrossJoin(JoinConstraint::None),
        });
        first.joins.extend(table.joins);
    }
    select.from = vec![first];
}

struct Hoist<'a> {
    count: &'a mut usize,
    joins: Vec<Join>,
    /// How many subqueries the visit is inside of: theirs are not ours.
    depth: usize,
    /// Visiting the WHERE clause, where the planner takes EXISTS itself.
    condition: bool,
}

impl VisitorMut for Hoist<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let name = format!("subquery_{}", *self.count);
        let hoisted = match expr {
            Expr::Subquery(query) => scalar(query, &name),
            Expr::Exists { subquery, negated } if !self.condition => {
                exists(subquery, &name, *negated)
            }
            Expr::Function(Function {
                args: FunctionArguments::Subquery(query),
                name: function,
                ..
            }) if scope::parts(function) == ["array"] => {
                if let Some(aggregate) = uncorrelated_array(query) {
                    *expr = aggregate;
                    return ControlFlow::Continue(());
                }
                array(query, &name)
            }
            _ => None,
        };
        if let Some((replacement, join)) = hoisted {
            *self.count += 1;
            *expr = replacement;
            self.joins.push(join);
        }
        ControlFlow::Continue(())
    }
}

/// A plain SELECT without grouping, with its WHERE clause in parts.
struct Parts {
    select: Select,
    scope: Scope,
    /// Conditions on the subquery's own tables.
    own: Vec<Expr>,
    /// Conditions that name the outer query's columns.
    correlated: Vec<Expr>,
}

impl Parts {
    fn of(query: &Query) -> Option<Self> {
        let plain = query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
        let select = query.body.as_select().filter(|_| plain)?;
        let ungrouped =
            matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        if !ungrouped
            || select.having.is_some()
            || select.distinct.is_some()
            || select.from.is_empty()
        {
            return None;
        }
        let mut select = select.clone();
        let scope = Scope::of(&select);
        let (own, correlated) = build::conjuncts(select.selection.take())
            .into_iter()
            .partition(|c| scope.owns_all(c));
        Some(Self {
            select,
            scope,
            own,
            correlated,
        })
    }

    /// The one result column.
    fn value(&self) -> Option<Expr> {
        let [item] = &self.select.projection[..] else {
            return None;
        };
        scope::item_expr(item).cloned()
    }

    fn is_correlated(&self, value: Option<&Expr>) -> bool {
        !self.correlated.is_empty() || value.is_some_and(|v| !self.scope.owns_all(v))
    }

    /// The join with the subquery's rows, reduced to the exported columns.
    fn join(mut self, exports: &Exports, distinct: bool) -> Join {
        let name = exports.table.clone();
        self.select.projection = exports.items();
        self.select.distinct = distinct.then_some(Distinct::Distinct);
        self.select.selection = build::all(self.own);
        let on = build::all(self.correlated).unwrap_or_else(|| build::boolean(true));
        left_join(self.select, &name, on)
    }
}

fn left_join(select: Select, name: &str, on: Expr) -> Join {
    let query = build::query(SetExpr::Select(Box::new(select)));
    Join {
        relation: build::derived(query, name),
        global: false,
        join_operator: JoinOperator::LeftOuter(JoinConstraint::On(on)),
    }
}

/// `(SELECT value FROM …)` with correlated conditions.
fn scalar(query: &Query, name: &str) -> Option<(Expr, Join)> {
    let mut parts = Parts::of(query).filter(|_| query.order_by.is_none())?;
    let mut value = parts.value()?;
    let aggregate = matches!(&value, Expr::Function(f) if is_aggregate(f));
    if aggregate || !parts.is_correlated(Some(&value)) {
        return None;
    }
    let mut exports = Exports::new(name);
    for condition in &mut parts.correlated {
        exports.replace(condition, &parts.scope);
    }
    exports.replace(&mut value, &parts.scope);
    let hit = exports.hit();
    let replacement = Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen {
            condition: hit,
            result: value,
        }],
        else_result: None,
    };
    Some((replacement, parts.join(&exports, false)))
}

/// `EXISTS (SELECT …)` with correlated conditions.
fn exists(query: &Query, name: &str, negated: bool) -> Option<(Expr, Join)> {
    let mut parts = Parts::of(query)?;
    if !parts.is_correlated(None) {
        return None;
    }
    let mut exports = Exports::new(name);
    for condition in &mut parts.correlated {
        exports.replace(condition, &parts.scope);
    }
    let hit = Box::new(exports.hit());
    let replacement = if negated {
        Expr::IsNull(hit)
    } else {
        Expr::IsNotNull(hit)
    };
    Some((replacement, parts.join(&exports, true)))
}

/// `ARRAY(SELECT value FROM …)` whose correlated conditions are equalities.
fn array(query: &Query, name: &str) -> Option<(Expr, Join)> {
    let mut parts = Parts::of(query)?;
    let value = parts.value().filter(|v| parts.scope.owns_all(v))?;
    let order = order(query, &value)?;
    let mut exports = Exports::new(name);
    let mut keys = Vec::new();
    for condition in &mut parts.correlated {
        let Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        } = condition
        else {
            return None;
        };
        let (inner, outer) = if parts.scope.owns_all(left) && parts.scope.owns_none(right) {
            (left, right)
        } else if parts.scope.owns_all(right) && parts.scope.owns_none(left) {
            (right, left)
        } else {
            return None;
        };
        let _ = outer;
        keys.push((**inner).clone());
        **inner = exports.export((**inner).clone());
    }
    let mut select = parts.select;
    select.projection = exports.items();
    // the marker of a hit is not grouped by
    select.projection.pop();
    select.projection.push(SelectItem::ExprWithAlias {
        expr: build::array_agg(value, order),
        alias: Ident::new("items"),
    });
    select.selection = build::all(parts.own);
    select.group_by = GroupByExpr::Expressions(keys, Vec::new());
    let on = build::all(parts.correlated)?;
    let replacement = build::call("array_or_empty", vec![build::column(name, "items")]);
    Some((replacement, left_join(select, name, on)))
}

/// `ARRAY(SELECT value FROM …)` of its own: an aggregate.
fn uncorrelated_array(query: &Query) -> Option<Expr> {
    let parts = Parts::of(query)?;
    let value = parts.value()?;
    if parts.is_correlated(Some(&value)) {
        return None;
    }
    let order = order(query, &value)?;
    let mut select = parts.select;
    select.selection = build::all(parts.own);
    select.projection = vec![SelectItem::UnnamedExpr(build::array_agg(value, order))];
    let query = build::query(SetExpr::Select(Box::new(select)));
    let aggregate = Expr::Subquery(Box::new(query));
    Some(build::call("array_or_empty", vec![aggregate]))
}

/// The ORDER BY of a query with one result column; `ORDER BY 1` is that column.
fn order(query: &Query, value: &Expr) -> Option<Vec<OrderByExpr>> {
    let Some(order) = &query.order_by else {
        return Some(Vec::new());
    };
    let OrderByKind::Expressions(keys) = &order.kind else {
        return None;
    };
    let mut keys = keys.clone();
    for key in &mut keys {
        if matches!(&key.expr, Expr::Value(v) if matches!(v.value, Value::Number(..))) {
            key.expr = value.clone();
        }
    }
    Some(keys)
}

/// The columns a subquery gives to the join condition and to the expression it was in.
struct Exports {
    table: String,
    columns: Vec<Expr>,
}

impl Exports {
    fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            columns: Vec::new(),
        }
    }

    /// The name the outer query has for a column of the subquery.
    fn export(&mut self, column: Expr) -> Expr {
        let i = match self.columns.iter().position(|c| *c == column) {
            Some(i) => i,
            None => {
                self.columns.push(column);
                self.columns.len() - 1
            }
        };
        build::column(&self.table, &format!("column_{i}"))
    }

    /// Puts outer names in the place of the subquery's columns.
    fn replace(&mut self, expr: &mut Expr, scope: &Scope) {
        struct Replace<'a>(&'a mut Exports, &'a Scope);
        impl VisitorMut for Replace<'_> {
            type Break = ();

            fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
                let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                if column && self.1.owns(expr) {
                    *expr = self.0.export(take(expr));
                    // what stands there now names the join
                }
                ControlFlow::Continue(())
            }
        }
        let _ = expr.visit(&mut Replace(self, scope));
    }

    /// True where a row of the subquery matched.
    fn hit(&self) -> Expr {
        build::column(&self.table, "hit")
    }

    fn items(&self) -> Vec<SelectItem> {
        let columns =
            self.columns
                .iter()
                .enumerate()
                .map(|(i, column)| SelectItem::ExprWithAlias {
                    expr: column.clone(),
                    alias: Ident::new(format!("column_{i}")),
                });
        let hit = SelectItem::ExprWithAlias {
            expr: build::boolean(true),
            alias: Ident::new("hit"),
        };
        columns.chain([hit]).collect()
    }
}
