//! `CREATE SCHEMA [IF NOT EXISTS] s [AUTHORIZATION role]`.

use std::sync::Arc;

use catalog::{Change, Schema};
use datafusion::sql::sqlparser::ast::{ObjectName, SchemaName, Statement};

use super::{Outcome, Run, relations};
use crate::dialect::refuse::clause;
use crate::dialect::words::{fold, parts};
use crate::engine::scope::{DATABASE, Scope};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::system;

const TAG: &str = "CREATE SCHEMA";

/// Runs the statement.
pub(super) async fn execute(run: &Run, statement: &Statement) -> Result<Outcome> {
    let Statement::CreateSchema {
        schema_name,
        if_not_exists,
        with,
        options,
        default_collate_spec,
        clone,
    } = statement
    else {
        return Err(Error::Internal("not CREATE SCHEMA".to_owned()));
    };
    clause(with.is_some(), "WITH of a schema", "leave it out")?;
    clause(options.is_some(), "OPTIONS of a schema", "leave it out")?;
    clause(
        default_collate_spec.is_some(),
        "DEFAULT COLLATE",
        "texts are ordered by their bytes",
    )?;
    clause(
        clone.is_some(),
        "CLONE",
        "create the schema and its tables anew",
    )?;
    let scope = &run.scope;
    privileges::check_superuser(&scope.catalog, &scope.caller.role, "create a schema")?;
    let (name, owner) = match schema_name {
        SchemaName::Simple(name) => (bare(name)?, scope.caller.role.clone()),
        SchemaName::UnnamedAuthorization(role) => (fold(role), fold(role)),
        SchemaName::NamedAuthorization(name, role) => (bare(name)?, fold(role)),
    };
    let owner = privileges::role(&scope.catalog, &owner)?.oid;
    if system::SCHEMAS.contains(&name.as_str()) || name.starts_with("pg_") {
        return Err(Error::refused(
            SqlState("42939"),
            format!("unacceptable schema name \"{name}\""),
        )
        .with_detail("the name belongs to the system"));
    }
    let if_not_exists = *if_not_exists;
    match create(scope, name, owner, if_not_exists).await? {
        true => relations::done(run, TAG),
        false => Outcome::command(TAG),
    }
}

/// True when it was made.
async fn create(
    scope: &Arc<Scope>,
    name: String,
    owner: catalog::Oid,
    if_not_exists: bool,
) -> Result<bool> {
    let engine = &scope.engine;
    let _ddl = engine.ddl().await;
    if engine.catalog().schema(&name).is_some() {
        return match if_not_exists {
            true => Ok(false),
            false => Err(Error::refused(
                SqlState::DUPLICATE_SCHEMA,
                format!("schema \"{name}\" already exists"),
            )),
        };
    }
    let oid = engine.allocate_oid().await?;
    engine
        .commit(vec![Change::PutSchema(Schema {
            oid,
            name,
            owner,
            version: 0,
        })])
        .await?;
    Ok(true)
}

fn bare(name: &ObjectName) -> Result<String> {
    match parts(name).as_slice() {
        [name] => Ok(name.clone()),
        [database, name] if database == DATABASE => Ok(name.clone()),
        [database, _] => Err(Error::refused(
            SqlState::INVALID_CATALOG_NAME,
            format!("database \"{database}\" does not exist"),
        )),
        _ => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "improper schema name",
        )),
    }
}
