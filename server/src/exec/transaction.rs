//! `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`. What a block means is written at [`crate::session::transaction`].

use datafusion::sql::sqlparser::ast::{Statement as Ast, TransactionAccessMode, TransactionMode};

use super::{Outcome, Run};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::error::{Error, Result};

/// Begins or ends a block.
pub(super) fn execute(run: &Run, statement: &Ast) -> Result<Outcome> {
    let session = run.session()?;
    match statement {
        Ast::StartTransaction {
            modes,
            modifier,
            statements,
            exception,
            ..
        } => {
            let extra = modifier.is_some() || !statements.is_empty() || exception.is_some();
            clause(extra, "this form of BEGIN", "use BEGIN [READ ONLY]")?;
            let read_only = modes.contains(&TransactionMode::AccessMode(
                TransactionAccessMode::ReadOnly,
            ));
            session.with_transaction(|t| t.begin(read_only));
            Outcome::command("BEGIN")
        }
        Ast::Commit {
            chain, modifier, ..
        } => {
            clause(
                *chain || modifier.is_some(),
                "COMMIT AND CHAIN",
                "use COMMIT and BEGIN",
            )?;
            session.with_named(|named| named.end_transaction());
            Outcome::command(session.with_transaction(|t| t.commit()))
        }
        Ast::Rollback { chain, savepoint } => {
            clause(*chain, "ROLLBACK AND CHAIN", "use ROLLBACK and BEGIN")?;
            if let Some(name) = savepoint {
                session.with_transaction(|t| t.rollback_to(&fold(name)))?;
                return Outcome::command("ROLLBACK");
            }
            session.with_named(|named| named.end_transaction());
            session.with_transaction(|t| t.rollback())?;
            Outcome::command("ROLLBACK")
        }
        Ast::Savepoint { name } => {
            session.with_transaction(|t| t.savepoint(fold(name)))?;
            Outcome::command("SAVEPOINT")
        }
        Ast::ReleaseSavepoint { name } => {
            session.with_transaction(|t| t.release(&fold(name)))?;
            Outcome::command("RELEASE")
        }
        _ => Err(Error::Internal("not a transaction statement".to_owned())),
    }
}
