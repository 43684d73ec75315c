//! Statements of clients that no rewrite reaches, known by their shape and answered by one of ours that
//! gives the same columns over the same tables.

use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, TableFactor};

use super::{build, scope};

/// Replaces the query if it is one of those.
pub(super) fn replace(query: &mut Query) {
    let ours = if is_type_tree(query) {
        TYPE_TREE
    } else if is_view_usage(query) {
        VIEW_USAGE
    } else {
        return;
    };
    if let Some(ours) = build::parse(ours) {
        *query = ours;
    }
}

/// What dbt asks to know which views go when it drops what they read.
fn is_view_usage(query: &Query) -> bool {
    const COLUMNS: [&str; 4] = [
        "dependent_schema",
        "dependent_name",
        "referenced_schema",
        "referenced_name",
    ];
    let SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let names = select.projection.iter().map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => scope::folded(alias),
        _ => String::new(),
    });
    let [from] = select.from.as_slice() else {
        return false;
    };
    let joined = from.joins.iter().map(|j| &j.relation);
    let tables = std::iter::once(&from.relation).chain(joined);
    let tables: Vec<_> = tables.filter_map(scope::table_name).collect();
    names.eq(COLUMNS)
        && tables
            == [
                "dependent_class",
                "dependent_namespace",
                "dependent_depend",
                "joining_depend",
                "referenced_class",
                "referenced_namespace",
            ]
}

/// There are no rules here that views would be: they are asked themselves.
const VIEW_USAGE: &str = "SELECT DISTINCT view_schema AS dependent_schema, \
    view_name AS dependent_name, source_schema AS referenced_schema, source_name AS referenced_name \
    FROM weir.dependencies WHERE source_schema NOT IN ('information_schema', 'pg_catalog') \
    ORDER BY 1, 2, 3, 4";

/// What asyncpg asks when it meets a type that it does not know, such as an array.
fn is_type_tree(query: &Query) -> bool {
    const COLUMNS: [&str; 11] = [
        "oid",
        "ns",
        "name",
        "kind",
        "basetype",
        "elemtype",
        "elemdelim",
        "range_subtype",
        "attrtypoids",
        "attrnames",
        "depth",
    ];
    let Some(with) = query.with.as_ref().filter(|with| with.recursive) else {
        return false;
    };
    let [tree] = with.cte_tables.as_slice() else {
        return false;
    };
    let columns = tree.alias.columns.iter().map(|c| scope::folded(&c.name));
    let SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let [from] = select.from.as_slice() else {
        return false;
    };
    let reads_it = match &from.relation {
        TableFactor::Table { name, .. } => scope::parts(name) == ["typeinfo_tree"],
        _ => false,
    };
    reads_it
        && from.joins.is_empty()
        && scope::folded(&tree.alias.name) == "typeinfo_tree"
        && columns.eq(COLUMNS)
}

/// The types asked for with those of their elements. There are no domains, composites or ranges here,
/// and elements of elements have no elements.
const TYPE_TREE: &str = "SELECT t.oid AS oid, ns.nspname AS ns, t.typname AS name, t.typtype AS kind, \
    CAST(NULL AS TEXT) AS basetype, t.typelem AS elemtype, e.typdelim AS elemdelim, \
    CAST(NULL AS TEXT) AS range_subtype, CAST(NULL AS TEXT) AS attrtypoids, \
    CAST(NULL AS TEXT) AS attrnames, wanted.depth AS depth, CAST(NULL AS TEXT) AS basetype_name, \
    format_type(t.typelem, -1) AS elemtype_name, CAST(NULL AS TEXT) AS range_subtype_name \
    FROM (SELECT a.oid AS oid, 0 AS depth FROM pg_catalog.pg_type AS a WHERE a.oid = ANY($1::oid[]) \
    UNION SELECT b.typelem, 1 FROM pg_catalog.pg_type AS b \
    WHERE b.oid = ANY($1::oid[]) AND b.typelem <> 0 \
    UNION SELECT d.typelem, 2 FROM pg_catalog.pg_type AS c \
    JOIN pg_catalog.pg_type AS d ON d.oid = c.typelem \
    WHERE c.oid = ANY($1::oid[]) AND d.typelem <> 0) AS wanted \
    JOIN pg_catalog.pg_type AS t ON t.oid = wanted.oid \
    JOIN pg_catalog.pg_namespace AS ns ON ns.oid = t.typnamespace \
    LEFT JOIN pg_catalog.pg_type AS e ON t.typlen = -1 AND e.oid = t.typelem \
    ORDER BY wanted.depth DESC";
