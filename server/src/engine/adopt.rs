//! Columns that the Delta log has and the catalog does not: an `ALTER TABLE` that ended between its two
//! commits, or another writer. What is stored counts: the catalog is told.

use catalog::{Change, Column, Oid, Relation, RelationKind};

use super::Engine;
use crate::error::Result;
use crate::stream::head::TableHead;
use crate::types::{self, DEFAULT_KEY, GENERATED_KEY};

/// Brings the catalog's columns of all tables up to what is stored. The caller holds off other
/// statements that change the catalog.
pub(super) async fn all(engine: &Engine) -> Result<()> {
    let catalog = engine.catalog();
    for relation in &catalog.relations {
        adopt(engine, relation).await?;
    }
    Ok(())
}

/// The same for one table.
pub async fn one(engine: &Engine, table: Oid) -> Result<()> {
    match engine.catalog().relation_by_oid(table) {
        Some(relation) => adopt(engine, relation).await,
        None => Ok(()),
    }
}

async fn adopt(engine: &Engine, relation: &Relation) -> Result<()> {
    let stores = matches!(
        relation.kind,
        RelationKind::Table | RelationKind::StreamingTable
    );
    let head = engine.stream.head();
    let Some(head) = head.tables.get(&relation.oid).filter(|_| stores) else {
        return Ok(());
    };
    let mut columns = as_stored(&relation.columns, head);
    if columns == relation.columns {
        return Ok(());
    }
    let now = engine.allocate_oid().await?;
    for column in columns.iter_mut().skip(relation.columns.len()) {
        column.since = Some(now);
    }
    tracing::info!(table = %relation.name, "the catalog takes over the stored columns");
    let adopted = Relation {
        columns,
        ..relation.clone()
    };
    engine
        .commit(vec![Change::PutRelation(adopted)])
        .await
        .map(drop)
}

fn as_stored(known: &[Column], head: &TableHead) -> Vec<Column> {
    let fields = head.schema.fields().iter().enumerate();
    let columns = fields.map(|(at, field)| match known.get(at) {
        Some(column) => {
            let stored = types::sql_type(field);
            let other = types::arrow_type(&column.sql_type) != *field.data_type();
            let wider = other && types::widenings(&column.sql_type).contains(&stored);
            Column {
                sql_type: if wider {
                    stored
                } else {
                    column.sql_type.clone()
                },
                nullable: field.is_nullable(),
                ..column.clone()
            }
        }
        None => Column {
            name: field.name().clone(),
            sql_type: types::sql_type(field),
            nullable: field.is_nullable(),
            default: field.metadata().get(DEFAULT_KEY).cloned(),
            generated: field.metadata().get(GENERATED_KEY).cloned(),
            comment: None,
            since: None,
        },
    });
    columns.collect()
}
