//! Which queries a materialized view can keep, by which strategy, and why not.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use arrow::datatypes::DataType;
use catalog::{Oid, Strategy};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

use super::core::{self, Core};
use super::distinct::{self, prepared};
use super::keyed;
use super::options::{OnSourceChange, Options, Refresh};
use super::source::positionable;
use super::state::Layout;
use super::steady::Survey;
use crate::error::{Error, Result};

/// Aggregates that count rows in their unsigned state; the others keep values there.
const COUNTERS_ONLY: &[&str] = &[
    "count",
    "avg",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "regr_slope",
    "regr_intercept",
    "regr_count",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
];

/// How a view is kept.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The strategy.
    pub strategy: Strategy,
    /// Reason codes, `AGG_OK` and the like.
    pub codes: Vec<String>,
    /// The table whose name the state's position goes by.
    pub source: Oid,
    /// Every table the state is made from.
    pub sources: Vec<Oid>,
    pub(super) layout: Layout,
}

/// One remark about one node of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The node, as EXPLAIN shows it.
    pub node: String,
    /// A strategy, or `REFUSED`.
    pub strategy: &'static str,
    /// Reason code.
    pub code: String,
    /// What it means here.
    pub detail: String,
    /// What to do instead; empty when nothing is wrong.
    pub fix: String,
}

/// Everything there is to say about a query.
#[derive(Debug, Clone)]
pub struct Examination {
    /// Remarks, the verdict first where there is one.
    pub findings: Vec<Finding>,
    accepted: Option<Analysis>,
}

const REFUSED: &str = "REFUSED";

/// Code of views whose stored results are made of tables beside the streams too.
const DIM_FOLLOWED: &str = "DIM_FOLLOWED";
const FOLLOWED: &str = "results are made of tables beside the stream too: when one changes, all of them are computed \
     again, and reads run the query until then";

impl Finding {
    pub(super) fn refused(
        node: &LogicalPlan,
        code: String,
        detail: impl Into<String>,
        fix: &str,
    ) -> Self {
        Self {
            node: node.display().to_string(),
            strategy: REFUSED,
            code,
            detail: detail.into(),
            fix: fix.to_owned(),
        }
    }
}

impl Examination {
    /// How the query would be kept, if it would.
    pub fn strategy(&self) -> Option<Strategy> {
        self.accepted.as_ref().map(|a| a.strategy)
    }

    /// The analysis, or the refusal `CREATE` answers with: 0A000 with every code.
    pub fn accept(self, name: &str) -> Result<Analysis> {
        if let Some(analysis) = self.accepted {
            return Ok(analysis);
        }
        let mut detail = String::new();
        let refusals = self.findings.iter().filter(|f| f.strategy == REFUSED);
        for f in refusals.clone() {
            let separator = if detail.is_empty() { "" } else { "; " };
            // writing to a text cannot fail
            let _ = write!(detail, "{separator}{}: {}", f.code, f.detail);
        }
        let fix = refusals.map(|f| f.fix.as_str()).find(|f| !f.is_empty());
        let message = format!("materialized view \"{name}\" cannot be kept");
        let fix = fix.unwrap_or("use an ordinary view").to_owned();
        Err(Error::unsupported(message, fix).with_detail(detail))
    }
}

/// Name of a strategy, as EXPLAIN shows it.
pub(super) fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Append => "APPEND",
        Strategy::Agg => "AGG",
        Strategy::Agg2 => "AGG2",
        Strategy::Session => "SESSION",
        Strategy::Top => "TOP",
        Strategy::Keyed => "KEYED",
        Strategy::Full => "FULL",
    }
}

