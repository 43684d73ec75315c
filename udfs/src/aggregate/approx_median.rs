//! `approx_median(x)`: about the middle value.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::functions_aggregate::approx_median::ApproxMedian as Original;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature};
use datafusion_macros::user_doc;

use super::approx_distinct::state_field;
use super::approx_percentile_cont::Percentile;
use crate::FunctionError;
use crate::sketch::{CAPACITY, Quantiles};

#[user_doc(
    doc_section(label = "Sketches"),
    description = "About the middle of all values of `x`: `approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY x)`. Exact up to 4096 different values.",
    syntax_example = "approx_median(x)",
    sql_example = r#"```sql
SELECT route, approx_median(latency) FROM requests GROUP BY route;
```"#,
    argument(name = "x", description = "A number; taken as `double precision`")
)]
/// `approx_median`. The state is `Quantiles`.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ApproxMedian {
    /// DataFusion's of that name, for what it takes.
    like: Original,
}

impl AggregateUDFImpl for ApproxMedian {
    fn name(&self) -> &str {
        "approx_median"
    }

    fn signature(&self) -> &Signature {
        self.like.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types.first().cloned().unwrap_or(DataType::Float64))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![state_field(args.name)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(FunctionError::unsupported("approx_median does not take DISTINCT").into());
        }
        Ok(Box::new(Percentile {
            part: 0.5,
            ty: args.return_field.data_type().clone(),
            sketch: Quantiles::new(CAPACITY),
        }))
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
