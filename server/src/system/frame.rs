//! Rows of system tables → one record batch in memory. Knows types, not tables.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use catalog::Oid;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use super::shapes::Shape;
use crate::error::{Error, Result};
use crate::types::TYPE_KEY;

/// The type of a column of a system table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Text,
    Bytea,
    Timestamptz,
    /// Text that PostgreSQL has an own type for: `name`, `char`, `regproc`.
    Word(&'static str),
    /// A number that PostgreSQL has an own type for: `oid`, `xid`, `regtype`.
    Id(&'static str),
    TextList(Option<&'static str>),
    IdList(&'static str),
    Int2List(Option<&'static str>),
    Int4List,
    Float4List,
}

impl Kind {
    /// The kind of a type's name in the shapes.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "text" => Self::Text,
            "bytea" => Self::Bytea,
            "timestamptz" => Self::Timestamptz,
            "name" => Self::Word("name"),
            "char" => Self::Word("char"),
            "regproc" => Self::Word("regproc"),
            "oid" => Self::Id("oid"),
            "regtype" => Self::Id("regtype"),
            "xid" => Self::Id("xid"),
            "text[]" => Self::TextList(None),
            "char[]" => Self::TextList(Some("char[]")),
            "oid[]" => Self::IdList("oid[]"),
            "oidvector" => Self::IdList("oidvector"),
            "int2[]" => Self::Int2List(None),
            "int2vector" => Self::Int2List(Some("int2vector")),
            "int4[]" => Self::Int4List,
            "float4[]" => Self::Float4List,
            _ => return None,
        })
    }

    fn tag(self) -> Option<&'static str> {
        match self {
            Self::Word(tag) | Self::Id(tag) | Self::IdList(tag) => Some(tag),
            Self::TextList(tag) | Self::Int2List(tag) => tag,
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Text
            | Self::Bytea
            | Self::Timestamptz
            | Self::Int4List
            | Self::Float4List => None,
        }
    }

    fn arrow(self) -> DataType {
        let list = |ty| DataType::List(Arc::new(Field::new("element", ty, true)));
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Text | Self::Word(_) => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Id(_) => DataType::UInt32,
            Self::TextList(_) => list(DataType::Utf8),
            Self::IdList(_) => list(DataType::UInt32),
            Self::Int2List(_) => list(DataType::Int16),
            Self::Int4List => list(DataType::Int32),
            Self::Float4List => list(DataType::Float32),
        }
    }

    /// The Arrow field, with the PostgreSQL type in the metadata where Arrow has none.
    pub(super) fn field(self, name: &str) -> Field {
        let field = Field::new(name, self.arrow(), true);
        match self.tag() {
            Some(tag) => {
                field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), tag.to_owned())]))
            }
            None => field,
        }
    }

    /// What a column that may not be NULL holds when nothing is said.
    fn zero(self) -> Cell {
        match self {
            Self::Bool => Cell::Bool(false),
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Id(_) | Self::Timestamptz => Cell::Int(0),
            Self::Float4 | Self::Float8 => Cell::Float(0.0),
            Self::Word("regproc") => Cell::from("-"),
            Self::Text | Self::Bytea | Self::Word(_) => Cell::from(""),
            Self::TextList(_) => Cell::Texts(Vec::new()),
            Self::IdList(_) | Self::Int2List(_) | Self::Int4List | Self::Float4List => {
                Cell::Ints(Vec::new())
            }
        }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i64>),
}

