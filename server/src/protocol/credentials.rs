//! Who is calling: `Authorization: Basic` and `Bearer`, for the Flight and HTTP doors.
//!
//! Owns issued tokens and the sessions bound to them. It knows passwords only as verifiers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::backend::{Backend, DataCalls, Keyed};
use crate::error::{Error, Result, SqlState};
use crate::governance::scram::{CheckedPasswords, check_password};
use crate::metrics;
use crate::session::Door;

/// Base64 of Basic credentials: some drivers leave the padding off.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Tokens held at a time; the one idle longest goes first.
const MAX_TOKENS: usize = 10_000;
/// Password derivations at a time: logins must not take every core.
const CHECKS_AT_A_TIME: usize = 2;
/// How long a login waits for its turn.
const CHECK_DEADLINE: Duration = Duration::from_secs(10);
/// Checked for names that are no role, so that they take as long as a wrong password. Its keys are
/// zeros, which are the hash of no known password, and a match would still be refused.
const NOBODY: &str = "SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

type TokenHash = [u8; 32];

/// An authenticated caller.
#[derive(Clone)]
pub struct Caller {
    /// Its role.
    pub role: String,
    /// Its session: the token's, or one for this call alone.
    pub session: Arc<dyn DataCalls>,
    /// The session outlives this call.
    pub lasting: bool,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Checks callers and issues bearer tokens.
pub struct Credentials {
    backend: Arc<dyn Backend>,
    checked: CheckedPasswords,
    checks: Semaphore,
    tokens: Mutex<HashMap<TokenHash, Token>>,
    lifetime: Duration,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

struct Token {
    role: String,
    /// The role's verifier when the token was made: a new password ends old tokens.
    verifier: String,
    /// Of the Flight door; other doors open one per call.
    session: Arc<dyn DataCalls>,
    used: Instant,
}

impl Credentials {
    /// Over a database; tokens live for `lifetime` after their last use.
    pub fn new(backend: Arc<dyn Backend>, lifetime: Duration) -> Self {
        Self {
            backend,
            checked: CheckedPasswords::default(),
            checks: Semaphore::new(CHECKS_AT_A_TIME),
            tokens: Mutex::default(),
            lifetime,
        }
    }

    /// Finds out who sent an `Authorization` header. Refuses with 28000 or 28P01.
    pub async fn caller(&self, header: Option<&str>, door: Door) -> Result<Caller> {
        let outcome = match header.and_then(|h| h.split_once(' ')) {
            None => Err(Error::refused(
                SqlState::INVALID_AUTHORIZATION,
                "authentication is required",
            )
            .with_hint("send Basic or Bearer credentials in the authorization header")),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
                self.by_password(rest.trim(), door).await
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.by_token(rest.trim(), door)
            }
            Some((scheme, _)) => Err(Error::refused(
                SqlState::INVALID_AUTHORIZATION,
                format!("authentication scheme \"{scheme}\" is not supported"),
            )
            .with_hint("use Basic or Bearer")),
        };
        if outcome.is_err() {
            metrics::login_failed(door.name());
        }
        outcome
    }

    /// The table that a write key opens. Refuses with 28000.
    pub fn keyed(&self, key: Option<&str>) -> Result<Keyed> {
        let known = key.filter(|key| !key.is_empty());
        let found = known.and_then(|key| self.backend.keyed(key));
        found.ok_or_else(|| {
            metrics::login_failed(Door::Http.name());
            match known {
                Some(_) => Error::refused(
                    SqlState::INVALID_AUTHORIZATION,
                    "the write key is not valid",
                ),
                None => Error::refused(
                    SqlState::INVALID_AUTHORIZATION,
                    "authentication is required",
                )
                .with_hint("send the write key as the user of Basic credentials"),
            }
        })
    }

    /// Makes a token for a caller; the text is given out once and kept as a hash.
    pub fn issue(&self, caller: &Caller) -> Result<String> {
        let verifier = self
            .backend
            .verifier(&caller.role)
            .ok_or_else(|| wrong_password(&caller.role))?;
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let mut tokens = self.lock();
        let now = Instant::now();
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, t| now.duration_since(t.used) < self.lifetime);
        }
        if tokens.len() >= MAX_TOKENS {
            let idle_longest = tokens.iter().min_by_key(|(_, t)| t.used).map(|(h, _)| *h);
            if let Some(hash) = idle_longest {
                tokens.remove(&hash);
            }
        }
        tokens.insert(
            hash(&text),
            Token {
                role: caller.role.clone(),
                verifier,
                session: Arc::clone(&caller.session),
                used: now,
            },
        );
        Ok(text)
    }

    /// Ends a token; one that is not there is no error.
    pub fn revoke(&self, header: Option<&str>) {
        if let Some((scheme, token)) = header.and_then(|h| h.split_once(' '))
            && scheme.eq_ignore_ascii_case("bearer")
        {
            self.lock().remove(&hash(token.trim()));
        }
    }

    async fn by_password(&self, encoded: &str, door: Door) -> Result<Caller> {
        let malformed = || {
            Error::refused(
                SqlState::INVALID_AUTHORIZATION,
                "the Basic credentials are malformed",
            )
        };
        let text = BASIC.decode(encoded).map_err(|_| malformed())?;
        let text = String::from_utf8(text).map_err(|_| malformed())?;
        let (role, password) = text.split_once(':').ok_or_else(malformed)?;
        self.check(role, password).await?;
        Ok(Caller {
            role: role.to_owned(),
            session: self.backend.open(role, door)?,
            lasting: false,
        })
    }

    async fn check(&self, role: &str, password: &str) -> Result<()> {
        let verifier = self.backend.verifier(role);
        if let Some(verifier) = &verifier
            && self.checked.contains(verifier, password)
        {
            return Ok(());
        }
        let turn = tokio::time::timeout(CHECK_DEADLINE, self.checks.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Error::refused(
                SqlState::TOO_MANY_CONNECTIONS,
                "too many logins at a time",
            ));
        };
        let against = verifier.clone().unwrap_or_else(|| NOBODY.to_owned());
        let guess = password.to_owned();
        let fits = tokio::task::spawn_blocking(move || check_password(&against, &guess));
        let fits = matches!(fits.await, Ok(true));
        match verifier {
            Some(verifier) if fits => {
                self.checked.insert(&verifier, password);
                Ok(())
            }
            Some(_) | None => Err(wrong_password(role)),
        }
    }

    fn by_token(&self, token: &str, door: Door) -> Result<Caller> {
        let invalid = || {
            Error::refused(
                SqlState::INVALID_AUTHORIZATION,
                "the bearer token is not valid or has expired",
            )
        };
        let now = Instant::now();
        let hash = hash(token);
        let (role, session) = {
            let mut tokens = self.lock();
            let known = tokens.get_mut(&hash).ok_or_else(invalid)?;
            let current = self.backend.verifier(&known.role);
            if now.duration_since(known.used) >= self.lifetime
                || current.as_ref() != Some(&known.verifier)
            {
                tokens.remove(&hash);
                return Err(invalid());
            }
            known.used = now;
            (known.role.clone(), Arc::clone(&known.session))
        };
        if door == Door::Flight {
            return Ok(Caller {
                role,
                session,
                lasting: true,
            });
        }
        let session = self.backend.open(&role, door)?;
        Ok(Caller {
            role,
            session,
            lasting: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

fn wrong_password(role: &str) -> Error {
    Error::refused(
        SqlState::INVALID_PASSWORD,
        format!("password authentication failed for user \"{role}\""),
    )
}
