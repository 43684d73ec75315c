//! `INSERT INTO t [(columns)] query | VALUES … | DEFAULT VALUES`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Change, LineageEdge, Privilege, Relation, RelationKind, SqlType};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::sql::sqlparser::ast::{Insert, Query, Statement as Ast, TableObject};
use futures::StreamExt;

use super::ingest::{Delivery, Sieve, Stored};
use super::write::{Intake, generated_always};
use super::{Outcome, Run, ingest, lineage, query, rows};
use crate::decode::BadRows;
use crate::dialect::refuse::clause;
use crate::dialect::words::parts;
use crate::engine::keys::RequestKey;
use crate::engine::scope::bound;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::session::Description;
use crate::session::held::{self, HeldInsert, MOST_BYTES};
use crate::stream::letters::Piece;

/// Stores the query's rows, all or none; inside a block they are held until it ends.
pub(super) async fn execute(run: &Run, insert: &Insert) -> Result<Outcome> {
    let (relation, columns, source) = understand(run, insert)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Insert,
    )?;
    run.scope.touch(relation.oid);
    let source = with_defaults(source, relation, &columns)?;
    let (state, plan) = query::plan(&run.scope, bound(source)?, &run.params).await?;
    check_width(insert, &columns, plan.schema().fields().len())?;
    let reads = lineage::edges(&run.scope, &plan, relation.oid, &columns, "INSERT");
    let stream = rows::start(run, &state, &plan).await?;
    let named = move |batch: RecordBatch| named(&columns, &batch);
    let key = key(run)?;
    let holding = run.session()?.with_transaction(|t| t.holds_rows()) && key.is_none();
    let stored = if relation.kind == RelationKind::StreamingTable {
        let limit = run.scope.engine.config.tail_bytes / 2;
        let mut sieve = Sieve::new(&run.scope, relation, BadRows::Refuse)?;
        let mut next_row = 1;
        let (rows, rest) = gather(stream, limit, |batch| {
            let piece = Piece::arrow(named(batch)?, next_row);
            next_row += piece.batch.num_rows() as u64;
            sieve.sift(&piece)
        })
        .await?;
        if rest.is_some() {
            return Err(Error::refused(
                SqlState::OUT_OF_MEMORY,
                "the rows of one INSERT into a streaming table do not fit in memory",
            )
            .with_hint("insert them in several statements"));
        }
        if holding && sieve.letters.is_empty() && counts_all(relation) {
            return hold(run, &state, relation, rows, reads);
        }
        run.session()?.commit_held().await?;
        let delivery = Delivery {
            key,
            ..Delivery::by("insert")
        };
        ingest::append(&run.scope, relation, rows, sieve.letters, delivery).await?
    } else {
        if key.is_some() {
            return Err(ingest::no_keys(relation));
        }
        let intake = Intake::new(&run.scope, relation)?;
        let take = |batch: RecordBatch| intake.apply(&named(batch)?);
        let (rows, rest) = match holding {
            true => gather(stream, MOST_BYTES, |batch| Ok(vec![take(batch)?])).await?,
            false => (Vec::new(), Some(stream)),
        };
        let Some(rest) = rest else {
            return hold(run, &state, relation, rows, reads);
        };
        // more than a block may hold: alone in it they are stored at once
        if run.session()?.with_transaction(|t| !t.held().is_empty()) {
            return Err(held::too_much());
        }
        let rows = futures::stream::iter(rows.into_iter().map(Ok));
        let batches = rows.chain(rest.map(|batch| take(batch?)));
        let log = &run.scope.engine.stream;
        let accepted = log.lake_append(relation.oid, Box::pin(batches)).await?;
        Stored {
            accepted,
            rejected: 0,
            duplicate: 0,
            lsn: log.head().visible,
            again: false,
        }
    };
    if !reads.is_empty() {
        run.scope
            .engine
            .commit(vec![Change::AddLineage(reads)])
            .await?;
    }
    finish(run, stored)
}

/// Whether the tag is known before the rows are stored: none of them may be there already.
fn counts_all(relation: &Relation) -> bool {
    !relation.options.contains_key("dedup_key")
}

