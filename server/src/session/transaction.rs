//! What a transaction block means here.
//!
//! A statement is its own transaction: it is durable and visible when it returns, inside a block too.
//! So a block with reads is what clients expect; a block with one write or several is committed
//! statement by statement, and `ROLLBACK` after a write is refused instead of pretending. A savepoint
//! is the same in small: going back to it heals a failed block, and is refused once something has been
//! written after it.

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
    /// Commands that wrote, in order.
    wrote: Vec<&'static str>,
    /// Names, and how many commands had written when each was made.
    savepoints: Vec<(String, usize)>,
}

/// Savepoints that a block may hold.
const SAVEPOINTS: usize = 1024;

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
        match std::mem::take(self).wrote.first() {
            None => Ok(()),
            Some(command) => Err(Error::unsupported(
                format!("cannot roll back {command}: it was committed when it returned"),
                "the transaction block has ended; run writes outside of transaction blocks",
            )),
        }
    }

    /// `SAVEPOINT name`.
    ///
    /// # Errors
    /// 25P01 outside a block, 53400 for too many.
    pub fn savepoint(&mut self, name: String) -> Result<()> {
        self.in_block("SAVEPOINT")?;
        if self.savepoints.len() >= SAVEPOINTS {
            return Err(Error::refused(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!("a transaction block holds at most {SAVEPOINTS} savepoints"),
            ));
        }
        self.savepoints.push((name, self.wrote.len()));
        Ok(())
    }

    /// `RELEASE SAVEPOINT name`: forgets it and those after it.
    ///
    /// # Errors
    /// 25P01 outside a block, 3B001 when there is none of that name.
    pub fn release(&mut self, name: &str) -> Result<()> {
        self.in_block("RELEASE SAVEPOINT")?;
        let at = self.find(name)?;
        self.savepoints.truncate(at);
        Ok(())
    }

    /// `ROLLBACK TO SAVEPOINT name`: a failed block goes on; the savepoint stays.
    ///
    /// # Errors
    /// 25P01 outside a block, 3B001 when there is none of that name, 0A000 when a statement after it
    /// has written: that stays.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        self.in_block("ROLLBACK TO SAVEPOINT")?;
        let at = self.find(name)?;
        if let Some(command) = self.wrote.get(self.savepoints[at].1) {
            return Err(Error::unsupported(
                format!("cannot roll back {command}: it was committed when it returned"),
                "run writes outside of transaction blocks",
            ));
        }
        self.savepoints.truncate(at + 1);
        self.failed = false;
        Ok(())
    }

    fn in_block(&self, command: &str) -> Result<()> {
        match self.open {
            true => Ok(()),
            false => Err(Error::refused(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                format!("{command} can only be used in transaction blocks"),
            )),
        }
    }

    /// The newest savepoint of that name.
    fn find(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|(n, _)| n == name);
        found.ok_or_else(|| {
            Error::refused(
                SqlState("3B001"),
                format!("savepoint \"{name}\" does not exist"),
            )
        })
    }

    /// Notes that a statement of the block has written.
    pub fn note_write(&mut self, command: &'static str) {
        if self.open {
            self.wrote.push(command);
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
