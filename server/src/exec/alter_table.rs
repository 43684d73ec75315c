//! `ALTER TABLE t RENAME TO n`, `ALTER TABLE t OWNER TO role`, `ALTER TABLE t DROP CONSTRAINT c`: changes
//! of the catalog alone. Files keep their folder. `RENAME TO` is in `rename`, `ADD COLUMN` and `ALTER COLUMN`
//! are in `columns`.

mod columns;
mod rename;

pub(super) use columns::widenable;

use std::sync::Arc;

use catalog::{Change, Oid, Privilege, Relation, Snapshot};
use datafusion::sql::sqlparser::ast::{
    AlterTable, AlterTableOperation, Owner, RenameTableNameKind,
};

use super::{Outcome, Run, relations};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// A name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const TAG: &str = "ALTER TABLE";
const KNOWN: &str = "ALTER TABLE knows ADD COLUMN, ALTER COLUMN, RENAME TO, OWNER TO, DROP CONSTRAINT and SET (option = '…')";

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &AlterTable) -> Result<Outcome> {
    clause(s.only, "ONLY", "leave it out")?;
    clause(
        s.location.is_some(),
        "SET LOCATION",
        "create a table and copy the rows",
    )?;
    clause(s.on_cluster.is_some(), "ON CLUSTER", "leave it out")?;
    clause(s.table_type.is_some(), "this form of ALTER TABLE", KNOWN)?;
    let found = match relations::find(&run.scope, &s.name) {
        Ok(found) => found.oid,
        Err(e) if s.if_exists && e.state() == SqlState::UNDEFINED_TABLE => {
            return Outcome::command(TAG);
        }
        Err(e) => return Err(e),
    };
    let scope = &run.scope;
    scope.touch(found);
    if s.operations.iter().all(columns::is_one) {
        columns::execute(scope, found, &s.operations).await?;
        return relations::done(run, TAG);
    }
    let [operation] = s.operations.as_slice() else {
        return Err(Error::unsupported(
            "this combination of actions in one ALTER TABLE is not supported",
            "write one statement for each; ADD COLUMN and ALTER COLUMN go together",
        ));
    };
    match operation {
        AlterTableOperation::RenameTable {
            table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name),
        } => rename::execute(scope, found, name).await?,
        AlterTableOperation::OwnerTo { new_owner } => give(scope, found, new_owner).await?,
        AlterTableOperation::DropConstraint {
            if_exists,
            name,
            // nothing depends on a CHECK
            drop_behavior: _,
        } => drop_check(scope, found, &fold(name), *if_exists).await?,
        other => return Err(refused(other)),
    }
    relations::done(run, TAG)
}

fn refused(operation: &AlterTableOperation) -> Error {
    match operation {
        AlterTableOperation::DropColumn { .. } | AlterTableOperation::RenameColumn { .. } => {
            Error::unsupported(
                "dropping and renaming columns is not supported",
                "leave them out of a view, or copy the rows: CREATE TABLE … AS SELECT …",
            )
        }
        other => Error::unsupported(format!("ALTER TABLE … {other} is not supported"), KNOWN),
    }
}

/// The relation as the newest catalog has it, when the caller may alter it.
fn own<'a>(scope: &Scope, catalog: &'a Snapshot, oid: Oid) -> Result<&'a Relation> {
    let Some(relation) = catalog.relation_by_oid(oid) else {
        return Err(Error::undefined_table(&oid.to_string()));
    };
    privileges::check_owner(catalog, &scope.caller.role, relation)?;
    Ok(relation)
}

async fn give(scope: &Arc<Scope>, oid: Oid, owner: &Owner) -> Result<()> {
    let name = match owner {
        Owner::Ident(name) => fold(name),
        Owner::CurrentRole | Owner::CurrentUser => scope.caller.role.clone(),
        Owner::SessionUser => scope.caller.session_role.clone(),
    };
    let engine = &scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let mut relation = own(scope, &catalog, oid)?.clone();
    let new = privileges::role(&catalog, &name)?;
    // as in PostgreSQL: only to a role one is a member of, which may make objects there
    if !privileges::owns(&catalog, &scope.caller.role, new.oid) {
        return Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("must be able to SET ROLE \"{name}\""),
        ));
    }
    if privileges::check_superuser(&catalog, &scope.caller.role, "").is_err() {
        privileges::check_schema(&catalog, &name, relation.schema, Privilege::Create)?;
    }
    relation.owner = new.oid;
    engine
        .commit(vec![Change::PutRelation(relation)])
        .await
        .map(drop)
}

/// Rows that come from now on need not keep the constraint.
async fn drop_check(scope: &Arc<Scope>, oid: Oid, name: &str, if_exists: bool) -> Result<()> {
    let engine = &scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let mut relation = own(scope, &catalog, oid)?.clone();
    if relation.checks.remove(name).is_none() {
        if if_exists {
            return Ok(());
        }
        return Err(Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!(
                "constraint \"{name}\" of relation \"{}\" does not exist",
                relation.name
            ),
        ));
    }
    engine
        .commit(vec![Change::PutRelation(relation)])
        .await
        .map(drop)
}
