//! `MERGE INTO t [AS a] USING source ON e WHEN [NOT] MATCHED [AND e] THEN …`.
//!
//! The source is read once, at the statement's cut; a row of the table that more than one row of the
//! source matches is refused (21000), also where the action would be the same.

use catalog::{Privilege, Relation, RelationKind};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Merge, MergeAction, MergeClause, MergeClauseKind, MergeInsertKind, SelectItem,
    TableFactor, TableWithJoins,
};

use super::delete::target;
use super::rewrite::{self, Change, Named, Part, RowKind, once};
use super::{Outcome, Run, query};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// The collected source goes by this name, which cannot be typed.
const SOURCE: &str = "\u{2}merge source";

/// Merges the source into the table.
pub(super) async fn execute(run: &Run, merge: &Merge) -> Result<Outcome> {
    clause(
        merge.output.is_some(),
        "RETURNING",
        "read the rows afterwards",
    )?;
    let (relation, table) = target(run, &merge.table)?;
    check_rights(run, relation, &merge.clauses)?;
    run.scope.touch(relation.oid);
    let views = rewrite::check_views(&run.scope, relation)?;
    let merging = Merging::new(run, relation, table, merge).await?;
    let change = merging.change(&merge.clauses)?;
    let counted = rewrite::apply(run, relation, change, views, "MERGE").await?;
    let rows = counted.updated + counted.inserted + counted.deleted;
    Ok(Outcome::Command {
        tag: format!("MERGE {rows}"),
        rows: Some(rows),
    })
}

fn check_rights(run: &Run, relation: &Relation, clauses: &[MergeClause]) -> Result<()> {
    for one in clauses {
        let privilege = match one.action {
            MergeAction::Insert(_) => Privilege::Insert,
            MergeAction::Update(_) => Privilege::Update,
            MergeAction::Delete { .. } => Privilege::Delete,
        };
        privileges::check_relation(
            &run.scope.catalog,
            &run.scope.caller.role,
            relation,
            privilege,
        )?;
    }
    // the condition reads the table
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Select,
    )
}

struct Merging<'a> {
    relation: &'a Relation,
    streaming: bool,
    table: Named,
    source: TableWithJoins,
    sources: once::Sources,
    on: Expr,
}

impl<'a> Merging<'a> {
    async fn new(run: &Run, relation: &'a Relation, table: Named, merge: &Merge) -> Result<Self> {
        let alias = source_alias(&merge.source)?;
        let from = TableWithJoins {
            relation: merge.source.clone(),
            joins: Vec::new(),
        };
        let everything = SelectItem::Wildcard(Default::default());
        let read = query::select(vec![everything], vec![from], None)?;
        let (state, plan) = query::plan(&run.scope, read, &run.params).await?;
        let rows = once::collected(run, &state, &plan).await?;
        let key = (run.scope.caller.schema.clone(), SOURCE.to_owned());
        Ok(Self {
            relation,
            streaming: relation.kind == RelationKind::StreamingTable,
            table,
            source: rewrite::source_factor(SOURCE, alias),
            sources: once::Sources::from([(key, rows)]),
            on: (*merge.on).clone(),
        })
    }

    fn change(&self, clauses: &[MergeClause]) -> Result<Change> {
        let mut parts = vec![self.part(
            self.kept_items(),
            &[&self.table.from],
            Some(self.exists(&self.source, true)?),
            RowKind::Kept,
        )?];
        let mut undecided: Vec<Expr> = Vec::new();
        let mut uninserted: Vec<Expr> = Vec::new();
        for one in clauses {
            match (&one.clause_kind, &one.action) {
                (MergeClauseKind::Matched, MergeAction::Update(update)) => {
                    clause(
                        update.update_predicate.is_some() || update.delete_predicate.is_some(),
                        "WHERE in a MERGE action",
                        "use WHEN … AND",
                    )?;
                    let values = rewrite::assignments(self.relation, &update.assignments)?;
                    let items = rewrite::changed_items(
                        self.relation,
                        &self.table.alias,
                        self.streaming,
                        &values,
                    );
                    parts.push(self.matched(
                        items,
                        &undecided,
                        one.predicate.clone(),
                        RowKind::Updated,
                    )?);
                    undecided.push(rewrite::is_not_true(condition(one)?));
                }
                (MergeClauseKind::Matched, MergeAction::Delete { .. }) => {
                    undecided.push(rewrite::is_not_true(condition(one)?));
                }
                (
                    MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget,
                    MergeAction::Insert(insert),
                ) => {
                    clause(
                        self.streaming,
                        "MERGE … INSERT into a streaming table",
                        "INSERT the new rows, and MERGE what only updates or deletes",
                    )?;
                    clause(
                        insert.insert_predicate.is_some(),
                        "WHERE in a MERGE action",
                        "use WHEN … AND",
                    )?;
                    let items = self.inserted(&insert.columns, &insert.kind)?;
                    let unmatched = self.exists(&self.table.from, true)?;
                    let mut wanted = uninserted.clone();
                    wanted.push(unmatched);
                    wanted.extend(one.predicate.clone().map(rewrite::is_true));
                    parts.push(self.part(
                        items,
                        &[&self.source],
                        all(wanted)?,
                        RowKind::Inserted,
                    )?);
                    uninserted.push(rewrite::is_not_true(condition(one)?));
                }
                (MergeClauseKind::NotMatchedBySource, _) => {
                    return Err(Error::unsupported(
                        "WHEN NOT MATCHED BY SOURCE is not supported",
                        "use DELETE or UPDATE with NOT EXISTS",
                    ));
                }
                _ => {
                    return Err(Error::refused(
                        SqlState::SYNTAX_ERROR,
                        "this action cannot follow this WHEN",
                    ));
                }
            }
        }
        // matched rows that no clause wants stay as they are
        parts.push(self.matched(self.kept_items(), &undecided, None, RowKind::Kept)?);
        Ok(Change {
            parts,
            must_be_zero: vec![(self.ambiguous()?, ambiguity())],
            sources: self.sources.clone(),
            one_to_one: None,
        })
    }

