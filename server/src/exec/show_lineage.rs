//! `SHOW LINEAGE FOR name [COLUMN c] [UPSTREAM | DOWNSTREAM]`: the stored edges, walked to their ends.
//!
//! Who may read the named object may ask; edges to what the caller cannot read are not shown, and the
//! walk ends there.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::{LineageEdge, LineageKind, ObjectKind, Oid, Privilege, Snapshot};

use super::{Outcome, Run, rows};
use crate::dialect::words::parts;
use crate::dialect::{LineageDirection, ShowLineage};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// Stands for all columns of an object.
const ALL: &str = "*";

/// Columns of the answer.
pub(super) fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("object"),
        text("column"),
        text("source_object"),
        text("source_column"),
        text("kind"),
        text("statement"),
        Field::new("depth", DataType::Int64, false),
    ]))
}

/// Answers with one row per edge, nearest first.
pub(super) async fn execute(run: &Run, s: &ShowLineage) -> Result<Outcome> {
    let start = start(run, s)?;
    let edges = run.scope.engine.store.lineage().await?;
    let catalog = &run.scope.catalog;
    let role = &run.scope.caller.role;
    let visible: Vec<&LineageEdge> = edges
        .iter()
        .filter(|e| may_see(catalog, role, e.target) && may_see(catalog, role, e.source))
        .collect();
    let column = s.column.clone().unwrap_or_else(|| ALL.to_owned());
    let walked = walk(&visible, start, column, s.direction);
    Ok(rows::of_batch("SHOW", batch(catalog, &walked)?))
}

/// The named object, if the caller may ask for it: a relation, else a model of that name.
fn start(run: &Run, s: &ShowLineage) -> Result<Oid> {
    let (catalog, role) = (&run.scope.catalog, &run.scope.caller.role);
    let names = parts(&s.name);
    let (schema, name) = run.scope.split_name(&names)?;
    if let Some(relation) = catalog.relation(&schema, &name) {
        privileges::check_relation(catalog, role, relation, Privilege::Select)?;
        run.scope.touch(relation.oid);
        return match &s.column {
            Some(column) if relation.columns.iter().all(|c| c.name != *column) => {
                Err(Error::refused(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{column}\" of relation \"{name}\" does not exist"),
                ))
            }
            _ => Ok(relation.oid),
        };
    }
    let model = catalog.model(&name).filter(|_| names.len() == 1);
    let model = model.ok_or_else(|| Error::undefined_table(&names.join(".")))?;
    if !may_see(catalog, role, model.oid) {
        return Err(Error::denied("model", &name));
    }
    match &s.column {
        None => Ok(model.oid),
        Some(_) => Err(Error::refused(
            SqlState::WRONG_OBJECT_TYPE,
            format!("model \"{name}\" has no columns"),
        )),
    }
}

/// What was dropped belongs to nobody: superusers see that it was there.
fn may_see(catalog: &Snapshot, role: &str, oid: Oid) -> bool {
    if let Some(relation) = catalog.relation_by_oid(oid) {
        return privileges::check_relation(catalog, role, relation, Privilege::Select).is_ok();
    }
    match catalog.models.iter().find(|m| m.oid == oid) {
        Some(m) => privileges::allowed(
            catalog,
            role,
            (ObjectKind::Model, m.oid, m.owner),
            Privilege::Usage,
        ),
        None => privileges::check_superuser(catalog, role, "see lineage").is_ok(),
    }
}

