//! The house rules that a compiler does not see. Reads the sources; starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest source file, its test module at the end not counted.
const FILE_LINES: usize = 800;

/// Crates that types cross on their way through weir: a second version of one means that two halves
/// of the program cannot talk to each other.
const ONE_VERSION: [&str; 12] = [
    "arrow",
    "axum",
    "datafusion",
    "hyper",
    "ndarray",
    "object_store",
    "parquet",
    "prost",
    "rustls",
    "sqlparser",
    "tokio",
    "tonic",
];

/// Files under `udfs/src/<kind>/` that are not one SQL function, with the reason.
const SHARED_UDF_FILES: [(&str, &str); 0] = [];

/// Functions whose test file stands under another name, with the reason.
const FUNCTIONS_TESTED_ELSEWHERE: [(&str, &str); 0] = [];

/// Files under `server/src/exec/` that are not one statement, with the reason. Every other file there has a
/// test file of its name somewhere under `tests/slt/`, and every statement of ours a file in `dialect/`,
/// one in `exec/` and that test file.
const SHARED_EXEC_FILES: [(&str, &str); 18] = [
    (
        "copy",
        "data of COPY, which SQL logic files cannot carry: integration/copy.rs",
    ),
    (
        "evolve",
        "columns from rows: streaming/evolution.slt, integration/evolution.rs",
    ),
    (
        "ingest",
        "the end of every way in: integration/visibility.rs",
    ),
    (
        "lineage",
        "edges of every statement: system/lineage_edges.slt",
    ),
    (
        "origins",
        "columns of results, as the protocol tells them: integration/parameters.rs",
    ),
    ("query", "SELECT: the files under queries/"),
    ("relations", "names, for the statements that define"),
    ("reshape", "columns of a table, for all that changes them"),
    ("rewrite", "copy on write, for UPDATE, DELETE and MERGE"),
    ("rows", "streams of rows, for every statement that has some"),
    ("series", "a function in FROM: integration/parameters.rs"),
    ("set", "settings: errors/sqlstates.slt"),
    ("show", "settings: errors/sqlstates.slt"),
    ("token", "commit tokens: integration/visibility.rs"),
    ("transaction", "blocks: errors/sqlstates.slt"),
    ("truncate", "empties a table: dml/delete.slt"),
    (
        "write",
        "rows on their way in, for every statement that stores",
    ),
    (
        "explain",
        "plans change with the engine: queries/explain.slt",
    ),
];

