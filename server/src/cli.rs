//! The program's commands: arguments in, an exit code out.
//!
//! Owns the runtime, logging set-up and what is printed for people. What a command does lies below:
//! `serve` in [`crate::server`], settings in [`crate::config`].

mod healthcheck;
mod migrate;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Layers, environment};
use crate::error::{Error, Report, Result};

/// SQL-first lakehouse service for telemetry.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Flags),
    /// Serve with real data loaded and a live stream, and print what to try
    Demo {
        /// Load everything, check the figures, print a report and end
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Bring the catalog up to date and recover the log, without serving
    Migrate(Flags),
    /// Ask a running server whether it is ready; exit code 0 if it is
    Healthcheck(Flags),
    /// Print all settings with their values and where each came from; secrets are hidden
    PrintConfig(Flags),
    /// Print the function reference, as it stands in sql/FUNCTIONS.md
    Functions,
    /// Print the version
    Version,
}

/// Settings on the command line; they win over the environment and the file.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [default: ./weir-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Root URL of the Delta tables [default: DIR/warehouse]
    #[arg(long, value_name = "URL")]
    warehouse: Option<String>,
    /// Catalog URL [default: SQLite in DIR]
    #[arg(long, value_name = "URL")]
    catalog: Option<String>,
    /// PostgreSQL address [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDR")]
    pg_addr: Option<String>,
    /// Flight SQL address [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    flight_addr: Option<String>,
    /// HTTP address [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Allow addresses beyond loopback without TLS
    #[arg(long)]
    insecure: bool,
    /// Certificate chain file (PEM)
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Private key file (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
}

impl Flags {
    /// All layers applied: file, environment, these flags.
    fn layers(&self) -> Result<Layers> {
        let mut layers = Layers::default();
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        layers.environment(&environment()?)?;
        let given = [
            ("data", &self.data),
            ("warehouse", &self.warehouse),
            ("catalog", &self.catalog),
            ("pg.addr", &self.pg_addr),
            ("flight.addr", &self.flight_addr),
            ("http.addr", &self.http_addr),
            ("tls.cert", &self.tls_cert),
            ("tls.key", &self.tls_key),
        ];
        for (key, value) in given {
            if let Some(value) = value {
                layers.flag(key, value)?;
            }
        }
        if self.insecure {
            layers.flag("insecure", "true")?;
        }
        Ok(layers)
    }

    /// The configuration they make, with logging started as it asks.
    fn load(&self) -> Result<Config> {
        let config = self.layers()?.finish()?;
        crate::logging::start(&config);
        Ok(config)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e.report());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(flags) => {
            let config = flags.load()?;
            on_runtime(serve::run(config))
        }
        Command::Demo { once, flags } => {
            let config = flags.load()?;
            on_runtime(crate::demo::run(config, once))
        }
        Command::Functions => {
            print(&udfs::functions_markdown(crate::ml::documentation()));
            Ok(())
        }
        Command::Migrate(flags) => {
            let config = flags.load()?;
            on_runtime(migrate::run(config))
        }
        Command::Healthcheck(flags) => {
            let config = flags.load()?;
            on_runtime(healthcheck::run(config))
        }
        Command::PrintConfig(flags) => {
            let layers = flags.layers()?;
            print(&layers.print());
            layers.finish().map(drop)
        }
        Command::Version => {
            print(concat!("weir ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(())
        }
    }
}

fn on_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("weir")
        // syntax trees and plans are walked by recursion
        .thread_stack_size(16 << 20)
        .build()
        .map_err(Error::io("start the runtime"))?;
    let outcome = runtime.block_on(work);
    // a thread stuck in a blocking call must not keep the process alive after an ordered stop
    runtime.shutdown_background();
    outcome
}

/// Writes to standard output. A reader that went away is no error of ours.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes a refusal to standard error as psql would show it.
fn complain(report: &Report) {
    let mut text = format!("weir: {}\n", report.message);
    if let Some(detail) = &report.detail {
        text.push_str(&format!("DETAIL: {detail}\n"));
    }
    if let Some(hint) = &report.hint {
        text.push_str(&format!("HINT: {hint}\n"));
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_configuration() {
        let cli = Cli::try_parse_from([
            "weir",
            "serve",
            "--data",
            "/d",
            "--pg-addr",
            "0.0.0.0:0",
            "--insecure",
        ])
        .unwrap();
        let Command::Serve(flags) = cli.command else {
            panic!("not serve");
        };
        let config = flags.layers().unwrap().finish().unwrap();
        assert_eq!(config.data, PathBuf::from("/d"));
        assert_eq!(config.pg_addr.to_string(), "0.0.0.0:0");
        assert!(Cli::try_parse_from(["weir", "serve", "--no-such-flag"]).is_err());
    }
}
