//! Names ↔ oids: `to_regclass`, `pg_table_is_visible`, `format_type`, `quote_ident`, and what the
//! casts to `regclass` and its like are rewritten to.

use catalog::Oid;

use super::{Entry, Row};
use crate::error::{Error, Result, SqlState};
use crate::system::frame::{Cell, Kind};
use crate::system::pg_catalog::{namespace_oid, pg_proc, pg_type};
use crate::system::{SystemContext, shapes};

pub(super) const LIST: &[Entry] = &[
    ("to_regclass", Kind::Id("regclass"), |cx, row| {
        Ok(row.text(0).and_then(|n| reg_oid(cx, "regclass", n)).into())
    }),
    ("to_regtype", Kind::Id("regtype"), |cx, row| {
        Ok(row.text(0).and_then(|n| reg_oid(cx, "regtype", n)).into())
    }),
    ("to_regproc", Kind::Id("regproc"), |cx, row| {
        Ok(row.text(0).and_then(|n| reg_oid(cx, "regproc", n)).into())
    }),
    ("to_regnamespace", Kind::Id("regnamespace"), |cx, row| {
        Ok(row
            .text(0)
            .and_then(|n| reg_oid(cx, "regnamespace", n))
            .into())
    }),
    ("to_regrole", Kind::Id("regrole"), |cx, row| {
        Ok(row.text(0).and_then(|n| reg_oid(cx, "regrole", n)).into())
    }),
    ("reg_oid", Kind::Id("oid"), |cx, row| {
        let (Some(kind), Some(name)) = (row.text(0), row.text(1)) else {
            return Ok(Cell::Null);
        };
        strict_reg_oid(cx, kind, name).map(Cell::from)
    }),
    ("reg_text", Kind::Text, |cx, row| {
        let (Some(kind), Some(value)) = (row.text(0), row.text(1)) else {
            return Ok(Cell::Null);
        };
        Ok(match value.parse() {
            Ok(oid) => reg_name(cx, kind, oid).into(),
            Err(_) => value.into(),
        })
    }),
    ("pg_table_is_visible", Kind::Bool, |cx, row| {
        Ok(row
            .relation(cx, 0)
            .and_then(|oid| is_visible(cx, oid))
            .into())
    }),
    ("pg_type_is_visible", Kind::Bool, |_, row| {
        Ok(row.oid(0).and_then(pg_type::by_oid).map(|_| true).into())
    }),
    ("pg_function_is_visible", Kind::Bool, |cx, row| {
        let function = row.oid(0).and_then(|oid| pg_proc::function(cx, oid));
        Ok(function.map(|_| true).into())
    }),
    ("pg_collation_is_visible", Kind::Bool, always),
    ("pg_operator_is_visible", Kind::Bool, always),
    ("pg_opclass_is_visible", Kind::Bool, always),
    ("pg_opfamily_is_visible", Kind::Bool, always),
    ("pg_conversion_is_visible", Kind::Bool, always),
    ("pg_statistics_obj_is_visible", Kind::Bool, always),
    ("pg_ts_config_is_visible", Kind::Bool, always),
    ("pg_ts_dict_is_visible", Kind::Bool, always),
    ("pg_ts_parser_is_visible", Kind::Bool, always),
    ("pg_ts_template_is_visible", Kind::Bool, always),
    ("pg_get_userbyid", Kind::Word("name"), |cx, row| {
        Ok(row.oid(0).map(|oid| user(cx, oid)).into())
    }),
    ("format_type", Kind::Text, |_, row| {
        let typmod = row.int(1).and_then(|m| i32::try_from(m).ok());
        Ok(row.oid(0).map(|oid| pg_type::format(oid, typmod)).into())
    }),
    ("quote_ident", Kind::Text, |_, row| {
        Ok(row.text(0).map(quote_ident).into())
    }),
];

#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn always(_: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    Ok(row.text(0).map(|_| true).into())
}

fn user(cx: &SystemContext, oid: u32) -> String {
    let access = cx.access();
    let role = cx.catalog.role_by_oid(Oid(oid));
    role.filter(|r| access.sees_role(r))
        .map_or_else(|| format!("unknown (OID={oid})"), |r| r.name.clone())
}

/// The oid that a name of one of the `reg*` types stands for; digits stand for themselves.
pub(crate) fn reg_oid(cx: &SystemContext, kind: &str, name: &str) -> Option<u32> {
    if let Ok(oid) = name.trim().parse() {
        return Some(oid);
    }
    match kind {
        "regtype" => pg_type::by_name(name).map(|t| t.oid),
        "regproc" | "regprocedure" => {
            let name = identifiers(name.split('(').next()?)?;
            pg_proc::function_oid(cx, name.last()?)
        }
        "regnamespace" => namespace_oid(cx, identifiers(name)?.last()?),
        "regrole" => {
            let name = identifiers(name)?;
            let role = cx.catalog.role(name.last()?)?;
            cx.access().sees_role(role).then_some(role.oid.0)
        }
        _ => relation_oid(cx, name),
    }
}

