//! Roles: who may log in and what they inherit.

use super::Oid;

/// A role, as in PostgreSQL: a user when it may log in, a group when others are members of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Role {
    /// Identity.
    pub oid: Oid,
    /// Name, as stored (folded to lower case unless quoted when made).
    pub name: String,
    /// May open a session.
    pub login: bool,
    /// Passes every privilege check.
    pub superuser: bool,
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`; `None` cannot log in by password.
    pub scram_verifier: Option<String>,
    /// Roles whose privileges this one inherits.
    pub member_of: Vec<Oid>,
    /// Optimistic version.
    pub version: i64,
}

// The verifier is as good as a password hash: it never reaches a log.
impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Role")
            .field("oid", &self.oid)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
