//! Write keys: secrets that let their bearer add rows to one streaming table, and nothing else.
//!
//! The catalog keeps a key's hash, so neither a copy of it nor a listing of options gives the key
//! away.

use std::collections::BTreeMap;

use catalog::{Oid, Relation, Snapshot};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, SqlState};

/// The option that holds a table's key.
pub const OPTION: &str = "segment_write_key";
/// How a hashed key begins.
const HASHED: &str = "sha256:";

/// Puts the hash in the place of the key among a table's options. A key that another table has, as
/// the newest catalog tells, is refused.
///
/// # Errors
/// 22023 for an empty key, 23505 for one that is taken.
pub fn seal(options: &mut BTreeMap<String, String>, table: Oid, catalog: &Snapshot) -> Result<()> {
    let Some(key) = options.get_mut(OPTION) else {
        return Ok(());
    };
    if key.is_empty() || key.contains(':') {
        return Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"{OPTION}\""),
        )
        .with_hint("write a random text without colons"));
    }
    let taken = table_of(catalog, key).filter(|relation| relation.oid != table);
    if let Some(other) = taken {
        return Err(Error::refused(
            SqlState::UNIQUE_VIOLATION,
            format!("the {OPTION} is that of another table"),
        )
        .with_detail(format!("table \"{}\" has it", other.name))
        .with_hint("give each table a key of its own"));
    }
    *key = format!("{HASHED}{}", hash(key));
    Ok(())
}

/// The table that a key opens. Takes as long for any key.
pub fn table_of<'a>(catalog: &'a Snapshot, key: &str) -> Option<&'a Relation> {
    let given = hash(key);
    let mut found = None;
    for relation in &catalog.relations {
        let kept = relation.options.get(OPTION);
        if let Some(kept) = kept.and_then(|kept| kept.strip_prefix(HASHED))
            && same(kept.as_bytes(), given.as_bytes())
        {
            found = Some(relation);
        }
    }
    found
}

fn hash(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares to the end, wherever the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_as_its_hash() {
        let catalog = Snapshot::default();
        let mut options = BTreeMap::from([(OPTION.to_owned(), "wk".to_owned())]);
        seal(&mut options, Oid(1), &catalog).unwrap();
        assert!(options[OPTION].starts_with(HASHED) && options[OPTION].len() == 71);
        assert!(table_of(&catalog, "wk").is_none());
        assert!(same(b"ab", b"ab") && !same(b"ab", b"ac") && !same(b"ab", b"abc"));
        let mut none = BTreeMap::from([(OPTION.to_owned(), String::new())]);
        assert!(seal(&mut none, Oid(1), &catalog).is_err());
    }
}
