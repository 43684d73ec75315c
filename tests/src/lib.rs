//! The harness of the whole-server tests.
//!
//! [`TestServer`] runs a server in this process, [`Spawned`] runs the program as its own process for
//! the command-line and kill tests. Both are reached the way users reach weir: over the wire. Nothing
//! here looks inside the server, except to ask a Delta table's address for an independent read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a harness reports by panicking and printing"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "client tasks of tests are not the server's tasks"
)]
#![allow(
    missing_debug_implementations,
    reason = "test fixtures are not printed"
)]

pub mod delta;
pub mod flight;
pub mod http;
pub mod kafka;
pub mod pg;
mod server_in_process;
pub mod slt;
mod spawned;
pub mod wait;

pub use pg::{PgFailure, PgSession};
pub use server_in_process::TestServer;
pub use spawned::{Addresses, Spawned};

/// The superuser.
pub const ADMIN: &str = "weir";
/// Its password in every test.
pub const PASSWORD: &str = server::config::TEST_PASSWORD;
