//! `GRANT` and `REVOKE`: privileges on objects, and membership of roles. A whole statement is one
//! catalog transaction.
//!
//! Who owns an object, is a superuser or holds the privilege WITH GRANT OPTION may give it on.
//! Membership is a superuser's to give.

use std::collections::BTreeSet;

use catalog::{Change, Grant, ObjectKind, Oid, Privilege, Snapshot};
use datafusion::sql::sqlparser::ast::ObjectName;

use super::{Outcome, Run};
use crate::dialect::words::parts;
use crate::dialect::{Grant as Statement, GrantTarget};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// Everybody.
const PUBLIC: &str = "public";

/// An object that privileges are given on.
#[derive(Debug)]
struct Object {
    kind: ObjectKind,
    oid: Oid,
    owner: Oid,
    name: String,
}

/// Gives or takes back.
pub(super) async fn execute(run: &Run, s: &Statement) -> Result<Outcome> {
    let tag = if s.revoke { "REVOKE" } else { "GRANT" };
    if s.privileges.iter().any(|(_, columns)| !columns.is_empty()) {
        return Err(Error::unsupported(
            "privileges on columns are not supported",
            "grant SELECT on a view with these columns",
        ));
    }
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let changes = match &s.target {
        GrantTarget::Membership => membership(run, &catalog, s)?,
        GrantTarget::Tables(_)
        | GrantTarget::AllTablesInSchemas(_)
        | GrantTarget::Schemas(_)
        | GrantTarget::Models(_)
        | GrantTarget::Secrets(_) => on_objects(run, &catalog, s)?,
    };
    if !changes.is_empty() {
        engine.commit(changes).await?;
        run.session()?.with_transaction(|t| t.note_write(tag));
    }
    Outcome::command(tag)
}

/// Refuses a role that would be a member of itself.
pub(super) fn circle(group: &str, member: &str) -> Error {
    Error::refused(
        SqlState::INVALID_GRANT_OPERATION,
        format!("role \"{group}\" is a member of role \"{member}\""),
    )
}

fn on_objects(run: &Run, catalog: &Snapshot, s: &Statement) -> Result<Vec<Change>> {
    let mut grantees = Vec::new();
    for name in &s.grantees {
        grantees.push(match name.as_str() {
            PUBLIC if s.grant_option && !s.revoke => {
                return Err(Error::refused(
                    SqlState::INVALID_GRANT_OPERATION,
                    "grant options cannot be given to public",
                )
                .with_hint("grant them to roles"));
            }
            PUBLIC => None,
            name => Some(privileges::role(catalog, name)?.oid),
        });
    }
    let (objects, possible) = objects(run, catalog, &s.target)?;
    let wanted = wanted(s, possible)?;
    let mut changes = Vec::new();
    for object in &objects {
        if object.kind == ObjectKind::Relation {
            run.scope.touch(object.oid);
        }
        for &privilege in &wanted {
            let right = right(catalog, &run.scope.caller.role, object, privilege)?;
            for &grantee in &grantees {
                let grant = Grant {
                    object_kind: object.kind,
                    object: object.oid,
                    column: None,
                    privilege,
                    grantee,
                    grantor: right.grantor,
                    grant_option: s.grant_option,
                };
                match s.revoke {
                    true => revoke(catalog, object, &right, &grant, &mut changes)?,
                    false => give(catalog, grant, &mut changes),
                }
            }
        }
    }
    Ok(changes)
}

