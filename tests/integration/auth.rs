//! Nobody comes in without a password, at any door.

use std::net::SocketAddr;

use tests::flight::FlightSession;
use tests::http::{HttpSession, NDJSON, answer};
use tests::{ADMIN, PASSWORD, PgSession, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_at_each_door() {
    let server = TestServer::start().await;
    let at = server.addresses();
    for (user, password) in [
        (ADMIN, "wrong"),
        (ADMIN, ""),
        ("nobody", PASSWORD),
        ("", PASSWORD),
    ] {
        let refused = PgSession::open(at.pg, user, password).await;
        let failure = refused.err().unwrap_or_else(|| panic!("{user:?} came in"));
        let told = failure.state == "28P01" || failure.state == "28000";
        // The driver itself refuses to send an empty name or password.
        assert!(told || failure.state.is_empty(), "{user:?}: {failure}");
        if told && user == ADMIN {
            assert_eq!(
                failure.message,
                format!("password authentication failed for user \"{user}\"")
            );
        }
        assert!(
            FlightSession::open(at.flight, user, password)
                .await
                .is_err(),
            "{user:?}"
        );
        let http = HttpSession::new(at.http, user, password);
        assert_eq!(http.sql("SELECT 1").await.unwrap().status, 401, "{user:?}");
    }
    // The door is still open for who knows it.
    assert_eq!(server.connect().await.value("SELECT 1").await, "1");
    server.stop().await;
}

/// An unknown user and a wrong password look the same from outside.
#[tokio::test(flavor = "multi_thread")]
async fn users_cannot_be_guessed() {
    let server = TestServer::start().await;
    let at = server.addresses();
    let known = PgSession::open(at.pg, ADMIN, "wrong").await.err().unwrap();
    let unknown = PgSession::open(at.pg, "nobody", "wrong")
        .await
        .err()
        .unwrap();
    assert_eq!(known.state, unknown.state);
    assert_eq!(
        known.message.replace(ADMIN, "?"),
        unknown.message.replace("nobody", "?")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_and_http_answer_nothing_before_login() {
    let server = TestServer::start().await;
    let at = server.addresses();
    server
        .connect()
        .await
        .run("CREATE STREAMING TABLE t (a INT)")
        .await;

    let mut flight = FlightSession::connect(at.flight).await.unwrap();
    let refused = flight.query("SELECT 1").await.unwrap_err().to_string();
    assert!(refused.contains("28000"), "{refused}");
    assert!(flight.run("INSERT INTO t VALUES (1)").await.is_err());
    assert!(flight.put("public", "t", Vec::new()).await.is_err());
    flight.client().set_token("made-up".to_owned());
    assert!(flight.query("SELECT 1").await.is_err());

    let http = server.http();
    let json = serde_json::json!({ "sql": "SELECT 1" });
    let told = answer(http.post_anonymously("/v1/sql").json(&json))
        .await
        .unwrap();
    assert_eq!(told.status, 401, "{}", told.text);
    let rows = http
        .post_anonymously("/v1/tables/public/t/rows")
        .header("content-type", NDJSON);
    assert_eq!(answer(rows.body("{\"a\":1}\n")).await.unwrap().status, 401);
    let bearer = http
        .post_anonymously("/v1/sql")
        .bearer_auth("made-up")
        .json(&json);
    assert_eq!(answer(bearer).await.unwrap().status, 401);

    assert_eq!(
        server.connect().await.count("SELECT count(*) FROM t").await,
        0
    );
    server.stop().await;
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn startup(user: &str) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", "weir"] {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut out = u32::try_from(body.len() + 4)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    out.extend(body);
    out
}

/// Everything the server says until it closes the connection or falls silent; message kinds only.
async fn kinds(addr: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut kinds = Vec::new();
    let limit = std::time::Duration::from_secs(3);
    loop {
        let mut head = [0; 5];
        match tokio::time::timeout(limit, stream.read_exact(&mut head)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return kinds,
        }
        kinds.push(head[0]);
        let size = u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; size];
        if stream.read_exact(&mut body).await.is_err() {
            return kinds;
        }
    }
}

/// A client that does not answer the password question and sends statements instead.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_runs_nothing_before_login() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (a INT)").await;
    let at = server.addresses().pg;

    let query = message(b'Q', b"INSERT INTO t VALUES (1)\0");
    let parse = message(b'P', b"\0INSERT INTO t VALUES (2)\0\0\0");
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    let execute = message(b'E', b"\0\0\0\0\0");
    let sync = message(b'S', b"");
    let wrong_password = message(b'p', b"SCRAM-SHA-256\0\0\0\0\x04nope");
    let extended = [parse, bind, execute, sync].concat();
    for (name, after) in [
        ("simple", query.clone()),
        ("extended", extended.clone()),
        (
            "simple after a bad password",
            [wrong_password.clone(), query.clone()].concat(),
        ),
        (
            "extended after a bad password",
            [wrong_password, extended].concat(),
        ),
    ] {
        for user in [ADMIN, "nobody"] {
            let said = kinds(at, &[startup(user), after.clone()].concat()).await;
            for never in *b"ZTDC1" {
                assert!(
                    !said.contains(&never),
                    "{name} as {user}: {:?}",
                    said.escape_ascii()
                );
            }
        }
    }
    // Not even a wish to skip the login altogether.
    let said = kinds(at, &query).await;
    assert!(!said.contains(&b'Z') && !said.contains(&b'D'));
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 0);
    server.stop().await;
}

/// A role that may not log in, and one whose password is taken away.
#[tokio::test(flavor = "multi_thread")]
async fn only_login_roles_come_in() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE ROLE worker LOGIN PASSWORD 'one'").await;
    pg.run("CREATE ROLE team PASSWORD 'one'").await;
    let at = server.addresses();
    assert!(PgSession::open(at.pg, "worker", "one").await.is_ok());
    let failure = PgSession::open(at.pg, "team", "one").await.err().unwrap();
    assert!(failure.state.starts_with("28"), "{failure}");
    assert!(FlightSession::open(at.flight, "team", "one").await.is_err());
    pg.run("DROP ROLE worker").await;
    assert!(PgSession::open(at.pg, "worker", "one").await.is_err());
    server.stop().await;
}
