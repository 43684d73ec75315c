//! Which table's column each column of a result is, as far as it is one as it stands.
//!
//! PostgreSQL says so in RowDescription, and drivers and editors build on it: whether a column may be NULL,
//! which table a row can be changed in. A column that is computed has no origin.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use catalog::{Relation, RelationKind};
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan, SubqueryAlias};

use crate::engine::scan::WeirTable;
use crate::engine::scope::Scope;
use crate::types::Origin;

/// The schema with the origin of each column that has one, by the plan whose columns it names.
pub(super) fn noted(schema: &Schema, plan: &LogicalPlan, scope: &Scope) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(at, field)| {
        let origin = Some(plan)
            .filter(|p| p.schema().fields().len() == schema.fields().len())
            .and_then(|p| of(p, at, scope));
        match origin {
            Some(origin) => Arc::new(origin.note(field)),
            None => Arc::clone(field),
        }
    });
    let fields: Vec<_> = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The origin of a plan's column.
fn of(plan: &LogicalPlan, at: usize, scope: &Scope) -> Option<Origin> {
    match plan {
        LogicalPlan::Projection(p) => through(p.expr.get(at)?, &p.input, scope),
        LogicalPlan::Aggregate(a) => through(a.group_expr.get(at)?, &a.input, scope),
        LogicalPlan::Filter(f) => of(&f.input, at, scope),
        LogicalPlan::Sort(s) => of(&s.input, at, scope),
        LogicalPlan::Limit(l) => of(&l.input, at, scope),
        LogicalPlan::Distinct(Distinct::All(input)) => of(input, at, scope),
        LogicalPlan::Distinct(Distinct::On(on)) => {
            through(on.select_expr.get(at)?, &on.input, scope)
        }
        LogicalPlan::Window(w) if at < w.input.schema().fields().len() => of(&w.input, at, scope),
        LogicalPlan::SubqueryAlias(alias) => match view(alias, scope) {
            Some(view) => named(view, alias.schema.field(at).name()),
            None => of(&alias.input, at, scope),
        },
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti => of(&join.right, at, scope),
                _ if at < left => of(&join.left, at, scope),
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    of(&join.right, at - left, scope)
                }
                _ => None,
            }
        }
        LogicalPlan::TableScan(scan) => {
            let table = WeirTable::behind(&scan.source)?;
            let relation = scope.catalog.relation_by_oid(table.head().oid)?;
            named(relation, scan.projected_schema.field(at).name())
        }
        _ => None,
    }
}

/// The origin of an expression that is a column of its input, or another name for one.
fn through(expr: &Expr, input: &LogicalPlan, scope: &Scope) -> Option<Origin> {
    match expr {
        Expr::Column(column) => {
            let at = input.schema().maybe_index_of_column(column)?;
            of(input, at, scope)
        }
        Expr::Alias(alias) => through(&alias.expr, input, scope),
        _ => None,
    }
}

/// The view that a subquery stands for: the planner gives its plan the view's name.
fn view<'a>(alias: &SubqueryAlias, scope: &'a Scope) -> Option<&'a Relation> {
    let of_this_name = |relation: &&Relation| {
        let view = matches!(
            relation.kind,
            RelationKind::View | RelationKind::MaterializedView
        );
        view && relation.name == alias.alias.table()
    };
    scope
        .touched_oids()
        .into_iter()
        .filter_map(|oid| scope.catalog.relation_by_oid(oid))
        .find(of_this_name)
}

fn named(relation: &Relation, column: &str) -> Option<Origin> {
    let at = relation.columns.iter().position(|c| c.name == column)?;
    Some(Origin {
        table: relation.oid.0,
        column: i16::try_from(at + 1).ok()?,
    })
}
