//! Materialized views: analysis, state runs, merge at read, refresh. Must not import `protocol` or `exec`.
//!
//! A view's state is a Delta table of its own, made from streaming rows up to a position and from one
//! state of the rows below it. A read merges what is stored with what the source holds beyond it, so it
//! is exact at the statement's cut however seldom state is stored; when stored rows of the source were
//! changed since, it asks the source until the state is made anew.
//!
//! | module | what lies there |
//! |---|---|
//! | [`options`] | `WITH (…)`, and what the catalog says of a view |
//! | [`analysis`] | which queries can be kept, how, and why not |
//! | `steady` | whether a query gives the same answer over the same rows |
//! | `core`, `late`, `distinct` | the part of a query that is kept: below joins, below DISTINCT |
//! | [`state`] | the stored columns, format [`STATE_FORMAT`] |
//! | `source` | streaming tables at a range of positions |
//! | `keyed` | results kept by key: windows over partitions, aggregates that do not merge, joins of streams |
//! | `split`, [`nodes`] | aggregations taken apart; the plan nodes that make and merge states |
//! | `maintain` | plans of a core: a run, many runs as one, the answer |
//! | [`floor`] | retention: which results are too old to be seen |
//! | [`read`] | a view's query over stored and new rows |
//! | [`lookup`] | one key of a view, without a plan |
//! | [`refresh`] | storing new state, folding runs, the background refresher |
//! | [`mod@explain`] | `EXPLAIN [CREATE] MATERIALIZED VIEW` |

pub mod analysis;
mod core;
mod distinct;
pub mod explain;
pub mod floor;
mod keyed;
mod late;
pub mod lookup;
mod maintain;
pub mod nodes;
pub mod options;
pub mod read;
pub mod refresh;
mod source;
mod split;
pub mod state;
mod steady;

pub use analysis::{Analysis, Examination, Finding, analyze, examine};
pub use explain::explain;
pub use lookup::{Blocks, Lookup};
pub use nodes::extension_planner;
pub use options::{Kept, OnSourceChange, Options};
pub use read::read_plan;
pub use refresh::{Host, Planned, Refresher};
pub use state::{STATE_FORMAT, state_schema};

#[cfg(test)]
mod tests;
