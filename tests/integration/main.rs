//! Integration tests: whole-server behaviour that takes more than one connection, door or run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test reports by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "client tasks of tests are not the server's tasks"
)]

mod acknowledge;
mod audit;
mod auth;
mod bad_input;
mod cancel;
mod copy;
mod data_directory;
mod dead_letters;
mod dedup;
mod demo_figures;
mod evolution;
mod external;
mod flight;
mod garbage;
mod idempotency;
mod kafka;
mod kafka_schemas;
mod lake;
mod large_results;
mod parameters;
mod privileges;
mod restart;
mod segment;
mod temporary;
mod tidy;
mod tls;
mod transactions;
mod upkeep;
mod views;
mod visibility;

/// The program as its own process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_weir-under-test");
