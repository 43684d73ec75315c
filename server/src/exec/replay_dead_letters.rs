//! `REPLAY DEAD LETTERS FOR t [WHERE …] [DRY RUN]`: tries rows again that a streaming table refused.
//!
//! The rows that pass now, and the note that they did, are stored in one record: a letter is stored once
//! whatever happens in between. Those that fail again stay, with their new error. One replay runs at a
//! time: each must see what the one before it has done.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use catalog::{Privilege, Relation, RelationKind, SqlType};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, SetExpr};
use futures::StreamExt;
use tokio::sync::OwnedMutexGuard;

use super::ingest::{accepted_schema, waits_for_storage};
use super::write::Intake;
use super::{Outcome, Run, evolve, query, relations, rows};
use crate::decode::{self, BadRows};
use crate::dialect::{self, ReplayDeadLetters};
use crate::engine::activity::now_micros;
use crate::engine::scope::Scope;
use crate::error::{Error, Report, Result, SqlState};
use crate::governance::privileges;
use crate::stream::head::Lsn;
use crate::stream::internal;
use crate::stream::letters::{Attempt, Form, MAX_RAW, Raw, attempts};
use crate::system;
use crate::types::{field, schema as table_schema};
use crate::values::{CopyOptions, Decoder};

/// What is read of a letter.
const LETTERS: &str = "SELECT id, format, context, raw, truncated FROM weir.dead_letters";

/// Letters tried and stored together.
const AT_ONCE: usize = 128;

/// The columns of the answer.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("replayed", &SqlType::Int8, false),
        field("failed", &SqlType::Int8, false),
    ]))
}

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &ReplayDeadLetters) -> Result<Outcome> {
    // what the last replay did must be seen, so the cut is taken when this one may begin
    let guard = Arc::clone(&run.scope.engine.replays).lock_owned().await;
    let scope = Arc::new(Scope::new(&run.scope.engine, run.scope.caller.clone()));
    let run = Run {
        scope,
        ..run.clone()
    };
    let relation = relations::find(&run.scope, &s.name)?.clone();
    run.scope.touch(relation.oid);
    check(&run, &relation)?;
    let (mut state, plan) = query::plan(&run.scope, letters_of(&relation, s)?, &run.params).await?;
    // a letter may be long
    let few = state.config().clone().with_batch_size(AT_ONCE);
    *state.config_mut() = few;
    let mut letters = rows::start(&run, &state, &plan).await?;
    let mut replay = Replay {
        columns: accepted_schema(&relation),
        relation,
        guard: Some(guard),
        replayed: 0,
        failed: 0,
        last: None,
    };
    while let Some(batch) = letters.next().await {
        replay.try_again(&run, &batch?, s.dry_run).await?;
    }
    if let Some(lsn) = replay.last {
        if waits_for_storage(&replay.relation) {
            let tables = [replay.relation.oid, internal::REPLAYS];
            run.scope.engine.stream.in_storage(&tables, lsn).await?;
        }
        let session = run.session()?;
        session.with_settings(|settings| settings.set_last_token(&super::token::of(lsn)));
        relations::note_write(&run, "REPLAY DEAD LETTERS")?;
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![replay.replayed])),
        Arc::new(Int64Array::from(vec![replay.failed])),
    ];
    Ok(rows::of_batch(
        "REPLAY",
        RecordBatch::try_new(schema(), columns)?,
    ))
}

/// Refuses who may not insert, and who may not see what is inserted.
fn check(run: &Run, relation: &Relation) -> Result<()> {
    if relation.kind != RelationKind::StreamingTable {
        let message = format!("\"{}\" is not a streaming table", relation.name);
        return Err(Error::refused(SqlState::WRONG_OBJECT_TYPE, message)
            .with_hint("only streaming tables have dead letters"));
    }
    let scope = &run.scope;
    let role = &scope.caller.role;
    privileges::check_relation(&scope.catalog, role, relation, Privilege::Insert)?;
    match system::sees_whole(&scope.catalog, role, relation) {
        true => Ok(()),
        false => Err(Error::denied("table", &relation.name)
            .with_detail("a replay needs SELECT on all columns of the table")),
    }
}

