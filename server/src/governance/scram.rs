//! Passwords at rest: SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) in PostgreSQL's form.
//!
//! Owns making and checking them. What is stored cannot be used to log in; the Postgres door runs
//! the exchange itself over the same verifiers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore;
use sha2::{Digest, Sha256};

type Key = [u8; 32];

const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;
/// More would let one stored verifier stall every login.
const MAX_ITERATIONS: u32 = 1_000_000;
/// Successes remembered; the cache starts over when it is full.
const REMEMBERED: usize = 1024;

/// A verifier for a new password: `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
pub fn make_verifier(password: &str) -> String {
    let mut salt = [0; SALT_BYTES];
    rand::rng().fill_bytes(&mut salt);
    verifier_with(password, &salt, ITERATIONS)
}

/// Whether `password` is the one behind `verifier`. Takes as long for a wrong one as for a right
/// one; a text that is no verifier fits no password.
pub fn check_password(verifier: &str, password: &str) -> bool {
    let Some(parts) = Parts::parse(verifier) else {
        return false;
    };
    let salted = salted_password(password, &parts.salt, parts.iterations);
    let stored: Key = Sha256::digest(hmac(&salted, b"Client Key")).into();
    same(&stored, &parts.stored_key)
}

/// Remembers passwords that were right, so that a client which sends its password with every request
/// pays for the derivation once. Holds keyed hashes, never passwords.
#[derive(Debug)]
pub struct CheckedPasswords {
    secret: Key,
    seen: Mutex<HashMap<Key, ()>>,
}

impl Default for CheckedPasswords {
    fn default() -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Self {
            secret,
            seen: Mutex::default(),
        }
    }
}

impl CheckedPasswords {
    /// Whether this pair was right before. A changed password has another verifier and is not found.
    pub fn contains(&self, verifier: &str, password: &str) -> bool {
        let tag = self.tag(verifier, password);
        self.lock().contains_key(&tag)
    }

    /// Remembers a pair that [`check_password`] accepted.
    pub fn insert(&self, verifier: &str, password: &str) {
        let tag = self.tag(verifier, password);
        let mut seen = self.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(tag, ());
    }

    fn tag(&self, verifier: &str, password: &str) -> Key {
        let verifier: Key = Sha256::digest(verifier.as_bytes()).into();
        let password: Key = Sha256::digest(password.as_bytes()).into();
        hmac(&self.secret, &[verifier, password].concat())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, ()>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Parts {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
}

impl Parts {
    fn parse(verifier: &str) -> Option<Self> {
        let rest = verifier.strip_prefix("SCRAM-SHA-256$")?;
        let (derivation, keys) = rest.split_once('$')?;
        let (iterations, salt) = derivation.split_once(':')?;
        let (stored_key, _server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok()?;
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return None;
        }
        Some(Self {
            iterations,
            salt: BASE64.decode(salt).ok()?,
            stored_key: BASE64.decode(stored_key).ok()?,
        })
    }
}

fn verifier_with(password: &str, salt: &[u8], iterations: u32) -> String {
    let salted = salted_password(password, salt, iterations);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored_key),
        BASE64.encode(server_key)
    )
}

/// PBKDF2-HMAC-SHA-256 with one block of output, over the prepared password.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Key {
    // a password that cannot be prepared is used as it is, as PostgreSQL does
    let prepared = stringprep::saslprep(password).unwrap_or_else(|_| password.into());
    let keyed = keyed(prepared.as_bytes());
    let mut block: Key = {
        let mut mac = keyed.clone();
        mac.update(salt);
        mac.update(&1u32.to_be_bytes());
        mac.finalize().into_bytes().into()
    };
    let mut result = block;
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&block);
        block = mac.finalize().into_bytes().into();
        for (r, b) in result.iter_mut().zip(block) {
            *r ^= b;
        }
    }
    result
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut mac = keyed(key);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("any key length is valid")
}

/// Comparison whose time does not depend on where the texts differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_exchange_gives_the_published_keys() {
        // RFC 7677, section 3: user "user", password "pencil"
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted_password("pencil", &salt, 4096);
        let server_key = hmac(&salted, b"Server Key");
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&server_key, message.as_bytes());
        assert_eq!(
            BASE64.encode(signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn only_the_right_password_fits() {
        let verifier = make_verifier("hunter2 ü");
        assert!(check_password(&verifier, "hunter2 ü"));
        assert!(!check_password(&verifier, "hunter2"));
        assert!(!check_password(&verifier, ""));
        assert_ne!(verifier, make_verifier("hunter2 ü"), "salted");
        for text in [
            "",
            "SCRAM-SHA-256$",
            "md5abc",
            "SCRAM-SHA-256$0:AA==$AA==:AA==",
        ] {
            assert!(!check_password(text, ""), "{text}");
        }
    }

    #[test]
    fn successes_are_remembered_per_verifier() {
        let checks = CheckedPasswords::default();
        checks.insert("v1", "pw");
        assert!(checks.contains("v1", "pw"));
        assert!(!checks.contains("v1", "other"));
        assert!(!checks.contains("v2", "pw"));
        for i in 0..2 * REMEMBERED {
            checks.insert("v1", &i.to_string());
        }
        assert!(checks.lock().len() <= REMEMBERED);
    }
}
