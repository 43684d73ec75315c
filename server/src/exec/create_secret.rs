//! `CREATE SECRET`: a random key that functions use and nobody sees. The key is made here and leaves
//! the catalog only into functions whose caller has USAGE on it.
//!
//! Secrets lie in no schema; who owns the schema `public` (and superusers) may make them.

use catalog::{Change, Secret};
use rand::RngCore;

use super::{Outcome, Run};
use crate::dialect::CreateSecret;
use crate::engine::scope::DEFAULT_SCHEMA;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

const KEY_BYTES: usize = 32;

/// Makes a secret.
pub(super) async fn execute(run: &Run, s: &CreateSecret) -> Result<Outcome> {
    if s.kind != "tokenization" {
        return Err(Error::unsupported(
            format!("secret type \"{}\" is not supported", s.kind),
            "use CREATE SECRET … TYPE tokenization",
        ));
    }
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let caller = privileges::role(&catalog, &run.scope.caller.role)?;
    let owns_public = catalog
        .schema(DEFAULT_SCHEMA)
        .is_some_and(|p| privileges::owns(&catalog, &caller.name, p.owner));
    if !owns_public {
        privileges::check_superuser(&catalog, &caller.name, "create secrets")?;
    }
    if catalog.secret(&s.name).is_some() {
        return match s.if_not_exists {
            true => Outcome::command("CREATE SECRET"),
            false => Err(Error::refused(
                SqlState::DUPLICATE_OBJECT,
                format!("secret \"{}\" already exists", s.name),
            )),
        };
    }
    let mut key = vec![0; KEY_BYTES];
    rand::rng().fill_bytes(&mut key);
    let secret = Secret {
        oid: engine.allocate_oid().await?,
        name: s.name.clone(),
        kind: s.kind.clone(),
        key,
        owner: caller.oid,
        version: 0,
    };
    engine.commit(vec![Change::PutSecret(secret)]).await?;
    run.session()?
        .with_transaction(|t| t.note_write("CREATE SECRET"));
    Outcome::command("CREATE SECRET")
}