/// The letters that are open, under the statement's condition.
fn letters_of(relation: &Relation, s: &ReplayDeadLetters) -> Result<Query> {
    let mut query = dialect::parse_query(LETTERS)?;
    let open = dialect::parse_expr(&format!(
        "table_oid = {} AND replayed_at IS NULL",
        relation.oid
    ))?;
    let SetExpr::Select(select) = &mut *query.body else {
        return Err(Error::Internal("the letters are no select".to_owned()));
    };
    select.selection = Some(match &s.selection {
        None => open,
        Some(condition) => Expr::BinaryOp {
            left: Box::new(open),
            op: BinaryOperator::And,
            right: Box::new(Expr::Nested(Box::new(condition.clone()))),
        },
    });
    Ok(query)
}

/// A replay on its way.
struct Replay {
    relation: Relation,
    columns: SchemaRef,
    /// Goes with each record into the task that stores it: no other replay begins before that is done,
    /// whatever becomes of the statement.
    guard: Option<OwnedMutexGuard<()>>,
    replayed: i64,
    failed: i64,
    last: Option<Lsn>,
}

impl Replay {
    /// Tries the letters of a batch; those that pass are stored with the note that they did.
    async fn try_again(&mut self, run: &Run, batch: &RecordBatch, dry_run: bool) -> Result<()> {
        let letters = (0..batch.num_rows()).map(|row| self.one(batch, row));
        let letters = letters.collect::<Result<Vec<_>>>()?;
        let mut passed: Vec<RecordBatch> = Vec::new();
        let mut tried = Vec::with_capacity(letters.len());
        for (id, outcome) in Box::pin(self.take(run, letters, dry_run)).await? {
            let error = match outcome {
                Ok(rows) => {
                    passed.push(rows);
                    self.replayed += 1;
                    None
                }
                Err(e) => {
                    self.failed += 1;
                    Some(told(&e))
                }
            };
            tried.push(Attempt {
                letter: id,
                error: error.map(|e| (e.state, e.message)),
            });
        }
        if dry_run || tried.is_empty() {
            return Ok(());
        }
        let notes = attempts(&tried, now_micros())?;
        let parts = vec![
            (self.relation.oid, passed),
            (internal::REPLAYS, vec![notes]),
        ];
        let stream = Arc::clone(&run.scope.engine.stream);
        let guard = self.guard.take();
        let (lsn, guard) = relations::to_its_end("replay", async move {
            let lsn = stream.append(parts).await?;
            Ok((lsn, guard))
        })
        .await?;
        self.guard = guard;
        self.last = Some(lsn);
        Ok(())
    }

