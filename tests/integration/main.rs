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

mod tidy;
