//! Column lineage: which source columns reach which target columns of a statement, read off its logical
//! plan (analyzed, not optimized).
//!
//! A superset by design: where the flow through a node or an expression is not known, everything it was
//! given reaches everything it gives. A view is inlined in a plan under its full name (`weir.public.v`); edges
//! lead to it and not through it, as the view has edges of its own.
//! This module knows plans only; names are turned into catalog ids by its callers.

use std::collections::BTreeSet;

use catalog::LineageKind;
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};

mod expr;
mod node;

/// `source.source_column → target_column`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Column that is written; `*` when rows, not values, depend on the source (indirect edges).
    pub target_column: String,
    /// The relation that is read, as the plan names it.
    pub source: TableReference,
    /// Its column; `*` when it is read but no column of it is used, as by `count(*)`.
    pub source_column: String,
    /// How.
    pub kind: LineageKind,
}

/// All edges of a plan whose output columns are written to `target_columns`, in order and without
/// duplicates. Statement nodes (`INSERT`, CTAS, `COPY`, views) are looked through. When the counts
/// differ, every output is taken to reach every target.
pub fn edges(plan: &LogicalPlan, target_columns: &[String]) -> Vec<Edge> {
    let flow = Tracer::default().plan(written(plan));
    let mut out = BTreeSet::new();
    let mut direct = |target: &String, sources: &Sources| {
        out.extend(sources.iter().map(|(source, column)| Edge {
            target_column: target.clone(),
            source: source.clone(),
            source_column: column.clone(),
            kind: LineageKind::Direct,
        }));
    };
    if flow.columns.len() == target_columns.len() {
        for (target, sources) in target_columns.iter().zip(&flow.columns) {
            direct(target, sources);
        }
    } else {
        let all = union(&flow.columns);
        for target in target_columns {
            direct(target, &all);
        }
    }
    out.extend(flow.indirect.into_iter().map(|(source, column)| Edge {
        target_column: "*".to_owned(),
        source,
        source_column: column,
        kind: LineageKind::Indirect,
    }));
    let used: BTreeSet<TableReference> = out.iter().map(|e| e.source.clone()).collect();
    let unused = flow.tables.into_iter().filter(|t| !used.contains(t));
    out.extend(unused.map(|source| Edge {
        target_column: "*".to_owned(),
        source,
        source_column: "*".to_owned(),
        kind: LineageKind::Indirect,
    }));
    out.into_iter().collect()
}

/// The query inside a statement.
fn written(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Dml(dml) => &dml.input,
        LogicalPlan::Copy(copy) => &copy.input,
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => &create.input,
        LogicalPlan::Ddl(DdlStatement::CreateView(create)) => &create.input,
        LogicalPlan::Explain(explain) => written(&explain.plan),
        LogicalPlan::Analyze(analyze) => written(&analyze.input),
        other => other,
    }
}

type Sources = BTreeSet<(TableReference, String)>;

fn union(columns: &[Sources]) -> Sources {
    columns.iter().flatten().cloned().collect()
}

/// What reaches the output of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Flow {
    /// Sources of each output column's value.
    columns: Vec<Sources>,
    /// Sources that decide which rows there are.
    indirect: Sources,
    /// Every relation that is read.
    tables: BTreeSet<TableReference>,
}

impl Flow {
    /// Everything that reaches any value or row.
    fn all(&self) -> Sources {
        let mut all = union(&self.columns);
        all.extend(self.indirect.iter().cloned());
        all
    }
}

/// A schema columns are looked up in, with what reaches each of them.
#[derive(Debug, Clone)]
struct Scope {
    schema: DFSchema,
    columns: Vec<Sources>,
}

impl Scope {
    fn new(schema: &DFSchema, columns: &[Sources]) -> Self {
        Self {
            schema: schema.clone(),
            columns: columns.to_vec(),
        }
    }
}

/// Walks a plan.
#[derive(Debug, Default)]
struct Tracer {
    /// Queries around the current one, for correlated columns; innermost last.
    outer: Vec<Scope>,
    /// Working tables of the recursive queries around.
    working: Vec<(String, Flow)>,
}

#[cfg(test)]
mod tests;
