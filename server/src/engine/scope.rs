//! One statement's world: the cut it reads, the role it runs as, and the planning state built on them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use catalog::{
    Column, MaterializedView, ObjectKind, Oid, Privilege, Relation, Snapshot, Strategy,
    names_temporary,
};
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::functions::datetime::now::NowFunc;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::sql::parser::Statement as PlanStatement;
use datafusion::sql::sqlparser::ast;

use super::Engine;
use super::names::Names;
use crate::dialect::time_travel::TableVersion;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::ml::{ModelResolver, ScoringModel};
use crate::stream::head::DbHead;
use crate::system::{self, Setting, SystemContext};

/// The schema that unqualified names mean.
pub const DEFAULT_SCHEMA: &str = "public";
/// The one database.
pub const DATABASE: &str = "weir";

/// The schema that unqualified names are looked up in by a session with temporary tables: those first.
/// No schema can have this name; who writes it gets what he would without it.
pub const PATH: &str = "\u{2}path";

/// What a session tells of itself to a statement.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Role that names resolve for.
    pub role: String,
    /// Role that logged in.
    pub session_role: String,
    /// First schema of the search path.
    pub schema: String,
    /// Whole search path.
    pub search_path: Vec<String>,
    /// The schema of the session's temporary tables, if it has made one: it comes first.
    pub temporary: Option<String>,
    /// `TimeZone`.
    pub time_zone: String,
    /// `weir.as_of`: every table is read as of then.
    pub as_of: Option<TableVersion>,
    /// The session's number.
    pub pid: i32,
    /// A table that rows may be added to whatever the role.
    pub opened: Option<Oid>,
    /// All settings, for `pg_settings`.
    pub settings: Arc<[Setting]>,
}

/// One statement's cut and caller. Everything it reads, it reads through this.
#[derive(Debug)]
pub struct Scope {
    /// The database.
    pub engine: Arc<Engine>,
    /// The statement's catalog.
    pub catalog: Arc<Snapshot>,
    /// The statement's head.
    pub head: Arc<DbHead>,
    /// Who asks.
    pub caller: Caller,
    /// Relations the statement writes, with the privilege that takes instead of SELECT.
    pub targets: HashMap<Oid, Privilege>,
    /// Providers that stand in for names, `(schema, name)`: a table that stands still while it is
    /// rewritten, the collected source of a MERGE.
    pub sources: HashMap<(String, String), Arc<dyn TableProvider>>,
    /// Streaming tables show `_lsn`: the statement names it.
    pub shows_lsn: bool,
    /// Materialized views stand for their queries, not for their state: for views over views, whose own
    /// state is made from the tables below.
    pub inlines_views: bool,
    /// What `now()` is in every plan of the statement: those that make one change must agree.
    started: DateTime<Utc>,
    /// Inside a view: when its query was written. Columns that are younger are not there for it.
    written: Option<Oid>,
    /// How many views deep planning is.
    depth: usize,
    touched: Arc<Mutex<BTreeSet<Oid>>>,
    /// External tables that the statement reads, as they were when it first named them.
    external: Arc<tokio::sync::Mutex<HashMap<Oid, Arc<dyn TableProvider>>>>,
}

/// How often a cut is taken anew because the catalog changed while it was taken.
const CUT_ATTEMPTS: usize = 4;

/// Views may read views this deep.
const MAX_DEPTH: usize = 32;

impl Caller {
    /// The server itself, with the superuser's rights.
    pub fn system() -> Self {
        Self {
            role: super::open::ADMIN.to_owned(),
            session_role: super::open::ADMIN.to_owned(),
            schema: DEFAULT_SCHEMA.to_owned(),
            search_path: vec![DEFAULT_SCHEMA.to_owned()],
            temporary: None,
            time_zone: "UTC".to_owned(),
            as_of: None,
            pid: 0,
            opened: None,
            settings: Arc::default(),
        }
    }
}

impl Scope {
    /// Takes the newest cut, once.
    pub fn new(engine: &Arc<Engine>, caller: Caller) -> Self {
        // a catalog that has not changed meanwhile belongs to the head: one that is newer may have
        // columns that the head's rows lack
        for _ in 0..CUT_ATTEMPTS {
            let before = engine.catalog();
            let head = engine.stream.head();
            let catalog = engine.catalog();
            if before.generation == catalog.generation {
                return Self::of(engine, caller, head, catalog);
            }
        }
        Self::over(engine, caller, engine.stream.head())
    }

    /// Over a head that was taken before.
    pub fn over(engine: &Arc<Engine>, caller: Caller, head: Arc<DbHead>) -> Self {
        // a relation of a newer catalog may be missing in the head (42P01), never misread
        Self::of(engine, caller, head, engine.catalog())
    }

