//! `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`. What a block means is written at [`crate::session::transaction`].

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use catalog::{Change, LineageEdge, Relation};
use datafusion::sql::sqlparser::ast::{Statement as Ast, TransactionAccessMode, TransactionMode};

use super::ingest::{self, Delivery};
use super::{Outcome, Run, token};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::session::Session;
use crate::session::held::Held;

/// Begins or ends a block.
pub(super) async fn execute(run: &Run, statement: &Ast) -> Result<Outcome> {
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
            let (tag, held) = session.with_transaction(|t| t.commit());
            store(&run.scope, &session, held).await?;
            Outcome::command(tag)
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

/// Stores the rows that a block has held, in one commit for each table, in the order in which the block
/// first wrote to them.
///
/// # Errors
/// 40001 when a table is not any more what it was, and what storing reports: none of the rows are stored
/// then, or, where a detail says so, those of the tables it names.
pub(crate) async fn store(scope: &Scope, session: &Session, mut held: Held) -> Result<()> {
    let tables = by_table(scope, &mut held)?;
    if tables.is_empty() {
        return Ok(());
    }
    let mut done: Vec<String> = Vec::new();
    for table in tables {
        let name = table.relation.name.clone();
        if let Err(error) = table.store(scope, session).await {
            return Err(match done.is_empty() {
                true => error,
                false => error.with_detail(format!(
                    "the rows of \"{}\" are committed",
                    done.join("\", \"")
                )),
            });
        }
        done.push(name);
    }
    // the rows of the audit log about the INSERTs are durable before the block is acknowledged
    scope.engine.audit.sync().await;
    Ok(())
}

/// What a block brought for one table.
struct Rows<'a> {
    relation: &'a Relation,
    rows: Vec<RecordBatch>,
    lineage: Vec<LineageEdge>,
}

fn by_table<'a>(scope: &'a Scope, held: &mut Held) -> Result<Vec<Rows<'a>>> {
    let mut tables: Vec<Rows<'_>> = Vec::new();
    for insert in held.take() {
        let then = &insert.relation;
        let now = scope.catalog.relation_by_oid(then.oid);
        let Some(relation) = now.filter(|now| now.columns == then.columns) else {
            return Err(Error::refused(
                SqlState("40001"),
                format!("table \"{}\" was changed during the transaction", then.name),
            )
            .with_hint("run the transaction again"));
        };
        let same = tables.iter_mut().find(|t| t.relation.oid == relation.oid);
        match same {
            Some(table) => {
                table.rows.extend(insert.rows);
                table.lineage.extend(insert.lineage);
            }
            None => tables.push(Rows {
                relation,
                rows: insert.rows,
                lineage: insert.lineage,
            }),
        }
    }
    Ok(tables)
}

impl Rows<'_> {
    async fn store(self, scope: &Scope, session: &Session) -> Result<()> {
        let rows = match self.rows.first().map(RecordBatch::schema) {
            Some(schema) => vec![concat_batches(&schema, &self.rows)?],
            None => Vec::new(),
        };
        let delivery = Delivery::by("insert");
        let letters = crate::stream::letters::Letters::default();
        let stored = ingest::append(scope, self.relation, rows, letters, delivery).await?;
        session.with_settings(|s| s.set_last_token(&token::of(stored.lsn)));
        if !self.lineage.is_empty() {
            let change = Change::AddLineage(self.lineage);
            scope.engine.commit(vec![change]).await?;
        }
        Ok(())
    }
}