/// The objects a statement names, with the privileges there are on them.
fn objects(
    run: &Run,
    catalog: &Snapshot,
    target: &GrantTarget,
) -> Result<(Vec<Object>, &'static [Privilege])> {
    const RELATION: &[Privilege] = &[
        Privilege::Select,
        Privilege::Insert,
        Privilege::Update,
        Privilege::Delete,
        Privilege::Truncate,
    ];
    const SCHEMA: &[Privilege] = &[Privilege::Usage, Privilege::Create];
    const USAGE: &[Privilege] = &[Privilege::Usage];
    let relation = |r: &catalog::Relation| Object {
        kind: ObjectKind::Relation,
        oid: r.oid,
        owner: r.owner,
        name: r.name.clone(),
    };
    let mut out = Vec::new();
    let possible = match target {
        GrantTarget::Tables(names) => {
            for name in names {
                let names = parts(name);
                let (schema, name) = run.scope.split_name(&names)?;
                let found = catalog.relation(&schema, &name);
                out.push(relation(
                    found.ok_or_else(|| Error::undefined_table(&names.join(".")))?,
                ));
            }
            RELATION
        }
        GrantTarget::AllTablesInSchemas(names) => {
            for name in names {
                let schema = schema(catalog, &alone(name, "schema")?)?.oid;
                out.extend(
                    catalog
                        .relations
                        .iter()
                        .filter(|r| r.schema == schema)
                        .map(relation),
                );
            }
            RELATION
        }
        GrantTarget::Schemas(names) => {
            for name in names {
                let found = schema(catalog, &alone(name, "schema")?)?;
                let (oid, owner, name) = (found.oid, found.owner, found.name.clone());
                out.push(Object {
                    kind: ObjectKind::Schema,
                    oid,
                    owner,
                    name,
                });
            }
            SCHEMA
        }
        GrantTarget::Models(names) => {
            for name in names {
                let name = alone(name, "model")?;
                let found = catalog
                    .model(&name)
                    .ok_or_else(|| missing("model", &name))?;
                let (oid, owner) = (found.oid, found.owner);
                out.push(Object {
                    kind: ObjectKind::Model,
                    oid,
                    owner,
                    name,
                });
            }
            USAGE
        }
        GrantTarget::Secrets(names) => {
            for name in names {
                let name = alone(name, "secret")?;
                let found = catalog
                    .secret(&name)
                    .ok_or_else(|| missing("secret", &name))?;
                let (oid, owner) = (found.oid, found.owner);
                out.push(Object {
                    kind: ObjectKind::Secret,
                    oid,
                    owner,
                    name,
                });
            }
            USAGE
        }
        GrantTarget::Membership => &[],
    };
    Ok((out, possible))
}

fn alone(name: &ObjectName, kind: &str) -> Result<String> {
    let names = parts(name);
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            format!("{kind} name \"{}\" must not be qualified", names.join(".")),
        )),
    }
}

fn schema<'a>(catalog: &'a Snapshot, name: &str) -> Result<&'a catalog::Schema> {
    let found = catalog.schema(name).filter(|s| !s.is_temporary());
    found.ok_or_else(|| {
        Error::refused(
            SqlState::INVALID_SCHEMA_NAME,
            format!("schema \"{name}\" does not exist"),
        )
    })
}

fn missing(kind: &str, name: &str) -> Error {
    Error::refused(
        SqlState::UNDEFINED_OBJECT,
        format!("{kind} \"{name}\" does not exist"),
    )
}

/// The privileges a statement names.
fn wanted(s: &Statement, possible: &[Privilege]) -> Result<BTreeSet<Privilege>> {
    let mut out = BTreeSet::new();
    for (word, _) in &s.privileges {
        if word == "all" {
            out.extend(possible);
            continue;
        }
        let privilege = privilege(word)?;
        if !possible.contains(&privilege) {
            return Err(unfit(word, &s.target));
        }
        out.insert(privilege);
    }
    Ok(out)
}

fn privilege(word: &str) -> Result<Privilege> {
    Ok(match word {
        "select" => Privilege::Select,
        "insert" => Privilege::Insert,
        "update" => Privilege::Update,
        "delete" => Privilege::Delete,
        "truncate" => Privilege::Truncate,
        "usage" => Privilege::Usage,
        "create" => Privilege::Create,
        "execute" => {
            return Err(Error::refused(
                SqlState::INVALID_GRANT_OPERATION,
                "invalid privilege type EXECUTE",
            )
            .with_hint("models and secrets are used with USAGE; functions are everybody's"));
        }
        "references" | "trigger" | "maintain" | "connect" | "temporary" | "temp" => {
            return Err(Error::unsupported(
                format!("privilege {} is not supported", word.to_uppercase()),
                "there are SELECT, INSERT, UPDATE, DELETE, TRUNCATE, USAGE and CREATE",
            ));
        }
        _ => {
            return Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                format!("unrecognized privilege type \"{word}\""),
            ));
        }
    })
}

fn unfit(word: &str, target: &GrantTarget) -> Error {
    let (kind, hint) = match target {
        GrantTarget::Tables(_) | GrantTarget::AllTablesInSchemas(_) => (
            "table",
            "tables and views have SELECT, INSERT, UPDATE, DELETE and TRUNCATE",
        ),
        GrantTarget::Schemas(_) => ("schema", "schemas have USAGE and CREATE"),
        GrantTarget::Models(_) => ("model", "models have USAGE"),
        GrantTarget::Secrets(_) => ("secret", "secrets have USAGE"),
        GrantTarget::Membership => ("role", "roles are granted by their name"),
    };
    Error::refused(
        SqlState::INVALID_GRANT_OPERATION,
        format!("invalid privilege type {} for {kind}", word.to_uppercase()),
    )
    .with_hint(hint)
}

