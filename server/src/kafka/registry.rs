//! A client of Confluent's schema registry: an id → the schema's text.

use std::time::Duration;

use serde_json::Value;

use super::options::Registry;
use crate::error::{Error, Result, SqlState};

/// How long an answer may take.
const ASK: Duration = Duration::from_secs(10);
/// A longer answer is no schema.
const MOST_BYTES: usize = 4 << 20;

/// Asks one registry.
#[derive(Debug)]
pub(super) struct Schemas {
    registry: Registry,
    http: Option<reqwest::Client>,
}

impl Schemas {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            http: None,
        }
    }

    /// The Avro schema with this id; `None` when the registry has none.
    ///
    /// # Errors
    /// 08006 when it does not answer, 0A000 for a schema that is no Avro or refers to others.
    pub(super) async fn schema(&mut self, id: u32) -> Result<Option<String>> {
        let url = self
            .registry
            .url
            .join(&format!("schemas/ids/{id}"))
            .map_err(|e| Error::Internal(format!("a registry's address: {e}")))?;
        let mut request = self.http()?.get(url);
        if let Some((user, password)) = &self.registry.login {
            request = request.basic_auth(user, Some(password));
        }
        let mut answer = request.send().await.map_err(|e| failed(&e))?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status().is_success() {
            return Err(unreachable().with_detail(format!(
                "it answered with status {}",
                answer.status().as_u16()
            )));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| failed(&e))? {
            body.extend_from_slice(&piece);
            if body.len() > MOST_BYTES {
                return Err(unreachable().with_detail("its answer is too long for a schema"));
            }
        }
        read(id, &body).map(Some)
    }

    fn http(&mut self) -> Result<&reqwest::Client> {
        if self.http.is_none() {
            let client = reqwest::Client::builder()
                .timeout(ASK)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|e| failed(&e))?;
            self.http = Some(client);
        }
        self.http.as_ref().ok_or_else(unreachable)
    }
}

fn read(id: u32, body: &[u8]) -> Result<String> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|_| unreachable().with_detail("its answer is no JSON"))?;
    let avro = answer
        .get("schemaType")
        .and_then(Value::as_str)
        .is_none_or(|kind| kind.eq_ignore_ascii_case("avro"));
    let alone = answer
        .get("references")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    match answer.get("schema").and_then(Value::as_str) {
        Some(text) if avro && alone => Ok(text.to_owned()),
        Some(_) => Err(Error::unsupported(
            format!("schema {id} of the registry is not supported"),
            "register an Avro schema that stands alone, without references",
        )),
        None => Err(unreachable().with_detail("its answer holds no schema")),
    }
}

fn unreachable() -> Error {
    Error::refused(
        SqlState::CONNECTION_FAILURE,
        "the schema registry does not answer as one",
    )
}

/// Without the address: what a client library says of a request may hold more than should be seen.
fn failed(e: &reqwest::Error) -> Error {
    let what = if e.is_timeout() {
        "no answer in time"
    } else if e.is_connect() {
        "no connection"
    } else {
        "the request failed"
    };
    unreachable().with_detail(what)
}
