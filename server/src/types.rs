//! SQL types ↔ Arrow fields ↔ PostgreSQL type oids: the one place that maps them.
//!
//! In memory every type has one canonical Arrow form, so stored aggregate states stay comparable.
//! `uuid`, `json`, `jsonb` and `varchar(n)` travel as `Utf8` with their SQL type in the field
//! metadata under [`TYPE_KEY`]; an expression over them is plain text, as in most engines.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use catalog::{Column, SqlType};

/// Field metadata key that keeps an SQL type Arrow has no form for: `uuid`, `json`, `jsonb`, `varchar:n`.
pub const TYPE_KEY: &str = "weir.type";

/// Field metadata key that [`crate::session::Session::ingest_table`] sets on columns that have a
/// default: a row that leaves such a column out gets the default, not NULL.
pub const DEFAULT_KEY: &str = "weir.default";

/// Name of the column that keeps what has no column: keys that the table does not know, values that are
/// not of their column's type.
pub const RESCUED: &str = "_rescued";

/// What a table makes of keys and values that do not fit its columns, if it does not refuse them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evolution {
    /// New columns, and wider types.
    Add,
    /// They are kept in the column [`RESCUED`].
    Rescue,
}

/// Schema metadata key that [`crate::session::Session::ingest_schema`] sets for such tables.
const EVOLUTION_KEY: &str = "weir.evolution";

impl Evolution {
    /// The name of the option's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Rescue => "rescue",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Add, Self::Rescue];
        all.into_iter()
            .find(|e| name.eq_ignore_ascii_case(e.name()))
    }

    /// What a schema that rows are decoded into says: rows may bring what has no place in their
    /// column as JSON objects in a column [`RESCUED`].
    pub fn of(schema: &Schema) -> Option<Self> {
        schema
            .metadata()
            .get(EVOLUTION_KEY)
            .and_then(|n| Self::named(n))
    }

    /// Makes a schema say so.
    pub fn marking(self, schema: Schema) -> Schema {
        let mut metadata = schema.metadata().clone();
        metadata.insert(EVOLUTION_KEY.to_owned(), self.name().to_owned());
        schema.with_metadata(metadata)
    }
}

/// Field metadata key of a result's column that is a table's column as it stands: see [`Origin`].
const ORIGIN_KEY: &str = "weir.origin";

/// The column of a table, or of a view, that a result's column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The relation's id, as in `pg_class.oid`.
    pub table: u32,
    /// The column's number from 1, as in `pg_attribute.attnum`.
    pub column: i16,
}

impl Origin {
    /// The field, saying so.
    pub fn note(self, field: &Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.insert(
            ORIGIN_KEY.to_owned(),
            format!("{}.{}", self.table, self.column),
        );
        field.clone().with_metadata(metadata)
    }

    /// What a field says.
    pub fn of(field: &Field) -> Option<Self> {
        let (table, column) = field.metadata().get(ORIGIN_KEY)?.split_once('.')?;
        Some(Self {
            table: table.parse().ok()?,
            column: column.parse().ok()?,
        })
    }
}

/// Field metadata key of a stored column that was added with an expression that makes its values
/// (`GENERATED ALWAYS AS`).
pub const GENERATED_KEY: &str = "weir.generated";

/// Field metadata key of a stored column that was added with a default: the value, as text, that rows
/// from before have in it.
pub const MISSING_KEY: &str = "weir.missing";

/// Name of the log position column of streaming tables.
pub const LSN: &str = "_lsn";

/// The canonical Arrow type of an SQL type.
pub fn arrow_type(sql: &SqlType) -> DataType {
    match sql {
        SqlType::Bool => DataType::Boolean,
        SqlType::Int2 => DataType::Int16,
        SqlType::Int4 => DataType::Int32,
        SqlType::Int8 => DataType::Int64,
        SqlType::Float4 => DataType::Float32,
        SqlType::Float8 => DataType::Float64,
        SqlType::Numeric { precision, scale } => DataType::Decimal128(*precision, *scale),
        SqlType::Text | SqlType::Varchar(_) | SqlType::Uuid | SqlType::Json | SqlType::Jsonb => {
            DataType::Utf8
        }
        SqlType::Bytea => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
        SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        SqlType::Interval => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        SqlType::Array(of) => DataType::List(Arc::new(field("element", of, true))),
        SqlType::Record(fields) => DataType::Struct(
            fields
                .iter()
                .map(|(name, ty)| field(name, ty, true))
                .collect(),
        ),
    }
}

/// The Arrow field of a column, with its SQL type in the metadata where Arrow would lose it.
pub fn field(name: &str, sql: &SqlType, nullable: bool) -> Field {
    let tag = match sql {
        SqlType::Uuid => Some("uuid".to_owned()),
        SqlType::Json => Some("json".to_owned()),
        SqlType::Jsonb => Some("jsonb".to_owned()),
        SqlType::Varchar(n) => Some(format!("varchar:{n}")),
        _ => None,
    };
    let field = Field::new(name, arrow_type(sql), nullable);
    match tag {
        Some(tag) => field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), tag)])),
        None => field,
    }
}

/// The Arrow schema of visible columns.
pub fn schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|c| field(&c.name, &c.sql_type, c.nullable))
            .collect::<Vec<_>>(),
    ))
}

