//! Runs SQL logic test files, each on its own server and directory, over the real Postgres wire.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqllogictest::{Runner, default_normalizer, default_validator, strict_column_validator};

use crate::TestServer;
use crate::pg::Protocol;

/// A whole file must be done by then.
const FILE_LIMIT: Duration = Duration::from_secs(120);

/// The `.slt` files under a directory, sorted.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a readable directory") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "slt") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Runs one file; the error names the line and shows what differs.
pub async fn run(file: &Path, protocol: Protocol) -> Result<(), String> {
    let server = TestServer::start().await;
    let mut runner = Runner::new(|| async { Ok(server.connect().await.with_protocol(protocol)) });
    if protocol == Protocol::Extended {
        runner.with_column_validator(strict_or_any);
    }
    let done = tokio::time::timeout(FILE_LIMIT, runner.run_file_async(file)).await;
    runner.shutdown_async().await;
    drop(runner);
    server.stop().await;
    match done {
        Ok(result) => result.map_err(|e| e.display(false).to_string()),
        Err(_) => Err(format!(
            "{}: not done within {FILE_LIMIT:?}",
            file.display()
        )),
    }
}

/// Writes what the server answers into the file. For a person to read before it is kept: an answer
/// is right by PostgreSQL and by the language's description, not because the server gave it.
pub async fn complete(file: &Path) -> Result<(), String> {
    let server = TestServer::start().await;
    let mut runner = Runner::new(|| async { Ok(server.connect().await) });
    let done = runner
        .update_test_file(file, " ", default_validator, default_normalizer, |_, _| {
            true
        })
        .await;
    runner.shutdown_async().await;
    drop(runner);
    server.stop().await;
    done.map_err(|e| e.to_string())
}

/// Column types must be as written, `?` standing for any.
#[expect(clippy::ptr_arg, reason = "the type sqllogictest asks for")]
fn strict_or_any(
    actual: &Vec<sqllogictest::DefaultColumnType>,
    expected: &Vec<sqllogictest::DefaultColumnType>,
) -> bool {
    use sqllogictest::DefaultColumnType::Any;
    let pairs = actual.iter().zip(expected);
    let kept: Vec<_> = pairs
        .map(|(a, e)| if *e == Any { Any } else { a.clone() })
        .collect();
    actual.len() == expected.len() && strict_column_validator(&kept, expected)
}
