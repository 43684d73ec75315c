//! What PostgreSQL clients are told about an Arrow field: oid, modifier, size, and how its cells
//! travel. Adds to [`crate::types`] what only the wire needs: catalog types and JSON composites.

use arrow::datatypes::{DataType, Field};
use catalog::SqlType;

use crate::types::{TYPE_KEY, pg_oid, pg_typmod, sql_type};

/// A column's type as RowDescription names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgType {
    /// Type oid.
    pub oid: u32,
    /// Bytes of a value, -1 when it varies.
    pub size: i16,
    /// Type modifier, -1 for none.
    pub typmod: i32,
}

/// How the cells of a field are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By its Arrow type alone.
    Plain,
    /// `uuid` kept as text or 16 bytes.
    Uuid,
    /// `jsonb` kept as text.
    Jsonb,
    /// An oid-like number, or the name that stands for one.
    Oid,
    /// A composite, map, union or an array of them: one JSON value of type `jsonb`.
    Json,
}

impl PgType {
    /// The type of a result column.
    pub fn of(field: &Field) -> Self {
        if let Some(oid) = tagged_oid(field) {
            return Self::fixed(oid);
        }
        if is_json(field.data_type()) {
            return Self::fixed(3802);
        }
        if let Some(oid) = element(field.data_type()).and_then(|e| tagged_oid(e).map(array_oid)) {
            return Self::fixed(oid);
        }
        let sql = sql_type(field);
        Self {
            typmod: match &sql {
                SqlType::Array(of) => pg_typmod(innermost(of)),
                _ => pg_typmod(&sql),
            },
            ..Self::fixed(pg_oid(&sql))
        }
    }

    /// Of the elements of an array, however many dimensions it has.
    pub(super) fn of_elements(field: &Field) -> Self {
        match element(field.data_type()) {
            Some(inner) => Self::of_elements(inner),
            None => Self::of(field),
        }
    }

    fn fixed(oid: u32) -> Self {
        Self {
            oid,
            size: size(oid),
            typmod: -1,
        }
    }
}

impl Kind {
    pub(super) fn of(field: &Field) -> Self {
        if tagged_oid(field).is_some_and(|oid| !matches!(oid, 18 | 19)) {
            return Self::Oid;
        }
        if is_json(field.data_type()) {
            return Self::Json;
        }
        match sql_type(field) {
            SqlType::Uuid => Self::Uuid,
            SqlType::Jsonb => Self::Jsonb,
            _ => Self::Plain,
        }
    }
}

/// Oids of the catalog-only types that system tables put into the field tag.
fn tagged_oid(field: &Field) -> Option<u32> {
    Some(match field.metadata().get(TYPE_KEY)?.as_str() {
        "char" => 18,
        "name" => 19,
        "regproc" => 24,
        "oid" => 26,
        "xid" => 28,
        "regclass" => 2205,
        "regtype" => 2206,
        "regrole" => 4096,
        "regnamespace" => 4089,
        _ => return None,
    })
}

fn innermost(of: &SqlType) -> &SqlType {
    match of {
        SqlType::Array(of) => innermost(of),
        of => of,
    }
}

fn array_oid(of: u32) -> u32 {
    match of {
        18 => 1002,
        19 => 1003,
        24 => 1008,
        28 => 1011,
        2205 => 2210,
        2206 => 2211,
        4096 => 4097,
        4089 => 4090,
        _ => 1028,
    }
}

/// The element of a one-dimensional array type.
fn element(ty: &DataType) -> Option<&Field> {
    match ty {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::FixedSizeList(f, _)
        | DataType::ListView(f)
        | DataType::LargeListView(f) => Some(f),
        _ => None,
    }
}

fn is_json(ty: &DataType) -> bool {
    match ty {
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => true,
        DataType::Dictionary(_, value) => is_json(value),
        DataType::RunEndEncoded(_, value) => is_json(value.data_type()),
        _ => element(ty).is_some_and(|e| is_json(e.data_type())),
    }
}

fn size(oid: u32) -> i16 {
    match oid {
        16 | 18 => 1,
        21 => 2,
        23 | 24 | 26 | 28 | 700 | 1082 | 2205 | 2206 | 4089 | 4096 => 4,
        20 | 701 | 1083 | 1114 | 1184 => 8,
        1186 | 2950 => 16,
        19 => 64,
        _ => -1,
    }
}
