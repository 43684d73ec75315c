//! Types of number literals, integer arithmetic that does not wrap, and branches that agree.
//!
//! A literal that fits is `integer`, as in PostgreSQL, and arithmetic keeps the wider of its two
//! types. What changes a type changes the schema of the plan above, so the plan is rebuilt from its
//! leaves up.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan, Operator,
};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;

use super::arguments;
use super::arithmetic::{Op, checked};
use super::division;
use super::types::{Family, family, is_unknown, name};
use crate::error::{Error, SqlState};

/// Functions whose result has the type of their arguments: a literal among them decides with.
const TYPED_BY_ARGUMENTS: [&str; 7] = [
    "to_hex",
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "make_array",
    "pg_typeof",
];

pub(super) fn apply(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut narrow = Narrow {
        literals: true,
        values: true,
    };
    plan.apply_with_subqueries(|node| {
        // a recursive query's columns were typed from its first branch when it was planned
        narrow.literals &= !matches!(node, LogicalPlan::RecursiveQuery(_));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                // and so was what a subquery sees of the query around it
                if let Expr::OuterReferenceColumn(field, _) = expr {
                    narrow.values &= field.data_type() != &DataType::Int64;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(plan
        .transform_up_with_subqueries(|node| rewrite_node(node, narrow))?
        .data)
}

/// What may become `integer`: literals, and columns of `VALUES` that hold nothing else.
#[derive(Debug, Clone, Copy)]
struct Narrow {
    literals: bool,
    values: bool,
}

/// The same for one expression over columns.
pub(super) fn rewrite(expr: Expr, columns: &DFSchema) -> Result<Expr> {
    let mut rewriter = Rewriter {
        schema: columns,
        narrow: true,
    };
    Ok(expr.rewrite(&mut rewriter)?.data)
}

fn rewrite_node(plan: LogicalPlan, narrow: Narrow) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Limit(_) | LogicalPlan::TableScan(_) | LogicalPlan::Extension(_) => {
            return Ok(Transformed::no(plan));
        }
        LogicalPlan::Union(union) => {
            branches_agree(&union.inputs)?;
            return Ok(Transformed::yes(TypeCoercionRewriter::coerce_union(union)?));
        }
        LogicalPlan::Values(mut values) if narrow.literals && narrow.values => {
            narrow_values(&mut values)?;
            return Ok(Transformed::yes(LogicalPlan::Values(values)));
        }
        _ => {}
    }
    let schema = merge_schema(&plan.inputs());
    let is_values = matches!(plan, LogicalPlan::Values(_));
    let mut rewriter = Rewriter {
        schema: &schema,
        narrow: narrow.literals && (narrow.values || !is_values),
    };
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr
            .rewrite(&mut rewriter)?
            .update_data(|expr| name.restore(expr)))
    })?;
    // types of the inputs may have changed below
    rewritten.map_data(LogicalPlan::recompute_schema)
}

/// Columns of the branches of a UNION have one family of types. A branch that selects a quoted literal
/// is let through: its column takes the other's type, or the text does not fit it.
fn branches_agree(inputs: &[Arc<LogicalPlan>]) -> Result<()> {
    let Some((first, rest)) = inputs.split_first() else {
        return Ok(());
    };
    for input in rest {
        let columns = first.schema().fields().iter().zip(input.schema().fields());
        for (at, (a, b)) in columns.enumerate() {
            let (one, other) = (family(a.data_type()), family(b.data_type()));
            let open = [one, other].contains(&Family::Other)
                || selects_quoted(first, at)
                || selects_quoted(input, at);
            if one != other && !open {
                let e = Error::refused(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "UNION types {} and {} cannot be matched",
                        name(a.data_type()),
                        name(b.data_type())
                    ),
                );
                return Err(e.into());
            }
        }
    }
    Ok(())
}

fn selects_quoted(plan: &LogicalPlan, column: usize) -> bool {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(column).is_some_and(is_unknown),
        LogicalPlan::SubqueryAlias(a) => selects_quoted(&a.input, column),
        _ => false,
    }
}