/// Keeps the rows until the block ends.
fn hold(
    run: &Run,
    state: &SessionState,
    relation: &Relation,
    rows: Vec<RecordBatch>,
    lineage: Vec<LineageEdge>,
) -> Result<Outcome> {
    let mut rows = rows;
    rows.retain(|batch| batch.num_rows() > 0);
    let count = rows.iter().map(|b| b.num_rows() as u64).sum();
    if count > 0 || !lineage.is_empty() {
        let insert = HeldInsert {
            relation: relation.clone(),
            rows,
            lineage,
        };
        let pool = &state.runtime_env().memory_pool;
        run.session()?
            .with_transaction(|t| t.held().add(insert, pool))?;
    }
    Ok(Outcome::Command {
        tag: format!("INSERT 0 {count}"),
        rows: Some(count),
    })
}

fn finish(run: &Run, stored: Stored) -> Result<Outcome> {
    let session = run.session()?;
    session.with_settings(|s| s.set_last_token(&super::token::of(stored.lsn)));
    ingest::tell(&session, &stored);
    let count = stored.accepted;
    session.with_transaction(|t| t.note_write("INSERT"));
    Ok(Outcome::Command {
        tag: format!("INSERT 0 {count}"),
        rows: Some(count),
    })
}

/// The session's idempotency key for this statement: what makes it the same is its text and parameters.
fn key(run: &Run) -> Result<Option<RequestKey>> {
    let Some(key) = run.session()?.idempotency_key() else {
        return Ok(None);
    };
    let params = format!("{:?}", run.params);
    let parts = [run.statement.text.as_bytes(), params.as_bytes()];
    RequestKey::new(&key, &parts).map(Some)
}

/// Parameters of an INSERT take the types of the columns they go to.
pub(super) async fn describe(
    run: &Run,
    insert: &Insert,
    hints: &[Option<DataType>],
) -> Result<Description> {
    let (relation, columns, source) = understand(run, insert)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Insert,
    )?;
    let mut hints = hints.to_vec();
    for (n, column) in placeholders(source) {
        let ty = columns
            .get(column)
            .and_then(|name| relation.columns.iter().find(|c| c.name == *name))
            .map(|c| crate::types::arrow_type(&c.sql_type));
        if hints.len() < n {
            hints.resize(n, None);
        }
        if let Some(hint) = hints.get_mut(n - 1) {
            *hint = hint.take().or(ty);
        }
    }
    let state = run.scope.state()?;
    let source = with_defaults(source, relation, &columns)?;
    let statement = Ast::Query(Box::new(bound(source)?));
    let (params, _) = query::parameters(&state, statement, &hints).await?;
    Ok(Description {
        params,
        schema: None,
    })
}

