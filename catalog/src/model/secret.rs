//! Secrets: keys that functions use and users never see.

use super::Oid;

/// A named key. `CREATE SECRET k TYPE tokenization` makes 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Identity.
    pub oid: Oid,
    /// Name, unique in the database.
    pub name: String,
    /// What it is for: `tokenization`.
    pub kind: String,
    /// The key bytes.
    pub key: Vec<u8>,
    /// Owning role.
    pub owner: Oid,
    /// Optimistic version.
    pub version: i64,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("key", &"***")
            .finish_non_exhaustive()
    }
}