/// Each edge that is reached, once, with its distance from the start.
fn walk<'a>(
    edges: &[&'a LineageEdge],
    start: Oid,
    column: String,
    direction: LineageDirection,
) -> Vec<(&'a LineageEdge, i64)> {
    let ends = |e: &'a LineageEdge| match direction {
        LineageDirection::Upstream => ((e.target, &e.target_column), (e.source, &e.source_column)),
        LineageDirection::Downstream => {
            ((e.source, &e.source_column), (e.target, &e.target_column))
        }
    };
    let mut seen: HashSet<(Oid, String)> = HashSet::from([(start, column.clone())]);
    let mut shown: HashSet<&LineageEdge> = HashSet::new();
    let mut queue = VecDeque::from([(start, column, 1)]);
    let mut out = Vec::new();
    while let Some((oid, column, depth)) = queue.pop_front() {
        for edge in edges.iter().copied() {
            let ((near, near_column), (far, far_column)) = ends(edge);
            let touches = column == ALL || near_column == ALL || *near_column == column;
            if near != oid || !touches {
                continue;
            }
            if shown.insert(edge) {
                out.push((edge, depth));
            }
            if seen.insert((far, far_column.clone())) {
                queue.push_back((far, far_column.clone(), depth + 1));
            }
        }
    }
    out
}

fn batch(catalog: &Snapshot, walked: &[(&LineageEdge, i64)]) -> Result<RecordBatch> {
    let text = |value: &dyn Fn(&LineageEdge) -> String| -> ArrayRef {
        Arc::new(
            walked
                .iter()
                .map(|(e, _)| Some(value(e)))
                .collect::<StringArray>(),
        )
    };
    let depth: Int64Array = walked.iter().map(|(_, depth)| Some(*depth)).collect();
    let columns: Vec<ArrayRef> = vec![
        text(&|e| object_name(catalog, e.target)),
        text(&|e| e.target_column.clone()),
        text(&|e| object_name(catalog, e.source)),
        text(&|e| e.source_column.clone()),
        text(&|e| kind(e.kind).to_owned()),
        text(&|e| e.statement.clone()),
        Arc::new(depth),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn kind(kind: LineageKind) -> &'static str {
    match kind {
        LineageKind::Direct => "direct",
        LineageKind::Indirect => "indirect",
    }
}

/// `schema.name` of a relation, the name of a model, the number of what was dropped.
fn object_name(catalog: &Snapshot, oid: Oid) -> String {
    if let Some(relation) = catalog.relation_by_oid(oid) {
        return catalog.qualified_name(relation);
    }
    let model = catalog.models.iter().find(|m| m.oid == oid);
    model.map_or_else(|| oid.to_string(), |m| m.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(source: (u32, &str), target: (u32, &str), kind: LineageKind) -> LineageEdge {
        LineageEdge {
            target: Oid(target.0),
            target_column: target.1.to_owned(),
            source: Oid(source.0),
            source_column: source.1.to_owned(),
            kind,
            statement: "CREATE VIEW".to_owned(),
        }
    }

    fn reached(
        edges: &[LineageEdge],
        start: u32,
        column: &str,
        direction: LineageDirection,
    ) -> Vec<(u32, u32, i64)> {
        let edges: Vec<_> = edges.iter().collect();
        walk(&edges, Oid(start), column.to_owned(), direction)
            .into_iter()
            .map(|(e, depth)| (e.source.0, e.target.0, depth))
            .collect()
    }

    #[test]
    fn walks_column_by_column_to_the_ends_and_out_of_circles() {
        const UPSTREAM: LineageDirection = LineageDirection::Upstream;
        const DOWNSTREAM: LineageDirection = LineageDirection::Downstream;
        let edges = [
            edge((1, "a"), (2, "x"), LineageKind::Direct),
            edge((1, "b"), (2, "y"), LineageKind::Direct),
            edge((1, "c"), (2, ALL), LineageKind::Indirect),
            edge((2, "x"), (3, "z"), LineageKind::Direct),
            edge((3, "z"), (1, "a"), LineageKind::Direct),
        ];
        assert_eq!(
            reached(&edges, 3, "z", UPSTREAM),
            [(2, 3, 1), (1, 2, 2), (1, 2, 2), (3, 1, 3)],
            "through x and the filter, not through y"
        );
        assert_eq!(reached(&edges, 1, "b", DOWNSTREAM), [(1, 2, 1)]);
        assert_eq!(reached(&edges, 2, ALL, UPSTREAM).len(), 5);
    }
}
