//! Set-returning functions. In a select list, `SELECT generate_series(1, 3)` gives three rows: the
//! planner's function of that name gives one list, which is unnested here. In `FROM`, the one column
//! of `generate_series` or `unnest` is named as its alias, or else as the function. `WITH ORDINALITY` numbers the
//! rows by one more list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem, TableAlias, TableAliasColumnDef,
    TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::column_names::{numbered, select_list};
use super::spellings::call as call_of;
use super::words::parts;
use crate::error::{Error, Result};

const NAME: &str = "generate_series";

/// Rewrites them in place, in any syntax tree.
///
/// # Errors
/// 0A000 for one in `ORDER BY` that the select list has not.
pub(super) fn rewrite(tree: &mut impl VisitMut) -> Result<()> {
    match tree.visit(&mut SetReturning) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Whether rows of such a function can be numbered.
pub(super) fn is_numbered(factor: &TableFactor) -> bool {
    unnested_rows(factor).is_some()
}

struct SetReturning;

impl VisitorMut for SetReturning {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match sorted_by_rows(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            match item {
                SelectItem::UnnamedExpr(Expr::Function(call)) if is_series(call) => {
                    *item = SelectItem::ExprWithAlias {
                        expr: Expr::Function(unnested(call)),
                        alias: Ident::new(NAME),
                    };
                }
                SelectItem::ExprWithAlias {
                    expr: Expr::Function(call),
                    ..
                } if is_series(call) => *call = unnested(call),
                SelectItem::UnnamedExpr(Expr::Function(call)) if is_unnest(call) => {
                    *item = SelectItem::ExprWithAlias {
                        expr: Expr::Function(call.clone()),
                        alias: Ident::new("unnest"),
                    };
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let Some(unnested) = unnested_rows(factor) {
            *factor = unnested;
        }
        match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                alias,
                with_ordinality: false,
                ..
            }
            | TableFactor::Function { name, alias, .. }
                if parts(name).last().is_some_and(|name| name == NAME) =>
            {
                name_column(alias, NAME);
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_ordinality: false,
                ..
            } if array_exprs.len() == 1 => name_column(alias, "unnest"),
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_ordinality: false,
                ..
            } => name_columns(alias, array_exprs.len()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Names the one column of a function in `FROM`, unless the alias does.
fn name_column(alias: &mut Option<TableAlias>, function: &str) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef {
            name: alias.name.clone(),
            data_type: None,
        });
    }
}

/// Several lists side by side: each column goes by the function's name.
fn name_columns(alias: &mut Option<TableAlias>, count: usize) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new("unnest"),
        columns: Vec::new(),
        at: None,
    });
    for at in alias.columns.len()..count {
        alias.columns.push(TableAliasColumnDef {
            name: Ident::with_quote('"', numbered("unnest", at)),
            data_type: None,
        });
    }
}

/// A set-returning function in `ORDER BY` is the column of the select list that is the same.
fn sorted_by_rows(query: &mut Query) -> Result<()> {
    let Some(OrderBy {
        kind: OrderByKind::Expressions(keys),
        ..
    }) = &mut query.order_by
    else {
        return Ok(());
    };
    let items = select_list(&query.body).unwrap_or_default();
    for key in keys {
        let Expr::Function(call) = &key.expr else {
            continue;
        };
        if !is_series(call) && !is_unnest(call) {
            continue;
        }
        let same = items.iter().position(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                *expr == key.expr
            }
            _ => false,
        });
        let Some(at) = same else {
            return Err(Error::unsupported(
                "set-returning functions in ORDER BY are not supported",
                "select them under a name and sort by it",
            ));
        };
        let place = Value::Number((at + 1).to_string(), false);
        key.expr = Expr::Value(ValueWithSpan::from(place));
    }
    Ok(())
}

fn is_unnest(call: &Function) -> bool {
    parts(&call.name)
        .last()
        .is_some_and(|name| name == "unnest")
}

fn is_series(call: &Function) -> bool {
    parts(&call.name).last().is_some_and(|name| name == NAME)
}

/// `unnest(call)`.
fn unnested(call: &Function) -> Function {
    let mut outer = call.clone();
    outer.name = ObjectName::from(vec![Ident::new("unnest")]);
    if let FunctionArguments::List(list) = &mut outer.args {
        let inner = FunctionArgExpr::Expr(Expr::Function(call.clone()));
        list.args = vec![FunctionArg::Unnamed(inner)];
        list.clauses.clear();
    }
    outer
}

