//! One data directory, one server.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tests::{Spawned, TestServer};

use crate::PROGRAM;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spawned::start(Path::new(PROGRAM), dir.path()).await;
    let pg = first.connect().await;
    pg.run("CREATE STREAMING TABLE t (a INT)").await;
    pg.run("INSERT INTO t VALUES (1)").await;

    let mut second = Spawned::command(Path::new(PROGRAM), dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while second.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            second.kill().unwrap();
            panic!("the second server did not end");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = second.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(text.contains("in use"), "says why: {text}");
    assert!(
        text.contains(&*dir.path().to_string_lossy()),
        "names the directory: {text}"
    );
    assert!(!text.contains("panicked"), "{text}");

    // The first one never noticed.
    pg.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 2);
    drop(pg);
    first.stop().await;

    // A lock is not left behind, by a clean end or by a kill.
    Spawned::start(Path::new(PROGRAM), dir.path()).await.kill();
    // Nor is what it had spilled.
    let spilled = dir.path().join("spill/of-a-killed-process");
    std::fs::create_dir_all(&spilled).unwrap();
    std::fs::write(spilled.join("batches"), [0; 100]).unwrap();
    let again = Spawned::start(Path::new(PROGRAM), dir.path()).await;
    assert!(!spilled.exists());
    assert_eq!(
        again.connect().await.count("SELECT count(*) FROM t").await,
        2
    );
    again.stop().await;
}

/// Work that ends a little after it was told to does not keep the next server out.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_has_left_its_directory() {
    let server = TestServer::start().await;
    let straggler = server.engine();
    let ends = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(700));
        drop(straggler);
    });
    server.restart().await.stop().await;
    ends.await.unwrap();
}

/// What a person sees who makes a mistake on the command line.
#[test]
fn wrong_settings_are_named() {
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = std::process::Command::new(PROGRAM);
        command
            .args(args)
            .envs(env.iter().copied())
            .env_remove("FAILPOINTS");
        let output = command.output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();

    let (ok, text) = run(&["serve", "--data", data], &[("WEIR__NO_SUCH__KEY", "1")]);
    assert!(
        !ok && text.to_lowercase().contains("no_such"),
        "unknown key: {text}"
    );

    let (ok, text) = run(&["serve", "--data", data, "--pg-addr", "nowhere"], &[]);
    assert!(!ok && text.contains("nowhere"), "bad address: {text}");

    let (ok, text) = run(&["serve", "--data", data, "--pg-addr", "0.0.0.0:0"], &[]);
    assert!(
        !ok && text.contains("insecure"),
        "open to the world without TLS: {text}"
    );

    let (ok, text) = run(&["version"], &[]);
    assert!(
        ok && text.contains(env!("CARGO_PKG_VERSION")),
        "version: {text}"
    );

    let (ok, text) = run(
        &["print-config"],
        &[("WEIR__AUTH__ADMIN_PASSWORD", "hush-hush")],
    );
    assert!(
        ok && !text.contains("hush-hush"),
        "the password stays out of print-config"
    );
}