/// Says how a query would be kept. It has been analyzed (types coerced) and not optimized, and its
/// table scans are [`crate::engine::scan::WeirTable`]s.
pub fn examine(plan: &LogicalPlan, options: &Options) -> Result<Examination> {
    let survey = Survey::of(plan)?;
    let mut findings = survey.refusals.clone();
    if survey.tables.is_empty() {
        let fix = "use an ordinary view";
        let code = "NO_SOURCE".to_owned();
        findings.push(Finding::refused(plan, code, "it reads no table", fix));
    }
    if !findings.is_empty() {
        return Ok(Examination {
            findings,
            accepted: None,
        });
    }
    let obstacles = match options.refresh {
        Refresh::Full => vec![Finding::refused(
            plan,
            "POLICY".to_owned(),
            "refresh = 'full' asks for it",
            "",
        )],
        Refresh::Auto | Refresh::Incremental | Refresh::Strict => {
            match incremental(plan, &survey, options)? {
                Ok(examination) => return Ok(examination),
                Err(obstacles) => obstacles,
            }
        }
    };
    if matches!(options.refresh, Refresh::Incremental | Refresh::Strict) {
        let mut findings = obstacles;
        for finding in &mut findings {
            finding.fix = "use refresh = 'auto' or 'full', or an ordinary view".to_owned();
        }
        return Ok(Examination {
            findings,
            accepted: None,
        });
    }
    whole(plan, &survey, options, obstacles)
}

/// [`examine`], for callers that want the strategy or the refusal; `name` is the view's.
pub fn analyze(name: &str, plan: &LogicalPlan, options: &Options) -> Result<Analysis> {
    examine(plan, options)?.accept(name)
}

/// The strategy FULL, for the reasons why no other will do.
fn whole(
    plan: &LogicalPlan,
    survey: &Survey,
    options: &Options,
    obstacles: Vec<Finding>,
) -> Result<Examination> {
    let layout = Layout::Rows(plan.schema().fields().iter().cloned().collect());
    let mut refusals = Vec::new();
    if let Some(field) = layout.unsupported() {
        refusals.push(Finding::refused(
            plan,
            format!("STATE_TYPE_UNSUPPORTED:{}", field.data_type()),
            format!("column \"{}\" cannot be stored exactly", field.name()),
            "cast the column, or use an ordinary view",
        ));
    }
    if options.on_source_change == Some(OnSourceChange::Ignore) {
        refusals.push(Finding::refused(
            plan,
            "FULL_FOLLOWS".to_owned(),
            "a view that is made anew cannot keep what its sources have lost",
            "use on_source_change = 'recompute'",
        ));
    }
    if !refusals.is_empty() {
        refusals.extend(obstacles);
        return Ok(Examination {
            findings: refusals,
            accepted: None,
        });
    }
    let sources: Vec<Oid> = survey.tables.iter().copied().collect();
    let mut codes: Vec<String> = Vec::new();
    let mut findings = Vec::new();
    for obstacle in obstacles {
        let code = format!("FULL({})", obstacle.code);
        if !codes.contains(&code) {
            codes.push(code.clone());
        }
        findings.push(Finding {
            strategy: strategy_name(Strategy::Full),
            code,
            fix: match obstacle.code.as_str() {
                "POLICY" => String::new(),
                _ => "its reads run the query unless nothing has changed; give it a schedule, or use \
                      an ordinary view"
                    .to_owned(),
            },
            ..obstacle
        });
    }
    let accepted = sources.first().map(|source| Analysis {
        strategy: Strategy::Full,
        codes,
        source: *source,
        sources: sources.clone(),
        layout,
    });
    Ok(Examination { findings, accepted })
}

type Attempt = std::result::Result<Examination, Vec<Finding>>;

