//! The catalog functions that clients call, bound to one statement's context. Each is a plain
//! function from its arguments, one row at a time, to one value; catalogs are small.
//!
//! Clients write them with and without the `pg_catalog.` prefix; [`super::compat`] takes it off.

mod arrays;
mod definitions;
mod names;
mod privileges;
mod session;
mod sizes;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result as QueryResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

pub(super) use arrays::parse_array;

use super::SystemContext;
use super::frame::{Cell, Kind, array};
use crate::error::Result;

/// All of them.
pub(super) fn all(cx: &Arc<SystemContext>) -> Vec<Arc<ScalarUDF>> {
    [
        session::LIST,
        names::LIST,
        definitions::LIST,
        privileges::LIST,
        sizes::LIST,
    ]
    .concat()
    .into_iter()
    .map(|(name, kind, eval)| {
        let function = CatalogFunction {
            name,
            kind,
            eval,
            cx: Arc::clone(cx),
            // how many arguments are meant is the function's own business, as in PostgreSQL's
            // overloads
            signature: Signature::one_of(
                vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
                // what acts on others must not run while a statement is planned
                match session::ACTING.contains(&name) {
                    true => Volatility::Volatile,
                    false => Volatility::Stable,
                },
            ),
        };
        Arc::new(ScalarUDF::from(function))
    })
    .chain(arrays::all())
    .collect()
}

/// What a function does for one row.
type Eval = fn(&SystemContext, &Row<'_>) -> Result<Cell>;

/// Name, result type, evaluation.
type Entry = (&'static str, Kind, Eval);

/// The arguments of one row. An argument that is NULL or not given reads as `None`.
struct Row<'a> {
    args: &'a [StringArray],
    row: usize,
}

impl Row<'_> {
    fn len(&self) -> usize {
        self.args.len()
    }

    fn text(&self, i: usize) -> Option<&str> {
        let arg = self.args.get(i)?;
        arg.is_valid(self.row).then(|| arg.value(self.row))
    }

    fn int(&self, i: usize) -> Option<i64> {
        self.text(i)?.parse().ok()
    }

    fn flag(&self, i: usize) -> Option<bool> {
        Some(matches!(self.text(i)?, "true" | "t" | "1" | "on" | "yes"))
    }

    /// An object: its oid, or the name of a relation.
    fn relation(&self, cx: &SystemContext, i: usize) -> Option<u32> {
        let text = self.text(i)?;
        text.parse().ok().or_else(|| names::relation_oid(cx, text))
    }

    fn oid(&self, i: usize) -> Option<u32> {
        self.text(i)?.parse().ok()
    }
}

#[derive(Debug)]
struct CatalogFunction {
    name: &'static str,
    kind: Kind,
    eval: Eval,
    cx: Arc<SystemContext>,
    signature: Signature,
}

// one name stands for one function within a statement
impl PartialEq for CatalogFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.cx, &other.cx)
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(self.kind.field(self.name).data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> QueryResult<FieldRef> {
        Ok(Arc::new(self.kind.field(self.name)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts = args
            .args
            .into_iter()
            .map(|arg| as_text(&arg.into_array(rows)?))
            .collect::<QueryResult<Vec<_>>>()?;
        let cells = (0..rows)
            .map(|row| (self.eval)(&self.cx, &Row { args: &texts, row }))
            .collect::<Result<Vec<_>>>()?;
        let result = array(self.kind, cells.iter())?;
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}

fn as_text(array: &ArrayRef) -> QueryResult<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}