    fn of(engine: &Arc<Engine>, caller: Caller, head: Arc<DbHead>, catalog: Arc<Snapshot>) -> Self {
        Self {
            engine: Arc::clone(engine),
            catalog,
            head,
            caller,
            targets: HashMap::new(),
            sources: HashMap::new(),
            shows_lsn: false,
            inlines_views: false,
            started: Utc::now(),
            written: None,
            depth: 0,
            touched: Arc::default(),
            external: Arc::default(),
        }
    }

    /// The same cut for the body of a view, with its owner's rights.
    pub fn definer(&self, owner: Oid) -> Result<Self> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "views are nested too deeply",
            ));
        }
        let owner = self
            .catalog
            .role_by_oid(owner)
            .map(|r| r.name.clone())
            .unwrap_or_default();
        Ok(Self {
            engine: Arc::clone(&self.engine),
            catalog: Arc::clone(&self.catalog),
            head: Arc::clone(&self.head),
            caller: Caller {
                role: owner,
                // what a view reads must not depend on who reads it
                temporary: None,
                ..self.caller.clone()
            },
            targets: HashMap::new(),
            sources: HashMap::new(),
            shows_lsn: false,
            inlines_views: self.inlines_views,
            started: self.started,
            written: None,
            depth: self.depth + 1,
            touched: Arc::clone(&self.touched),
            external: Arc::clone(&self.external),
        })
    }

    /// The same cut and caller, with notes of its own of what is touched.
    pub fn apart(&self) -> Self {
        Self {
            touched: Arc::default(),
            ..self.same()
        }
    }

    /// The same cut and caller, to be changed in one point or another.
    pub fn copied(&self) -> Self {
        self.same()
    }

    /// The same cut and caller with providers that stand in for names.
    pub fn over_sources(&self, sources: HashMap<(String, String), Arc<dyn TableProvider>>) -> Self {
        Self {
            sources,
            ..self.same()
        }
    }

    /// The same cut and caller, with `_lsn` among the columns of streaming tables.
    pub fn showing_lsn(&self) -> Arc<Self> {
        Arc::new(Self {
            shows_lsn: true,
            ..self.same()
        })
    }

    /// The same cut and caller, where materialized views stand for their queries.
    pub fn inlining_views(&self) -> Arc<Self> {
        Arc::new(Self {
            inlines_views: true,
            ..self.same()
        })
    }

    /// The same cut and role, with names and times meant as by the maker of a materialized view: what
    /// its state holds must not depend on who reads it.
    fn made_for(mut self, view: &MaterializedView) -> Self {
        if let Some(made) = &view.made_in {
            self.caller.schema.clone_from(&made.schema);
            self.caller.search_path = vec![made.schema.clone()];
            self.caller.time_zone.clone_from(&made.time_zone);
        }
        self.inlines_views |= view.strategy != Strategy::Full;
        self
    }

    /// The scope that a view's own query is planned in.
    pub fn of_view(&self, view: &Relation) -> Result<Self> {
        let mut scope = self.definer(view.owner)?;
        scope.written = Some(view.defined());
        Ok(match &view.materialized {
            Some(materialized) => scope.made_for(materialized),
            // unqualified names mean the view's own schema, whatever the reader's search path says
            None => match self.catalog.schemas.iter().find(|s| s.oid == view.schema) {
                Some(schema) => scope.in_schema(&schema.name),
                None => scope,
            },
        })
    }

    /// The same cut and role, where unqualified names mean one schema, and no temporary table.
    pub fn in_schema(&self, schema: &str) -> Self {
        let mut scope = self.same();
        schema.clone_into(&mut scope.caller.schema);
        scope.caller.search_path = vec![schema.to_owned()];
        scope.caller.temporary = None;
        scope
    }

    /// The same cut and caller, where a relation takes another privilege than SELECT.
    pub fn writing(&self, relation: Oid, privilege: Privilege) -> Arc<Self> {
        Arc::new(Self {
            targets: HashMap::from([(relation, privilege)]),
            ..self.same()
        })
    }

    fn same(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            catalog: Arc::clone(&self.catalog),
            head: Arc::clone(&self.head),
            caller: self.caller.clone(),
            targets: HashMap::new(),
            sources: HashMap::new(),
            shows_lsn: false,
            inlines_views: self.inlines_views,
            started: self.started,
            written: self.written,
            depth: self.depth,
            touched: Arc::clone(&self.touched),
            external: Arc::clone(&self.external),
        }
    }

    /// A relation's columns as far as the statement, or the view it plans, knows of them.
    pub fn columns_of<'a>(
        &self,
        relation: &'a Relation,
    ) -> impl Iterator<Item = &'a Column> + Clone {
        let written = self.written;
        let old = move |c: &&Column| match (c.since, written) {
            (Some(since), Some(written)) => since <= written,
            _ => true,
        };
        relation.columns.iter().filter(old)
    }

    /// An external table, the same however often the statement names it.
    pub async fn external(
        &self,
        relation: &Relation,
        version: Option<&TableVersion>,
    ) -> Result<Arc<dyn TableProvider>> {
        let (known, state) = (&self.engine.external, &self.engine.base);
        if let Some(version) = version {
            let at = super::names::moment(version)?;
            return known.provider(state, relation, Some(at)).await;
        }
        let mut read = self.external.lock().await;
        if let Some(table) = read.get(&relation.oid) {
            return Ok(Arc::clone(table));
        }
        let table = known.provider(state, relation, None).await?;
        read.insert(relation.oid, Arc::clone(&table));
        Ok(table)
    }

    /// Notes that the statement read or wrote a relation.
    pub fn touch(&self, oid: Oid) {
        self.touched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(oid);
    }

    /// The relations the statement read or wrote.
    pub fn touched_oids(&self) -> Vec<Oid> {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.iter().copied().collect()
    }

    /// Names of the relations the statement touched, for the audit row.
    pub fn touched(&self) -> Vec<String> {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched
            .iter()
            .filter_map(|oid| self.catalog.relation_by_oid(*oid))
            .map(|r| self.catalog.qualified_name(r))
            .collect()
    }

    /// The schema that a written name of one means: `pg_temp` is the session's own.
    ///
    /// # Errors
    /// 0A000 for the temporary tables of another session.
    pub fn named_schema<'a>(&'a self, written: &'a str) -> Result<&'a str> {
        match &self.caller.temporary {
            _ if !names_temporary(written) => Ok(written),
            Some(own) if written == "pg_temp" || written == own => Ok(own),
            // there is none yet: nothing is found in it
            None if written == "pg_temp" => Ok(written),
            _ => Err(Error::unsupported(
                "cannot access temporary tables of other sessions",
                "store the rows in an ordinary table",
            )),
        }
    }

    /// The schemas that a relation without one is looked up in, in order.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        let named = std::iter::once(self.caller.schema.as_str());
        self.caller.temporary.as_deref().into_iter().chain(named)
    }

    /// Splits a written name into schema and name. One without a schema is a temporary table's, where
    /// the session has one of that name.
    ///
    /// # Errors
    /// 3D000 for another database, 42601 for too many parts, 0A000 for another session's tables.
    pub fn split_name(&self, parts: &[String]) -> Result<(String, String)> {
        match parts {
            [name] => {
                let (bare, _) = TableVersion::of(name);
                let schema = match &self.caller.temporary {
                    Some(own) if self.catalog.relation(own, bare).is_some() => own,
                    _ => &self.caller.schema,
                };
                Ok((self.named_schema(schema)?.to_owned(), name.clone()))
            }
            [schema, name] => Ok((self.named_schema(schema)?.to_owned(), name.clone())),
            [database, schema, name] if database == DATABASE => {
                Ok((self.named_schema(schema)?.to_owned(), name.clone()))
            }
            [database, _, _] => Err(Error::refused(
                SqlState::INVALID_CATALOG_NAME,
                format!("database \"{database}\" does not exist"),
            )),
            _ => Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                "improper qualified name",
            )),
        }
    }

    /// The planning state: DataFusion with this statement's names, functions and models.
    pub fn state(self: &Arc<Self>) -> Result<SessionState> {
        let mut state = self.engine.base.clone();
        state.register_catalog_list(Arc::new(Names::new(Arc::clone(self))));
        let options = state.config_mut().options_mut();
        options.execution.time_zone = Some(self.caller.time_zone.clone());
        options.catalog.default_schema = match self.caller.temporary {
            Some(_) => PATH.to_owned(),
            None => self.caller.schema.clone(),
        };
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = Some(self.started);
        let now = NowFunc::new_with_config(state.config_options());
        state.register_udf(Arc::new(ScalarUDF::from(now)))?;
        let models: Arc<dyn ModelResolver> = Arc::new(Models::new(self));
        for function in crate::ml::functions(&models) {
            state.register_udf(function)?;
        }
        state.register_relation_planner(crate::ml::relation_planner(models))?;
        let keys: Arc<dyn udfs::SecretKeys> = Arc::new(Keys(Arc::clone(self)));
        state.register_udf(udfs::scalar::keyed(&keys))?;
        for function in system::functions(&self.system()) {
            state.register_udf(function)?;
        }
        Ok(state)
    }

    /// What system tables are built from.
    pub fn system(&self) -> Arc<SystemContext> {
        Arc::new(SystemContext {
            catalog: Arc::clone(&self.catalog),
            head: Arc::clone(&self.head),
            store: Arc::clone(&self.engine.store),
            role: self.caller.role.clone(),
            session_role: self.caller.session_role.clone(),
            database: DATABASE.to_owned(),
            search_path: self.caller.search_path.clone(),
            temporary: self.caller.temporary.clone(),
            backend_pid: self.caller.pid,
            settings: Arc::clone(&self.caller.settings),
            functions: Vec::new(),
            jobs: Some(Arc::clone(&self.engine.jobs)),
            live: Arc::clone(&self.engine) as _,
        })
    }

    /// Plans a query: names resolved for the caller, types coerced, not optimized.
    pub async fn plan(self: &Arc<Self>, query: &ast::Query) -> Result<(SessionState, LogicalPlan)> {
        let state = self.state()?;
        let plan = plan_query(&state, query.clone()).await?;
        Ok((state, plan))
    }
}

