//! `ALTER MODEL name SET ALIAS alias = version`: for its owner.

use catalog::{Change, Model, Snapshot};

use super::{Outcome, Run};
use crate::dialect::AlterModel;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// Lets an alias mean another version.
pub(super) async fn execute(run: &Run, s: &AlterModel) -> Result<Outcome> {
    let name = super::create_model::model_name(&s.name)?;
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let mut model = owned(&catalog, &run.scope.caller.role, &name)?.clone();
    if s.alias.is_empty() || s.alias.parse::<i32>().is_ok() {
        return Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("alias \"{}\" would be read as a version number", s.alias),
        ));
    }
    let number = i32::try_from(s.version)
        .ok()
        .filter(|n| catalog.model_version(model.oid, *n).is_some());
    let number = number.ok_or_else(|| {
        Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("version {} of model \"{name}\" does not exist", s.version),
        )
    })?;
    model.aliases.insert(s.alias.clone(), number);
    engine.commit(vec![Change::PutModel(model)]).await?;
    run.session()?
        .with_transaction(|t| t.note_write("ALTER MODEL"));
    Outcome::command("ALTER MODEL")
}

/// The model of that name, which the role must own.
pub(super) fn owned<'a>(catalog: &'a Snapshot, role: &str, name: &str) -> Result<&'a Model> {
    let model = catalog.model(name).ok_or_else(|| {
        Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("model \"{name}\" does not exist"),
        )
    })?;
    match privileges::owns(catalog, role, model.owner) {
        true => Ok(model),
        false => Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("must be owner of model \"{name}\""),
        )),
    }
}
