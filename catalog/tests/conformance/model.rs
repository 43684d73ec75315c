//! Random transactions, run on a store and on a naive catalog in memory.

use catalog::{
    CatalogError, Change, Grant, ObjectKind, Oid, Privilege, Relation, Role, Snapshot, Store,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::suite::{role, table};

/// One step of a random transaction. Small numbers stand for oids, names and versions, so that
/// steps often meet.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put {
        oid: u32,
        name: u8,
        version: i64,
        reads: Option<u32>,
    },
    PutRole {
        oid: u32,
        name: u8,
        version: i64,
    },
    Drop {
        oid: u32,
        version: i64,
    },
    DropRole {
        oid: u32,
        version: i64,
    },
    Grant {
        object: u32,
        grantee: Option<u32>,
    },
    Revoke {
        object: u32,
        grantee: Option<u32>,
    },
}

/// Sequences of transactions.
pub(crate) fn transactions() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        4 => (0..4u32, 0..3u8, 0..3i64, prop::option::of(0..4u32))
            .prop_map(|(oid, name, version, reads)| Step::Put { oid, name, version, reads }),
        2 => (0..3u32, 0..3u8, 0..3i64)
            .prop_map(|(oid, name, version)| Step::PutRole { oid, name, version }),
        2 => (0..4u32, 1..4i64).prop_map(|(oid, version)| Step::Drop { oid, version }),
        1 => (0..3u32, 1..4i64).prop_map(|(oid, version)| Step::DropRole { oid, version }),
        2 => (0..4u32, prop::option::of(0..3u32))
            .prop_map(|(object, grantee)| Step::Grant { object, grantee }),
        1 => (0..4u32, prop::option::of(0..3u32))
            .prop_map(|(object, grantee)| Step::Revoke { object, grantee }),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..4), 1..12)
}

/// Runs the transactions on both and compares answers and states.
pub(crate) async fn compare(
    store: &dyn Store,
    transactions: &[Vec<Step>],
) -> Result<(), TestCaseError> {
    let mut model = (*store.load().await.unwrap()).clone();
    for steps in transactions {
        let changes: Vec<Change> = steps.iter().map(change).collect();
        let mut next = model.clone();
        let expected = changes.iter().try_for_each(|c| naive(&mut next, c));
        let got = store.commit(changes).await;
        match (&expected, &got) {
            (Ok(()), Ok(state)) => {
                next.generation += 1;
                prop_assert_eq!(state.generation, next.generation);
                model = next;
            }
            (Err(want), Err(got)) => prop_assert_eq!(*want, kind(got)),
            (want, got) => prop_assert!(false, "model {:?}, store {:?}", want, got),
        }
        let state = store.load().await.unwrap();
        prop_assert_eq!(&state.roles, &sorted(&model.roles, |r| r.oid));
        prop_assert_eq!(&state.relations, &sorted(&model.relations, |r| r.oid));
        prop_assert_eq!(state.grants.len(), model.grants.len());
        prop_assert!(state.grants.iter().all(|g| model.grants.contains(g)));
    }
    Ok(())
}

fn sorted<T: Clone>(items: &[T], key: fn(&T) -> Oid) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort_by_key(key);
    items
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Exists,
    Missing,
    Changed,
    Dependents,
    Broken,
}

fn kind(e: &CatalogError) -> Refusal {
    match e {
        CatalogError::AlreadyExists { .. } => Refusal::Exists,
        CatalogError::NotFound { .. } => Refusal::Missing,
        CatalogError::ConcurrentModification { .. } => Refusal::Changed,
        CatalogError::DependentObjects { .. } => Refusal::Dependents,
        CatalogError::Corrupt { .. } | CatalogError::Store { .. } | CatalogError::Migration(_) => {
            Refusal::Broken
        }
    }
}

fn relation_oid(n: u32) -> Oid {
    Oid(20_000 + n)
}

fn role_oid(n: u32) -> Oid {
    Oid(30_000 + n)
}

fn grant(object: u32, grantee: Option<u32>) -> Grant {
    Grant {
        object_kind: ObjectKind::Relation,
        object: relation_oid(object),
        column: None,
        privilege: Privilege::Select,
        grantee: grantee.map(role_oid),
        grantor: Oid(10),
        grant_option: false,
    }
}