/// A parsed query with the relation names inside its function arguments bound; to be planned next.
pub fn bound(query: ast::Query) -> Result<ast::Query> {
    let mut statement = ast::Statement::Query(Box::new(query));
    crate::ml::bind_relation_arguments(&mut statement)?;
    match statement {
        ast::Statement::Query(query) => Ok(*query),
        _ => Err(Error::Internal(
            "a query became another statement".to_owned(),
        )),
    }
}

/// Plans a query with a state and runs the analyzer on it.
pub async fn plan_query(state: &SessionState, query: ast::Query) -> Result<LogicalPlan> {
    let statement = ast::Statement::Query(Box::new(query));
    let plan = state
        .statement_to_plan(PlanStatement::Statement(Box::new(statement)))
        .await?;
    let plan = crate::semantics::apply(plan)?;
    Ok(state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?)
}

/// Models of the statement's catalog, usable by its caller.
#[derive(Debug)]
struct Models {
    catalog: Arc<Snapshot>,
    role: String,
    parsed: Mutex<HashMap<(Oid, i32), Arc<ScoringModel>>>,
}

impl Models {
    fn new(scope: &Scope) -> Self {
        Self {
            catalog: Arc::clone(&scope.catalog),
            role: scope.caller.role.clone(),
            parsed: Mutex::default(),
        }
    }
}

