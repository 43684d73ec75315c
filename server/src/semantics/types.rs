//! Type names → Arrow fields, and the families of types that may stand beside each other.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;

use crate::types;

/// Plans type names as columns have them: microseconds, `uuid` and `jsonb` with their tags.
pub(super) fn planner() -> Arc<dyn TypePlanner> {
    Arc::new(Types)
}

#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(
        &self,
        written: &ast::DataType,
    ) -> datafusion::error::Result<Option<FieldRef>> {
        // a field with a name: its metadata replaces that of the value
        let sql = crate::dialect::data_type::sql_type(written)?;
        Ok(Some(Arc::new(types::field("cast", &sql, true))))
    }
}

/// Types between which PostgreSQL has operators without a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Bool,
    Number,
    Text,
    Bytes,
    /// `date`, `timestamp`, `timestamptz`
    Instant,
    Time,
    Interval,
    /// Not judged here.
    Other,
}

pub(super) fn family(ty: &DataType) -> Family {
    match ty {
        DataType::Boolean => Family::Bool,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Family::Bytes,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Family::Instant,
        DataType::Time32(_) | DataType::Time64(_) => Family::Time,
        DataType::Interval(_) | DataType::Duration(_) => Family::Interval,
        ty if ty.is_numeric() => Family::Number,
        _ => Family::Other,
    }
}

/// A quoted literal: its type is open until something beside it decides.
pub(super) fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => matches!(
            value,
            ScalarValue::Utf8(_)
                | ScalarValue::LargeUtf8(_)
                | ScalarValue::Utf8View(_)
                | ScalarValue::Null
        ),
        Expr::Alias(alias) => is_unknown(&alias.expr),
        Expr::Placeholder(_) => true,
        _ => false,
    }
}

/// PostgreSQL's name of an Arrow type, without a size.
pub(super) fn name(ty: &DataType) -> String {
    let name = types::sql_type_of(ty).to_string();
    match name.split_once('(') {
        Some((name, _)) => name.to_owned(),
        None => name,
    }
}
