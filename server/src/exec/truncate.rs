//! `TRUNCATE [TABLE] t, …`.

use std::collections::HashMap;

use catalog::Privilege;
use datafusion::sql::sqlparser::ast::Truncate;

use super::rewrite::{self, Change};
use super::{Outcome, Run, ingest};
use crate::dialect::refuse::clause;
use crate::dialect::words::parts;
use crate::error::Result;
use crate::governance::privileges;

/// Empties the tables, one commit each; all are checked before the first is emptied.
pub(super) async fn execute(run: &Run, truncate: &Truncate) -> Result<Outcome> {
    clause(
        truncate.partitions.is_some(),
        "TRUNCATE … PARTITION",
        "use DELETE … WHERE",
    )?;
    clause(
        truncate.identity.is_some(),
        "RESTART IDENTITY",
        "there are no sequences: leave it out",
    )?;
    clause(
        truncate.cascade.is_some(),
        "TRUNCATE … CASCADE",
        "there are no foreign keys: leave it out",
    )?;
    clause(truncate.on_cluster.is_some(), "ON CLUSTER", "leave it out")?;
    clause(
        truncate.if_exists,
        "TRUNCATE IF EXISTS",
        "leave IF EXISTS out",
    )?;
    clause(
        truncate.table_names.len() > 1,
        "TRUNCATE of several tables",
        "truncate one table at a time",
    )?;
    for table in &truncate.table_names {
        let (schema, name) = run.scope.split_name(&parts(&table.name))?;
        let relation = ingest::target(&run.scope, &schema, &name)?;
        privileges::check_relation(
            &run.scope.catalog,
            &run.scope.caller.role,
            relation,
            Privilege::Truncate,
        )?;
        run.scope.touch(relation.oid);
        let views = rewrite::check_views(&run.scope, relation)?;
        let nothing = Change {
            parts: Vec::new(),
            must_be_zero: Vec::new(),
            sources: HashMap::new(),
            one_to_one: None,
        };
        rewrite::apply(run, relation, nothing, views, "TRUNCATE TABLE").await?;
    }
    Outcome::command("TRUNCATE TABLE")
}
