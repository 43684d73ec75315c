//! Rows out of lists: `jsonb_array_elements`, `json_each`, `regexp_split_to_table` and their like, each a
//! function of a list that is unnested. In `FROM` such a function is a lateral subquery, so that its lists may
//! come from the tables beside it; in a select list it is an unnested list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query,
    SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs, Value,
    ValueWithSpan, VisitMut, VisitorMut, visit_expressions, visit_expressions_mut,
};

use super::spellings::call as call_of;
use super::words::parts;

const SERIES: &str = "generate_series";

type Entry = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Functions whose rows are the elements of lists: their name, their columns, the functions of the lists.
const OF_LISTS: [Entry; 15] = [
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
        "regexp_matches",
        &["regexp_matches"],
        &["regexp_matches_list"],
    ),
    (
        "generate_series",
        &["generate_series"],
        &["generate_series"],
    ),
    ("unnest", &["unnest"], &[]),
];

/// The entry of a function, given its name as it was written.
fn entry(name: &datafusion::sql::sqlparser::ast::ObjectName) -> Option<&'static Entry> {
    let name = parts(name).pop()?;
    OF_LISTS.iter().find(|(known, ..)| *known == name)
}

/// The elements of a list, with the type that a list of texts has lost.
fn elements(list: Expr, function: &str) -> Expr {
    let rows = call_of("unnest", vec![list]);
    let json = match function {
        "json_array_elements_list" | "json_each_values_list" => DataType::JSON,
        "jsonb_array_elements_list" | "jsonb_each_values_list" => DataType::JSONB,
        _ => return rows,
    };
    cast(rows, json)
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// Unnests the lists of an item of a select list; a call that is the whole item keeps its name.
pub(super) fn unnest_in(item: &mut SelectItem) {
    if let SelectItem::UnnamedExpr(Expr::Function(call)) = item
        && let Some((name, ..)) = entry(&call.name)
        && *name != SERIES
        && *name != "unnest"
    {
        *item = SelectItem::ExprWithAlias {
            expr: Expr::Function(call.clone()),
            alias: Ident::new(*name),
        };
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
        return;
    };
    let _ = visit_expressions_mut(expr, |expr| {
        if let Expr::Function(call) = expr
            && let Some((name, _, [list])) = entry(&call.name)
            && *name != SERIES
            && let FunctionArguments::List(_) = call.args
        {
            let mut inner = call.clone();
            inner.name = vec![Ident::new(*list)].into();
            *expr = elements(Expr::Function(inner), list);
        }
        ControlFlow::<()>::Continue(())
    });
}

/// In `FROM jsonb_array_elements(…) AS e`, `e` alone means the element, as a row of one column does in
/// PostgreSQL.
pub(super) fn name_bare_aliases(query: &mut Query) {
    let SetExpr::Select(select) = &mut *query.body else {
        return;
    };
    let tables = select.from.iter().flat_map(|from| {
        std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation))
    });
    let mut bare = Bare(tables.filter_map(bare_alias).collect());
    if bare.0.is_empty() {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(ident)) = item
            && bare.0.contains(ident)
        {
            *item = SelectItem::ExprWithAlias {
                alias: ident.clone(),
                expr: Expr::Identifier(ident.clone()),
            };
        }
    }
    let _ = query.visit(&mut bare);
}

/// The alias of a function whose one column is called otherwise.
fn bare_alias(factor: &TableFactor) -> Option<Ident> {
    let (TableFactor::Table {
        name,
        args: Some(_),
        alias: Some(alias),
        with_ordinality: false,
        ..
    }
    | TableFactor::Function {
        name,
        alias: Some(alias),
        with_ordinality: false,
        ..
    }) = factor
    else {
        return None;
    };
    let is_one = matches!(entry(name)?, (_, ["value"], _));
    (is_one && alias.columns.is_empty()).then(|| alias.name.clone())
}

struct Bare(Vec<Ident>);

impl VisitorMut for Bare {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && self.0.contains(ident)
        {
            *expr = Expr::CompoundIdentifier(vec![ident.clone(), Ident::new("value")]);
        }
        ControlFlow::Continue(())
    }
}

/// The rows of a function of [`OF_LISTS`] in `FROM`, and of any of them `WITH ORDINALITY`: there
/// the numbers are one more list.
pub(super) fn of(factor: &TableFactor) -> Option<TableFactor> {
    let (mut lists, alias, numbered, columns) = match factor {
        TableFactor::Table {
            name,
            args: Some(TableFunctionArgs { args, .. }),
            alias,
            with_ordinality,
            ..
        }
        | TableFactor::Function {
            name,
            args,
            alias,
            with_ordinality,
            ..
        } => {
            let (name, columns, functions) = entry(name)?;
            let lateral = matches!(factor, TableFactor::Function { .. });
            let planners = match *name {
                SERIES => !args.iter().any(names_a_column),
                _ => functions.is_empty() && !lateral,
            };
            if planners && !with_ordinality {
                return None;
            }
            let given: Option<Vec<Expr>> = args
                .iter()
                .map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                    _ => None,
                })
                .collect();
            let given = given?;
            let lists: Vec<List> = match functions.is_empty() {
                true => given.into_iter().map(|list| (list, "")).collect(),
                false => functions
                    .iter()
                    .map(|f| (call_of(f, given.clone()), *f))
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
            let lists = array_exprs.iter().map(|list| (list.clone(), ""));
            (lists.collect(), alias, true, columns)
        }
        _ => return None,
    };
    let mut columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
    if numbered {
        let lengths: Vec<Expr> = lists
            .iter()
            .map(|(list, _)| call_of("cardinality", vec![list.clone()]))
            .collect();
        let longest = match lengths.len() {
            1 => lengths.into_iter().next()?,
            _ => call_of("greatest", lengths),
        };
        let bigint = |expr| cast(expr, DataType::BigInt(None));
        let one = Expr::Value(ValueWithSpan::from(Value::Number("1".to_owned(), false)));
        let numbers = call_of(SERIES, vec![bigint(one), bigint(longest)]);
        lists.push((numbers, ""));
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
    // aliases name the columns; inside, only that they differ matters
    let items =
        lists
            .into_iter()
            .enumerate()
            .map(|(at, (list, function))| SelectItem::ExprWithAlias {
                expr: elements(list, function),
                alias: Ident::with_quote('"', format!("column {at}")),
            });
    let mut rows = super::parse_query("SELECT 1").ok()?;
    if let SetExpr::Select(select) = &mut *rows.body {
        select.projection = items.collect();
    }
    Some(TableFactor::Derived {
        lateral: true,
        subquery: Box::new(rows),
        alias,
        sample: None,
    })
}

/// Whether an argument may be another table's.
fn names_a_column(arg: &FunctionArg) -> bool {
    let found = visit_expressions(arg, |expr| match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// A list, and the function that it is of.
type List = (Expr, &'static str);
