//! Functions about the server and this connection: `version()`, `current_schema()`, …

use catalog::{Oid, Schema};

use super::{Entry, Row};
use crate::error::{Error, Result, SqlState};
use crate::system::access::Access;
use crate::system::frame::{Cell, Kind};
use crate::system::{SCHEMAS, SystemContext};

pub(super) const LIST: &[Entry] = &[
    ("version", Kind::Text, |_, _| Ok(version().into())),
    ("current_database", Kind::Word("name"), database),
    ("current_catalog", Kind::Word("name"), database),
    ("current_schema", Kind::Word("name"), |cx, _| {
        Ok(search_path(cx).next().into())
    }),
    ("current_schemas", Kind::TextList(None), current_schemas),
    ("current_user", Kind::Word("name"), |cx, _| {
        Ok((&cx.role).into())
    }),
    ("current_role", Kind::Word("name"), |cx, _| {
        Ok((&cx.role).into())
    }),
    ("user", Kind::Word("name"), |cx, _| Ok((&cx.role).into())),
    ("session_user", Kind::Word("name"), |cx, _| {
        Ok((&cx.session_role).into())
    }),
    ("pg_backend_pid", Kind::Int4, |cx, _| {
        Ok(cx.backend_pid.into())
    }),
    ("current_setting", Kind::Text, current_setting),
    ("pg_cancel_backend", Kind::Bool, |cx, row| {
        stop(cx, row, false)
    }),
    ("pg_terminate_backend", Kind::Bool, |cx, row| {
        stop(cx, row, true)
    }),
    ("pg_is_in_recovery", Kind::Bool, |_, _| Ok(false.into())),
    ("txid_current", Kind::Int8, |cx, _| {
        Ok(cx.catalog.generation.into())
    }),
    ("getdatabaseencoding", Kind::Word("name"), |_, _| {
        Ok("UTF8".into())
    }),
    ("pg_encoding_to_char", Kind::Word("name"), |_, row| {
        Ok(row.int(0).map(|e| if e == 6 { "UTF8" } else { "" }).into())
    }),
    ("pg_char_to_encoding", Kind::Int4, |_, row| {
        let utf8 = |name: &str| name.eq_ignore_ascii_case("utf8");
        Ok(row.text(0).map(|n| if utf8(n) { 6 } else { -1 }).into())
    }),
    ("pg_my_temp_schema", Kind::Id("oid"), |cx, _| {
        Ok(own_temporary(cx).map_or(0, |oid| oid.0).into())
    }),
    ("pg_is_other_temp_schema", Kind::Bool, |cx, row| {
        let schema = row
            .oid(0)
            .and_then(|oid| cx.catalog.schema_by_oid(Oid(oid)));
        let other = |s: &Schema| s.is_temporary() && own_temporary(cx) != Some(s.oid);
        Ok(row.oid(0).map(|_| schema.is_some_and(other)).into())
    }),
    // there are no advisory locks to let go of
    ("pg_advisory_unlock_all", Kind::Text, |_, _| Ok("".into())),
    ("inet_server_addr", Kind::Text, |_, _| Ok(Cell::Null)),
    ("inet_server_port", Kind::Int4, |_, _| Ok(Cell::Null)),
    ("inet_client_addr", Kind::Text, client_address),
];

/// Those that do something to other sessions.
pub(super) const ACTING: &[&str] = &["pg_cancel_backend", "pg_terminate_backend"];

/// What clients read to learn which PostgreSQL they talk to.
fn version() -> String {
    format!("PostgreSQL 15.18 (weir {})", env!("CARGO_PKG_VERSION"))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn database(cx: &SystemContext, _: &Row<'_>) -> Result<Cell> {
    Ok((&cx.database).into())
}

/// The schemas of the search path that exist.
fn search_path(cx: &SystemContext) -> impl Iterator<Item = String> {
    cx.search_path
        .iter()
        .map(|name| if name == "$user" { &cx.role } else { name })
        .filter(|name| SCHEMAS.contains(&name.as_str()) || cx.catalog.schema(name).is_some())
        .cloned()
}

fn own_temporary(cx: &SystemContext) -> Option<Oid> {
    let own = cx.temporary.as_deref()?;
    cx.catalog.schema(own).map(|s| s.oid)
}

fn current_schemas(cx: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    let mut all: Vec<String> = search_path(cx).collect();
    if row.flag(0).unwrap_or(false) && !all.iter().any(|s| s == "pg_catalog") {
        all.insert(0, "pg_catalog".to_owned());
        if let Some(own) = &cx.temporary {
            all.insert(0, own.clone());
        }
    }
    Ok(all.into())
}

fn current_setting(cx: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    let Some(name) = row.text(0) else {
        return Ok(Cell::Null);
    };
    let found = cx
        .settings
        .iter()
        .find(|s| s.name.eq_ignore_ascii_case(name));
    match found {
        Some(setting) => Ok(setting.value.clone().unwrap_or_default().into()),
        None if row.flag(1).unwrap_or(false) => Ok(Cell::Null),
        // what every PostgreSQL has and clients compare with `pg_am.amname`
        None if name == "default_table_access_method" => Ok("heap".into()),
        None => Err(Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )),
    }
}

fn client_address(cx: &SystemContext, _: &Row<'_>) -> Result<Cell> {
    let sessions = cx.live.activity();
    let own = sessions.into_iter().find(|a| a.pid == cx.backend_pid);
    Ok(own.and_then(|a| a.client_address).into())
}

/// Cancels the statement of the session with that number, or ends the session as well. A role may do that
/// to its own sessions and those of roles it is a member of; only a superuser to those of superusers.
fn stop(cx: &SystemContext, row: &Row<'_>, session_too: bool) -> Result<Cell> {
    let Some(pid) = row.int(0) else {
        return Ok(Cell::Null);
    };
    let Some(session) = cx
        .live
        .activity()
        .into_iter()
        .find(|a| i64::from(a.pid) == pid)
    else {
        return Ok(false.into());
    };
    let access = Access::new(&cx.catalog, &cx.role);
    // a session of a write key has a role that the catalog does not know
    let theirs = cx.catalog.role(&session.role);
    let may = access.superuser()
        || theirs.is_some_and(|role| !role.superuser && access.is_member(role.oid));
    if !may {
        let (what, whose) = match session_too {
            true => ("terminate process", "process is being terminated"),
            false => ("cancel query", "query is being canceled"),
        };
        return Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied to {what}"),
        )
        .with_detail(format!(
            "only superusers and members of the role whose {whose} may do that"
        )));
    }
    Ok(cx.live.stop(session.pid, session_too).into())
}
