//! SCRAM-SHA-256 as the server's side plays it, over the verifiers the catalog keeps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth};
use sha2::{Digest, Sha256};

use super::message::Body;
use super::reply;
use super::startup::Door;
use super::wire::{Broken, Wire};
use crate::error::SqlState;

const MECHANISM: &str = "SCRAM-SHA-256";
/// Iterations told for roles that do not exist: what new verifiers have.
const MOCK_ITERATIONS: usize = 4096;

/// Has the client prove the role's password. A role that does not exist goes through the same
/// exchange and fails at its end with the same words.
pub(super) async fn prove(wire: &mut Wire, door: &Door, role: &str) -> Result<(), Broken> {
    let verifier = door.auth.scram_verifier(role).await?;
    let secret = verifier
        .as_deref()
        .and_then(parse_verifier)
        .unwrap_or_else(|| mock_verifier(&door.mock_key, role));

    let mut mechanisms = MECHANISM.as_bytes().to_vec();
    mechanisms.extend_from_slice(&[0, 0]);
    reply::authentication(&mut wire.out, 10, &mechanisms);

    let mut first = Body(password(wire).await?);
    let mechanism = first.text()?;
    if mechanism != MECHANISM {
        return Err(Broken::fatal(
            SqlState::PROTOCOL_VIOLATION,
            "client selected an invalid SASL authentication mechanism",
        ));
    }
    let data = first.value()?.unwrap_or_default();
    let malformed = |_| Broken::fatal(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message");
    let (challenge, exchange) = ScramServerAuth::new()
        .on_client_first_message_with_secret(&data, secret)
        .map_err(malformed)?;
    reply::authentication(&mut wire.out, 11, challenge.as_bytes());

    let last = password(wire).await?;
    let signature = exchange
        .on_client_final_message(&last)
        .ok()
        .filter(|_| verifier.is_some())
        .ok_or_else(|| {
            Broken::fatal(
                SqlState::INVALID_PASSWORD,
                format!("password authentication failed for user \"{role}\""),
            )
        })?;
    reply::authentication(&mut wire.out, 12, signature.as_bytes());
    Ok(())
}

/// The next password message; anything else ends the connection.
async fn password(wire: &mut Wire) -> Result<Bytes, Broken> {
    wire.flush().await?;
    let frame = wire.frame().await?;
    match frame.kind {
        b'p' => Ok(frame.body),
        b'X' => Err(Broken::Gone),
        other => Err(Broken::fatal(
            SqlState::PROTOCOL_VIOLATION,
            format!("expected a password message, got message type {other}"),
        )),
    }
}

/// `SCRAM-SHA-256$iterations:salt$stored key:server key`.
fn parse_verifier(text: &str) -> Option<ScramSecret> {
    let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let key = |text: &str| STANDARD.decode(text).ok().filter(|k| k.len() == 32);
    Some(ScramSecret::Verifier {
        salt: STANDARD.decode(salt).ok()?,
        iterations: iterations.parse().ok().filter(|n| *n > 0)?,
        stored_key: key(stored)?,
        server_key: key(server)?,
    })
}

/// A verifier no password has. The salt is always the same for a name, as a real one's would be.
fn mock_verifier(key: &[u8; 32], role: &str) -> ScramSecret {
    let salt = Sha256::new()
        .chain_update(key)
        .chain_update(role)
        .finalize();
    ScramSecret::Verifier {
        salt: salt.iter().take(16).copied().collect(),
        iterations: MOCK_ITERATIONS,
        stored_key: rand::random::<[u8; 32]>().to_vec(),
        server_key: rand::random::<[u8; 32]>().to_vec(),
    }
}