fn incremental(plan: &LogicalPlan, survey: &Survey, options: &Options) -> Result<Attempt> {
    let obstacle = |node: &LogicalPlan, code: &str, detail: &str| {
        Finding::refused(node, code.to_owned(), detail, "")
    };
    let plan = prepared(plan.clone())?;
    if survey.streams.is_empty() {
        let detail = "it reads no streaming table";
        return Ok(Err(vec![obstacle(&plan, "SOURCE_NOT_STREAMING", detail)]));
    }
    let streams: BTreeSet<Oid> = survey.streams.iter().copied().collect();
    if options.schedule.is_some() && survey.tables.len() > streams.len() {
        let detail = "tables beside the stream would be read at another time than it";
        return Ok(Err(vec![obstacle(&plan, "SCHEDULED_JOIN", detail)]));
    }
    let (strategy, mut codes, layout, detail) = if positionable(&plan) {
        let columns = plan.schema().fields().iter().cloned().collect();
        let detail = "result rows are stored as source rows arrive";
        (
            Strategy::Append,
            Vec::new(),
            Layout::Append(columns),
            detail,
        )
    } else {
        match kept_core(&plan)? {
            Ok(core) => {
                let (strategy, codes, detail) = described(&core);
                (strategy, codes, layout_of(&core)?, detail)
            }
            Err(obstacles) => return by_key(&plan, &streams, options, obstacles),
        }
    };
    if let Some(field) = layout.unsupported() {
        let code = format!("STATE_TYPE_UNSUPPORTED:{}", field.data_type());
        let detail = format!("column \"{}\" cannot be stored exactly", field.name());
        return Ok(Err(vec![obstacle(&plan, &code, &detail)]));
    }
    codes.insert(0, format!("{}_OK", strategy_name(strategy)));
    let findings = codes.iter().enumerate().map(|(i, code)| Finding {
        node: plan.display().to_string(),
        strategy: strategy_name(strategy),
        code: code.clone(),
        detail: match i {
            0 => detail.to_owned(),
            _ => "tables are joined when the view is read, as they are then".to_owned(),
        },
        fix: String::new(),
    });
    let findings = findings.collect();
    let sources: Vec<Oid> = streams.into_iter().collect();
    let accepted = sources.first().map(|source| Analysis {
        strategy,
        codes,
        source: *source,
        sources: sources.clone(),
        layout,
    });
    Ok(Ok(Examination { findings, accepted }))
}

/// The strategy KEYED, for the reasons why no state can be merged.
fn by_key(
    plan: &LogicalPlan,
    streams: &BTreeSet<Oid>,
    options: &Options,
    obstacles: Vec<Finding>,
) -> Result<Attempt> {
    // what changed rows have counted for would be lost with the next row of their key
    let keeps = options.on_source_change == Some(OnSourceChange::Ignore);
    let Some(core) = keyed::kept(plan)?.filter(|_| !keeps) else {
        let mut obstacles = obstacles;
        if !keeps {
            obstacles.extend(no_key(plan)?);
        }
        return Ok(Err(obstacles));
    };
    if options.refresh == Refresh::Strict && !core.tables.is_empty() {
        let code = DIM_FOLLOWED.to_owned();
        let mut obstacles = obstacles;
        obstacles.push(Finding::refused(plan, code, FOLLOWED, ""));
        return Ok(Err(obstacles));
    }
    let layout = Layout::Rows(core.plan.schema().fields().iter().cloned().collect());
    if layout.unsupported().is_some() {
        return Ok(Err(obstacles));
    }
    let mut codes: Vec<String> = Vec::new();
    let mut findings = Vec::new();
    for obstacle in obstacles {
        let code = format!("KEYED({})", obstacle.code);
        if codes.contains(&code) {
            continue;
        }
        codes.push(code.clone());
        findings.push(Finding {
            strategy: strategy_name(Strategy::Keyed),
            code,
            detail: format!(
                "{}; results are stored by {}, and those of keys with new rows are computed again",
                obstacle.detail,
                core.shown()
            ),
            fix: String::new(),
            ..obstacle
        });
    }
    if !core.tables.is_empty() {
        let code = format!("KEYED({DIM_FOLLOWED})");
        findings.push(Finding {
            strategy: strategy_name(Strategy::Keyed),
            code: code.clone(),
            ..Finding::refused(&core.plan, code.clone(), FOLLOWED, "")
        });
        codes.push(code);
    }
    let mut sources: Vec<Oid> = streams.iter().copied().collect();
    sources.extend(&core.tables);
    let accepted = sources.first().map(|source| Analysis {
        strategy: Strategy::Keyed,
        codes,
        source: *source,
        sources: sources.clone(),
        layout,
    });
    Ok(Ok(Examination { findings, accepted }))
}