/// As [`reg_oid`]; a name that stands for nothing is refused.
pub(crate) fn strict_reg_oid(cx: &SystemContext, kind: &str, name: &str) -> Result<u32> {
    reg_oid(cx, kind, name).ok_or_else(|| match kind {
        "regtype" => Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{name}\" does not exist"),
        ),
        "regproc" | "regprocedure" => Error::refused(
            SqlState::UNDEFINED_FUNCTION,
            format!("function \"{name}\" does not exist"),
        ),
        "regnamespace" => Error::refused(
            SqlState::INVALID_SCHEMA_NAME,
            format!("schema \"{name}\" does not exist"),
        ),
        "regrole" => Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("role \"{name}\" does not exist"),
        ),
        _ => Error::undefined_table(name),
    })
}

/// The relation of that name, looked up as SQL does, among those the role may see.
pub(crate) fn relation_oid(cx: &SystemContext, name: &str) -> Option<u32> {
    let parts = identifiers(name)?;
    match &parts[..] {
        [name] => (cx.temporary.as_deref().into_iter())
            .chain(["pg_catalog"])
            .chain(cx.search_path.iter().map(String::as_str))
            .find_map(|schema| in_schema(cx, schema, name)),
        [schema, name] if schema == "pg_temp" => in_schema(cx, cx.temporary.as_deref()?, name),
        [schema, name] => in_schema(cx, schema, name),
        [database, schema, name] if *database == cx.database => in_schema(cx, schema, name),
        _ => None,
    }
}

fn in_schema(cx: &SystemContext, schema: &str, name: &str) -> Option<u32> {
    if let Some(shape) = shapes::find(schema, name) {
        return Some(shape.oid);
    }
    let relation = cx.catalog.relation(schema, name)?;
    cx.access()
        .sees_relation(relation)
        .then_some(relation.oid.0)
}

/// What an oid of one of the `reg*` types is printed as: a name, qualified when it has to be.
fn reg_name(cx: &SystemContext, kind: &str, oid: u32) -> String {
    let found = match kind {
        _ if oid == 0 => Some("-".to_owned()),
        "regtype" => return pg_type::format(oid, None),
        "regproc" | "regprocedure" => pg_proc::function(cx, oid).map(|f| f.name.clone()),
        "regnamespace" => schema_name(cx, oid).map(|n| quote_ident(&n)),
        "regrole" => Some(quote_ident(&user(cx, oid))),
        _ => qualified(cx, oid).map(|(schema, name)| match is_visible(cx, oid) {
            Some(true) => quote_ident(&name),
            Some(false) | None => format!("{}.{}", quote_ident(&schema), quote_ident(&name)),
        }),
    };
    found.unwrap_or_else(|| oid.to_string())
}

fn schema_name(cx: &SystemContext, oid: u32) -> Option<String> {
    use crate::system::pg_catalog::NAMESPACES;
    let system = NAMESPACES.iter().find(|(_, o)| *o == oid);
    match system {
        Some((name, _)) => Some((*name).to_owned()),
        None => cx.catalog.schema_by_oid(Oid(oid)).map(|s| s.name.clone()),
    }
}

fn qualified(cx: &SystemContext, oid: u32) -> Option<(String, String)> {
    if let Some(shape) = shapes::find_oid(oid) {
        return Some((shape.schema.to_owned(), shape.name.to_owned()));
    }
    let relation = cx.catalog.relation_by_oid(Oid(oid))?;
    let schema = cx.catalog.schema_by_oid(relation.schema)?;
    cx.access()
        .sees_relation(relation)
        .then(|| (schema.name.clone(), relation.name.clone()))
}

/// Whether the bare name finds this relation.
fn is_visible(cx: &SystemContext, oid: u32) -> Option<bool> {
    let (_, name) = qualified(cx, oid)?;
    Some(relation_oid(cx, &quote_ident(&name)) == Some(oid))
}

/// The name as SQL has to write it.
pub(crate) fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// The parts of a dotted name: quoted ones as they are, others in lower case.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut chars = text.trim().chars().peekable();
    loop {
        let mut part = String::new();
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    '"' => break,
                    c => part.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != '.') {
                part.extend(c.to_lowercase());
            }
            part.truncate(part.trim_end().len());
        }
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match chars.next() {
            Some('.') => {}
            None => return Some(parts),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_names() {
        let parts = |t: &str| identifiers(t).map(|p| p.join("|"));
        assert_eq!(parts("Sales.Orders").as_deref(), Some("sales|orders"));
        assert_eq!(parts("\"A.b\".\"c\"\"d\"").as_deref(), Some("A.b|c\"d"));
        assert_eq!(parts("\"public\" . \"A\"").as_deref(), Some("public|A"));
        assert_eq!(parts(" Public. a ").as_deref(), Some("public|a"));
        assert_eq!(parts(""), None);
        assert_eq!(parts("a."), None);
        assert_eq!(parts("\"a"), None);
        assert_eq!(parts("\"a\"b"), None);
    }
}
