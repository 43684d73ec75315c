//! `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`. What a block means is written at [`crate::session::transaction`].

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use catalog::{LineageEdge, Relation};
use datafusion::sql::sqlparser::ast::{Statement as Ast, TransactionAccessMode, TransactionMode};

use super::ingest::{self, Delivery};
use super::{Outcome, Run, rewrite, token};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::lake;
use crate::session::Session;
use crate::session::held::{Change, Held, HeldRewrite};
use crate::stream::head::Lsn;
use crate::stream::letters::Letters;

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

/// Stores what a block has held, in one commit for each table, in the order in which the block first wrote
/// to them.
///
/// # Errors
/// 40001 when a table is not any more what it was, and what storing reports: nothing is stored then, or,
/// where a detail says so, what concerns the tables it names.
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
                    "the changes of \"{}\" are committed",
                    done.join("\", \"")
                )),
            });
        }
        done.push(name);
    }
    // the rows of the audit log about the changes are durable before the block is acknowledged
    scope.engine.audit.sync().await;
    Ok(())
}

/// What a block made of one table.
struct Changed<'a> {
    relation: &'a Relation,
    /// The new state, without the rows.
    rewrite: Option<HeldRewrite>,
    rows: Vec<RecordBatch>,
    lineage: Vec<LineageEdge>,
}

fn by_table<'a>(scope: &'a Scope, held: &mut Held) -> Result<Vec<Changed<'a>>> {
    let mut tables: Vec<Changed<'_>> = Vec::new();
    for change in held.take() {
        let then = match &change {
            Change::Insert(insert) => &insert.relation,
            Change::Rewrite(rewrite) => &rewrite.relation,
        };
        let now = scope.catalog.relation_by_oid(then.oid);
        let Some(relation) = now.filter(|now| now.columns == then.columns) else {
            return Err(changed_meanwhile(&then.name));
        };
        let at = tables.iter().position(|t| t.relation.oid == relation.oid);
        let at = at.unwrap_or_else(|| {
            tables.push(Changed {
                relation,
                rewrite: None,
                rows: Vec::new(),
                lineage: Vec::new(),
            });
            tables.len() - 1
        });
        let table = &mut tables[at];
        match change {
            Change::Insert(insert) => {
                table.rows.extend(insert.rows);
                table.lineage.extend(insert.lineage);
            }
            Change::Rewrite(rewrite) => {
                // the rows before it are in its files, or are gone
                table.rows.clear();
                table.rewrite = Some(rewrite);
            }
        }
    }
    Ok(tables)
}

fn changed_meanwhile(table: &str) -> Error {
    Error::refused(
        SqlState::SERIALIZATION_FAILURE,
        format!("table \"{table}\" was changed by another transaction"),
    )
    .with_hint("run the transaction again")
}

impl Changed<'_> {
    async fn store(self, scope: &Scope, session: &Session) -> Result<()> {
        let rows = match self.rows.first().map(RecordBatch::schema) {
            Some(schema) => vec![concat_batches(&schema, &self.rows)?],
            None => Vec::new(),
        };
        let lsn = match self.rewrite {
            Some(rewrite) => replace(scope, self.relation, rewrite, rows).await?,
            // INSERTs that found nothing
            None if rows.is_empty() => scope.engine.stream.head().visible,
            None => {
                let delivery = Delivery::by("insert");
                let append =
                    ingest::append(scope, self.relation, rows, Letters::default(), delivery);
                append.await?.lsn
            }
        };
        session.with_settings(|s| s.set_last_token(&token::of(lsn)));
        if !self.lineage.is_empty() {
            let change = catalog::Change::AddLineage(self.lineage);
            scope.engine.commit(vec![change]).await?;
        }
        Ok(())
    }
}

/// Makes the block's files and rows the table's, unless it has changed since the block read it.
async fn replace(
    scope: &Scope,
    relation: &Relation,
    rewrite: HeldRewrite,
    rows: Vec<RecordBatch>,
) -> Result<Lsn> {
    let stream = &scope.engine.stream;
    let HeldRewrite {
        base,
        mut adds,
        lake,
        writing: _writing,
        relation: _,
    } = rewrite;
    stream
        .exclusive(relation.oid, async |table| {
            let snapshot = lake.with_table(table)?;
            if snapshot.version != base {
                return Err(changed_meanwhile(&relation.name));
            }
            adds.extend(lake::write_rows(&snapshot, rows).await?);
            let after = rewrite::replace(&snapshot, relation.oid, adds).await?;
            Ok((after.table, ()))
        })
        .await?;
    Ok(stream.head().visible)
}