fn change(step: &Step) -> Change {
    match *step {
        Step::Put {
            oid,
            name,
            version,
            reads,
        } => {
            let reads: Vec<Oid> = reads.into_iter().map(relation_oid).collect();
            let mut relation = table(relation_oid(oid), &format!("t{name}"), &reads);
            relation.version = version;
            Change::PutRelation(relation)
        }
        Step::PutRole { oid, name, version } => {
            let mut role = role(role_oid(oid), &format!("r{name}"));
            role.version = version;
            Change::PutRole(role)
        }
        Step::Drop { oid, version } => Change::Drop {
            kind: ObjectKind::Relation,
            oid: relation_oid(oid),
            version,
        },
        Step::DropRole { oid, version } => Change::Drop {
            kind: ObjectKind::Role,
            oid: role_oid(oid),
            version,
        },
        Step::Grant { object, grantee } => Change::AddGrant(grant(object, grantee)),
        Step::Revoke { object, grantee } => Change::RemoveGrant(grant(object, grantee)),
    }
}

/// The rules once more, without SQL.
fn naive(state: &mut Snapshot, change: &Change) -> Result<(), Refusal> {
    match change {
        Change::PutRelation(relation) => put_relation(state, relation),
        Change::PutRole(role) => put_role(state, role),
        Change::Drop {
            kind: ObjectKind::Relation,
            oid,
            version,
        } => {
            let found = state.relation_by_oid(*oid).ok_or(Refusal::Missing)?;
            if found.version != *version {
                return Err(Refusal::Changed);
            }
            let reads = |r: &Relation| r.oid != *oid && r.depends_on.contains(oid);
            if state.relations.iter().any(reads) {
                return Err(Refusal::Dependents);
            }
            state.relations.retain(|r| r.oid != *oid);
            state.grants.retain(|g| g.object != *oid);
            Ok(())
        }
        Change::Drop { oid, version, .. } => {
            let found = state.role_by_oid(*oid).ok_or(Refusal::Missing)?;
            if found.version != *version {
                return Err(Refusal::Changed);
            }
            state.roles.retain(|r| r.oid != *oid);
            state.grants.retain(|g| g.grantee != Some(*oid));
            Ok(())
        }
        Change::AddGrant(grant) => {
            state
                .relation_by_oid(grant.object)
                .ok_or(Refusal::Missing)?;
            if grant
                .grantee
                .is_some_and(|g| state.role_by_oid(g).is_none())
            {
                return Err(Refusal::Changed);
            }
            if !state.grants.contains(grant) {
                state.grants.push(grant.clone());
            }
            Ok(())
        }
        Change::RemoveGrant(grant) => {
            state.grants.retain(|g| g != grant);
            Ok(())
        }
        other => panic!("no step makes {other:?}"),
    }
}

fn put_relation(state: &mut Snapshot, relation: &Relation) -> Result<(), Refusal> {
    let gone = |o: &Oid| *o != relation.oid && state.relation_by_oid(*o).is_none();
    if relation.depends_on.iter().any(gone) {
        return Err(Refusal::Changed);
    }
    let old = state.relation_by_oid(relation.oid).map(|r| r.version);
    let taken = state
        .relation("public", &relation.name)
        .is_some_and(|r| r.oid != relation.oid);
    may_put(old, relation.version, taken)?;
    state.relations.retain(|r| r.oid != relation.oid);
    state.relations.push(Relation {
        version: relation.version + 1,
        ..relation.clone()
    });
    Ok(())
}

fn put_role(state: &mut Snapshot, role: &Role) -> Result<(), Refusal> {
    let old = state.role_by_oid(role.oid).map(|r| r.version);
    let taken = state.role(&role.name).is_some_and(|r| r.oid != role.oid);
    may_put(old, role.version, taken)?;
    state.roles.retain(|r| r.oid != role.oid);
    state.roles.push(Role {
        version: role.version + 1,
        ..role.clone()
    });
    Ok(())
}

fn may_put(old: Option<i64>, version: i64, taken: bool) -> Result<(), Refusal> {
    match (version, old) {
        (0, Some(_)) => Err(Refusal::Exists),
        (v, Some(old)) if v != old => Err(Refusal::Changed),
        (v, None) if v != 0 => Err(Refusal::Missing),
        _ if taken => Err(Refusal::Exists),
        _ => Ok(()),
    }
}
