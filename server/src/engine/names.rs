//! Names → providers, for one statement and one role.
//!
//! Every statement form and every wire resolves names here: privileges hold, and policies will stand,
//! in this one place. A view is handed out as its plan, made with its owner's rights over the same cut.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use async_trait::async_trait;
use catalog::{Privilege, Relation, RelationKind};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::ViewTable;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::scan::WeirTable;
use super::scope::{DATABASE, PATH, Scope, bound};
use crate::dialect;
use crate::dialect::time_travel::TableVersion;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::lake;
use crate::stream::head::TableHead;
use crate::system;
use crate::types;
use crate::views;

/// The database's names as one statement may see them.
#[derive(Debug)]
pub struct Names(Arc<Scope>);

/// One schema of it.
#[derive(Debug)]
struct SchemaNames {
    scope: Arc<Scope>,
    schema: String,
}

impl Names {
    /// Names for a statement.
    pub fn new(scope: Arc<Scope>) -> Self {
        Self(scope)
    }
}

impl CatalogProviderList for Names {
    fn register_catalog(
        &self,
        _: String,
        _: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![DATABASE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == DATABASE).then(|| Arc::new(Self(Arc::clone(&self.0))) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Names {
    fn schema_names(&self) -> Vec<String> {
        self.0
            .catalog
            .schemas
            .iter()
            .map(|s| s.name.clone())
            .collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        // an unknown schema answers too: `table` then says which relation is missing
        let scope = Arc::clone(&self.0);
        let schema = name.to_owned();
        Some(Arc::new(SchemaNames { scope, schema }))
    }
}

#[async_trait]
impl SchemaProvider for SchemaNames {
    fn table_names(&self) -> Vec<String> {
        let catalog = &self.scope.catalog;
        let Some(schema) = catalog.schema(&self.schema) else {
            return Vec::new();
        };
        catalog
            .relations
            .iter()
            .filter(|r| r.schema == schema.oid)
            .map(|r| r.name.clone())
            .collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        let schemas = self.schemas().unwrap_or_default();
        schemas
            .iter()
            .any(|schema| self.scope.catalog.relation(schema, name).is_some())
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        match self.resolve(name).await {
            Ok(table) => Ok(Some(table)),
            // the planner asks for table functions and common table expressions too: it says itself
            // what is missing
            Err(e) if e.state() == SqlState::UNDEFINED_TABLE => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl SchemaNames {
    /// Where its names are looked up, in order.
    fn schemas(&self) -> Result<Vec<&str>> {
        match self.schema.as_str() {
            PATH => {
                let path = self.scope.path();
                path.map(|schema| self.scope.named_schema(schema)).collect()
            }
            named => Ok(vec![self.scope.named_schema(named)?]),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        let (bare, version) = TableVersion::of(name);
        let scope = &self.scope;
        let schemas = self.schemas()?;
        for schema in &schemas {
            let source = ((*schema).to_owned(), bare.to_owned());
            if let Some(source) = scope.sources.get(&source).filter(|_| version.is_none()) {
                return Ok(Arc::clone(source));
            }
            let Some(relation) = scope.catalog.relation(schema, bare) else {
                continue;
            };
            let needed = scope
                .targets
                .get(&relation.oid)
                .copied()
                .unwrap_or(Privilege::Select);
            privileges::check_relation(&scope.catalog, &scope.caller.role, relation, needed)?;
            scope.touch(relation.oid);
            return relation_provider(scope, relation, version).await;
        }
        if bare == "audit_log" {
            scope.engine.audit.sync().await;
        }
        let cx = scope.system();
        // pg_catalog is searched without being named, as in PostgreSQL
        let unnamed = self.schema == PATH || self.schema == scope.caller.schema;
        let implied = unnamed.then_some("pg_catalog");
        for schema in schemas.into_iter().chain(implied) {
            if let Some(table) = system::table(schema, bare, &cx).await? {
                return Ok(table);
            }
        }
        Err(Error::undefined_table(bare))
    }
}

async fn relation_provider(
    scope: &Arc<Scope>,
    relation: &Relation,
    version: Option<TableVersion>,
) -> Result<Arc<dyn TableProvider>> {
    match relation.kind {
        RelationKind::Table | RelationKind::StreamingTable => {
            match version.or_else(|| scope.caller.as_of.clone()) {
                None => {
                    let Some(head) = scope.head.tables.get(&relation.oid) else {
                        return Err(Error::undefined_table(&relation.name));
                    };
                    let head = shown(scope, relation, head);
                    Ok(Arc::new(WeirTable::new(head, scope.shows_lsn)))
                }
                Some(version) => at_version(scope, relation, &version).await,
            }
        }
        RelationKind::ExternalTable => {
            let version = version.or_else(|| scope.caller.as_of.clone());
            scope.external(relation, version.as_ref()).await
        }
        RelationKind::View | RelationKind::MaterializedView => {
            let stored = relation.kind == RelationKind::MaterializedView;
            if version.is_some() || (stored && scope.caller.as_of.is_some()) {
                return Err(Error::unsupported(
                    format!("view \"{}\" has no versions", relation.name),
                    "read its source tables AS OF",
                ));
            }
            let plan = Box::pin(view_plan(scope, relation)).await?;
            Ok(Arc::new(ViewTable::new(plan, relation.query.clone())))
        }
    }
}

/// The head with the columns that the statement, or the view it plans, knows of. Types are the head's.
fn shown(scope: &Scope, relation: &Relation, head: &Arc<TableHead>) -> Arc<TableHead> {
    let known = scope.columns_of(relation);
    let same = known.clone().map(|c| &c.name);
    if same.eq(head.schema.fields().iter().map(|f| f.name())) {
        return Arc::clone(head);
    }
    let fields: Vec<FieldRef> = known
        .map(|c| match head.schema.fields().find(&c.name) {
            Some((_, field)) => Arc::clone(field),
            None => Arc::new(types::field(&c.name, &c.sql_type, true)),
        })
        .collect();
    Arc::new(TableHead {
        schema: Arc::new(Schema::new(fields)),
        ..TableHead::clone(head)
    })
}

async fn at_version(
    scope: &Scope,
    relation: &Relation,
    version: &TableVersion,
) -> Result<Arc<dyn TableProvider>> {
    let Some(head) = scope.head.tables.get(&relation.oid) else {
        return Err(Error::undefined_table(&relation.name));
    };
    let snapshot = lake::open(&head.lake.root, moment(version)?).await?;
    // of today's columns, what there was of them
    let fields: Vec<_> = scope
        .columns_of(relation)
        .map(|c| {
            let stored = snapshot.schema.field_with_name(&c.name);
            let nullable = stored.map_or(true, |f| f.is_nullable());
            types::field(&c.name, &c.sql_type, nullable)
        })
        .collect();
    Ok(Arc::new(WeirTable::stored_as(
        relation.oid,
        Arc::new(snapshot),
        Arc::new(Schema::new(fields)),
    )))
}

/// The state of a table that a version means.
pub(super) fn moment(version: &TableVersion) -> Result<lake::At> {
    Ok(match version {
        TableVersion::Version(n) => lake::At::Version(*n),
        TableVersion::Timestamp(text) => lake::At::Timestamp(parse_time(text)?),
    })
}

/// A timestamp as text, in UTC when it names no zone, in microseconds since the Unix epoch.
pub fn parse_time(text: &str) -> Result<i64> {
    let moment = arrow::compute::kernels::cast_utils::string_to_datetime(&chrono::Utc, text.trim());
    moment.map(|t| t.timestamp_micros()).map_err(|_| {
        Error::refused(
            SqlState::INVALID_DATETIME_FORMAT,
            format!("invalid input syntax for type timestamp: \"{text}\""),
        )
    })
}

/// The plan a view stands for: its query over the statement's cut with its owner's rights, its columns
/// under the view's names; a materialized view reads its state and what came after.
pub async fn view_plan(scope: &Arc<Scope>, relation: &Relation) -> Result<LogicalPlan> {
    let (_, plan) = defining_plan(scope, relation).await?;
    let plan = match views::Kept::of(relation)? {
        Some(kept) if !scope.inlines_views => {
            views::read_plan(&relation.name, &kept, plan, &scope.head)?
        }
        _ => plan,
    };
    // the full name marks the view's edge: an alias that a query gives is never full
    let schema = scope
        .catalog
        .schema_by_oid(relation.schema)
        .map(|s| s.name.clone())
        .unwrap_or_default();
    let name = TableReference::full(DATABASE, schema, relation.name.as_str());
    Ok(LogicalPlanBuilder::from(renamed(plan, relation)?)
        .alias(name)?
        .build()?)
}

/// The analyzed plan of a view's own query, without its state.
pub async fn defining_plan(
    scope: &Arc<Scope>,
    relation: &Relation,
) -> Result<(datafusion::execution::SessionState, LogicalPlan)> {
    let Some(text) = &relation.query else {
        return Err(Error::Internal(format!(
            "view \"{}\" has no query",
            relation.name
        )));
    };
    let query = bound(dialect::parse_query(text)?)?;
    let scope = Arc::new(scope.of_view(relation)?);
    scope.plan(&query).await
}

fn renamed(plan: LogicalPlan, relation: &Relation) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    if columns.len() != relation.columns.len() {
        return Err(Error::refused(
            SqlState::INVALID_TABLE_DEFINITION,
            format!(
                "view \"{}\" does not match its source any more",
                relation.name
            ),
        )
        .with_hint("create the view again"));
    }
    let named = columns.iter().zip(&relation.columns);
    if named
        .clone()
        .all(|(column, named)| column.name == named.name)
    {
        // a column under an alias of its own name confuses the optimizer when its fields are taken
        return Ok(plan);
    }
    let exprs = named.map(|(column, named)| {
        let same = column.relation.is_none() && column.name == named.name;
        let column = Expr::Column(column.clone());
        match same {
            true => column,
            false => column.alias(&named.name),
        }
    });
    let exprs: Vec<Expr> = exprs.collect();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}
