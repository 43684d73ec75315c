//! TLS on all three doors, with one certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use server::config::TlsConfig;
use tempfile::TempDir;
use tests::{ADMIN, PASSWORD, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

struct Issued {
    files: TempDir,
    pem: String,
}

fn issue() -> Issued {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = tempfile::tempdir().unwrap();
    let pem = made.cert.pem();
    std::fs::write(files.path().join("cert.pem"), &pem).unwrap();
    std::fs::write(
        files.path().join("key.pem"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    Issued { files, pem }
}

async fn started(issued: &Issued) -> TestServer {
    let cert = issued.files.path().join("cert.pem");
    let key = issued.files.path().join("key.pem");
    TestServer::configured(|c| c.tls = Some(TlsConfig { cert, key })).await
}

/// Asks for TLS as a Postgres client does, and gives the encrypted stream.
async fn postgres_stream(addr: SocketAddr, pem: &str) -> TlsStream<TcpStream> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
        .await
        .unwrap();
    assert_eq!(
        stream.read_u8().await.unwrap(),
        b'S',
        "the server offers TLS"
    );
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_doors_speak_tls() {
    let issued = issue();
    let server = started(&issued).await;
    let at = server.addresses();

    let stream = postgres_stream(at.pg, &issued.pem).await;
    let mut login = tokio_postgres::Config::new();
    login.user(ADMIN).password(PASSWORD).dbname("weir");
    login.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = login.connect_raw(stream, NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(
        client
            .query_one("SELECT 1", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        1
    );

    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&issued.pem))
        .domain_name("localhost");
    let endpoint = Endpoint::new(format!("https://{}", at.flight)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let mut flight = FlightSqlServiceClient::new_from_inner(FlightServiceClient::new(channel));
    flight.handshake(ADMIN, PASSWORD).await.unwrap();
    flight.execute("SELECT 1".to_owned(), None).await.unwrap();

    let root = reqwest::Certificate::from_pem(issued.pem.as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .no_proxy()
        .add_root_certificate(root)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/healthz", at.http.port());
    assert_eq!(http.get(url).send().await.unwrap().status().as_u16(), 200);

    // Without TLS nothing is served: on the Postgres door not even a login is asked for.
    let mut bare = tokio_postgres::Config::new();
    bare.host(at.pg.ip().to_string()).port(at.pg.port());
    bare.user(ADMIN).password(PASSWORD).dbname("weir");
    let refused = bare.connect(NoTls).await.err().unwrap();
    assert_eq!(refused.code().map(|c| c.code()), Some("28000"));
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let told = plain
        .get(format!("http://{}/healthz", at.http))
        .send()
        .await;
    assert!(told.is_err() || told.is_ok_and(|t| t.status().as_u16() == 400));
    drop(client);
    server.stop().await;
}

/// A client that talks nonsense where the handshake should be is hung up on; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_handshake_ends_that_connection_only() {
    let issued = issue();
    let server = started(&issued).await;
    let at = server.addresses();
    for addr in [at.pg, at.flight, at.http] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        if addr == at.pg {
            stream
                .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
                .await
                .unwrap();
            stream.read_u8().await.unwrap();
        }
        // Refused at any point is as good as refused at the end.
        if stream.write_all(&[0x55; 600]).await.is_ok() {
            let mut rest = Vec::new();
            let read = stream.read_to_end(&mut rest);
            let limit = std::time::Duration::from_secs(20);
            drop(
                tokio::time::timeout(limit, read)
                    .await
                    .expect("the server hangs up"),
            );
        }
    }
    let mut stream = postgres_stream(at.pg, &issued.pem).await;
    stream.shutdown().await.unwrap();
    server.stop().await;
}
