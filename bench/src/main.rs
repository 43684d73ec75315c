//! `bench`: what a release build of the server does per second, measured from outside.
//!
//! Starts `weir serve` from beside its own executable over an empty directory, drives it through its
//! doors, prints a table and leaves the same figures as JSON. It measures and judges nothing: a
//! figure below its target is printed as such and the run still succeeds.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | arguments |
//! | [`server`] | the program under measurement, its sessions |
//! | [`process`] | CPU and memory of a process, from `/proc` |
//! | [`events`] | the rows that are sent |
//! | [`start`], [`ingest`], [`latency`], [`overload`], [`plan`], [`json`], [`wire`], [`result`], [`view`] | one measurement each |
//! | [`report`] | the machine, the table, the JSON file |

mod cli;
mod error;
mod events;
mod ingest;
mod json;
mod latency;
mod overload;
mod plan;
mod process;
mod report;
mod result;
mod server;
mod start;
mod view;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Measure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e.into()),
    };
    let measured = runtime.block_on(async {
        let report = match &cli.measure {
            Measure::Start(options) => start::measure(&cli.common, options).await?,
            Measure::Ingest(options) => ingest::measure(&cli.common, options).await?,
            Measure::Latency(options) => latency::measure(&cli.common, options).await?,
            Measure::Overload(options) => overload::measure(&cli.common, options).await?,
            Measure::Plan(options) => plan::measure(&cli.common, options).await?,
            Measure::Json(options) => json::measure(&cli.common, options).await?,
            Measure::Wire(options) => wire::measure(&cli.common, options).await?,
            Measure::Result(options) => result::measure(&cli.common, options).await?,
            Measure::View(options) => view::measure(&cli.common, options).await?,
        };
        report.publish(&cli.common)
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

fn failed(e: &error::Error) -> ExitCode {
    let mut text = format!("error: {e}\n");
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        text.push_str(&format!("  because: {e}\n"));
        cause = e.source();
    }
    // nothing to be done about a closed standard error
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