/// The joins that keep results from being computed key by key.
fn no_key(plan: &LogicalPlan) -> Result<Option<Finding>> {
    let mut found = None;
    plan.apply(|node| {
        let LogicalPlan::Join(join) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        if !core::streams(node)? || keyed::recognize(node)?.is_some() {
            return Ok(TreeNodeRecursion::Jump);
        }
        let both = core::streams(&join.left)? && core::streams(&join.right)?;
        let (code, detail) = match (join.null_aware, both, join.join_type) {
            _ if keyed::has_key(node)? => (
                "KEY_NOT_SHOWN",
                "the columns that the join is by are not in the result; a part that has them all, and none twice, could be kept",
            ),
            (true, ..) => (
                "NOT_IN_NULLS",
                "a NULL on either side of NOT IN decides on all rows; say IS NOT NULL of both, or use NOT EXISTS",
            ),
            (false, true, JoinType::Inner) => (
                "STREAM_JOIN_UNBOUNDED",
                "rows of the streams meet by no equal columns that could be a key",
            ),
            (false, ..) => ("NO_KEY", "the join has no equal columns that could be a key"),
        };
        found = Some(Finding::refused(node, code.to_owned(), detail, ""));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn described(core: &Core) -> (Strategy, Vec<String>, &'static str) {
    match core {
        Core::Agg(agg) => {
            let codes = match agg.steps.is_empty() {
                true => Vec::new(),
                false => vec!["DIM_LATE_BINDING".to_owned()],
            };
            match distinct::is_inner(&agg.aggregate) {
                true => (
                    Strategy::Agg2,
                    codes,
                    "partial states are stored by distinct value and merged when read",
                ),
                false => (
                    Strategy::Agg,
                    codes,
                    "partial states are stored and merged when read",
                ),
            }
        }
        Core::Session(_) => (
            Strategy::Session,
            Vec::new(),
            "states of sessions are stored, and sessions that touch are joined when read",
        ),
        Core::Top(_) => (
            Strategy::Top,
            Vec::new(),
            "the first rows of each key are stored and ranked again when read",
        ),
    }
}

/// The one core that all streaming tables lie below, or what is in its way.
pub(super) fn kept_core(plan: &LogicalPlan) -> Result<std::result::Result<Core, Vec<Finding>>> {
    let mut found = None;
    let mut obstacles: Vec<Finding> = Vec::new();
    plan.apply(|node| {
        match core::recognize(node)? {
            Ok(core) => {
                found = Some((core, core::stream_scans(node)?));
                return Ok(TreeNodeRecursion::Stop);
            }
            Err(Some((code, detail))) => {
                obstacles.push(Finding::refused(node, code, detail, ""));
            }
            Err(None) => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some((core, below)) = found else {
        breaks(plan, &mut obstacles)?;
        if obstacles.is_empty() {
            // all of it is rows of streams, but not each of one place in one of them
            unpositioned(plan, &mut obstacles)?;
        }
        return Ok(Err(obstacles));
    };
    if below != core::stream_scans(plan)? {
        let detail = "streaming tables are read in more than one place";
        let code = "SEVERAL_STREAMS".to_owned();
        return Ok(Err(vec![Finding::refused(plan, code, detail, "")]));
    }
    if let Some(finding) = unsigned_state(&core, plan)? {
        return Ok(Err(vec![finding]));
    }
    Ok(Ok(core))
}

/// Values kept in an unsigned state would not survive storage.
fn unsigned_state(core: &Core, plan: &LogicalPlan) -> Result<Option<Finding>> {
    let split = match core {
        Core::Agg(agg) => &agg.split,
        Core::Session(session) => &session.split,
        Core::Top(_) => return Ok(None),
    };
    let (_, states) = split.partial_fields()?;
    for (call, state) in split.over.calls.iter().zip(&states) {
        let Expr::AggregateFunction(f) = call else {
            continue;
        };
        let unsigned = state.iter().any(|s| *s.data_type() == DataType::UInt64);
        if unsigned && !COUNTERS_ONLY.contains(&f.func.name()) {
            return Ok(Some(Finding::refused(
                plan,
                "STATE_TYPE_UNSUPPORTED:UInt64".to_owned(),
                format!("of \"{call}\""),
                "",
            )));
        }
    }
    Ok(None)
}

/// What a core stores.
pub(super) fn layout_of(core: &Core) -> Result<Layout> {
    let split = match core {
        Core::Agg(agg) => &agg.split,
        Core::Session(session) => &session.split,
        Core::Top(top) => {
            let columns = top.window.input.schema().fields();
            return Ok(Layout::Rows(columns.iter().cloned().collect()));
        }
    };
    let (mut keys, states) = split.partial_fields()?;
    if matches!(core, Core::Session(_)) {
        // sessions are numbered anew each time
        keys.pop();
    }
    Ok(Layout::Agg { keys, states })
}

/// The nodes above streaming rows that no core can begin with.
fn breaks(plan: &LogicalPlan, found: &mut Vec<Finding>) -> Result<()> {
    if core::plain_rows(plan) || !core::streams(plan)? {
        return Ok(());
    }
    let mut deepest = true;
    for input in plan.inputs() {
        if core::streams(input)? && !core::plain_rows(input) {
            deepest = false;
            breaks(input, found)?;
        }
    }
    if deepest && found.is_empty() {
        let (code, detail) = reason(plan)?;
        found.push(Finding::refused(plan, code.to_owned(), detail, ""));
    }
    Ok(())
}

/// The outermost node that no row's position comes through.
fn unpositioned(plan: &LogicalPlan, found: &mut Vec<Finding>) -> Result<()> {
    plan.apply(|node| {
        let passes = matches!(
            node,
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_)
        );
        if passes {
            return Ok(TreeNodeRecursion::Continue);
        }
        let (code, detail) = reason(node)?;
        found.push(Finding::refused(node, code.to_owned(), detail, ""));
        Ok(TreeNodeRecursion::Stop)
    })?;
    Ok(())
}

fn reason(node: &LogicalPlan) -> Result<(&'static str, &'static str)> {
    if core::has_subquery(node)? {
        return Ok(("SUBQUERY", "subqueries over streaming rows are not kept"));
    }
    Ok(match node {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => (
            "SORT_LIMIT_INSIDE",
            "order and limit over streaming rows are not kept",
        ),
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Inner => ("JOIN", "a joined row has no position of its own"),
            JoinType::Left | JoinType::Right | JoinType::Full => (
                "OUTER_JOIN",
                "a new row may take the place of one without a partner",
            ),
            JoinType::LeftSemi
            | JoinType::RightSemi
            | JoinType::LeftAnti
            | JoinType::RightAnti
            | JoinType::LeftMark
            | JoinType::RightMark => ("ANTI_JOIN", "a new row may decide on rows of before"),
        },
        LogicalPlan::Window(_) => (
            "WINDOW",
            "window functions over streaming rows are not kept",
        ),
        LogicalPlan::Union(_) => ("SET_OP:UNION", "a union is kept only below an aggregation"),
        LogicalPlan::Distinct(_) => ("DISTINCT_ON", "DISTINCT ON is not kept"),
        LogicalPlan::Unnest(_) => ("UNNEST", "unnesting is kept only below an aggregation"),
        LogicalPlan::RecursiveQuery(_) => ("RECURSIVE", "recursive queries are not kept"),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_) => (
            "NOT_INCREMENTAL",
            "this step over streaming rows is not kept",
        ),
    })
}
