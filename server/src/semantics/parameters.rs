//! Types of parameters that the planner leaves open, as PostgreSQL decides them: by what a parameter
//! is cast to, compared with, counted by or stands beside.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Cast, Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::integers::narrowed;

/// Functions whose arguments and result are all of one type.
const ALIKE: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];
/// Functions of a list and one of its elements.
const OF_LIST: [&str; 4] = ["array_has", "array_contains", "list_has", "array_position"];

/// The function that an array of oids is read by, which says what its parameter is.
pub const OID_LIST: &str = "oid_list";

/// The type of its result.
pub fn oid_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)))
}

/// Every parameter of a plan, `$1` and so on, with its type where something decides it. A cast decides
/// before anything else; otherwise what comes first does.
pub fn types(plan: &LogicalPlan) -> Result<HashMap<String, Option<DataType>>> {
    let mut found = Found::default();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for count in [&limit.skip, &limit.fetch].into_iter().flatten() {
                found.is(count, &DataType::Int64);
            }
        }
        let inputs = merge_schema(&node.inputs());
        // values and scans have no input: what they compute stands over their own columns
        let columns = match node.inputs().is_empty() {
            true => node.schema().as_ref(),
            false => &inputs,
        };
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found.look(expr, columns);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found.finish())
}

/// The plan with its parameters of type `bigint` cast to it: the value of one would pass for a literal, which
/// is an `integer` when it is small. Arguments of functions and counts of rows stay as they are, since
/// some of them must be literals.
pub fn keep_bigint(plan: LogicalPlan, params: &[ScalarValue]) -> Result<LogicalPlan> {
    let wide = |value: &ScalarValue| matches!(value, ScalarValue::Int64(Some(_)));
    if !params.iter().any(wide) {
        return Ok(plan);
    }
    let is_wide = |p: &Placeholder| {
        let number: Option<usize> = p.id.strip_prefix('$').and_then(|n| n.parse().ok());
        let value = number.and_then(|n| params.get(n.checked_sub(1)?));
        value.is_some_and(wide)
    };
    let marked = plan.transform_down_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Limit(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let cast = expr.transform_down(|e| {
                Ok(match e {
                    Expr::ScalarFunction(_)
                    | Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::Cast(_)
                    | Expr::TryCast(_) => Transformed::new(e, false, TreeNodeRecursion::Jump),
                    Expr::Placeholder(p) if is_wide(&p) => {
                        let cast = Cast::new(Box::new(Expr::Placeholder(p)), DataType::Int64);
                        Transformed::new(Expr::Cast(cast), true, TreeNodeRecursion::Jump)
                    }
                    other => Transformed::no(other),
                })
            })?;
            Ok(cast.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(marked.data)
}

#[derive(Default)]
struct Found {
    casts: HashMap<String, DataType>,
    others: HashMap<String, Option<DataType>>,
}

impl Found {
    fn look(&mut self, expr: &Expr, columns: &DFSchema) {
        match expr {
            Expr::Placeholder(p) => {
                let ty = p.field.as_ref().map(|f| f.data_type().clone());
                let entry = self.others.entry(p.id.clone()).or_default();
                if entry.is_none() {
                    *entry = ty;
                }
            }
            Expr::Cast(cast) => self.cast(&cast.expr, cast.field.data_type()),
            Expr::TryCast(cast) => self.cast(&cast.expr, cast.field.data_type()),
            Expr::Case(case) => self.case(case, columns),
            Expr::ScalarFunction(call) => self.function(call, columns),
            Expr::Not(of) => self.is(of, &DataType::Boolean),
            Expr::BinaryExpr(binary) => {
                if matches!(
                    binary.op,
                    datafusion::logical_expr::Operator::And
                        | datafusion::logical_expr::Operator::Or
                ) {
                    self.is(&binary.left, &DataType::Boolean);
                    self.is(&binary.right, &DataType::Boolean);
                } else {
                    self.beside_literal(&binary.left, &binary.right);
                    self.beside_literal(&binary.right, &binary.left);
                    self.alike([&*binary.left, &*binary.right], columns);
                }
            }
            _ => {}
        }
    }

    /// A parameter beside a literal that fits is `integer`, whatever wider type the planner gives both.
    fn beside_literal(&mut self, expr: &Expr, literal: &Expr) {
        if let Expr::Placeholder(p) = expr
            && narrowed(literal).is_some()
        {
            let entry = self.others.entry(p.id.clone()).or_default();
            entry.get_or_insert(DataType::Int32);
        }
    }

    fn cast(&mut self, of: &Expr, to: &DataType) {
        if let Expr::Placeholder(p) = of {
            self.casts.entry(p.id.clone()).or_insert_with(|| to.clone());
        }
    }

    fn case(&mut self, case: &Case, columns: &DFSchema) {
        let whens = case.when_then_expr.iter().map(|(when, _)| &**when);
        match &case.expr {
            Some(of) => self.alike(whens.chain([&**of]).collect::<Vec<_>>(), columns),
            None => whens.for_each(|when| self.is(when, &DataType::Boolean)),
        }
        let results = case.when_then_expr.iter().map(|(_, then)| &**then);
        let results: Vec<&Expr> = results.chain(case.else_expr.as_deref()).collect();
        self.alike(results, columns);
    }

    fn function(&mut self, call: &ScalarFunction, columns: &DFSchema) {
        let name = call.func.name();
        if name == OID_LIST {
            call.args.iter().for_each(|arg| self.is(arg, &oid_list()));
        } else if ALIKE.contains(&name) {
            self.alike(&call.args, columns);
        } else if OF_LIST.contains(&name)
            && let [list, element] = call.args.as_slice()
        {
            if let Some(ty) = known(element, columns) {
                let item = Field::new_list_field(ty, true);
                self.is(list, &DataType::List(Arc::new(item)));
            } else if let Some(DataType::List(item)) = known(list, columns) {
                self.is(element, item.data_type());
            }
        }
    }

    /// Parameters among these are of the type of the first that has one.
    fn alike<'a>(&mut self, these: impl IntoIterator<Item = &'a Expr>, columns: &DFSchema) {
        let these: Vec<&Expr> = these.into_iter().collect();
        let open = |e: &&&Expr| matches!(e, Expr::Placeholder(p) if p.field.is_none());
        if these.iter().any(|e| open(&e))
            && let Some(ty) = these.iter().find_map(|e| known(e, columns))
        {
            for expr in these {
                self.is(expr, &ty);
            }
        }
    }

    /// The expression, if it is an open parameter, is of this type.
    fn is(&mut self, expr: &Expr, ty: &DataType) {
        if let Expr::Placeholder(p) = expr
            && p.field.is_none()
        {
            self.others
                .entry(p.id.clone())
                .or_default()
                .get_or_insert_with(|| ty.clone());
        }
    }

    fn finish(self) -> HashMap<String, Option<DataType>> {
        let mut all = self.others;
        for (id, ty) in self.casts {
            all.insert(id, Some(ty));
        }
        all
    }
}

/// The type of an expression that is no parameter; nothing for NULL.
fn known(expr: &Expr, columns: &DFSchema) -> Option<DataType> {
    match expr {
        Expr::Placeholder(p) => p.field.as_ref().map(|f| f.data_type().clone()),
        other if narrowed(other).is_some() => Some(DataType::Int32),
        other => other.get_type(columns).ok().filter(|ty| !ty.is_null()),
    }
}
