//! Upkeep of stored tables: compaction, checkpoints, log cleanup, vacuum, retention. On demand by
//! statements and in the background.
//!
//! Owns what is done when, and its record (`weir.jobs`). Every commit goes through [`crate::stream`]; it
//! must not import `protocol` or `exec`. One piece of upkeep works on a table at a time.
//!
//! | module | what lies there |
//! |---|---|
//! | [`registry`] | what runs and ran: progress, cancel, one at a time per table |
//! | `schedule` | the background |
//! | [`plan`] | which files are merged |
//! | [`compact`] | merging and ordering files |
//! | `curve`, `cluster` | the order of `ZORDER BY` |
//! | [`retention`], `clock` | rows that are too old |
//! | [`vacuum`], `log` | files nobody needs; checkpoints and cleaning of logs |
//! | [`publish`] | results of views, for readers outside |
//! | `verify` | what views store, compared with their sources |
//! | `rows` | reading stored rows to write them again |

pub(crate) mod clock;
mod cluster;
pub mod compact;
mod curve;
mod log;
pub mod plan;
pub mod publish;
pub mod registry;
pub mod retention;
mod rows;
mod schedule;
pub mod vacuum;
mod verify;

pub use registry::{Amount, Compaction, Handle, Job, Jobs, Trigger, Verified};
pub use schedule::start;
