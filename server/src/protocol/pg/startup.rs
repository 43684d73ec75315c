//! From an accepted socket to a logged-in session: TLS, start-up packet, limits, login, settings.
//!
//! There is one way through: a connection becomes a [`Connection`] only after its password is
//! proven, and every refusal on the way is FATAL and closes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::cancel::Registry;
use super::connection::Connection;
use super::message::Body;
use super::wire::{Broken, Wire};
use super::{Authenticator, Options, auth, reply};
use crate::error::{Error, SqlState};
use crate::protocol::calls::SessionCalls;

/// Largest message before the login is done.
const LOGIN_MESSAGE: usize = 16 << 10;
/// Silence after which a peer is probed, and the time between probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;
/// The one database.
const DATABASE: &str = "weir";

/// Settings told to every client, with what is told when the session has none of that name.
const REPORTED: [(&str, &str); 12] = [
    ("server_version", "15.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("application_name", ""),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("is_superuser", "off"),
    ("session_authorization", ""),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("standard_conforming_strings", "on"),
];

/// What the connections share.
pub(super) struct Door {
    pub(super) auth: Arc<dyn Authenticator>,
    pub(super) options: Options,
    pub(super) stop: CancellationToken,
    pub(super) registry: Arc<Registry>,
    /// Makes salts for roles that do not exist.
    pub(super) mock_key: [u8; 32],
    serving: AtomicUsize,
}

impl Door {
    pub(super) fn new(
        auth: Arc<dyn Authenticator>,
        options: Options,
        stop: CancellationToken,
    ) -> Self {
        Self {
            auth,
            options,
            stop,
            registry: Arc::default(),
            mock_key: rand::random(),
            serving: AtomicUsize::new(0),
        }
    }
}

/// One of the connections that count towards the limit.
struct Seat<'a>(&'a AtomicUsize);

impl Seat<'_> {
    fn take(door: &Door) -> Option<Seat<'_>> {
        let seat = Seat(&door.serving); // given back on drop, also when it was one too many
        let before = door.serving.fetch_add(1, Ordering::AcqRel);
        (before < door.options.max_connections).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves one socket to its end.
pub(super) async fn run(door: Arc<Door>, socket: TcpStream, peer: SocketAddr) {
    let _ = socket.set_nodelay(true);
    // a peer that vanished without a word must not hold its seat for ever
    let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL),
    );
    let wire = Wire::new(Box::new(socket), LOGIN_MESSAGE);
    let deadline = tokio::time::Instant::now() + door.options.startup_timeout;
    let opened = tokio::select! {
        opened = tokio::time::timeout_at(deadline, open(&door, wire, peer)) => opened,
        () = door.stop.cancelled() => return,
    };
    // on a timeout the socket is just closed: who does not talk does not listen either
    if let Ok(Some((mut connection, _seat))) = opened {
        connection.run(&door.stop).await;
    }
}

/// The start-up; `None` when it ended without a session.
async fn open<'a>(
    door: &'a Door,
    wire: Wire,
    peer: SocketAddr,
) -> Option<(Box<Connection>, Seat<'a>)> {
    let (mut wire, packet) = negotiate(door, wire).await?;
    match login(door, &mut wire, packet, peer).await {
        Ok((session, seat)) => {
            // the client may now send what clients may send
            wire.limit = door.options.max_message;
            let key = door.registry.register(&session);
            Some((Box::new(Connection::new(wire, session, key)), seat))
        }
        Err(Broken::Fatal(report)) => {
            reply::error(&mut wire.out, "FATAL", &report);
            wire.close().await;
            None
        }
        Err(Broken::Gone) => None,
    }
}

/// TLS and GSS questions and cancel requests, up to the start-up packet itself.
async fn negotiate(door: &Door, mut wire: Wire) -> Option<(Wire, Bytes)> {
    let mut encrypted = false;
    // SSL, GSS and the packet itself: more rounds than that are no client
    for _ in 0..4 {
        let mut packet = match wire.startup_packet().await {
            Ok(packet) => packet,
            Err(Broken::Fatal(report)) => {
                reply::error(&mut wire.out, "FATAL", &report);
                wire.close().await;
                return None;
            }
            Err(Broken::Gone) => return None,
        };
        let code = packet.first_chunk().map_or(0, |b| i32::from_be_bytes(*b));
        match (code, &door.options.tls) {
            (SSL_REQUEST, Some(config)) if !encrypted => {
                wire.out.push(b'S');
                wire.flush().await.ok()?;
                let plain = match wire.into_plain() {
                    Ok(plain) => plain,
                    Err(_) => return None,
                };
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
                let secured = acceptor.accept(plain).await.ok()?;
                wire = Wire::new(Box::new(secured), LOGIN_MESSAGE);
                encrypted = true;
            }
            (SSL_REQUEST | GSS_REQUEST, _) => {
                wire.out.push(b'N');
                wire.flush().await.ok()?;
            }
            (CANCEL_REQUEST, _) => {
                packet.advance(4);
                if packet.len() >= 8 {
                    let pid = packet.get_i32();
                    door.registry.cancel(pid, &packet);
                }
                return None; // closed without an answer
            }
            (_, Some(_)) if !encrypted => {
                let refusal = Error::refused(
                    SqlState::INVALID_AUTHORIZATION,
                    "this server takes encrypted connections only",
                )
                .with_hint("connect with sslmode=require or stricter");
                reply::error(&mut wire.out, "FATAL", &refusal.report());
                wire.close().await;
                return None;
            }
            _ => return Some((wire, packet)),
        }
    }
    None
}

