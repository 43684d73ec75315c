//! `has_table_privilege` and its like: real answers from grants, ownership and membership.

use catalog::{ObjectKind, Oid, Privilege};

use super::names::{reg_oid, strict_reg_oid};
use super::{Entry, Row};
use crate::error::{Error, Result, SqlState};
use crate::system::access::Access;
use crate::system::frame::{Cell, Kind};
use crate::system::pg_catalog::{NAMESPACES, pg_proc};
use crate::system::{SystemContext, shapes};

pub(super) const LIST: &[Entry] = &[
    ("has_table_privilege", Kind::Bool, |cx, row| {
        asked(cx, row, 2, |access, args, wanted| {
            let oid = strict_reg_oid(cx, "regclass", args[0])?;
            Ok(on_table(cx, access, oid, wanted))
        })
    }),
    ("has_any_column_privilege", Kind::Bool, |cx, row| {
        asked(cx, row, 2, |access, args, wanted| {
            let oid = strict_reg_oid(cx, "regclass", args[0])?;
            let relation = cx.catalog.relation_by_oid(Oid(oid));
            let column = relation.is_some_and(|r| {
                let mut columns = r.columns.iter();
                columns.any(|c| access.may_column(r, &c.name, wanted.privilege, wanted.option))
            });
            Ok(on_table(cx, access, oid, wanted).map(|whole| whole || column))
        })
    }),
    ("has_column_privilege", Kind::Bool, |cx, row| {
        asked(cx, row, 3, |access, args, wanted| {
            on_column(cx, access, args, wanted)
        })
    }),
    ("has_schema_privilege", Kind::Bool, |cx, row| {
        asked(cx, row, 2, |access, args, wanted| {
            let oid = strict_reg_oid(cx, "regnamespace", args[0])?;
            if NAMESPACES.iter().any(|(_, system)| *system == oid) {
                return Ok(Some(wanted.privilege == Privilege::Usage && !wanted.option));
            }
            let schema = cx.catalog.schema_by_oid(Oid(oid));
            let kind = ObjectKind::Schema;
            Ok(schema.map(|s| access.may(kind, s.oid, s.owner, wanted.privilege, wanted.option)))
        })
    }),
    // everyone may connect and have temporary tables; a superuser makes schemas
    ("has_database_privilege", Kind::Bool, |cx, row| {
        let subject = match row.len() {
            3 => match row.text(0) {
                Some(subject) => role_name(cx, subject)?,
                None => return Ok(Cell::Null),
            },
            _ => cx.role.clone(),
        };
        let privilege = row.text(row.len().saturating_sub(1));
        let has = privilege.map(|wanted| match wanted.to_uppercase().as_str() {
            "CONNECT" | "TEMP" | "TEMPORARY" => true,
            "CREATE" => Access::new(&cx.catalog, &subject).superuser(),
            _ => false,
        });
        Ok(has.into())
    }),
    ("has_function_privilege", Kind::Bool, |cx, row| {
        let oid = row
            .text(row.len().saturating_sub(2))
            .and_then(|f| reg_oid(cx, "regproc", f));
        Ok(oid
            .and_then(|o| pg_proc::function(cx, o))
            .map(|_| true)
            .into())
    }),
    ("pg_has_role", Kind::Bool, |cx, row| {
        let (subject, role) = match row.len() {
            3 => (row.text(0), row.text(1)),
            _ => (Some(cx.role.as_str()), row.text(0)),
        };
        let (Some(subject), Some(role)) = (subject, role) else {
            return Ok(Cell::Null);
        };
        let role = Oid(strict_reg_oid(cx, "regrole", role)?);
        let subject = role_name(cx, subject)?;
        Ok(Access::new(&cx.catalog, &subject).is_member(role).into())
    }),
];

struct Wanted {
    privilege: Privilege,
    /// Also to grant it on.
    option: bool,
}

/// Answers `has_x_privilege([role,] args…, privilege)`, where the privilege may be a list of which
/// one is enough.
fn asked(
    cx: &SystemContext,
    row: &Row<'_>,
    least: usize,
    may: impl Fn(&Access<'_>, &[&str], &Wanted) -> Result<Option<bool>>,
) -> Result<Cell> {
    let Some(args) = (0..row.len())
        .map(|i| row.text(i))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(Cell::Null);
    };
    let (role, args) = if args.len() == least + 1 {
        (role_name(cx, args[0])?, &args[1..])
    } else {
        (cx.role.clone(), &args[..])
    };
    let Some((privileges, args)) = args.split_last().filter(|_| args.len() == least) else {
        return Err(Error::refused(
            SqlState::UNDEFINED_FUNCTION,
            "privilege functions take an optional role, an object and a privilege",
        ));
    };
    let access = Access::new(&cx.catalog, &role);
    let mut answer = None;
    for text in privileges.split(',') {
        if let Some(yes) = may(&access, args, &parse(text)?)? {
            answer = Some(answer.unwrap_or(false) || yes);
        }
    }
    Ok(answer.into())
}

fn role_name(cx: &SystemContext, role: &str) -> Result<String> {
    let found = match role.parse() {
        Ok(oid) => cx.catalog.role_by_oid(Oid(oid)),
        Err(_) => cx.catalog.role(role),
    };
    found.map(|r| r.name.clone()).ok_or_else(|| {
        Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("role \"{role}\" does not exist"),
        )
    })
}

fn parse(text: &str) -> Result<Wanted> {
    let text = text.trim().to_uppercase();
    let (word, option) = match text.strip_suffix(" WITH GRANT OPTION") {
        Some(word) => (word.trim(), true),
        None => (text.as_str(), false),
    };
    let privilege = match word {
        "SELECT" => Privilege::Select,
        "INSERT" => Privilege::Insert,
        "UPDATE" => Privilege::Update,
        "DELETE" => Privilege::Delete,
        "TRUNCATE" => Privilege::Truncate,
        "USAGE" => Privilege::Usage,
        "CREATE" => Privilege::Create,
        _ => {
            return Err(Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unrecognized privilege type: \"{word}\""),
            ));
        }
    };
    Ok(Wanted { privilege, option })
}

/// `None` when there is no such table.
fn on_table(cx: &SystemContext, access: &Access<'_>, oid: u32, wanted: &Wanted) -> Option<bool> {
    if shapes::find_oid(oid).is_some() {
        return Some(wanted.privilege == Privilege::Select && !wanted.option);
    }
    let relation = cx.catalog.relation_by_oid(Oid(oid))?;
    let kind = ObjectKind::Relation;
    Some(access.may(
        kind,
        relation.oid,
        relation.owner,
        wanted.privilege,
        wanted.option,
    ))
}

fn on_column(
    cx: &SystemContext,
    access: &Access<'_>,
    args: &[&str],
    wanted: &Wanted,
) -> Result<Option<bool>> {
    let [table, column] = args else {
        return Ok(None);
    };
    let oid = strict_reg_oid(cx, "regclass", table)?;
    let Some(relation) = cx.catalog.relation_by_oid(Oid(oid)) else {
        return Ok(on_table(cx, access, oid, wanted));
    };
    // a column is named or numbered from 1
    let column = match column.parse::<usize>() {
        Ok(n) => relation.columns.get(n.wrapping_sub(1)),
        Err(_) => relation.columns.iter().find(|c| c.name == *column),
    };
    Ok(column.map(|c| access.may_column(relation, &c.name, wanted.privilege, wanted.option)))
}
