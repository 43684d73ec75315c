//! What a role may see and do, by ownership, grants and membership. Default is nothing.

use std::collections::HashSet;

use catalog::{Grant, Model, ObjectKind, Oid, Privilege, Relation, Role, Schema, Snapshot};

/// The privileges of one role in one snapshot.
#[derive(Debug)]
pub(super) struct Access<'a> {
    catalog: &'a Snapshot,
    superuser: bool,
    /// The role and all it is a member of, directly or not.
    roles: HashSet<Oid>,
    /// Schemas of temporary tables that belong to other sessions.
    foreign: HashSet<Oid>,
}

impl<'a> Access<'a> {
    /// A role that does not exist may see nothing.
    pub(super) fn new(catalog: &'a Snapshot, role: &str) -> Self {
        let mut roles = HashSet::new();
        let mut next: Vec<&Role> = catalog.role(role).into_iter().collect();
        let superuser = next.first().is_some_and(|r| r.superuser);
        while let Some(role) = next.pop() {
            if roles.insert(role.oid) {
                next.extend(
                    role.member_of
                        .iter()
                        .filter_map(|o| catalog.role_by_oid(*o)),
                );
            }
        }
        let temporary = catalog.schemas.iter().filter(|s| s.is_temporary());
        Self {
            catalog,
            superuser,
            roles,
            foreign: temporary.map(|s| s.oid).collect(),
        }
    }

    /// The same for a session, which sees its own temporary tables.
    pub(super) fn of_session(mut self, temporary: Option<&str>) -> Self {
        if let Some(own) = temporary.and_then(|name| self.catalog.schema(name)) {
            self.foreign.remove(&own.oid);
        }
        self
    }

    pub(super) fn superuser(&self) -> bool {
        self.superuser
    }

    /// Is or inherits that role.
    pub(super) fn is_member(&self, role: Oid) -> bool {
        self.superuser || self.roles.contains(&role)
    }

    /// Owns the object or was granted anything on it.
    pub(super) fn sees(&self, kind: ObjectKind, object: Oid, owner: Oid) -> bool {
        self.is_member(owner) || self.grants(kind, object).next().is_some()
    }

    pub(super) fn sees_relation(&self, relation: &Relation) -> bool {
        !self.foreign.contains(&relation.schema)
            && self.sees(ObjectKind::Relation, relation.oid, relation.owner)
    }

    pub(super) fn sees_model(&self, model: &Model) -> bool {
        self.sees(ObjectKind::Model, model.oid, model.owner)
    }

    /// `public`, its own, granted ones, and those that hold something it sees; of the schemas of
    /// temporary tables, the session's.
    pub(super) fn sees_schema(&self, schema: &Schema) -> bool {
        if schema.is_temporary() {
            return !self.foreign.contains(&schema.oid);
        }
        schema.name == "public"
            || self.sees(ObjectKind::Schema, schema.oid, schema.owner)
            || self
                .catalog
                .relations
                .iter()
                .any(|r| r.schema == schema.oid && self.sees_relation(r))
    }

    /// Itself, its groups, and the owners of what it sees.
    pub(super) fn sees_role(&self, role: &Role) -> bool {
        self.is_member(role.oid)
            || self
                .catalog
                .schemas
                .iter()
                .any(|s| s.owner == role.oid && self.sees_schema(s))
            || self
                .catalog
                .relations
                .iter()
                .any(|r| r.owner == role.oid && self.sees_relation(r))
            || self
                .catalog
                .models
                .iter()
                .any(|m| m.owner == role.oid && self.sees_model(m))
    }

    /// May be shown: given to it, given by it, or on something it owns.
    pub(super) fn sees_grant(&self, grant: &Grant) -> bool {
        let owner = match grant.object_kind {
            ObjectKind::Relation => self.catalog.relation_by_oid(grant.object).map(|r| r.owner),
            ObjectKind::Schema => self.catalog.schema_by_oid(grant.object).map(|s| s.owner),
            ObjectKind::Model => by_oid(&self.catalog.models, grant.object, |m| (m.oid, m.owner)),
            ObjectKind::Secret => by_oid(&self.catalog.secrets, grant.object, |s| (s.oid, s.owner)),
            ObjectKind::Role => None,
        };
        self.superuser
            || self.holds(grant)
            || self.is_member(grant.grantor)
            || owner.is_some_and(|o| self.is_member(o))
    }

    /// Has the privilege on the whole object.
    pub(super) fn may(
        &self,
        kind: ObjectKind,
        object: Oid,
        owner: Oid,
        privilege: Privilege,
        with_option: bool,
    ) -> bool {
        self.is_member(owner)
            || self.grants(kind, object).any(|g| {
                g.privilege == privilege && g.column.is_none() && (g.grant_option || !with_option)
            })
    }

    /// Has the privilege on that column, or on the whole relation.
    pub(super) fn may_column(
        &self,
        relation: &Relation,
        column: &str,
        privilege: Privilege,
        with_option: bool,
    ) -> bool {
        self.is_member(relation.owner)
            || self.grants(ObjectKind::Relation, relation.oid).any(|g| {
                g.privilege == privilege
                    && g.column.as_deref().is_none_or(|c| c == column)
                    && (g.grant_option || !with_option)
            })
    }

    fn grants(&self, kind: ObjectKind, object: Oid) -> impl Iterator<Item = &'a Grant> {
        self.catalog
            .grants
            .iter()
            .filter(move |g| g.object_kind == kind && g.object == object && self.holds(g))
    }

    fn holds(&self, grant: &Grant) -> bool {
        grant.grantee.is_none_or(|g| self.roles.contains(&g))
    }
}

fn by_oid<T>(items: &[T], oid: Oid, key: fn(&T) -> (Oid, Oid)) -> Option<Oid> {
    items
        .iter()
        .map(key)
        .find(|(o, _)| *o == oid)
        .map(|(_, owner)| owner)
}