/// Puts a column's default in the place of the word DEFAULT in a VALUES list.
fn with_defaults(source: &Query, relation: &Relation, columns: &[String]) -> Result<Query> {
    use datafusion::sql::sqlparser::ast::{Expr, SetExpr};
    let mut source = source.clone();
    if let SetExpr::Values(values) = &mut *source.body {
        for row in &mut values.rows {
            for (value, name) in row.iter_mut().zip(columns) {
                let word = matches!(value, Expr::Identifier(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("default"));
                let float = relation.columns.iter().any(|c| {
                    c.name == *name && matches!(c.sql_type, SqlType::Float4 | SqlType::Float8)
                });
                if float {
                    doubled(value);
                }
                if word {
                    let column = relation.columns.iter().find(|c| c.name == *name);
                    let default = column.and_then(|c| c.default.as_deref()).unwrap_or("NULL");
                    *value = crate::dialect::parse_expr(default)?;
                }
            }
        }
    }
    Ok(source)
}

/// A number that goes to a float column is a double from the start: a list of mixed literals would
/// otherwise become numeric.
fn doubled(value: &mut datafusion::sql::sqlparser::ast::Expr) {
    use datafusion::sql::sqlparser::ast::{CastKind, DataType as Ty, ExactNumberInfo, Expr, Value};
    match value {
        Expr::UnaryOp { expr, .. } => doubled(expr),
        Expr::Value(literal) => {
            if let Value::Number(text, _) = &literal.value {
                let text = Value::SingleQuotedString(text.clone()).with_empty_span();
                *value = Expr::Cast {
                    kind: CastKind::DoubleColon,
                    expr: Box::new(Expr::Value(text)),
                    data_type: Ty::Double(ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
        }
        _ => {}
    }
}

/// `$n` that stand alone as a value of a VALUES list, with the place they stand in.
fn placeholders(source: &Query) -> Vec<(usize, usize)> {
    use datafusion::sql::sqlparser::ast::{Expr, SetExpr, Value};
    let SetExpr::Values(values) = &*source.body else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for row in &values.rows {
        for (column, value) in row.iter().enumerate() {
            if let Expr::Value(v) = value
                && let Value::Placeholder(name) = &v.value
                && let Ok(n) = name.trim_start_matches('$').parse::<usize>()
                && n > 0
            {
                found.push((n, column));
            }
        }
    }
    found
}

/// The table, the columns that get values, and where the values come from.
fn understand<'a>(
    run: &'a Run,
    insert: &'a Insert,
) -> Result<(&'a Relation, Vec<String>, &'a Query)> {
    let Insert {
        insert_token: _,
        optimizer_hints: _,
        or,
        ignore,
        into: _,
        table,
        table_alias: _,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    clause(on.is_some(), "ON CONFLICT", "use MERGE")?;
    clause(
        returning.is_some() || output.is_some(),
        "RETURNING",
        "read the rows afterwards",
    )?;
    clause(*overwrite, "INSERT OVERWRITE", "use DELETE and INSERT")?;
    let foreign = or.is_some()
        || *ignore
        || !assignments.is_empty()
        || partitioned.is_some()
        || !after_columns.is_empty()
        || *replace_into
        || priority.is_some()
        || insert_alias.is_some()
        || settings.is_some()
        || format_clause.is_some()
        || multi_table_insert_type.is_some()
        || !multi_table_into_clauses.is_empty()
        || !multi_table_when_clauses.is_empty()
        || multi_table_else_clause.is_some();
    clause(
        foreign,
        "this form of INSERT",
        "use INSERT INTO t (columns) query",
    )?;
    let TableObject::TableName(name) = table else {
        return Err(Error::unsupported(
            "INSERT INTO FUNCTION is not supported",
            "name a table",
        ));
    };
    let (schema, name) = run.scope.split_name(&parts(name))?;
    let relation = ingest::target(&run.scope, &schema, &name)?;
    let Some(source) = source else {
        return Err(Error::unsupported(
            "DEFAULT VALUES is not supported",
            "name a column and its value",
        ));
    };
    let columns = columns
        .iter()
        .map(|c| parts(c).pop().unwrap_or_default())
        .collect::<Vec<_>>();
    let columns = match columns.is_empty() {
        false => columns,
        true => relation
            .columns
            .iter()
            .filter(|c| c.generated.is_none())
            .map(|c| c.name.clone())
            .collect(),
    };
    for name in &columns {
        match relation.columns.iter().find(|c| c.name == *name) {
            None => {
                return Err(Error::refused(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{name}\" of relation \"{}\" does not exist",
                        relation.name
                    ),
                ));
            }
            Some(column) if column.generated.is_some() => return Err(generated_always(name)),
            Some(_) => {}
        }
    }
    Ok((relation, columns, source))
}

/// Named columns all get a value. Without names, fewer values fill the first columns, as in PostgreSQL.
fn check_width(insert: &Insert, columns: &[String], given: usize) -> Result<()> {
    let wrong = if given > columns.len() {
        "INSERT has more expressions than target columns"
    } else if given < columns.len() && !insert.columns.is_empty() {
        "INSERT has more target columns than expressions"
    } else {
        return Ok(());
    };
    Err(Error::refused(SqlState::SYNTAX_ERROR, wrong))
}

fn named(columns: &[String], batch: &RecordBatch) -> Result<RecordBatch> {
    let fields: Vec<_> = batch
        .schema_ref()
        .fields()
        .iter()
        .zip(columns)
        .map(|(f, name)| f.as_ref().clone().with_name(name).with_nullable(true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        batch.columns().to_vec(),
        &options,
    )?)
}

/// Collects rows up to a number of bytes; with what is left of a longer stream.
async fn gather(
    mut stream: SendableRecordBatchStream,
    limit: usize,
    mut make: impl FnMut(RecordBatch) -> Result<Vec<RecordBatch>>,
) -> Result<(Vec<RecordBatch>, Option<SendableRecordBatchStream>)> {
    let mut batches = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = stream.next().await {
        let made = make(batch?)?;
        bytes += held::bytes(&made);
        batches.extend(made);
        if bytes > limit {
            return Ok((batches, Some(stream)));
        }
    }
    Ok((batches, None))
}
