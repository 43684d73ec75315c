//! What a transaction block means here.
//!
//! A statement is its own transaction: it is durable and visible when it returns, inside a block too.
//! So a block with reads is what clients expect; a block with one write or several is committed
//! statement by statement, and `ROLLBACK` after a write is refused instead of pretending.

use datafusion::sql::sqlparser::ast::Statement as Ast;

use super::TransactionStatus;
use crate::dialect::{Kind, Statement};
use crate::error::{Error, Result, SqlState};

/// A session's transaction block.
#[derive(Debug, Default)]
pub struct Transaction {
    open: bool,
    failed: bool,
    read_only: bool,
    wrote: Option<&'static str>,
}

impl Transaction {
    /// Where it stands.
    pub fn status(&self) -> TransactionStatus {
        match (self.open, self.failed) {
            (false, _) => TransactionStatus::Idle,
            (true, false) => TransactionStatus::Open,
            (true, true) => TransactionStatus::Failed,
        }
    }

    /// `BEGIN`; a second one changes nothing, as in PostgreSQL.
    pub fn begin(&mut self, read_only: bool) {
        if !self.open {
            *self = Self {
                open: true,
                read_only,
                ..Self::default()
            };
        }
    }

    /// `COMMIT`: the tag to answer with.
    pub fn commit(&mut self) -> &'static str {
        let failed = self.failed;
        *self = Self::default();
        if failed { "ROLLBACK" } else { "COMMIT" }
    }

    /// `ROLLBACK`. The block ends in any case.
    ///
    /// # Errors
    /// 0A000 when a statement of the block has written: that stays.
    pub fn rollback(&mut self) -> Result<()> {
        match std::mem::take(self).wrote {
            None => Ok(()),
            Some(command) => Err(Error::unsupported(
                format!("cannot roll back {command}: it was committed when it returned"),
                "the transaction block has ended; run writes outside of transaction blocks",
            )),
        }
    }

    /// Notes that a statement of the block has written.
    pub fn note_write(&mut self, command: &'static str) {
        if self.open {
            self.wrote.get_or_insert(command);
        }
    }

    /// Notes that a statement failed.
    pub fn fail(&mut self) {
        self.failed = self.open;
    }

    /// Refuses what may not run now.
    ///
    /// # Errors
    /// 25P02 in a failed block, 25006 for a write in a read-only one.
    pub fn check(&self, statement: &Statement) -> Result<()> {
        let ends = matches!(
            &statement.kind,
            Kind::Native(n) if matches!(**n, Ast::Rollback { .. } | Ast::Commit { .. })
        );
        if self.failed && !ends {
            return Err(Error::refused(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        if self.open && self.read_only && crate::exec::writes(statement) {
            return Err(Error::refused(
                SqlState::READ_ONLY_SQL_TRANSACTION,
                format!(
                    "cannot execute {} in a read-only transaction",
                    crate::exec::command(statement)
                ),
            ));
        }
        Ok(())
    }
}