async fn login<'a>(
    door: &'a Door,
    wire: &mut Wire,
    packet: Bytes,
    peer: SocketAddr,
) -> Result<(Arc<dyn SessionCalls>, Seat<'a>), Broken> {
    let asked = Asked::read(packet)?;
    if asked.minor > 0 || !asked.unknown.is_empty() {
        let unknown: Vec<&str> = asked.unknown.iter().map(String::as_str).collect();
        reply::negotiate(&mut wire.out, &unknown);
    }
    let Some(seat) = Seat::take(door) else {
        return Err(Broken::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "sorry, too many clients already",
        ));
    };
    auth::prove(wire, door, &asked.user).await?;

    // from here on the client is who it says it is
    if asked.database != DATABASE {
        return Err(Broken::fatal(
            SqlState::INVALID_CATALOG_NAME,
            format!("database \"{}\" does not exist", asked.database),
        ));
    }
    let session = door.auth.open(&asked.user, peer).await?;
    for (name, value) in &asked.settings {
        session.set(name, value)?;
    }
    reply::authentication(&mut wire.out, 0, &[]);
    let _ = session.take_reported_changes(); // all are told now
    for (name, default) in REPORTED {
        let value = session.setting(name);
        let value = match (name, &value) {
            (_, Some(value)) => value,
            ("session_authorization", None) => &asked.user,
            (_, None) => default,
        };
        reply::parameter_status(&mut wire.out, name, value);
    }
    reply::parameter_status(&mut wire.out, "integer_datetimes", "on");
    Ok((session, seat))
}

/// What a start-up packet asks for.
#[derive(Debug)]
struct Asked {
    minor: i32,
    user: String,
    database: String,
    settings: Vec<(String, String)>,
    /// Protocol options nobody here knows.
    unknown: Vec<String>,
}

impl Asked {
    fn read(packet: Bytes) -> Result<Self, Broken> {
        let mut body = Body(packet);
        let version = body.word()?;
        let (major, minor) = (version >> 16, version & 0xffff);
        if major != 3 {
            return Err(Broken::fatal(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("unsupported frontend protocol {major}.{minor}: server supports 3.0"),
            ));
        }
        let mut asked = Self {
            minor,
            user: String::new(),
            database: String::new(),
            settings: Vec::new(),
            unknown: Vec::new(),
        };
        loop {
            let name = body.text()?;
            if name.is_empty() {
                break;
            }
            let value = body.text()?;
            asked.take(name, value)?;
        }
        if asked.user.is_empty() {
            return Err(Broken::fatal(
                SqlState::INVALID_AUTHORIZATION,
                "no PostgreSQL user name specified in startup packet",
            ));
        }
        if asked.database.is_empty() {
            asked.database = DATABASE.to_owned();
        }
        Ok(asked)
    }

    fn take(&mut self, name: String, value: String) -> Result<(), Broken> {
        match name.as_str() {
            "user" => self.user = value,
            "database" => self.database = value,
            "options" => {
                for (name, value) in command_line(&value)? {
                    self.take(name, value)?;
                }
            }
            "replication" => {
                if !matches!(value.as_str(), "false" | "off" | "no" | "0") {
                    return Err(Broken::fatal(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "replication connections are not supported",
                    ));
                }
            }
            "client_encoding" => {
                let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                if !matches!(plain.to_ascii_lowercase().as_str(), "utf8" | "unicode") {
                    return Err(Broken::fatal(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("client encoding \"{value}\" is not supported, use UTF8"),
                    ));
                }
            }
            _ if name.starts_with("_pq_.") => self.unknown.push(name),
            _ => self.settings.push((name, value)),
        }
        Ok(())
    }
}

/// `-c name=value` and `--name=value` of the `options` parameter; a backslash keeps a blank.
fn command_line(text: &str) -> Result<Vec<(String, String)>, Broken> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, words.last_mut()) {
            ('\\', Some(word)) => word.extend(chars.next()),
            (c, Some(word)) if !c.is_whitespace() => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|w| !w.is_empty());
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c")
                .or_else(|| word.strip_prefix("--"))
                .map(str::to_owned)
        };
        let pair = assignment.as_deref().and_then(|a| a.split_once('='));
        let Some((name, value)) = pair else {
            return Err(Broken::fatal(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            ));
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}
