//! `RETRAIN MODEL name`: the stored query of the current version again, over the data of now, with the
//! owner's rights; the result is a new version and becomes the current one.

use std::sync::Arc;

use super::create_model::{Recipe, changes, learn, model_name};
use super::{Outcome, Run, alter_model};
use crate::dialect;
use crate::dialect::RetrainModel;
use crate::error::{Error, Result, SqlState};

/// Trains the next version.
pub(super) async fn execute(run: &Run, s: &RetrainModel) -> Result<Outcome> {
    let name = model_name(&s.name)?;
    let caller = &run.scope.caller.role;
    let model = alter_model::owned(&run.scope.catalog, caller, &name)?;
    let Some(current) = run.scope.catalog.model_version(model.oid, model.current) else {
        return Err(Error::Internal(format!(
            "model \"{name}\" has no version {}",
            model.current
        )));
    };
    let recipe = Recipe {
        kind: model.kind.clone(),
        options: current.options.clone(),
        query: current.query.clone(),
    };
    let scope = Arc::new(run.scope.definer(model.owner)?);
    let learned = learn(&scope, &recipe, dialect::parse_query(&recipe.query)?).await?;

    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let now = alter_model::owned(&catalog, caller, &name)?;
    if (now.oid, now.current) != (model.oid, model.current) {
        return Err(Error::refused(
            SqlState::SERIALIZATION_FAILURE,
            format!("model \"{name}\" was changed while it was trained"),
        )
        .with_hint("run RETRAIN MODEL again"));
    }
    engine
        .commit(changes(
            &catalog,
            now.clone(),
            recipe,
            learned,
            "RETRAIN MODEL",
        ))
        .await?;
    run.session()?
        .with_transaction(|t| t.note_write("RETRAIN MODEL"));
    Outcome::command("RETRAIN MODEL")
}