/// The SQL type of an Arrow field; types PostgreSQL lacks come out as their nearest wider one.
pub fn sql_type(field: &Field) -> SqlType {
    match field.metadata().get(TYPE_KEY).map(String::as_str) {
        Some("uuid") => return SqlType::Uuid,
        Some("json") => return SqlType::Json,
        Some("jsonb") => return SqlType::Jsonb,
        Some(tag) => {
            if let Some(n) = tag.strip_prefix("varchar:").and_then(|n| n.parse().ok()) {
                return SqlType::Varchar(n);
            }
        }
        None => {}
    }
    sql_type_of(field.data_type())
}

/// The SQL type of a bare Arrow type.
pub fn sql_type_of(ty: &DataType) -> SqlType {
    match ty {
        DataType::Boolean => SqlType::Bool,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => SqlType::Int2,
        DataType::Int32 | DataType::UInt16 => SqlType::Int4,
        DataType::Int64 | DataType::UInt32 => SqlType::Int8,
        DataType::UInt64 => SqlType::Numeric {
            precision: 20,
            scale: 0,
        },
        DataType::Float16 | DataType::Float32 => SqlType::Float4,
        DataType::Float64 => SqlType::Float8,
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => SqlType::Numeric {
            precision: *p,
            scale: *s,
        },
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => SqlType::Bytea,
        DataType::Date32 | DataType::Date64 => SqlType::Date,
        DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
        DataType::Timestamp(_, None) => SqlType::Timestamp,
        DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz,
        DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::FixedSizeList(f, _)
        | DataType::ListView(f)
        | DataType::LargeListView(f) => SqlType::Array(Box::new(sql_type(f))),
        DataType::Struct(fields) => SqlType::Record(
            fields
                .iter()
                .map(|f: &FieldRef| (f.name().clone(), sql_type(f)))
                .collect(),
        ),
        DataType::Dictionary(_, value) => sql_type_of(value),
        DataType::RunEndEncoded(_, value) => sql_type(value),
        DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Map(..)
        | DataType::Union(..) => SqlType::Text,
    }
}

/// Types that a column's type may be changed to, each able to hold every value of the one before:
/// whole numbers to wider ones, to double, to text.
pub fn widenings(from: &SqlType) -> &'static [SqlType] {
    const CHAIN: [SqlType; 5] = [
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float8,
        SqlType::Text,
    ];
    match from {
        SqlType::Int2 => &CHAIN[1..],
        SqlType::Int4 => &CHAIN[2..],
        SqlType::Int8 | SqlType::Float4 => &CHAIN[3..],
        SqlType::Float8 | SqlType::Bool | SqlType::Varchar(_) => &CHAIN[4..],
        _ => &[],
    }
}

/// PostgreSQL's oid of a type.
pub fn pg_oid(sql: &SqlType) -> u32 {
    match sql {
        SqlType::Bool => 16,
        SqlType::Bytea => 17,
        SqlType::Int8 => 20,
        SqlType::Int2 => 21,
        SqlType::Int4 => 23,
        SqlType::Text => 25,
        SqlType::Json => 114,
        SqlType::Float4 => 700,
        SqlType::Float8 => 701,
        SqlType::Varchar(_) => 1043,
        SqlType::Date => 1082,
        SqlType::Time => 1083,
        SqlType::Timestamp => 1114,
        SqlType::Timestamptz => 1184,
        SqlType::Interval => 1186,
        SqlType::Numeric { .. } => 1700,
        SqlType::Uuid => 2950,
        // no client supports anonymous composites: they travel as JSON
        SqlType::Jsonb | SqlType::Record(_) => 3802,
        SqlType::Array(of) => pg_array_oid(of),
    }
}

fn pg_array_oid(of: &SqlType) -> u32 {
    match of {
        SqlType::Bool => 1000,
        SqlType::Bytea => 1001,
        SqlType::Int2 => 1005,
        SqlType::Int4 => 1007,
        SqlType::Text => 1009,
        SqlType::Varchar(_) => 1015,
        SqlType::Int8 => 1016,
        SqlType::Float4 => 1021,
        SqlType::Float8 => 1022,
        SqlType::Timestamp => 1115,
        SqlType::Date => 1182,
        SqlType::Time => 1183,
        SqlType::Timestamptz => 1185,
        SqlType::Interval => 1187,
        SqlType::Numeric { .. } => 1231,
        SqlType::Json => 199,
        SqlType::Uuid => 2951,
        // a type has arrays of any number of dimensions
        SqlType::Array(of) => pg_array_oid(of),
        // arrays of composites travel as one JSON value
        SqlType::Jsonb | SqlType::Record(_) => 3802,
    }
}

/// PostgreSQL's type modifier, -1 for none.
pub fn pg_typmod(sql: &SqlType) -> i32 {
    match sql {
        SqlType::Numeric { precision, scale } => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0xffff)) + 4
        }
        SqlType::Varchar(n) => i32::try_from(*n).map_or(-1, |n| n.saturating_add(4)),
        _ => -1,
    }
}

/// True for the form in which a uuid is stored: lower case, with its four hyphens.
pub fn is_canonical_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stored_form_of_a_uuid_is_canonical() {
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert!(is_canonical_uuid(id));
        assert_eq!(uuid::Uuid::try_parse(id).unwrap().to_string(), id);
        for other in [
            "0F8FAD5B-D9CB-469F-A165-70867728950E",
            "0f8fad5bd9cb469fa16570867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950g",
            "0f8fad5b-d9cb-469f-a165-70867728950",
            "{f8fad5b-d9cb-469f-a165-70867728950}",
            "",
        ] {
            assert!(!is_canonical_uuid(other), "{other}");
        }
    }
}
