//! The `weir` program with its crash points compiled in: what the kill tests start. `FAILPOINTS`
//! in the environment arms them.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Reads FAILPOINTS; they stay armed as long as it lives.
    let armed = fail::FailScenario::setup();
    let code = server::cli::main();
    armed.teardown();
    code
}