/// Functions whose rows are the elements of lists: their name, their columns, the functions of the lists.
const OF_LISTS: [(&str, &[&str], &[&str]); 14] = [
    (
        "json_object_keys",
        &["json_object_keys"],
        &["json_object_keys_list"],
    ),
    (
        "jsonb_object_keys",
        &["jsonb_object_keys"],
        &["jsonb_object_keys_list"],
    ),
    (
        "json_array_elements",
        &["value"],
        &["json_array_elements_list"],
    ),
    (
        "jsonb_array_elements",
        &["value"],
        &["jsonb_array_elements_list"],
    ),
    (
        "json_array_elements_text",
        &["value"],
        &["json_array_elements_text_list"],
    ),
    (
        "jsonb_array_elements_text",
        &["value"],
        &["jsonb_array_elements_text_list"],
    ),
    (
        "json_each",
        &["key", "value"],
        &["json_object_keys_list", "json_each_values_list"],
    ),
    (
        "jsonb_each",
        &["key", "value"],
        &["jsonb_object_keys_list", "jsonb_each_values_list"],
    ),
    (
        "json_each_text",
        &["key", "value"],
        &["json_object_keys_list", "json_each_texts_list"],
    ),
    (
        "jsonb_each_text",
        &["key", "value"],
        &["jsonb_object_keys_list", "jsonb_each_texts_list"],
    ),
    (
        "string_to_table",
        &["string_to_table"],
        &["string_to_array"],
    ),
    (
        "regexp_split_to_table",
        &["regexp_split_to_table"],
        &["regexp_split_to_array"],
    ),
    (
        "generate_series",
        &["generate_series"],
        &["generate_series"],
    ),
    ("unnest", &["unnest"], &[]),
];

/// `unnest(list, …)` for a function of [`OF_LISTS`] in `FROM`, and for any of them `WITH ORDINALITY`: there the
/// numbers are one more list.
fn unnested_rows(factor: &TableFactor) -> Option<TableFactor> {
    let (mut lists, alias, numbered, columns) = match factor {
        TableFactor::Table {
            name,
            args: Some(args),
            alias,
            with_ordinality,
            ..
        } => {
            let name = parts(name).pop()?;
            let (_, columns, functions) = OF_LISTS.iter().find(|(n, ..)| *n == name)?;
            if (name == NAME || functions.is_empty()) && !with_ordinality {
                return None;
            }
            let given: Option<Vec<Expr>> = args
                .args
                .iter()
                .map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                    _ => None,
                })
                .collect();
            let given = given?;
            let lists: Vec<Expr> = match functions.is_empty() {
                true => given,
                false => functions
                    .iter()
                    .map(|f| call_of(f, given.clone()))
                    .collect(),
            };
            (lists, alias, *with_ordinality, columns.to_vec())
        }
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_ordinality: true,
            ..
        } => {
            let columns = vec!["unnest"; array_exprs.len()];
            (array_exprs.clone(), alias, true, columns)
        }
        _ => return None,
    };
    let mut columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
    if numbered {
        let lengths: Vec<Expr> = lists
            .iter()
            .map(|list| call_of("cardinality", vec![list.clone()]))
            .collect();
        let longest = match lengths.len() {
            1 => lengths.into_iter().next()?,
            _ => call_of("greatest", lengths),
        };
        let bigint = |expr| Expr::Cast {
            kind: CastKind::DoubleColon,
            expr: Box::new(expr),
            data_type: DataType::BigInt(None),
            array: false,
            format: None,
        };
        let one = Expr::Value(ValueWithSpan::from(Value::Number("1".to_owned(), false)));
        lists.push(call_of(NAME, vec![bigint(one), bigint(longest)]));
        columns.push("ordinality".to_owned());
    }
    let mut alias = alias.clone();
    let function = columns.first().cloned().unwrap_or_default();
    let given = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: Vec::new(),
        at: None,
    });
    // a single column goes by the alias of its function
    if given.columns.is_empty()
        && columns.len() == 1 + usize::from(numbered)
        && columns[0] != "value"
    {
        columns[0].clone_from(&given.name.value);
    }
    for name in columns.iter().skip(given.columns.len()) {
        given.columns.push(TableAliasColumnDef {
            name: Ident::new(name),
            data_type: None,
        });
    }
    Some(TableFactor::UNNEST {
        alias,
        array_exprs: lists,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    })
}
