//! What a transaction block means here.
//!
//! Rows of an INSERT, and whatever changes the rows of an ordinary table, are held until the block ends:
//! `COMMIT` stores what concerns a table in one commit, `ROLLBACK` forgets it, and only the block itself reads
//! it before. Every other write is its own transaction, durable and visible when it returns, inside a block
//! too; what was held before it is committed then. `ROLLBACK` after such a write is refused instead of
//! pretending. A savepoint is the same in small: going back to it heals a failed block and forgets what came
//! after it, and is refused once something has been committed after it.
//!
//! What a client sends in one go, several statements of one text or messages up to a Sync, is a block
//! without `BEGIN` as far as INSERTs go: it ends with its last statement.

use datafusion::sql::sqlparser::ast::Statement as Ast;

use super::TransactionStatus;
use super::held::Held;
use crate::dialect::{Kind, Statement};
use crate::error::{Error, Result, SqlState};

/// A session's transaction block.
#[derive(Debug, Default)]
pub struct Transaction {
    open: bool,
    failed: bool,
    read_only: bool,
    /// One without `BEGIN`, as long as the client sends in one go.
    implicit: bool,
    held: Held,
    /// Commands that wrote, in order.
    wrote: Vec<&'static str>,
    savepoints: Vec<Savepoint>,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    /// How many commands had written.
    wrote: usize,
    /// How far rows were held.
    held: usize,
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
            // rows that came before it in one go with it are its own
            let held = std::mem::take(&mut self.held);
            *self = Self {
                open: true,
                read_only,
                implicit: self.implicit,
                held,
                ..Self::default()
            };
        }
    }

    /// A client has begun to send in one go.
    pub fn begin_implicit(&mut self) {
        self.implicit = true;
    }

    /// It has sent all. True when the block without `BEGIN` is to be committed.
    pub fn end_implicit(&mut self) -> bool {
        self.implicit = false;
        !self.open && !self.held.is_empty()
    }

    /// Inside a block that `BEGIN` began.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether rows of an INSERT are held until the end of a block.
    pub fn holds_rows(&self) -> bool {
        self.open || self.implicit
    }

    /// The rows that are held.
    pub(crate) fn held(&mut self) -> &mut Held {
        &mut self.held
    }

    /// `COMMIT`: the tag to answer with, and the rows to be stored.
    pub(crate) fn commit(&mut self) -> (&'static str, Held) {
        let ended = self.end();
        match ended.failed {
            true => ("ROLLBACK", Held::default()),
            false => ("COMMIT", ended.held),
        }
    }

    /// What a client sends in one go may go on after the end of a block.
    fn end(&mut self) -> Self {
        let implicit = self.implicit;
        std::mem::replace(
            self,
            Self {
                implicit,
                ..Self::default()
            },
        )
    }

    /// `ROLLBACK`. The block ends in any case.
    ///
    /// # Errors
    /// 0A000 when a statement of the block has committed: that stays.
    pub fn rollback(&mut self) -> Result<()> {
        match self.end().wrote.first() {
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
        self.savepoints.push(Savepoint {
            name,
            wrote: self.wrote.len(),
            held: self.held.seal(),
        });
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
    /// has committed: that stays.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        self.in_block("ROLLBACK TO SAVEPOINT")?;
        let at = self.find(name)?;
        let Savepoint { wrote, held, .. } = self.savepoints[at];
        if let Some(command) = self.wrote.get(wrote) {
            return Err(Error::unsupported(
                format!("cannot roll back {command}: it was committed when it returned"),
                "run writes outside of transaction blocks",
            ));
        }
        self.savepoints.truncate(at + 1);
        self.held.truncate(held);
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
        let found = self.savepoints.iter().rposition(|s| s.name == name);
        found.ok_or_else(|| {
            Error::refused(
                SqlState("3B001"),
                format!("savepoint \"{name}\" does not exist"),
            )
        })
    }

    /// Notes that a statement of the block has committed.
    pub fn note_write(&mut self, command: &'static str) {
        if self.open {
            self.wrote.push(command);
        }
    }

    /// Notes that a statement failed. A block without `BEGIN` ends with it.
    pub fn fail(&mut self) {
        self.failed = self.open;
        if !self.open {
            self.held = Held::default();
        }
    }

    /// Refuses anything in a failed block.
    ///
    /// # Errors
    /// 25P02.
    pub fn check_failed(&self) -> Result<()> {
        match self.failed {
            false => Ok(()),
            true => Err(Error::refused(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
        }
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
        if !ends {
            self.check_failed()?;
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