    fn kept_items(&self) -> Vec<SelectItem> {
        rewrite::all_items(self.relation, &self.table.alias, self.streaming)
    }

    fn matched(
        &self,
        items: Vec<SelectItem>,
        before: &[Expr],
        own: Option<Expr>,
        kind: RowKind,
    ) -> Result<Part> {
        let mut wanted = vec![Expr::Nested(Box::new(self.on.clone()))];
        wanted.extend(before.iter().cloned());
        wanted.extend(own.map(rewrite::is_true));
        self.part(items, &[&self.table.from, &self.source], all(wanted)?, kind)
    }

    fn part(
        &self,
        items: Vec<SelectItem>,
        from: &[&TableWithJoins],
        selection: Option<Expr>,
        kind: RowKind,
    ) -> Result<Part> {
        let from = from.iter().map(|f| (*f).clone()).collect();
        Ok(Part {
            query: query::select(items, from, selection)?,
            kind,
        })
    }

    fn exists(&self, other: &TableWithJoins, negated: bool) -> Result<Expr> {
        let one = SelectItem::UnnamedExpr(crate::dialect::parse_expr("1")?);
        let inner = query::select(vec![one], vec![other.clone()], Some(self.on.clone()))?;
        Ok(Expr::Exists {
            subquery: Box::new(inner),
            negated,
        })
    }

    /// Pairs that match minus table rows that match: more than 0 when a row has two partners.
    fn ambiguous(&self) -> Result<datafusion::sql::sqlparser::ast::Query> {
        let count = || query::call("count", vec![crate::dialect::parse_expr("1")?]);
        let pairs = query::select(
            vec![SelectItem::UnnamedExpr(count()?)],
            vec![self.table.from.clone(), self.source.clone()],
            Some(self.on.clone()),
        )?;
        let matched = query::select(
            vec![SelectItem::UnnamedExpr(count()?)],
            vec![self.table.from.clone()],
            Some(self.exists(&self.source, false)?),
        )?;
        let difference = Expr::BinaryOp {
            left: Box::new(Expr::Subquery(Box::new(pairs))),
            op: datafusion::sql::sqlparser::ast::BinaryOperator::Minus,
            right: Box::new(Expr::Subquery(Box::new(matched))),
        };
        query::select(vec![SelectItem::UnnamedExpr(difference)], Vec::new(), None)
    }

    fn inserted(
        &self,
        columns: &[datafusion::sql::sqlparser::ast::ObjectName],
        kind: &MergeInsertKind,
    ) -> Result<Vec<SelectItem>> {
        let MergeInsertKind::Values(values) = kind else {
            return Err(Error::unsupported(
                "INSERT ROW is not supported",
                "use INSERT (columns) VALUES (…)",
            ));
        };
        let [row] = values.rows.as_slice() else {
            return Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                "MERGE inserts one row of values",
            ));
        };
        let names: Vec<String> = match columns.is_empty() {
            true => self
                .relation
                .columns
                .iter()
                .filter(|c| c.generated.is_none())
                .map(|c| c.name.clone())
                .collect(),
            false => columns
                .iter()
                .map(|c| {
                    c.0.last()
                        .and_then(|p| p.as_ident())
                        .map(fold)
                        .unwrap_or_default()
                })
                .collect(),
        };
        if row.len() != names.len() {
            return Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                "INSERT has not as many expressions as columns",
            ));
        }
        Ok(names
            .into_iter()
            .zip(row.iter())
            .map(|(name, expr)| SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', name),
            })
            .collect())
    }
}

fn ambiguity() -> Error {
    Error::refused(
        SqlState::CARDINALITY_VIOLATION,
        "MERGE command cannot affect row a second time",
    )
    .with_hint("ensure that not more than one source row matches any one target row")
}

fn condition(one: &MergeClause) -> Result<Expr> {
    match &one.predicate {
        Some(predicate) => Ok(predicate.clone()),
        None => crate::dialect::parse_expr("true"),
    }
}

fn source_alias(source: &TableFactor) -> Result<Ident> {
    match source {
        TableFactor::Table { .. } => Ok(rewrite::named(source)?.alias),
        TableFactor::Derived {
            alias: Some(alias), ..
        } if alias.columns.is_empty() => Ok(alias.name.clone()),
        _ => Err(Error::unsupported(
            "this source of a MERGE is not supported",
            "use a table or (query) AS name",
        )),
    }
}

/// All of these, or nothing when there are none.
fn all(conditions: Vec<Expr>) -> Result<Option<Expr>> {
    let joined = conditions.into_iter().reduce(|a, b| Expr::BinaryOp {
        left: Box::new(a),
        op: datafusion::sql::sqlparser::ast::BinaryOperator::And,
        right: Box::new(b),
    });
    Ok(joined)
}