impl ModelResolver for Models {
    fn resolve(&self, spec: &str) -> Result<Arc<ScoringModel>> {
        let (name, which) = spec
            .split_once('@')
            .map_or((spec, None), |(n, w)| (n, Some(w)));
        let missing = || {
            Error::refused(
                SqlState::UNDEFINED_OBJECT,
                format!("model \"{spec}\" does not exist"),
            )
        };
        let model = self.catalog.model(name).ok_or_else(missing)?;
        let object = (ObjectKind::Model, model.oid, model.owner);
        if !privileges::allowed(&self.catalog, &self.role, object, Privilege::Usage) {
            return Err(Error::denied("model", name));
        }
        let number = match which {
            None => model.current,
            Some(which) => match which.parse() {
                Ok(number) => number,
                Err(_) => *model.aliases.get(which).ok_or_else(missing)?,
            },
        };
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = parsed.get(&(model.oid, number)) {
            return Ok(Arc::clone(model));
        }
        let version = self
            .catalog
            .model_version(model.oid, number)
            .ok_or_else(missing)?;
        let scoring = Arc::new(ScoringModel::from_json(name, &version.artifact)?);
        parsed.insert((model.oid, number), Arc::clone(&scoring));
        Ok(scoring)
    }
}

/// Secrets of the statement's catalog, usable by its caller.
#[derive(Debug)]
struct Keys(Arc<Scope>);

impl udfs::SecretKeys for Keys {
    fn key(&self, name: &str) -> datafusion::error::Result<Arc<[u8]>> {
        let Some(secret) = self.0.catalog.secret(name) else {
            let e = Error::refused(
                SqlState::UNDEFINED_OBJECT,
                format!("secret \"{name}\" does not exist"),
            );
            return Err(e.into());
        };
        let object = (ObjectKind::Secret, secret.oid, secret.owner);
        match privileges::allowed(
            &self.0.catalog,
            &self.0.caller.role,
            object,
            Privilege::Usage,
        ) {
            true => Ok(secret.key.as_slice().into()),
            false => Err(Error::denied("secret", name).into()),
        }
    }
}