/// As whom the caller may give and take a privilege.
#[derive(Debug)]
struct Right {
    /// Owner or superuser: takes back what others gave, too.
    owner: bool,
    /// In whose name.
    grantor: Oid,
}

fn right(catalog: &Snapshot, role: &str, object: &Object, privilege: Privilege) -> Result<Right> {
    if privileges::owns(catalog, role, object.owner) {
        return Ok(Right {
            owner: true,
            grantor: object.owner,
        });
    }
    let denied = || {
        let kind = match object.kind {
            ObjectKind::Relation => "table".to_owned(),
            kind => kind.to_string(),
        };
        Error::denied(&kind, &object.name)
    };
    let all = privileges::inherited(catalog, privileges::role(catalog, role)?.oid);
    let held = catalog.grants.iter().find(|g| {
        g.grant_option
            && same_privilege(g, object, privilege)
            && g.grantee.is_some_and(|grantee| all.contains(&grantee))
    });
    let grantor = held.and_then(|g| g.grantee).ok_or_else(denied)?;
    Ok(Right {
        owner: false,
        grantor,
    })
}

fn same_privilege(grant: &Grant, object: &Object, privilege: Privilege) -> bool {
    grant.object_kind == object.kind
        && grant.object == object.oid
        && grant.column.is_none()
        && grant.privilege == privilege
}

fn held<'a>(catalog: &'a Snapshot, wanted: &Grant) -> Option<&'a Grant> {
    catalog.grants.iter().find(|g| {
        g.object_kind == wanted.object_kind
            && g.object == wanted.object
            && g.column == wanted.column
            && g.privilege == wanted.privilege
            && g.grantee == wanted.grantee
    })
}

fn give(catalog: &Snapshot, grant: Grant, changes: &mut Vec<Change>) {
    match held(catalog, &grant) {
        // it is held already, and with the grant option if that is asked for
        Some(held) if held.grant_option || !grant.grant_option => {}
        Some(held) => {
            changes.push(Change::RemoveGrant(held.clone()));
            changes.push(Change::AddGrant(grant));
        }
        None => changes.push(Change::AddGrant(grant)),
    }
}

/// Takes back a privilege, or only its grant option. What was never given is no error.
fn revoke(
    catalog: &Snapshot,
    object: &Object,
    right: &Right,
    wanted: &Grant,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let Some(held) = held(catalog, wanted) else {
        return Ok(());
    };
    if !right.owner && held.grantor != right.grantor {
        return Err(Error::denied("grants of others on", &object.name));
    }
    let given_on = catalog
        .grants
        .iter()
        .any(|g| same_privilege(g, object, held.privilege) && Some(g.grantor) == held.grantee);
    if held.grant_option && given_on && held.grantee != Some(object.owner) {
        return Err(Error::refused(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("privileges on \"{}\" depend on this one", object.name),
        )
        .with_hint("revoke what the role has granted on first"));
    }
    if wanted.grant_option && !held.grant_option {
        return Ok(());
    }
    changes.push(Change::RemoveGrant(held.clone()));
    if wanted.grant_option {
        changes.push(Change::AddGrant(Grant {
            grant_option: false,
            ..held.clone()
        }));
    }
    Ok(())
}

/// `GRANT group, … TO role, …` and its `REVOKE`.
fn membership(run: &Run, catalog: &Snapshot, s: &Statement) -> Result<Vec<Change>> {
    privileges::check_superuser(
        catalog,
        &run.scope.caller.role,
        "change the members of roles",
    )?;
    if s.grant_option {
        return Err(Error::refused(
            SqlState::INVALID_GRANT_OPERATION,
            "membership of a role has no grant option",
        )
        .with_hint("superusers change the members of roles"));
    }
    // grants of one statement see each other: only roles matter here
    let mut draft = Snapshot {
        roles: catalog.roles.clone(),
        ..Snapshot::default()
    };
    let mut changed = BTreeSet::new();
    for (group_name, _) in &s.privileges {
        let group = privileges::role(catalog, group_name)?.oid;
        for member_name in &s.grantees {
            let member = privileges::role(catalog, member_name)?.oid;
            if !s.revoke && privileges::inherited(&draft, group).contains(&member) {
                return Err(circle(group_name, member_name));
            }
            let Some(role) = draft.roles.iter_mut().find(|r| r.oid == member) else {
                continue;
            };
            let is_member = role.member_of.contains(&group);
            if is_member != s.revoke {
                continue;
            }
            match s.revoke {
                true => role.member_of.retain(|oid| *oid != group),
                false => role.member_of.push(group),
            }
            changed.insert(member);
        }
    }
    let changed = draft.roles.into_iter().filter(|r| changed.contains(&r.oid));
    Ok(changed.map(Change::PutRole).collect())
}
