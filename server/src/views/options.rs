//! A view's options, and what the catalog says about how it is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::{Oid, Relation, Strategy};

use crate::engine::open::parse_duration;
use crate::error::{Error, Result, SqlState};

/// The options there are, for messages.
pub const OPTIONS: &str = "the options are refresh = 'auto', 'incremental', 'strict' or 'full', \
    on_source_change = 'fail', 'ignore' or 'recompute', schedule = '1 minute', retention = '30 days', and \
    published = '1 minute'";

/// `refresh`: which strategies are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// The cheapest that is exact.
    #[default]
    Auto,
    /// Incremental, or the statement is refused.
    Incremental,
    /// As `incremental`, and no change of the source makes the view anew.
    Strict,
    /// The whole result, made anew.
    Full,
}

/// `on_source_change`: what a change of counted rows does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSourceChange {
    /// It is refused.
    Fail,
    /// The view keeps what it has counted.
    Ignore,
    /// The view follows: it is made anew, and read from the source until then.
    Recompute,
}

/// `WITH (…)` of a materialized view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `refresh`
    pub refresh: Refresh,
    /// `on_source_change`, where it is given.
    pub on_source_change: Option<OnSourceChange>,
    /// `schedule`: the view is read as of its last refresh, and refreshed this often.
    pub schedule: Option<Duration>,
    /// `retention`: results older than this are dropped.
    pub retention: Option<Duration>,
    /// `published`: the result is written for readers outside this often, when it is another one.
    pub published: Option<Duration>,
}

impl Options {
    /// Reads options as they were written.
    ///
    /// # Errors
    /// 22023 for an unknown key or value, 0A000 for one that is not honoured.
    pub fn parse(written: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in written {
            let folded = value.trim().to_lowercase();
            match key.as_str() {
                "refresh" => {
                    options.refresh = match folded.as_str() {
                        "auto" => Refresh::Auto,
                        "incremental" => Refresh::Incremental,
                        "strict" => Refresh::Strict,
                        "full" => Refresh::Full,
                        _ => return Err(invalid(format!("{key} = '{value}' is not supported"))),
                    }
                }
                "on_source_change" => {
                    options.on_source_change = Some(match folded.as_str() {
                        "fail" => OnSourceChange::Fail,
                        "ignore" => OnSourceChange::Ignore,
                        "recompute" => OnSourceChange::Recompute,
                        _ => return Err(invalid(format!("{key} = '{value}' is not supported"))),
                    });
                }
                "schedule" => options.schedule = length(&folded)?,
                "retention" => options.retention = length(&folded)?,
                "published" => options.published = length(&folded)?,
                _ => return Err(invalid(format!("unrecognized option \"{key}\""))),
            }
        }
        if options.refresh == Refresh::Strict
            && options.on_source_change == Some(OnSourceChange::Recompute)
        {
            return Err(invalid(
                "refresh = 'strict' excludes on_source_change = 'recompute'".to_owned(),
            ));
        }
        Ok(options)
    }
}

/// A duration; two words take it away again.
fn length(text: &str) -> Result<Option<Duration>> {
    match text {
        "none" | "off" => Ok(None),
        text => parse_duration(text).map(Some),
    }
}

fn invalid(message: String) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(OPTIONS)
}

/// How a materialized view is kept, by the catalog.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The view.
    pub oid: Oid,
    /// How it is kept.
    pub strategy: Strategy,
    /// The table whose name its position goes by.
    pub source: Oid,
    /// Every table its state is made from.
    pub sources: Vec<Oid>,
    /// Its options.
    pub options: Options,
    /// Place of the result column by which results age, if they do.
    pub ages_by: Option<usize>,
}

impl Kept {
    /// What the catalog says, for materialized views.
    pub fn of(relation: &Relation) -> Result<Option<Self>> {
        let Some(view) = &relation.materialized else {
            return Ok(None);
        };
        let sources = match view.sources.is_empty() {
            true => vec![view.source],
            false => view.sources.clone(),
        };
        Ok(Some(Self {
            oid: relation.oid,
            strategy: view.strategy,
            source: view.source,
            sources,
            options: Options::parse(&relation.options)?,
            ages_by: view.ages_by.and_then(|at| usize::try_from(at).ok()),
        }))
    }

    /// What a change of rows of a source does: a view made anew at each refresh follows unless it was
    /// told otherwise, another one refuses.
    pub fn on_source_change(&self) -> OnSourceChange {
        self.options
            .on_source_change
            .unwrap_or(match self.strategy {
                Strategy::Keyed if self.options.refresh == Refresh::Strict => OnSourceChange::Fail,
                Strategy::Full | Strategy::Keyed => OnSourceChange::Recompute,
                Strategy::Append
                | Strategy::Agg
                | Strategy::Agg2
                | Strategy::Session
                | Strategy::Top => OnSourceChange::Fail,
            })
    }

    /// True when a read gives what the query would give at the same cut.
    pub fn is_exact(&self) -> bool {
        self.options.schedule.is_none() && self.ages_by.is_none() && !self.ignores_changes()
    }

    /// True when the state stands although rows it has counted were changed.
    pub(super) fn ignores_changes(&self) -> bool {
        self.on_source_change() == OnSourceChange::Ignore
    }
}