/// A column of `VALUES` that holds nothing but small integer literals is `integer`, one of lists of them
/// `integer[]`.
fn narrow_values(values: &mut datafusion::logical_expr::Values) -> Result<()> {
    let columns = values.schema.fields().len();
    let mut schema = values.schema.as_ref().clone();
    let mut fields: Vec<_> = schema
        .iter()
        .map(|(q, f)| (q.cloned(), Arc::clone(f)))
        .collect();
    for column in 0..columns {
        let small: Option<Vec<Expr>> = values
            .values
            .iter()
            .map(|row| narrowed_value(row.get(column)?))
            .collect();
        let Some(small) = small else {
            continue;
        };
        let ty = small
            .iter()
            .filter(|e| !is_null(e))
            .find_map(|e| e.get_type(&DFSchema::empty()).ok());
        let Some(ty) = ty else {
            continue;
        };
        let null = ScalarValue::try_from(&ty)?;
        for (row, value) in values.values.iter_mut().zip(small) {
            row[column] = match is_null(&value) {
                true => Expr::Literal(null.clone(), None),
                false => value,
            };
        }
        let field = fields[column].1.as_ref().clone();
        fields[column].1 = Arc::new(field.with_data_type(ty));
    }
    schema = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    values.schema = Arc::new(schema);
    Ok(())
}

/// A small integer, NULL, or a list of such.
fn narrowed_value(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::ScalarFunction(list) if list.name() == "make_array" => {
            let small = |e: &Expr| narrowed(e).or_else(|| is_null(e).then(|| e.clone()));
            let args = list.args.iter().map(small).collect::<Option<Vec<_>>>()?;
            let typed = args.iter().any(|e| !is_null(e));
            typed.then(|| list.func.call(args))
        }
        expr if is_null(expr) => Some(expr.clone()),
        expr => narrowed(expr),
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.is_null())
}

/// A `bigint` literal that fits into an `integer`.
pub(super) fn narrowed(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => {
            let small = i32::try_from(*value).ok()?;
            Some(Expr::Literal(
                ScalarValue::Int32(Some(small)),
                metadata.clone(),
            ))
        }
        _ => None,
    }
}

struct Rewriter<'a> {
    schema: &'a DFSchema,
    narrow: bool,
}

impl TreeNodeRewriter for Rewriter<'_> {
    type Node = Expr;

    /// Literals that are parameters of a function, a number of rows or a share, stay as they are.
    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let args: &[Expr] = match &expr {
            Expr::AggregateFunction(AggregateFunction { params, .. }) => &params.args,
            Expr::WindowFunction(function) => {
                let WindowFunction { params, .. } = function.as_ref();
                &params.args
            }
            Expr::ScalarFunction(f) if !TYPED_BY_ARGUMENTS.contains(&f.name()) => &f.args,
            Expr::Cast(_) | Expr::TryCast(_) => &[],
            _ => return Ok(Transformed::no(expr)),
        };
        let literal = |e: &Expr| matches!(e, Expr::Literal(..));
        if !args.is_empty() && args.iter().all(literal) {
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::no(expr))
    }

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(binary) => self.arithmetic(binary)?,
            Expr::Negative(inner) => self.negative(*inner)?,
            Expr::Case(case) => Transformed::yes(Expr::Case(self.case(case)?)),
            Expr::AggregateFunction(f) if f.func.name() == "string_agg" => {
                let bytes = f.params.args.first().is_some_and(|value| {
                    let ty = value.get_type(self.schema);
                    ty.is_ok_and(|ty| family(&ty) == Family::Bytes)
                });
                if bytes {
                    return Err(Error::unsupported(
                        "string_agg of bytea is not supported",
                        "use string_agg(encode(value, 'hex'), ...) and decode",
                    )
                    .into());
                }
                Transformed::no(Expr::AggregateFunction(f))
            }
            Expr::ScalarFunction(call) => {
                let name = call.name().to_owned();
                let fitting = arguments::fitting(call, self.schema)?;
                let same = matches!(&fitting, Expr::ScalarFunction(f) if f.name() == name);
                Transformed::new(fitting, !same, TreeNodeRecursion::Continue)
            }
            other => match narrowed(&other).filter(|_| self.narrow) {
                Some(small) => Transformed::yes(small),
                None => Transformed::no(other),
            },
        })
    }
}

