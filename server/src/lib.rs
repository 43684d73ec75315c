//! The weir server: protocols, SQL, log, views, governance and models in one process.
//!
//! Dependencies point down this list; a module uses only what stands below it.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the program's commands |
//! | [`server`] | start and stop: the database and its doors |
//! | [`protocol`] | bytes ↔ session calls: Postgres, Flight SQL, HTTP; nothing else |
//! | [`session`] | one connection: role, settings, transaction, prepared statements, cancel |
//! | [`sources`] | messages of brokers → rows of streaming tables, exactly once |
//! | [`exec`] | a statement's effect, one file per statement |
//! | [`dialect`] | text → [`dialect::Statement`], one file per statement of ours |
//! | [`system`] | `weir.*`, `pg_catalog`, `information_schema`: one file per table |
//! | [`kafka`] | options of Kafka sources, the client, messages → batches |
//! | [`governance`] | privileges, lineage, audit |
//! | [`ml`] | training, scoring, evaluation |
//! | [`jobs`] | upkeep of stored tables: compaction, checkpoints, vacuum, retention |
//! | [`views`] | materialized views: analysis, state, merge at read, refresh |
//! | [`engine`] | planning and running queries over one cut |
//! | [`semantics`] | PostgreSQL's operators, casts and literals over the planner's |
//! | [`stream`] | the log: WAL, tail, head, committers, recovery |
//! | [`lake`] | Delta tables as files |
//! | [`decode`] | JSON, NDJSON and CSV → rows, and the rows that are bad |
//! | [`values`] | PostgreSQL's text and binary values, and the `COPY` formats ↔ Arrow |
//! | [`types`], [`error`], [`config`], [`tasks`], [`tls`], [`logging`], [`metrics`] | shared ground |

pub mod cli;
pub mod config;
pub mod decode;
pub mod demo;
pub mod dialect;
pub mod engine;
pub mod error;
pub mod exec;
pub mod governance;
pub mod jobs;
pub mod kafka;
pub mod lake;
pub mod logging;
pub mod metrics;
pub mod ml;
pub mod protocol;
pub mod semantics;
pub mod server;
pub mod session;
pub mod sources;
pub mod stream;
pub mod system;
pub mod tasks;
pub mod tls;
pub mod types;
pub mod values;
pub mod views;
