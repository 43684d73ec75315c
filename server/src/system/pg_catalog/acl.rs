//! Access lists in PostgreSQL's notation: `analyst=r/weir`.

use catalog::{Grant, ObjectKind, Oid, Privilege};

use crate::system::SystemContext;

/// The access list of an object, or `None` when nothing was granted on it.
pub(super) fn object_acl(
    cx: &SystemContext,
    kind: ObjectKind,
    object: Oid,
    owner: Oid,
) -> Option<Vec<String>> {
    let all = match kind {
        ObjectKind::Relation => "arwdD",
        ObjectKind::Schema => "UC",
        ObjectKind::Role | ObjectKind::Model | ObjectKind::Secret => "U",
    };
    let granted = entries(cx, |g| {
        g.object_kind == kind && g.object == object && g.column.is_none()
    });
    let owner = cx.role_name(owner).unwrap_or_default();
    (!granted.is_empty()).then(|| {
        let mut list = vec![format!("{owner}={all}/{owner}")];
        list.extend(granted);
        list
    })
}

/// The access list of one column, or `None`.
pub(super) fn column_acl(cx: &SystemContext, relation: Oid, column: &str) -> Option<Vec<String>> {
    let granted = entries(cx, |g| {
        g.object_kind == ObjectKind::Relation
            && g.object == relation
            && g.column.as_deref() == Some(column)
    });
    (!granted.is_empty()).then_some(granted)
}

/// One entry for each pair of grantee and grantor, in the order they first appear.
fn entries(cx: &SystemContext, wanted: impl Fn(&Grant) -> bool) -> Vec<String> {
    let mut found: Vec<((Option<Oid>, Oid), String)> = Vec::new();
    for grant in cx.catalog.grants.iter().filter(|g| wanted(g)) {
        let key = (grant.grantee, grant.grantor);
        let i = found
            .iter()
            .position(|(k, _)| *k == key)
            .unwrap_or_else(|| {
                found.push((key, String::new()));
                found.len() - 1
            });
        found[i].1.push(letter(grant.privilege));
        if grant.grant_option {
            found[i].1.push('*');
        }
    }
    found
        .into_iter()
        .map(|((grantee, grantor), letters)| {
            let grantee = grantee.and_then(|g| cx.role_name(g)).unwrap_or_default();
            let grantor = cx.role_name(grantor).unwrap_or_default();
            format!("{grantee}={letters}/{grantor}")
        })
        .collect()
}

fn letter(privilege: Privilege) -> char {
    match privilege {
        Privilege::Select => 'r',
        Privilege::Insert => 'a',
        Privilege::Update => 'w',
        Privilege::Delete => 'd',
        Privilege::Truncate => 'D',
        Privilege::Usage => 'U',
        Privilege::Create => 'C',
    }
}