impl Rewriter<'_> {
    fn arithmetic(&self, binary: BinaryExpr) -> Result<Transformed<Expr>> {
        let op = match binary.op {
            Operator::Plus => Op::Add,
            Operator::Minus => Op::Subtract,
            Operator::Multiply => Op::Multiply,
            Operator::Divide => Op::Divide,
            _ => return Ok(Transformed::no(Expr::BinaryExpr(binary))),
        };
        let (Ok(left), Ok(right)) = (
            binary.left.get_type(self.schema),
            binary.right.get_type(self.schema),
        ) else {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        };
        if op == Op::Divide
            && let Some(quotient) = division::planned(
                binary.left.as_ref().clone(),
                binary.right.as_ref().clone(),
                (&left, &right),
            )
        {
            return Ok(Transformed::yes(quotient));
        }
        let wider = match op {
            Op::Divide => wider_float(&left, &right),
            _ => wider_integer(&left, &right),
        };
        let Some(wider) = wider else {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        };
        let args = [(*binary.left, left), (*binary.right, right)].map(|(expr, ty)| {
            if ty == wider {
                expr
            } else {
                cast(expr, &wider)
            }
        });
        Ok(Transformed::yes(checked(op, args.to_vec())))
    }

    fn negative(&self, inner: Expr) -> Result<Transformed<Expr>> {
        let ty = inner.get_type(self.schema)?;
        let literal = matches!(inner, Expr::Literal(..));
        match wider_integer(&ty, &ty) {
            Some(ty) if !literal => {
                let zero = Expr::Literal(ScalarValue::new_zero(&ty)?, None);
                Ok(Transformed::yes(checked(Op::Subtract, vec![zero, inner])))
            }
            _ => Ok(Transformed::no(Expr::Negative(Box::new(inner)))),
        }
    }

    /// Branches have one family of types; a quoted literal takes it.
    fn case(&self, mut case: Case) -> Result<Case> {
        let branches = case
            .when_then_expr
            .iter()
            .map(|(_, then)| then)
            .chain(&case.else_expr);
        let mut common: Option<DataType> = None;
        for branch in branches.filter(|b| !is_unknown(b)) {
            let ty = branch.get_type(self.schema)?;
            match &common {
                _ if ty.is_null() => {}
                Some(seen) if family(seen) != family(&ty) => {
                    let e = Error::refused(
                        SqlState::DATATYPE_MISMATCH,
                        format!(
                            "CASE types {} and {} cannot be matched",
                            name(seen),
                            name(&ty)
                        ),
                    );
                    return Err(e.into());
                }
                Some(_) => {}
                None => common = Some(ty),
            }
        }
        let Some(common) = common.filter(|ty| !matches!(family(ty), Family::Text | Family::Other))
        else {
            return Ok(case);
        };
        let quoted = |e: &Expr| is_unknown(e) && !is_null(e);
        for (_, then) in &mut case.when_then_expr {
            if quoted(then) {
                **then = cast(then.as_ref().clone(), &common);
            }
        }
        if let Some(other) = &mut case.else_expr
            && quoted(other)
        {
            **other = cast(other.as_ref().clone(), &common);
        }
        Ok(case)
    }
}

fn cast(expr: Expr, to: &DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to.clone()))
}

/// The type of integer arithmetic: the wider of the two. Row numbers, which the engine keeps
/// unsigned, count as `bigint`.
fn wider_integer(left: &DataType, right: &DataType) -> Option<DataType> {
    let rank = |ty: &DataType| match ty {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Some(0),
        DataType::Int32 | DataType::UInt16 => Some(1),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Some(2),
        _ => None,
    };
    Some(match rank(left)?.max(rank(right)?) {
        0 => DataType::Int16,
        1 => DataType::Int32,
        _ => DataType::Int64,
    })
}

/// The type of a division that has a float in it.
fn wider_float(left: &DataType, right: &DataType) -> Option<DataType> {
    let numbers = left.is_numeric() && right.is_numeric();
    match (left, right) {
        (DataType::Float32, DataType::Float32) => Some(DataType::Float32),
        _ if numbers && (left.is_floating() || right.is_floating()) => Some(DataType::Float64),
        _ => None,
    }
}
