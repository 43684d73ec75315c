//! `JOIN … USING`: a column that both sides share comes first in `*`, and is the one that is there. The planner
//! keeps it where the left side has it, and shows the left side's, which is NULL where a `RIGHT` or `FULL JOIN`
//! has a row of the right side alone. So those get an ordinary condition, the column's bare name becomes
//! `coalesce(left, right)`, and `*` is written out by sides.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName,
    Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins,
    VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::spellings::call;
use super::words::{fold, parts};
use crate::error::{Error, Result};

/// Rewrites them in place, in any syntax tree.
///
/// # Errors
/// 0A000 for `RIGHT` and `FULL` joins whose sides have no names, or which do not name their columns.
pub(super) fn rewrite(tree: &mut impl VisitMut) -> Result<()> {
    match tree.visit(&mut Joins) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Joins;

impl VisitorMut for Joins {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match rewrite_select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }
}

/// Which side's rows a join keeps without a partner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Left,
    Right,
    Both,
}

fn constraint_of(operator: &mut JoinOperator) -> Option<(Keeps, &mut JoinConstraint)> {
    Some(match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c) => (Keeps::Left, c),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (Keeps::Right, c),
        JoinOperator::FullOuter(c) => (Keeps::Both, c),
        _ => return None,
    })
}

fn rewrite_select(select: &mut Select) -> Result<()> {
    let [from] = select.from.as_mut_slice() else {
        return several(select);
    };
    let wild = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(options) if is_plain(options)));
    let (mut shares, mut outer) = (false, false);
    for join in &mut from.joins {
        if let Some((keeps, constraint)) = constraint_of(&mut join.join_operator) {
            shares |= matches!(constraint, JoinConstraint::Using(_));
            outer |= keeps != Keeps::Left
                && matches!(
                    constraint,
                    JoinConstraint::Using(_) | JoinConstraint::Natural
                );
        }
    }
    if !(outer || shares && wild) {
        return Ok(());
    }
    let sides = match Sides::of(from, outer) {
        Ok(sides) => sides,
        // the order of columns alone is no reason to refuse
        Err(_) if !outer => return Ok(()),
        Err(e) => return Err(e),
    };
    let items = std::mem::take(&mut select.projection);
    for item in items {
        match item {
            SelectItem::Wildcard(options) if is_plain(&options) => {
                sides.write_out(&options, outer, &mut select.projection);
            }
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) if outer => {
                // the column keeps its name
                select
                    .projection
                    .push(match sides.merged.get(&fold(&ident)) {
                        Some(expr) => SelectItem::ExprWithAlias {
                            expr: expr.clone(),
                            alias: ident,
                        },
                        None => SelectItem::UnnamedExpr(Expr::Identifier(ident)),
                    });
            }
            item => select.projection.push(item),
        }
    }
    if outer {
        let mut names = Names {
            merged: &sides.merged,
            depth: 0,
        };
        let _ = select.projection.visit(&mut names);
        let _ = select.selection.visit(&mut names);
        let _ = select.group_by.visit(&mut names);
        let _ = select.having.visit(&mut names);
    }
    Ok(())
}

/// Several items in `FROM`: shared columns of one are not told from columns of another here.
fn several(select: &mut Select) -> Result<()> {
    for from in &mut select.from {
        for join in &mut from.joins {
            if let Some((Keeps::Right | Keeps::Both, constraint)) =
                constraint_of(&mut join.join_operator)
                && matches!(
                    constraint,
                    JoinConstraint::Using(_) | JoinConstraint::Natural
                )
            {
                return Err(refusal("beside other items of FROM it is not supported"));
            }
        }
    }
    Ok(())
}

fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_ilike.is_none()
}

fn refusal(what: &str) -> Error {
    Error::unsupported(
        format!("RIGHT or FULL JOIN with USING: {what}"),
        "join with ON and select coalesce(left, right)",
    )
}

/// The name that a table's columns are asked by.
fn name_of(relation: &TableFactor) -> Result<Ident> {
    match relation {
        TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        }
        | TableFactor::UNNEST {
            alias: Some(alias), ..
        } => Ok(alias.name.clone()),
        TableFactor::Table {
            name,
            alias: None,
            args: None,
            ..
        } => match parts(name).pop() {
            Some(name) => Ok(Ident::with_quote('"', name)),
            None => Err(refusal("a side without a name is not supported")),
        },
        _ => Err(refusal("a side without a name is not supported")),
    }
}

