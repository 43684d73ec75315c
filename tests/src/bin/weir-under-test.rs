//! The `weir` program with its crash points compiled in: what the kill tests start. `FAILPOINTS`
//! in the environment arms them.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::cli::main()
}
