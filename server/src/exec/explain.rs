//! `EXPLAIN [ANALYZE] [VERBOSE] query`: the plan that would run, or that ran.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::sql::sqlparser::ast::{DescribeAlias, Statement as Ast, UtilityOption};
use futures::StreamExt;

use super::{Outcome, Run, query, rows};
use crate::dialect::refuse::clause;
use crate::error::{Error, Result};

/// Shows the plan, one line a row.
pub(super) async fn execute(run: &Run, statement: &Ast) -> Result<Outcome> {
    let Ast::Explain {
        describe_alias,
        analyze,
        verbose,
        query_plan,
        estimate,
        statement,
        format,
        options,
    } = statement
    else {
        return Err(Error::Internal("not an explain".to_owned()));
    };
    clause(
        *describe_alias != DescribeAlias::Explain,
        "DESCRIBE of a statement",
        "use EXPLAIN",
    )?;
    clause(
        *query_plan || *estimate,
        "this form of EXPLAIN",
        "use EXPLAIN [ANALYZE] [VERBOSE]",
    )?;
    clause(
        format.is_some(),
        "EXPLAIN (FORMAT …)",
        "leave FORMAT out: the answer is text",
    )?;
    let (mut analyze, mut verbose) = (*analyze, *verbose);
    for UtilityOption { name, arg } in options.iter().flatten() {
        let on = arg.as_ref().is_none_or(|a| {
            !["false", "off", "0"].contains(&a.to_string().to_lowercase().as_str())
        });
        match name.value.to_lowercase().as_str() {
            "analyze" => analyze = on,
            "verbose" => verbose = on,
            "costs" | "summary" | "timing" => {}
            other => clause(on, &format!("EXPLAIN ({other})"), "use ANALYZE and VERBOSE")?,
        }
    }
    let (explained, into) = match &**statement {
        Ast::Query(explained) => (explained, None),
        Ast::Insert(insert) if !analyze => match &insert.source {
            Some(source) => (source, Some(format!("Insert: {}", insert.table))),
            None => return Err(not_explained()),
        },
        _ => return Err(not_explained()),
    };
    let state = run.scope.state()?;
    let plan = query::bound_plan(&state, Ast::Query(explained.clone()), &run.params).await?;
    let physical = state.create_physical_plan(&plan).await?;
    let text = if analyze {
        let mut stream = rows::run_physical(run, Arc::clone(&physical), state.task_ctx());
        while let Some(batch) = stream.next().await {
            batch?;
        }
        DisplayableExecutionPlan::with_metrics(physical.as_ref())
            .indent(verbose)
            .to_string()
    } else {
        DisplayableExecutionPlan::new(physical.as_ref())
            .indent(verbose)
            .to_string()
    };
    let lines = StringArray::from(
        into.iter()
            .map(String::as_str)
            .chain(text.lines())
            .collect::<Vec<_>>(),
    );
    Ok(rows::of_batch(
        "EXPLAIN",
        RecordBatch::try_new(schema(), vec![Arc::new(lines)])?,
    ))
}

fn not_explained() -> Error {
    Error::unsupported(
        "EXPLAIN of this statement is not supported",
        "explain the query inside it",
    )
}

/// Its column.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "QUERY PLAN",
        DataType::Utf8,
        false,
    )]))
}