    /// One letter: its id, and its row or why it cannot be read.
    fn one(&self, batch: &RecordBatch, row: usize) -> Result<(String, Result<RecordBatch>)> {
        let text = |column: usize| {
            let texts = batch.column(column).as_string_opt::<i32>();
            texts.filter(|t| t.is_valid(row)).map(|t| t.value(row))
        };
        let bytes = batch.column(3).as_binary_opt::<i32>();
        let truncated = batch.column(4).as_boolean_opt();
        let (Some(id), Some(form), Some(bytes), Some(truncated)) =
            (text(0), text(1), bytes, truncated)
        else {
            return Err(Error::Internal("a dead letter has no id".to_owned()));
        };
        if truncated.value(row) {
            let cut = Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("only the first {MAX_RAW} bytes of the row were kept"),
            );
            return Ok((id.to_owned(), Err(cut)));
        }
        let raw = Bytes::copy_from_slice(bytes.value(row));
        Ok((id.to_owned(), self.read(form, text(2), raw)))
    }

    /// The rows as the table stores them. It may get columns for them; in a dry run they are judged as if
    /// it had got them.
    async fn take(
        &mut self,
        run: &Run,
        letters: Vec<(String, Result<RecordBatch>)>,
        dry_run: bool,
    ) -> Result<Vec<(String, Result<RecordBatch>)>> {
        let given = letters.iter().filter_map(|(_, row)| row.as_ref().ok());
        let given: Vec<RecordBatch> = given.cloned().collect();
        let (relation, prepared) = match dry_run {
            true => evolve::trial(&run.scope, &self.relation, given)?,
            false => {
                let rows = BadRows::Collect;
                let (scope, prepared) =
                    evolve::prepare(&run.scope, &self.relation, given, rows).await?;
                let relation = scope.catalog.relation_by_oid(self.relation.oid);
                let relation =
                    relation.ok_or_else(|| Error::undefined_table(&self.relation.name))?;
                (relation.clone(), prepared)
            }
        };
        let intake = Intake::new(&run.scope, &relation)?;
        let mut prepared = prepared.into_iter();
        let taken = letters.into_iter().map(|(id, row)| {
            let row = row.and_then(|_| {
                let lost = || Error::Internal("a row got lost".to_owned());
                let mut row = prepared.next().ok_or_else(lost)?;
                match row.bad.pop_first() {
                    None => intake.apply(&row.batch),
                    Some((_, why)) => Err(Error::Refused(Box::new(why))),
                }
            });
            (id, row)
        });
        let taken = taken.collect();
        if !dry_run {
            self.columns = accepted_schema(&relation);
            self.relation = relation;
        }
        Ok(taken)
    }

    /// The row that bytes spell, by the columns of today.
    fn read(&self, form: &str, context: Option<&str>, bytes: Bytes) -> Result<RecordBatch> {
        let Some(form) = Form::of(form) else {
            return Err(Error::unsupported(
                format!("rows in the form \"{form}\" cannot be read again"),
                "send the row again at its door",
            ));
        };
        let batches: Vec<RecordBatch> = match form {
            Form::Json | Form::Csv => {
                let header = match form {
                    Form::Csv => Some(header(context)?),
                    _ => None,
                };
                let raw = Raw {
                    bytes,
                    form,
                    context: context.filter(|_| form == Form::Json).map(Arc::from),
                    position: None,
                };
                let decoded = decode::again(&raw, header.as_deref(), &self.columns)?;
                decoded.pieces.into_iter().map(|p| p.batch).collect()
            }
            Form::Segment => {
                let raw = Raw {
                    bytes,
                    form,
                    context: context.map(Arc::from),
                    position: None,
                };
                let event_time = self.relation.options.get("event_time");
                let event_time = event_time.map(String::as_str);
                let decoded = decode::event_again(&raw, event_time, &self.columns)?;
                decoded.pieces.into_iter().map(|p| p.batch).collect()
            }
            Form::Avro | Form::Protobuf | Form::Message => {
                return Err(Error::Internal("a form that is not read again".to_owned()));
            }
            Form::CopyText | Form::CopyCsv | Form::CopyBinary => {
                let (options, names) = CopyOptions::of_context(form, context.unwrap_or_default())?;
                let data = options.data_of(&bytes);
                let mut decoder = Decoder::new(options, self.copied(&names)?)?;
                let mut pieces = decoder.feed(&data)?;
                pieces.extend(decoder.finish()?);
                pieces.into_iter().map(|p| p.batch).collect()
            }
        };
        match batches.as_slice() {
            [one] if one.num_rows() == 1 => Ok(one.clone()),
            _ => Err(Error::refused(
                SqlState::INVALID_TEXT_REPRESENTATION,
                "the bytes are not one row",
            )),
        }
    }

    /// The columns that a COPY named, as they are now.
    fn copied(&self, names: &[String]) -> Result<SchemaRef> {
        let all = table_schema(&self.relation.columns);
        let fields = names.iter().map(|name| {
            let found = all.fields().iter().find(|f| f.name() == name);
            found
                .map(|f| f.as_ref().clone().with_nullable(true))
                .ok_or_else(|| {
                    Error::refused(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{name}\" of relation \"{}\" does not exist",
                            self.relation.name
                        ),
                    )
                })
        });
        Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
    }
}

fn header(context: Option<&str>) -> Result<Vec<String>> {
    let names = context.and_then(|c| serde_json::from_str(c).ok());
    names.ok_or_else(|| Error::Internal("a dead letter of CSV has no header".to_owned()))
}

fn told(e: &Error) -> Report {
    let report = e.report();
    match &report.detail {
        Some(detail) => Report {
            message: format!("{} ({detail})", report.message),
            ..report
        },
        None => report,
    }
}
