//! Comparisons of rows, and patterns compared with `ANY` or `ALL` of a list, as conditions over single values:
//! `(a, b) < (c, d)`, `(a, b) IN ((1, 2), (3, 4))`, `a LIKE ANY (ARRAY['x%', 'y%'])`.
//!
//! What NULL means follows from the conditions: a row comparison that has not been decided when a NULL is
//! met is NULL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::words::parts;

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Comparisons);
}

/// Columns of rows that are ordered here: each is one more condition inside of the others.
const MOST_ORDERED: usize = 32;

struct Comparisons;

impl VisitorMut for Comparisons {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let single = match expr {
            Expr::BinaryOp { left, op, right } => row(left)
                .zip(row(right))
                .and_then(|(left, right)| compared(&left, op, &right)),
            Expr::IsDistinctFrom(left, right) => row(left)
                .zip(row(right))
                .and_then(|(left, right)| distinct(&left, &right)),
            Expr::IsNotDistinctFrom(left, right) => row(left)
                .zip(row(right))
                .and_then(|(left, right)| distinct(&left, &right))
                .map(not),
            Expr::InList {
                expr: value,
                list,
                negated,
            } => row(value)
                .and_then(|value| in_list(&value, list))
                .map(|found| if *negated { not(found) } else { found }),
            Expr::Like { .. } | Expr::ILike { .. } => quantified(expr),
            _ => None,
        };
        if let Some(single) = single {
            // the operator has no name, and binds more loosely than what it takes the place of
            *expr = Expr::Nested(Box::new(single));
        }
        ControlFlow::Continue(())
    }
}

/// The values of `(a, b)` or `ROW(a, b)`.
fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(values) => Some(values.clone()),
        Expr::Function(call) if parts(&call.name) == ["row"] => match &call.args {
            FunctionArguments::List(list) => list.args.iter().map(value).collect(),
            _ => None,
        },
        _ => None,
    }
}

fn value(arg: &FunctionArg) -> Option<Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

fn compared(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    if left.len() != right.len() {
        return None;
    }
    let pairs = || left.iter().zip(right);
    let each = |op: &BinaryOperator| pairs().map(|(l, r)| binary(l, op, r)).collect();
    match op {
        BinaryOperator::Eq => balanced(each(op), &BinaryOperator::And),
        BinaryOperator::NotEq => balanced(each(op), &BinaryOperator::Or),
        BinaryOperator::Lt | BinaryOperator::LtEq => ordered(left, right, &BinaryOperator::Lt, op),
        BinaryOperator::Gt | BinaryOperator::GtEq => ordered(left, right, &BinaryOperator::Gt, op),
        _ => None,
    }
}

/// `a < c OR (a = c AND b < d)`; the last pair decides whether equal rows are in. Longer rows are left to the
/// planner.
fn ordered(
    left: &[Expr],
    right: &[Expr],
    strict: &BinaryOperator,
    last: &BinaryOperator,
) -> Option<Expr> {
    if left.len() > MOST_ORDERED {
        return None;
    }
    let mut pairs = left.iter().zip(right).rev();
    let (l, r) = pairs.next()?;
    Some(pairs.fold(binary(l, last, r), |rest, (l, r)| {
        let same = binary(
            &binary(l, &BinaryOperator::Eq, r),
            &BinaryOperator::And,
            &rest,
        );
        binary(&binary(l, strict, r), &BinaryOperator::Or, &nested(same))
    }))
}

fn distinct(left: &[Expr], right: &[Expr]) -> Option<Expr> {
    if left.len() != right.len() {
        return None;
    }
    let each = left.iter().zip(right).map(|(l, r)| {
        Expr::IsDistinctFrom(Box::new(nested(l.clone())), Box::new(nested(r.clone())))
    });
    balanced(each.collect(), &BinaryOperator::Or)
}

fn in_list(value: &[Expr], list: &[Expr]) -> Option<Expr> {
    let equal = list
        .iter()
        .map(|item| compared(value, &BinaryOperator::Eq, &row(item)?));
    balanced(equal.collect::<Option<_>>()?, &BinaryOperator::Or)
}

/// `a LIKE ANY (ARRAY[…])` as `a LIKE … OR …`, `ALL` as `… AND …`.
fn quantified(like: &Expr) -> Option<Expr> {
    let (Expr::Like { any, pattern, .. } | Expr::ILike { any, pattern, .. }) = like else {
        return None;
    };
    let (patterns, op) = match pattern.as_ref() {
        pattern if *any => (elements(pattern)?, BinaryOperator::Or),
        Expr::Function(all) if parts(&all.name) == ["all"] => match &all.args {
            FunctionArguments::List(list) => match list.args.as_slice() {
                [patterns] => (elements(&value(patterns)?)?, BinaryOperator::And),
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    let each = patterns.into_iter().map(|one| {
        let mut like = like.clone();
        if let Expr::Like { any, pattern, .. } | Expr::ILike { any, pattern, .. } = &mut like {
            *any = false;
            **pattern = one;
        }
        like
    });
    match balanced(each.collect(), &op) {
        // none of no patterns, all of no patterns
        None => Some(Expr::Value(ValueWithSpan::from(Value::Boolean(
            op == BinaryOperator::And,
        )))),
        some => some,
    }
}

fn elements(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(Array { elem, .. }) => Some(elem.clone()),
        Expr::Cast {
            expr,
            data_type,
            kind,
            format,
            ..
        } => {
            let DataType::Array(ArrayElemTypeDef::SquareBracket(of, _)) = data_type else {
                return None;
            };
            let cast = |expr: Expr| Expr::Cast {
                kind: kind.clone(),
                expr: Box::new(expr),
                data_type: (**of).clone(),
                array: false,
                format: format.clone(),
            };
            Some(elements(expr)?.into_iter().map(cast).collect())
        }
        _ => None,
    }
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(nested(left.clone())),
        op: op.clone(),
        right: Box::new(nested(right.clone())),
    }
}

fn nested(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp { .. } | Expr::UnaryOp { .. } => Expr::Nested(Box::new(expr)),
        other => other,
    }
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(Expr::Nested(Box::new(expr))),
    }
}

/// All of them under one operator, as a tree that is no deeper than it must be.
fn balanced(mut terms: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    match terms.len() {
        0 => None,
        1 => terms.pop(),
        many => {
            let right = terms.split_off(many / 2);
            let (left, right) = (balanced(terms, op)?, balanced(right, op)?);
            Some(binary(&left, op, &right))
        }
    }
}
