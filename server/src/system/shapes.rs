//! Names, types and oids of all system tables and their columns, read once from `shapes.txt`.
//! Tables without an own file are served from here, typed and empty.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};

use super::frame::Kind;

/// One system table.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) oid: u32,
    pub(super) schema: &'static str,
    pub(super) name: &'static str,
    pub(super) columns: Vec<ShapeColumn>,
    arrow: SchemaRef,
}

/// One of its columns.
#[derive(Debug)]
pub(super) struct ShapeColumn {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Name of the type in `pg_type`.
    pub(super) type_name: &'static str,
    pub(super) nullable: bool,
}

impl Shape {
    pub(super) fn schema_ref(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }
}

static ALL: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    include_str!("shapes.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(parse)
        .collect()
});

/// All of them.
pub(super) fn all() -> &'static [Shape] {
    &ALL
}

/// The one called `schema.name`.
pub(super) fn find(schema: &str, name: &str) -> Option<&'static Shape> {
    ALL.iter().find(|s| s.schema == schema && s.name == name)
}

/// The one with that oid.
pub(super) fn find_oid(oid: u32) -> Option<&'static Shape> {
    ALL.iter().find(|s| s.oid == oid)
}

/// Whether columns of that name are of type `regproc`.
pub(super) fn is_regproc(column: &str) -> bool {
    ALL.iter()
        .flat_map(|s| &s.columns)
        .any(|c| c.type_name == "regproc" && c.name == column)
}

/// A line that does not parse is left out; a test counts them.
fn parse(line: &'static str) -> Option<Shape> {
    let (oid, rest) = line.split_once('|')?;
    let (name, columns) = rest.split_once('|')?;
    let (schema, name) = name.split_once('.')?;
    let columns = columns
        .split(", ")
        .map(column)
        .collect::<Option<Vec<_>>>()?;
    let fields: Vec<_> = columns.iter().map(|c| c.kind.field(c.name)).collect();
    Some(Shape {
        oid: oid.parse().ok()?,
        schema,
        name,
        columns,
        arrow: Arc::new(Schema::new(fields)),
    })
}

fn column(text: &'static str) -> Option<ShapeColumn> {
    let (name, ty) = text.split_once(' ')?;
    let nullable = ty.ends_with('?');
    let type_name = ty.trim_end_matches('?');
    Some(ShapeColumn {
        name,
        kind: Kind::parse(type_name)?,
        type_name,
        nullable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_table_with_its_own_oid_and_columns() {
        let lines = include_str!("shapes.txt")
            .lines()
            .filter(|l| !l.starts_with('#'));
        for line in lines {
            assert!(parse(line).is_some(), "{line}");
        }
        let mut oids: Vec<u32> = all().iter().map(|s| s.oid).collect();
        oids.sort_unstable();
        oids.dedup();
        assert_eq!(oids.len(), all().len());
        for shape in all() {
            let mut names: Vec<_> = shape.columns.iter().map(|c| c.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), shape.columns.len(), "{}", shape.name);
            assert!(shape.oid < 16384, "{}", shape.name);
        }
    }
}