impl From<bool> for Cell {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<i64> for Cell {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}

impl From<i32> for Cell {
    fn from(v: i32) -> Self {
        Self::Int(v.into())
    }
}

impl From<u32> for Cell {
    fn from(v: u32) -> Self {
        Self::Int(v.into())
    }
}

impl From<usize> for Cell {
    fn from(v: usize) -> Self {
        Self::Int(i64::try_from(v).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Cell {
    fn from(v: f64) -> Self {
        Self::Float(v)
    }
}

impl From<Oid> for Cell {
    fn from(v: Oid) -> Self {
        v.0.into()
    }
}

impl From<&str> for Cell {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}

impl From<&String> for Cell {
    fn from(v: &String) -> Self {
        Self::Text(v.clone())
    }
}

impl From<String> for Cell {
    fn from(v: String) -> Self {
        Self::Text(v)
    }
}

impl From<Vec<String>> for Cell {
    fn from(v: Vec<String>) -> Self {
        Self::Texts(v)
    }
}

impl From<Vec<i64>> for Cell {
    fn from(v: Vec<i64>) -> Self {
        Self::Ints(v)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// The rows of one system table.
#[derive(Debug)]
pub(super) struct Frame {
    shape: &'static Shape,
    rows: Vec<Vec<Cell>>,
}

impl Frame {
    /// No rows yet.
    pub(super) fn new(shape: &'static Shape) -> Self {
        Self {
            shape,
            rows: Vec::new(),
        }
    }

    /// Adds a row. Columns that are not named are NULL, or zero, empty or false where they may not
    /// be NULL.
    pub(super) fn row<const N: usize>(&mut self, cells: [(&str, Cell); N]) -> Result<()> {
        let columns = &self.shape.columns;
        let mut row: Vec<Cell> = columns
            .iter()
            .map(|c| {
                if c.nullable {
                    Cell::Null
                } else {
                    c.kind.zero()
                }
            })
            .collect();
        for (name, cell) in cells {
            let Some(i) = columns.iter().position(|c| c.name == name) else {
                let table = self.shape.name;
                return Err(Error::Internal(format!("{table} has no column {name}")));
            };
            row[i] = cell;
        }
        self.rows.push(row);
        Ok(())
    }

    /// The Arrow schema of the table.
    pub(super) fn schema(&self) -> SchemaRef {
        self.shape.schema_ref()
    }

    /// All rows as one batch.
    pub(super) fn into_batch(self) -> Result<RecordBatch> {
        let columns = &self.shape.columns;
        let arrays = (0..columns.len())
            .map(|i| array(columns[i].kind, self.rows.iter().map(|row| &row[i])))
            .collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(self.schema(), arrays)?)
    }

    /// All rows as a table.
    pub(super) fn into_table(self) -> Result<Arc<dyn TableProvider>> {
        let schema = self.schema();
        let batch = self.into_batch()?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}

pub(super) fn array<'a>(kind: Kind, cells: impl Iterator<Item = &'a Cell>) -> Result<ArrayRef> {
    let element = |ty| Field::new("element", ty, true);
    macro_rules! build {
        ($builder:expr, $get:expr) => {{
            let mut builder = $builder;
            for cell in cells {
                builder.append_option($get(cell)?);
            }
            Ok(Arc::new(builder.finish()) as ArrayRef)
        }};
    }
    macro_rules! build_list {
        ($builder:expr, $ty:expr, $get:expr) => {{
            let mut builder = ListBuilder::new($builder).with_field(element($ty));
            for cell in cells {
                match $get(cell)? {
                    Some(values) => builder.append_value(values.into_iter().map(Some)),
                    None => builder.append_null(),
                }
            }
            Ok(Arc::new(builder.finish()) as ArrayRef)
        }};
    }
    match kind {
        Kind::Bool => build!(BooleanBuilder::new(), flag),
        Kind::Int2 => build!(Int16Builder::new(), int::<i16>),
        Kind::Int4 => build!(Int32Builder::new(), int::<i32>),
        Kind::Int8 => build!(Int64Builder::new(), int::<i64>),
        Kind::Float4 => build!(Float32Builder::new(), float4),
        Kind::Float8 => build!(Float64Builder::new(), float),
        Kind::Text | Kind::Word(_) => build!(StringBuilder::new(), text),
        Kind::Bytea => build!(BinaryBuilder::new(), |c| text(c)
            .map(|t| t.map(str::as_bytes))),
        Kind::Timestamptz => {
            build!(
                TimestampMicrosecondBuilder::new().with_timezone("UTC"),
                int::<i64>
            )
        }
        Kind::Id(_) => build!(UInt32Builder::new(), int::<u32>),
        Kind::TextList(_) => build_list!(StringBuilder::new(), DataType::Utf8, texts),
        Kind::IdList(_) => build_list!(UInt32Builder::new(), DataType::UInt32, ints::<u32>),
        Kind::Int2List(_) => build_list!(Int16Builder::new(), DataType::Int16, ints::<i16>),
        Kind::Int4List => build_list!(Int32Builder::new(), DataType::Int32, ints::<i32>),
        // no system table of ours has values of this type
        Kind::Float4List => build_list!(Float32Builder::new(), DataType::Float32, no_values),
    }
}

fn mismatch(cell: &Cell) -> Error {
    Error::Internal(format!("{cell:?} does not fit its system column"))
}

fn flag(cell: &Cell) -> Result<Option<bool>> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Bool(v) => Ok(Some(*v)),
        other => Err(mismatch(other)),
    }
}

fn int<T: TryFrom<i64>>(cell: &Cell) -> Result<Option<T>> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Int(v) => T::try_from(*v).map(Some).map_err(|_| mismatch(cell)),
        other => Err(mismatch(other)),
    }
}

fn float(cell: &Cell) -> Result<Option<f64>> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Float(v) => Ok(Some(*v)),
        other => Err(mismatch(other)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "PostgreSQL keeps these estimates as float4 too"
)]
fn float4(cell: &Cell) -> Result<Option<f32>> {
    Ok(float(cell)?.map(|v| v as f32))
}

fn text(cell: &Cell) -> Result<Option<&str>> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Text(v) => Ok(Some(v)),
        other => Err(mismatch(other)),
    }
}

fn texts(cell: &Cell) -> Result<Option<&[String]>> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Texts(v) => Ok(Some(v)),
        other => Err(mismatch(other)),
    }
}

fn ints<T: TryFrom<i64>>(cell: &Cell) -> Result<Option<Vec<T>>> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Ints(v) => v
            .iter()
            .map(|v| T::try_from(*v).map_err(|_| mismatch(cell)))
            .collect::<Result<Vec<_>>>()
            .map(Some),
        other => Err(mismatch(other)),
    }
}

fn no_values(cell: &Cell) -> Result<Option<Vec<f32>>> {
    match cell {
        Cell::Null => Ok(None),
        other => Err(mismatch(other)),
    }
}