/// Files under `server/src/dialect/` that are not one statement, with the reason.
const SHARED_DIALECT_FILES: [(&str, &str); 19] = [
    ("array_of", "lists of subqueries: queries/array_of.slt"),
    (
        "column_names",
        "columns without an alias: queries/select.slt",
    ),
    ("data_type", "names of types, for CREATE TABLE"),
    ("spellings", "operators of queries: queries/functions.slt"),
    ("numbers", "a literal of queries: queries/types.slt"),
    ("renamed", "the text of a view's query: ddl/alter_table.slt"),
    (
        "row_comparisons",
        "conditions of queries: queries/row_comparisons.slt",
    ),
    ("rows_in", "a condition of queries: queries/select.slt"),
    ("set_returning", "functions of queries: queries/types.slt"),
    ("list_rows", "functions of queries: queries/lateral.slt"),
    ("using", "joins of queries: queries/select.slt"),
    ("view_query", "the text of a view's query"),
    ("place", "where in a text a statement stands"),
    ("postgres", "the dialect itself"),
    (
        "query_clauses",
        "clauses of queries: queries/spellings.slt, queries/array_of.slt",
    ),
    ("refuse", "what no statement may hold"),
    ("split", "cuts a text into statements"),
    (
        "time_travel",
        "a clause of queries: queries/time_travel.slt",
    ),
    ("words", "reading aids of the others"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_path_buf()
}

/// The files git would commit: tracked or new, ignored ones left out. Without git, the directory walk.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a readable directory") {
            let path = entry.expect("a directory entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let left_out = ["target", ".git", "weir-data", "__pycache__", ".venv"];
            if left_out.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("a file of the workspace")
        .to_string_lossy()
        .into_owned()
}

fn sources() -> Vec<PathBuf> {
    files()
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"))
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", relative(path)))
}

/// Stems of the `.rs` files directly in a directory, its tests left out; none when there is no such
/// directory.
fn stems(dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join(dir)).into_iter().flatten();
    let paths = entries.map(|e| e.expect("a directory entry").path());
    let sources = paths.filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let stem = |p: PathBuf| {
        p.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    sources.map(stem).filter(|name| name != "tests").collect()
}

fn named(list: &[(&'static str, &str)]) -> BTreeSet<String> {
    list.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn slt_stems() -> BTreeSet<String> {
    let files = tests::slt::files(&root().join("tests/slt"));
    let stem = |p: &PathBuf| {
        p.file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    files.iter().map(stem).collect()
}

fn none(what: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{what}:\n  {}",
        offenders.join("\n  ")
    );
}

#[test]
fn source_files_hold_one_thing() {
    let in_tests = |name: &str| name.starts_with("tests/") || name.ends_with("/tests.rs");
    let mut long = Vec::new();
    for path in sources() {
        let name = relative(&path);
        if in_tests(&name) || name.contains("/tests/") {
            continue;
        }
        let text = read(&path);
        let own = text
            .split("\n#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let lines = own.lines().count();
        if lines > FILE_LINES {
            long.push(format!("{name}: {lines}"));
        }
    }
    none(
        "files over the limit; each is a place to ask which two things it holds",
        &long,
    );
}

#[test]
fn modules_are_files_of_their_name() {
    let old: Vec<_> = sources()
        .iter()
        .map(|p| relative(p))
        .filter(|n| n.ends_with("/mod.rs"))
        .collect();
    none("write foo.rs beside foo/, not foo/mod.rs", &old);
}

#[test]
fn every_module_says_what_it_owns() {
    let silent: Vec<_> = sources()
        .iter()
        .filter(|p| {
            let text = read(p);
            !text.trim_start_matches("#![no_main]\n").starts_with("//!")
        })
        .map(|p| relative(p))
        .filter(|n| !n.ends_with("/tests.rs") && !n.contains("/tests/"))
        .collect();
    none("files without a //! line at their head", &silent);
}

#[test]
fn every_function_has_its_test_file() {
    let tested = slt_stems();
    let elsewhere = named(&FUNCTIONS_TESTED_ELSEWHERE);
    let shared = named(&SHARED_UDF_FILES);
    let mut missing = Vec::new();
    for kind in ["scalar", "aggregate", "window", "table"] {
        for name in stems(&format!("udfs/src/{kind}")) {
            if !shared.contains(&name) && !elsewhere.contains(&name) && !tested.contains(&name) {
                missing.push(format!(
                    "udfs/src/{kind}/{name}.rs: no tests/slt/functions/{name}.slt"
                ));
            }
        }
    }
    none("functions without a test over the wire", &missing);
}

#[test]
fn every_statement_of_ours_has_its_three_files() {
    let dialect: BTreeSet<_> = stems("server/src/dialect")
        .difference(&named(&SHARED_DIALECT_FILES))
        .cloned()
        .collect();
    let exec = stems("server/src/exec");
    let tested = slt_stems();
    let alone = named(&SHARED_EXEC_FILES);
    let mut missing = Vec::new();
    for name in &dialect {
        if !exec.contains(name) {
            missing.push(format!("dialect/{name}.rs: no exec/{name}.rs"));
        }
        if !tested.contains(name) {
            missing.push(format!("dialect/{name}.rs: no {name}.slt"));
        }
    }
    for name in exec
        .iter()
        .filter(|n| !dialect.contains(*n) && !alone.contains(*n))
    {
        if !tested.contains(name) {
            missing.push(format!("exec/{name}.rs: no {name}.slt"));
        }
    }
    none("statements that do not stand in all their places", &missing);
}

#[test]
fn every_system_table_is_asked_in_a_test() {
    let files = tests::slt::files(&root().join("tests/slt"));
    let asked: String = files.iter().map(|f| read(f)).collect();
    let missing: Vec<_> = stems("server/src/system/weir")
        .into_iter()
        .map(|name| format!("weir.{name}"))
        .filter(|table| !asked.contains(table.as_str()))
        .collect();
    none("system tables in no SQL logic file", &missing);
}

#[test]
fn lists_of_exceptions_are_alive() {
    let mut dead = Vec::new();
    let kinds = ["scalar", "aggregate", "window", "table"];
    let udfs: BTreeSet<_> = kinds
        .iter()
        .flat_map(|k| stems(&format!("udfs/src/{k}")))
        .collect();
    let lists = [
        (named(&SHARED_UDF_FILES), &udfs),
        (named(&FUNCTIONS_TESTED_ELSEWHERE), &udfs),
        (named(&SHARED_DIALECT_FILES), &stems("server/src/dialect")),
        (named(&SHARED_EXEC_FILES), &stems("server/src/exec")),
    ];
    for (list, there) in lists {
        dead.extend(list.difference(there).cloned());
    }
    none("exceptions for files that are gone", &dead);
}

#[test]
fn shared_crates_have_one_version() {
    let lock: toml::Table = read(&root().join("Cargo.lock"))
        .parse()
        .expect("a lock file");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().expect("text").to_owned();
        versions
            .entry(text("name"))
            .or_default()
            .insert(text("version"));
    }
    let twice: Vec<_> = ONE_VERSION
        .iter()
        .filter(|name| versions.get(**name).is_none_or(|v| v.len() != 1))
        .map(|name| format!("{name}: {:?}", versions.get(*name)))
        .collect();
    none(
        "shared crates with no or several versions in Cargo.lock",
        &twice,
    );
}

#[test]
fn members_take_the_house_lints() {
    for member in ["server", "udfs", "catalog", "tests", "bench"] {
        let manifest: toml::Table = read(&root().join(member).join("Cargo.toml"))
            .parse()
            .expect("a manifest");
        let taken = manifest.get("lints").and_then(|l| l.get("workspace"));
        assert_eq!(
            taken.and_then(toml::Value::as_bool),
            Some(true),
            "{member}/Cargo.toml: lints"
        );
    }
}

#[test]
fn no_machine_paths_in_the_tree() {
    // Spelled in two halves so that this file does not find itself.
    let patterns = [
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/Use", "rs/"],
        ["/wo", "rk/"],
        ["C:\\\\Us", "ers"],
    ]
    .map(|halves| halves.concat());
    let text = [
        "rs", "toml", "sql", "slt", "py", "md", "yaml", "yml", "sh", "run", "proto",
    ];
    let mut found = Vec::new();
    for path in files() {
        let name = relative(&path);
        let kind = path
            .extension()
            .unwrap_or(path.file_name().expect("a name"));
        if !text.contains(&kind.to_string_lossy().as_ref()) && !name.starts_with(".c") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if patterns.iter().any(|p| line.contains(p.as_str())) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("paths of somebody's machine", &found);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ]
    .map(|halves| halves.concat());
    let mut found = Vec::new();
    for path in sources() {
        for (number, line) in read(&path).lines().enumerate() {
            if marks.iter().any(|m| line.contains(m.as_str())) {
                found.push(format!(
                    "{}:{}: {}",
                    relative(&path),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    none("marks of unfinished work", &found);
}

#[test]
fn tests_are_not_switched_off() {
    let mark = ["#[ign", "ore"].concat();
    let found: Vec<_> = sources()
        .iter()
        .filter(|p| read(p).contains(&mark))
        .map(|p| relative(p))
        .collect();
    none(
        "assert today's result with a note instead of ignoring a test",
        &found,
    );
}

#[test]
fn shipped_data_is_there_with_its_licence() {
    let data = root().join("sql/demo/data");
    let readme = read(&data.join("README.md"));
    for set in ["ecom_clickstream", "cdnow", "telco_churn"] {
        assert!(
            data.join(set).join("LICENSE").is_file(),
            "{set}: no LICENSE"
        );
        assert!(readme.contains(set), "{set}: not in README.md");
    }
}
