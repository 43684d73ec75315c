//! Materialized views: analysis, state runs, merge at read, refresh. Must not import `protocol` or `exec`.
//!
//! A view's state is a Delta table of its own. An AGG view keeps runs of *partial aggregate states*,
//! each made from one range of log positions; an APPEND view keeps result rows with their position.
//! A read merges what is stored with what the source holds beyond it, so it is exact at the
//! statement's cut however seldom state is stored.
//!
//! | module | what lies there |
//! |---|---|
//! | [`analysis`] | which queries can be kept, how, and why not |
//! | [`state`] | the stored columns, format [`STATE_FORMAT`] |
//! | `source` | the source at a range of positions |
//! | [`merge`] | the plan node that merges states, and its planner |
//! | [`read`] | a view's query over stored and new rows |
//! | [`refresh`] | storing new state, folding runs, the background refresher |
//! | [`mod@explain`] | `EXPLAIN [CREATE] MATERIALIZED VIEW` |

pub mod analysis;
pub mod explain;
pub mod merge;
pub mod read;
pub mod refresh;
mod source;
mod split;
pub mod state;

pub use analysis::{Analysis, Examination, Finding, analyze, examine};
pub use explain::explain;
pub use merge::extension_planner;
pub use read::read_plan;
pub use refresh::{Host, Planned, Refresher};
pub use state::{STATE_FORMAT, state_schema};

#[cfg(test)]
mod tests;
