//! A client of Confluent's schema registry: an id → the schema's text and what it refers to; and the
//! frame that brings the id.

use std::time::Duration;

use serde::Deserialize;

use super::options::Registry;
use crate::error::{Error, Result, SqlState};

/// How long an answer may take.
const ASK: Duration = Duration::from_secs(10);
/// A longer answer is no schema.
const MOST_BYTES: usize = 4 << 20;

/// Bytes before what a schema describes.
const FRAME: usize = 5;

/// A schema as the registry has it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) text: String,
    pub(super) kind: Kind,
    pub(super) references: Vec<Reference>,
}

/// What describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Avro,
    Protobuf,
    Other,
}

/// Another schema that one refers to, by a name of its own.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

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

    /// The schema with this id; `None` when the registry has none.
    ///
    /// # Errors
    /// 08006 when it does not answer.
    pub(super) async fn schema(&mut self, id: u32) -> Result<Option<Registered>> {
        self.ask(&["schemas", "ids", &id.to_string()]).await
    }

    /// The schema that another one refers to.
    ///
    /// # Errors
    /// 08006 when the registry does not answer.
    pub(super) async fn referred(&mut self, to: &Reference) -> Result<Option<Registered>> {
        let version = to.version.to_string();
        self.ask(&["subjects", &to.subject, "versions", &version])
            .await
    }

    async fn ask(&mut self, path: &[&str]) -> Result<Option<Registered>> {
        let mut url = self.registry.url.clone();
        match url.path_segments_mut() {
            // each is escaped, so a name leads nowhere else
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => return Err(unreachable()),
        };
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
        read(&body).map(Some)
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

fn read(body: &[u8]) -> Result<Registered> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| unreachable().with_detail("its answer holds no schema"))?;
    Ok(Registered {
        text: answer.schema,
        // the registry does not name its first kind
        kind: answer
            .kind
            .map_or(Kind::Avro, |kind| match kind.to_lowercase().as_str() {
                "avro" => Kind::Avro,
                "protobuf" => Kind::Protobuf,
                _ => Kind::Other,
            }),
        references: answer.references,
    })
}

/// The id and the rest of a value in Confluent's frame: a zero byte, the id in four bytes.
pub(super) fn framed(value: &[u8]) -> Option<(u32, &[u8])> {
    let (frame, rest) = value.split_first_chunk::<FRAME>()?;
    (frame[0] == 0).then(|| {
        let id = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
        (id, rest)
    })
}

/// The refusal of a value without it.
pub(super) fn no_frame() -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        "the message does not begin with the id of a schema",
    )
    .with_hint("messages must be framed as Confluent's serializers do it")
}

/// The refusal of an id.
pub(super) fn no_schema(id: u32) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("the registry has no schema {id}"),
    )
}

/// The refusal of a schema that is there.
pub(super) fn unusable(id: u32, why: String) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("schema {id} of the registry cannot be used"),
    )
    .with_detail(why)
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
