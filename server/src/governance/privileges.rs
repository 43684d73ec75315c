//! May this role do that to this object: owner, superuser, or a grant to the role, to a role it is a
//! member of, or to everybody. Everything else is denied.

use catalog::{ObjectKind, Oid, Privilege, Relation, Role, Snapshot};

use crate::error::{Error, Result, SqlState};

/// The role and all roles whose privileges it inherits.
pub fn inherited(catalog: &Snapshot, role: Oid) -> Vec<Oid> {
    let mut all = vec![role];
    let mut at = 0;
    while let Some(oid) = all.get(at).copied() {
        at += 1;
        for parent in catalog
            .role_by_oid(oid)
            .map(|r| r.member_of.as_slice())
            .unwrap_or_default()
        {
            if !all.contains(parent) {
                all.push(*parent);
            }
        }
    }
    all
}

/// The role of that name.
///
/// # Errors
/// 42704 when there is none.
pub fn role<'a>(catalog: &'a Snapshot, name: &str) -> Result<&'a Role> {
    catalog.role(name).ok_or_else(|| {
        Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("role \"{name}\" does not exist"),
        )
    })
}

/// True when the role owns the object, inherits from its owner, or is a superuser.
pub fn owns(catalog: &Snapshot, role: &str, owner: Oid) -> bool {
    let Some(role) = catalog.role(role) else {
        return false;
    };
    let all = inherited(catalog, role.oid);
    all.contains(&owner)
        || all
            .iter()
            .any(|oid| catalog.role_by_oid(*oid).is_some_and(|r| r.superuser))
}

/// True when the role holds the privilege on the object.
pub fn allowed(
    catalog: &Snapshot,
    role: &str,
    (kind, object, owner): (ObjectKind, Oid, Oid),
    privilege: Privilege,
) -> bool {
    if owns(catalog, role, owner) {
        return true;
    }
    let Some(role) = catalog.role(role) else {
        return false;
    };
    let all = inherited(catalog, role.oid);
    catalog.grants.iter().any(|g| {
        g.object_kind == kind
            && g.object == object
            && g.privilege == privilege
            && g.column.is_none()
            && g.grantee.is_none_or(|grantee| all.contains(&grantee))
    })
}

/// Refuses (42501) a role without the privilege on a relation, or without USAGE on its schema.
pub fn check_relation(
    catalog: &Snapshot,
    role: &str,
    relation: &Relation,
    privilege: Privilege,
) -> Result<()> {
    check_schema(catalog, role, relation.schema, Privilege::Usage)?;
    match allowed(
        catalog,
        role,
        (ObjectKind::Relation, relation.oid, relation.owner),
        privilege,
    ) {
        true => Ok(()),
        false => Err(Error::denied("table", &relation.name)),
    }
}

/// Refuses (42501) a role that does not own a relation.
pub fn check_owner(catalog: &Snapshot, role: &str, relation: &Relation) -> Result<()> {
    match owns(catalog, role, relation.owner) {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("must be owner of relation \"{}\"", relation.name),
        )),
    }
}

/// Refuses (42501) a role without the privilege on a schema. Everybody may look into `public`, and do
/// anything in a schema of temporary tables: no session can name that of another.
pub fn check_schema(
    catalog: &Snapshot,
    role: &str,
    schema: Oid,
    privilege: Privilege,
) -> Result<()> {
    let Some(schema) = catalog.schema_by_oid(schema) else {
        return Err(Error::Internal(format!("schema {schema} is gone")));
    };
    let open = schema.is_temporary() || (schema.name == "public" && privilege == Privilege::Usage);
    match open
        || allowed(
            catalog,
            role,
            (ObjectKind::Schema, schema.oid, schema.owner),
            privilege,
        ) {
        true => Ok(()),
        false => Err(Error::denied("schema", &schema.name)),
    }
}

/// Refuses (42501) a role that is no superuser.
pub fn check_superuser(catalog: &Snapshot, role: &str, what: &str) -> Result<()> {
    let superuser = catalog.role(role).is_some_and(|r| {
        inherited(catalog, r.oid)
            .iter()
            .any(|oid| catalog.role_by_oid(*oid).is_some_and(|r| r.superuser))
    });
    match superuser {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied to {what}"),
        )
        .with_detail("only superusers may do that")),
    }
}
