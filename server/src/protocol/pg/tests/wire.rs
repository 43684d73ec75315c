//! Frames as they are: what no well-behaved client sends.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use pgwire::api::auth::sasl::scram::gen_salted_password;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mock::{PASSWORD, Server};

pub(super) struct Raw {
    socket: TcpStream,
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn startup(version: i32, parameters: &str) -> Vec<u8> {
    let body = [&version.to_be_bytes()[..], parameters.as_bytes(), &[0]].concat();
    let length = i32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

/// The `C` field of an ErrorResponse, after its severity was checked.
fn code(body: &[u8], severity: &str) -> String {
    let field = |kind: u8| {
        body.split(|b| *b == 0)
            .find(|f| f.first() == Some(&kind))
            .map(|f| String::from_utf8(f[1..].to_vec()).unwrap())
            .unwrap()
    };
    assert_eq!(
        (field(b'S').as_str(), field(b'V').as_str()),
        (severity, severity)
    );
    field(b'C')
}

impl Raw {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket }
    }

    async fn send(&mut self, bytes: &[u8]) {
        // the server may have closed already: then the reading side tells
        let _ = self.socket.write_all(bytes).await;
    }

    /// The next frame; `None` when the server closed.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let kind = self.socket.read_u8().await.ok()?;
            let length = usize::try_from(self.socket.read_i32().await.ok()?).unwrap();
            let mut body = vec![0; length - 4];
            self.socket.read_exact(&mut body).await.ok()?;
            Some((kind, body))
        };
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("an answer in time")
    }

    pub(super) async fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let next = self.next().await.expect("ReadyForQuery");
            let end = next.0 == b'Z';
            all.push(next);
            if end {
                return all;
            }
        }
    }

    /// Everything up to the end of the connection.
    async fn until_closed(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(next) = self.next().await {
            all.push(next);
        }
        all
    }

    pub(super) async fn query(&mut self, sql: &str) {
        self.send(&frame(b'Q', &[sql.as_bytes(), &[0]].concat()))
            .await;
    }

    pub(super) async fn login(&mut self, user: &str, password: &str) {
        self.send(&startup(
            3 << 16,
            &format!("user\0{user}\0database\0weir\0"),
        ))
        .await;
        self.scram(password).await;
        self.until_ready().await;
    }

    async fn scram(&mut self, password: &str) {
        let mac = |key: &[u8], data: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        };
        assert_eq!(self.next().await.unwrap().0, b'R');
        let bare = "n=,r=abcdefghijklmnop";
        let first = format!("n,,{bare}");
        let length = i32::try_from(first.len()).unwrap().to_be_bytes();
        let body = [b"SCRAM-SHA-256\0".as_slice(), &length, first.as_bytes()].concat();
        self.send(&frame(b'p', &body)).await;
        let challenge = String::from_utf8(self.next().await.unwrap().1[4..].to_vec()).unwrap();
        let part = |name: &str| {
            challenge
                .split(',')
                .find_map(|p| p.strip_prefix(name))
                .unwrap()
        };
        let salt = STANDARD.decode(part("s=")).unwrap();
        let salted = gen_salted_password(password, &salt, part("i=").parse().unwrap());
        let client_key = mac(&salted, b"Client Key");
        let last = format!("c=biws,r={}", part("r="));
        let message = format!("{bare},{challenge},{last}");
        let signature = mac(&Sha256::digest(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let last = format!("{last},p={}", STANDARD.encode(proof));
        self.send(&frame(b'p', last.as_bytes())).await;
    }
}

async fn server() -> Server {
    super::server().await
}

async fn open(server: &Server) -> Raw {
    Raw::new(TcpStream::connect(server.address).await.unwrap())
}

#[tokio::test]
async fn nothing_runs_before_the_login() {
    let server = server().await;
    let query = frame(b'Q', b"select 1\0");
    let hello = startup(3 << 16, "user\0weir\0database\0weir\0");
    let wrong = frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=");
    let parse = [frame(b'P', b"\0select 1\0\0\0"), frame(b'S', b"")].concat();
    // a query in place of the password, after a bad one, and all at once
    for attack in [
        [hello.clone(), query.clone(), query.clone()].concat(),
        [hello.clone(), wrong, query.clone(), query.clone()].concat(),
        [hello.clone(), parse, query.clone()].concat(),
        [startup(3 << 16, "database\0weir\0"), query.clone()].concat(),
        query.clone(),
    ] {
        let mut raw = open(&server).await;
        raw.send(&attack).await;
        let replies = raw.until_closed().await;
        assert!(
            replies.iter().all(|(kind, _)| matches!(kind, b'R' | b'E')),
            "got {replies:?}"
        );
    }
    // the right exchange with a wrong password, and queries behind it
    let mut raw = open(&server).await;
    raw.send(&hello).await;
    raw.scram("wrong").await;
    raw.send(&query).await;
    let replies = raw.until_closed().await;
    assert_eq!(replies.iter().map(|r| r.0).collect::<Vec<_>>(), b"E");
    assert_eq!(code(&replies[0].1, "FATAL"), "28P01");
    let executed = server
        .backend
        .executed
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(executed, 0);
}

