//! `pg_sleep(seconds)`: waits.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::utils::take_function_args;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

/// No sleep is longer.
const LONGEST: f64 = 366.0 * 86_400.0;

#[user_doc(
    doc_section(label = "Session"),
    description = "Waits that many seconds, fractions included, for each row it is computed for, and gives an empty \
text. A cancel or a timeout of the statement ends the wait. NULL does not wait; less than zero is zero.",
    syntax_example = "pg_sleep(seconds)",
    sql_example = r#"```sql
SELECT pg_sleep(0.2);
```"#,
    argument(name = "seconds", description = "double precision")
)]
/// `pg_sleep(seconds)`, as in PostgreSQL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PgSleep {
    signature: Signature,
}

impl Default for PgSleep {
    fn default() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Float64], Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for PgSleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("pg_sleep can stand in the select list of a query only")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for PgSleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [seconds] = take_function_args(self.name(), args.args)?;
        let seconds = seconds.into_array(rows)?;
        let total: f64 = seconds
            .as_primitive::<Float64Type>()
            .iter()
            .flatten()
            .filter(|s| *s > 0.0)
            .sum();
        tokio::time::sleep(Duration::from_secs_f64(total.min(LONGEST))).await;
        ColumnarValue::Scalar(ScalarValue::from(""))
            .into_array(rows)
            .map(ColumnarValue::Array)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::async_udf::AsyncScalarUDF;
    use datafusion::prelude::SessionContext;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::PgSleep;

    #[tokio::test]
    async fn it_waits_for_every_row_and_not_for_null() {
        let context = SessionContext::new();
        let function = AsyncScalarUDF::new(Arc::new(PgSleep::default()));
        context.register_udf(function.into_scalar_udf());
        let begun = Instant::now();
        let sql = "SELECT pg_sleep(v) FROM (VALUES (0.02), (0.03), (NULL), (-1)) AS t (v)";
        let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
        assert_eq!(rows.iter().map(|b| b.num_rows()).sum::<usize>(), 4);
        assert!(begun.elapsed() >= Duration::from_millis(50));
        let long = context.sql("SELECT pg_sleep(600)").await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(50), long.collect()).await;
        assert!(waited.is_err(), "dropping the query ends the wait");
    }
}
