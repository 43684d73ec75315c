//! `pg_constraint`: `CHECK` constraints; weir has no others.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use catalog::Relation;
use datafusion::sql::sqlparser::ast::{Expr, visit_expressions};

use super::derived_oid;
use crate::dialect::parse_expr;
use crate::dialect::words::fold;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (_, relation) in cx.relations() {
        for (i, (name, expression)) in relation.checks.iter().enumerate() {
            frame.row([
                ("oid", derived_oid("check", relation.oid, i).into()),
                ("conname", name.into()),
                ("connamespace", relation.schema.into()),
                ("contype", "c".into()),
                ("convalidated", true.into()),
                ("conrelid", relation.oid.into()),
                ("conislocal", true.into()),
                ("conkey", columns_of(relation, expression).into()),
                ("conbin", expression.into()),
            ])?;
        }
    }
    Ok(())
}

/// Numbers of the columns that a condition names.
fn columns_of(relation: &Relation, condition: &str) -> Vec<i64> {
    let mut named: BTreeSet<usize> = BTreeSet::new();
    if let Ok(condition) = parse_expr(condition) {
        let _ = visit_expressions(&condition, |expr| {
            let name = match expr {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(path) => path.last(),
                _ => None,
            };
            let at = |name: String| relation.columns.iter().position(|c| c.name == name);
            named.extend(name.map(fold).and_then(at));
            ControlFlow::<()>::Continue(())
        });
    }
    let numbers = named
        .into_iter()
        .filter_map(|at| i64::try_from(at + 1).ok());
    numbers.collect()
}

/// `CHECK (…)` of the constraint with that oid, among those the role sees.
pub(crate) fn definition(cx: &SystemContext, oid: u32) -> Option<String> {
    cx.relations().into_iter().find_map(|(_, relation)| {
        relation
            .checks
            .values()
            .enumerate()
            .find(|(i, _)| derived_oid("check", relation.oid, *i) == oid)
            .map(|(_, expression)| format!("CHECK ({expression})"))
    })
}
