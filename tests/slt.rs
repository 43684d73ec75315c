//! The SQL logic tests: every file of `slt/` twice, once through each query protocol.
//!
//! Answers `--list` and `--exact` as cargo and nextest ask. `--complete [filter]` writes the
//! server's answers into the files instead.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test reports by panicking and printing"
)]

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use tests::pg::Protocol;
use tests::slt;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let files = slt::files(&root);
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.iter().any(|a| a == "--complete") {
        let filter = given.iter().find(|a| !a.starts_with("--"));
        return complete(&root, &files, filter.map_or("", String::as_str));
    }
    let trials = files.into_iter().flat_map(|file| {
        let name = name_of(&root, &file);
        [
            ("simple", Protocol::Simple),
            ("extended", Protocol::Extended),
        ]
        .map(|(label, protocol)| {
            let file = file.clone();
            Trial::test(format!("{name}::{label}"), move || run(&file, protocol))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn name_of(root: &Path, file: &Path) -> String {
    let name = file
        .strip_prefix(root)
        .expect("a file of this directory")
        .with_extension("");
    name.to_str().expect("a readable name").to_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn run(file: &Path, protocol: Protocol) -> Result<(), Failed> {
    runtime()
        .block_on(slt::run(file, protocol))
        .map_err(Failed::from)
}

fn complete(root: &Path, files: &[PathBuf], filter: &str) {
    for file in files {
        let name = name_of(root, file);
        if name.contains(filter) {
            runtime()
                .block_on(slt::complete(file))
                .expect("the file is written");
            println!("wrote {name}");
        }
    }
}
