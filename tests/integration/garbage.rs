//! Bytes that are no protocol at all: the connection may end, the server goes on.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes, reads whatever comes for a moment, hangs up.
async fn throw(addr: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may close at the first byte; that is its right.
    if stream.write_all(bytes).await.is_ok() {
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        drop(tokio::time::timeout(Duration::from_millis(300), read).await);
    }
}

fn nasty() -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![0],
        vec![0xff; 64],
        vec![0; 4096],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"POST /v1/sql HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        // Postgres: a start-up packet of two gigabytes, one of length zero, one cut short, unknown version,
        // no user, text without an end.
        0x7fff_ffffu32.to_be_bytes().to_vec(),
        vec![0, 0, 0, 0, 0, 3, 0, 0],
        vec![0, 0, 0, 50, 0, 3, 0, 0, b'u'],
        vec![0, 0, 0, 8, 0, 9, 0, 0],
        vec![0, 0, 0, 9, 0, 3, 0, 0, 0],
        vec![
            0, 0, 0, 16, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0, b'x', b'y', b'z',
        ],
        // TLS hello to a door without TLS, cancel for nobody.
        vec![
            0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
        ],
        vec![0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2],
    ];
    let mut rng = StdRng::seed_from_u64(11);
    for size in [1, 7, 100, 5000, 70_000] {
        all.push((0..size).map(|_| rng.random()).collect());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_port_survives_garbage() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let at = server.addresses();
    for door in [at.pg, at.flight, at.http] {
        for bytes in nasty() {
            throw(door, &bytes).await;
        }
    }
    assert_eq!(pg.value("SELECT 1").await, "1", "the open connection");
    assert_eq!(server.connect().await.value("SELECT 1").await, "1");
    assert_eq!(server.flight().await.value("SELECT 1").await, "1");
    assert_eq!(server.http().sql("SELECT 1").await.unwrap().status, 200);
    server.stop().await;
}

/// Garbage after a good login ends that connection with a protocol error, and only that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_does_not_break_others() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let broken = pg.client().simple_query("SELECT 'a\u{1}b'").await;
    assert!(broken.is_ok(), "control characters are text: {broken:?}");
    // Statements that are no statements.
    for text in [
        "",
        ";",
        ";;;",
        "--",
        "/* open",
        "\u{feff}SELECT 1",
        "SELECT 1\u{0}",
        "🦀",
        "$$",
        "'",
    ] {
        drop(pg.client().simple_query(text).await);
        drop(pg.client().prepare(text).await);
    }
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let refused = pg.failure(&deep).await;
    assert!(
        ["54001", "42601", "54000"].contains(&refused.state.as_str()),
        "{refused}"
    );
    let long = format!("SELECT 1{}", " + 1".repeat(20_000));
    drop(pg.client().simple_query(&long).await);
    assert_eq!(server.connect().await.value("SELECT 1").await, "1");
    server.stop().await;
}