/// The tables of a join, and what they share.
struct Sides {
    /// Each with the shared columns that it has.
    tables: Vec<(Ident, Vec<Ident>)>,
    /// Shared columns in the order of `*`.
    order: Vec<Ident>,
    /// What their bare names stand for.
    merged: HashMap<String, Expr>,
}

impl Sides {
    /// Reads the joins, and gives them conditions in place of `USING` if `outer`.
    fn of(from: &mut TableWithJoins, outer: bool) -> Result<Self> {
        let mut sides = Self {
            tables: vec![(name_of(&from.relation)?, Vec::new())],
            order: Vec::new(),
            merged: HashMap::new(),
        };
        for join in &mut from.joins {
            let right = name_of(&join.relation)?;
            sides.tables.push((right.clone(), Vec::new()));
            let Some((keeps, constraint)) = constraint_of(&mut join.join_operator) else {
                return Err(refusal("beside such a join it is not supported"));
            };
            match constraint {
                JoinConstraint::Natural => return Err(refusal("NATURAL is not supported")),
                JoinConstraint::Using(columns) => {
                    let condition = sides.join(columns, &right, keeps)?;
                    if outer {
                        *constraint = JoinConstraint::On(condition);
                    }
                }
                JoinConstraint::On(_) | JoinConstraint::None => {}
            }
        }
        Ok(sides)
    }

    fn join(&mut self, columns: &[ObjectName], right: &Ident, keeps: Keeps) -> Result<Expr> {
        let of = |table: &Ident, column: &Ident| {
            Expr::CompoundIdentifier(vec![table.clone(), column.clone()])
        };
        let mut shared = Vec::with_capacity(columns.len());
        let mut condition: Option<Expr> = None;
        for column in columns {
            let Some(column) = column.0.last().and_then(|p| p.as_ident()).cloned() else {
                return Err(refusal("such a column is not supported"));
            };
            let left = match (self.merged.get(&fold(&column)), self.tables.as_mut_slice()) {
                (Some(expr), _) => expr.clone(),
                (None, [(first, has), _]) => {
                    has.push(column.clone());
                    of(first, &column)
                }
                _ => return Err(refusal("a column of which table is not clear")),
            };
            if let Some((_, has)) = self.tables.last_mut() {
                has.push(column.clone());
            }
            let other = of(right, &column);
            let equal = Expr::BinaryOp {
                left: Box::new(left.clone()),
                op: BinaryOperator::Eq,
                right: Box::new(other.clone()),
            };
            condition = Some(match condition {
                None => equal,
                Some(before) => Expr::BinaryOp {
                    left: Box::new(before),
                    op: BinaryOperator::And,
                    right: Box::new(equal),
                },
            });
            let shown = match keeps {
                Keeps::Left => left,
                Keeps::Right => other,
                Keeps::Both => call("coalesce", vec![left, other]),
            };
            self.merged.insert(fold(&column), shown);
            shared.push(column);
        }
        self.order
            .retain(|o| !shared.iter().any(|s| fold(s) == fold(o)));
        self.order.splice(0..0, shared);
        condition.ok_or_else(|| refusal("no columns"))
    }

    /// `*`: shared columns, then the others of each table.
    fn write_out(
        &self,
        options: &WildcardAdditionalOptions,
        outer: bool,
        items: &mut Vec<SelectItem>,
    ) {
        for column in &self.order {
            items.push(match self.merged.get(&fold(column)) {
                Some(expr) if outer => SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias: column.clone(),
                },
                _ => SelectItem::UnnamedExpr(Expr::Identifier(column.clone())),
            });
        }
        for (table, shared) in &self.tables {
            let mut options = options.clone();
            if !shared.is_empty() {
                // names are compared as they are stored
                let names = shared
                    .iter()
                    .map(|c| ObjectName::from(vec![Ident::with_quote('"', fold(c))]));
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names.collect()));
            }
            let name = ObjectName::from(vec![table.clone()]);
            items.push(SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ));
        }
    }
}

/// Puts the merged expressions for bare names, outside of subqueries.
struct Names<'a> {
    merged: &'a HashMap<String, Expr>,
    depth: usize,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(ident) = expr
            && let Some(shown) = self.merged.get(&fold(ident))
        {
            *expr = shown.clone();
        }
        ControlFlow::Continue(())
    }
}