#[tokio::test]
async fn startup_packets_are_checked() {
    let server = server().await;
    for (packet, expected) in [
        (startup(2 << 16, ""), "0A000"),
        (startup(3 << 16, "user\0weir\0replication\0true\0"), "0A000"),
        (
            startup(3 << 16, "user\0weir\0client_encoding\0LATIN1\0"),
            "0A000",
        ),
        (startup(3 << 16, "user\0weir\0options\0-x\0"), "42601"),
        (vec![0, 0, 0, 3, 0, 0, 0, 0], "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        (vec![0x7f, 0xff, 0xff, 0xff], "08P01"),
    ] {
        let mut raw = open(&server).await;
        raw.send(&packet).await;
        let replies = raw.until_closed().await;
        assert_eq!(code(&replies[0].1, "FATAL"), expected, "{packet:?}");
        assert_eq!(replies.len(), 1);
    }
    // a newer minor version and unknown protocol options are talked down
    let mut raw = open(&server).await;
    raw.send(&startup((3 << 16) + 2, "user\0weir\0_pq_.x\0y\0"))
        .await;
    let (kind, body) = raw.next().await.unwrap();
    assert_eq!(
        (kind, &body[..]),
        (b'v', &b"\0\x03\0\0\0\0\0\x01_pq_.x\0"[..])
    );
    raw.scram(PASSWORD).await;
    raw.until_ready().await;
    // without TLS and GSS both are declined
    let mut raw = open(&server).await;
    for code in [80_877_103i32, 80_877_104] {
        raw.send(&[8i32.to_be_bytes(), code.to_be_bytes()].concat())
            .await;
        assert_eq!(raw.socket.read_u8().await.unwrap(), b'N');
    }
    raw.login("weir", PASSWORD).await;
}

#[tokio::test]
async fn a_silent_client_is_closed() {
    let options = crate::protocol::pg::Options {
        startup_timeout: Duration::from_millis(50),
        ..crate::protocol::pg::Options::default()
    };
    let server = Server::start(options).await;
    let mut raw = open(&server).await;
    assert!(raw.until_closed().await.is_empty());
}

#[tokio::test]
async fn cancel_with_a_wrong_key_does_nothing_and_says_nothing() {
    let server = server().await;
    for body in [
        &[0, 0, 0, 1, 0, 0, 0, 0][..],
        &[0, 0, 0, 9, 1, 2, 3, 4],
        &[0; 3],
    ] {
        let mut raw = open(&server).await;
        let length = i32::try_from(8 + body.len()).unwrap();
        raw.send(
            &[
                &length.to_be_bytes()[..],
                &80_877_102i32.to_be_bytes(),
                body,
            ]
            .concat(),
        )
        .await;
        assert!(raw.until_closed().await.is_empty());
    }
}

#[tokio::test]
async fn malformed_messages_get_an_error_and_the_connection_lives() {
    let server = server().await;
    let mut raw = server.raw().await;
    for (bad, expected) in [
        (frame(b'P', b"no end"), "08P01"),
        (frame(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff"), "08P01"),
        (frame(b'B', b"\0\0\xff\xff"), "08P01"),
        (frame(b'D', b"X\0"), "08P01"),
        (frame(b'E', b"nope\0\0\0\0\0"), "34000"),
        (frame(b'B', b"\0nope\0\0\0\0\0\0\0"), "26000"),
        (frame(b'P', b"\0\xff\0\0\0"), "22021"),
    ] {
        raw.send(&[bad, frame(b'E', b"\0\0\0\0\0"), frame(b'S', b"")].concat())
            .await;
        let replies = raw.until_ready().await;
        assert_eq!(replies.len(), 2);
        assert_eq!(code(&replies[0].1, "ERROR"), expected);
    }
    for bad in [frame(b'Q', b"no end"), frame(b'F', b"\0\0\0\0")] {
        raw.send(&bad).await;
        assert_eq!(raw.until_ready().await.len(), 2);
    }
    raw.query("select 1").await;
    assert_eq!(raw.until_ready().await.len(), 4);
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_a_reason() {
    let options = crate::protocol::pg::Options {
        max_message: 1000,
        ..crate::protocol::pg::Options::default()
    };
    let server = Server::start(options).await;
    for (bad, expected) in [
        (vec![1, 0, 0, 0, 4], "08P01"),
        (vec![b'Q', 0, 0, 0, 3], "08P01"),
        (vec![b'Q', 0xff, 0xff, 0xff, 0xff], "54000"),
        (vec![b'd', 0, 0, 4, 0], "54000"),
        (frame(b'p', b"again"), "08P01"),
    ] {
        let mut raw = server.raw().await;
        raw.send(&bad).await;
        let replies = raw.until_closed().await;
        assert_eq!(code(&replies[0].1, "FATAL"), expected, "{bad:?}");
    }
}

#[tokio::test]
async fn the_extended_flow_message_by_message() {
    let server = server().await;
    let mut raw = server.raw().await;
    let kinds = |replies: &[(u8, Vec<u8>)]| replies.iter().map(|r| r.0).collect::<Vec<_>>();
    let sync = frame(b'S', b"");
    // blank text: no data, empty query
    let blank = [
        frame(b'P', b"\0 \0\0\0"),
        frame(b'B', b"\0\0\0\0\0\0\0\0"),
        frame(b'D', b"P\0"),
        frame(b'E', b"\0\0\0\0\0"),
        sync.clone(),
    ];
    raw.send(&blank.concat()).await;
    assert_eq!(kinds(&raw.until_ready().await), b"12nIZ");
    // a named statement may not be overwritten; closing what is not there is fine
    let twice = [
        frame(b'P', b"s\0select 1\0\0\0"),
        frame(b'P', b"s\0select 1\0\0\0"),
        sync.clone(),
    ];
    raw.send(&twice.concat()).await;
    let replies = raw.until_ready().await;
    assert_eq!(
        (kinds(&replies), code(&replies[1].1, "ERROR")),
        (b"1EZ".to_vec(), "42P05".into())
    );
    let close = [
        frame(b'C', b"Ss\0"),
        frame(b'C', b"Ss\0"),
        frame(b'C', b"Pq\0"),
        sync.clone(),
    ];
    raw.send(&close.concat()).await;
    assert_eq!(kinds(&raw.until_ready().await), b"333Z");
    // drained portals give nothing more, finished commands do not run twice
    let execute = frame(b'E', b"\0\0\0\0\0");
    let parts = [
        frame(b'P', b"\0series 2\0\0\0"),
        frame(b'B', b"\0\0\0\0\0\0\0\0"),
        frame(b'E', b"\0\0\0\0\x02"),
        execute.clone(),
        execute.clone(),
        frame(b'P', b"\0create\0\0\0"),
        frame(b'B', b"\0\0\0\0\0\0\0\0"),
        execute.clone(),
        execute,
        sync.clone(),
    ];
    raw.send(&parts.concat()).await;
    let replies = raw.until_ready().await;
    assert_eq!(kinds(&replies), b"12DDsCC12CEZ");
    assert_eq!(replies[5].1, b"SELECT 0\0");
    assert_eq!(code(&replies[10].1, "ERROR"), "55000");
    // wrong numbers of parameters and of result formats; Flush brings what is there
    raw.send(&[frame(b'P', b"\0series 2\0\0\0"), frame(b'H', b"")].concat())
        .await;
    assert_eq!(raw.next().await.unwrap().0, b'1');
    raw.send(
        &[
            frame(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xff\0\0"),
            sync.clone(),
        ]
        .concat(),
    )
    .await;
    assert_eq!(code(&raw.until_ready().await[0].1, "ERROR"), "08P01");
    raw.send(&[frame(b'B', b"\0\0\0\0\0\0\0\x02\0\0\0\0"), sync.clone()].concat())
        .await;
    assert_eq!(code(&raw.until_ready().await[0].1, "ERROR"), "08P01");
    // outside a transaction a portal ends with the Sync
    raw.send(
        &[
            frame(b'B', b"p\0\0\0\0\0\0\0\0"),
            sync.clone(),
            frame(b'E', b"p\0\0\0\0\0"),
            sync,
        ]
        .concat(),
    )
    .await;
    assert_eq!(kinds(&raw.until_ready().await), b"2Z");
    assert_eq!(code(&raw.until_ready().await[0].1, "ERROR"), "34000");
}

/// A server with a certificate of its own, and what a client needs to trust it.
async fn tls_server() -> (Server, tokio_rustls::TlsConnector) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let options = crate::protocol::pg::Options {
        tls: Some(Arc::new(config)),
        ..crate::protocol::pg::Options::default()
    };
    (Server::start(options).await, Arc::new(client).into())
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[tokio::test]
async fn tls_carries_a_session() {
    let (server, connector) = tls_server().await;
    let mut raw = open(&server).await;
    raw.send(&SSL_REQUEST).await;
    assert_eq!(raw.socket.read_u8().await.unwrap(), b'S');
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, raw.socket).await.unwrap();
    let config = server.config("weir", PASSWORD);
    let (client, connection) = config
        .connect_raw(stream, tokio_postgres::NoTls)
        .await
        .unwrap();
    server.drive(connection);
    assert_eq!(
        client.query("series 30000", &[]).await.unwrap().len(),
        30_000
    );
    // without TLS the same door serves nobody
    let plain = server.config("weir", PASSWORD);
    let refused = plain.connect(tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(refused.code().map(|c| c.code()), Some("28000"));
}

#[tokio::test]
async fn what_was_sent_before_tls_is_not_taken_as_secure() {
    let (server, _) = tls_server().await;
    let mut raw = open(&server).await;
    let stuffed = startup(3 << 16, "user\0weir\0");
    raw.send(&[&SSL_REQUEST[..], &stuffed].concat()).await;
    let mut all = Vec::new();
    let read = raw.socket.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("closed in time");
    assert_eq!(all, b"S");
}
