//! `POST /v1/{track,identify,page,screen,group,alias,batch}`: events as Segment's libraries send them.
//!
//! A write key names the table. Each event stands alone: one that is wrong is reported, becomes a dead
//! letter where the table keeps such, and the others are stored. Which column takes what is in
//! [`crate::decode::event`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::Utc;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Shared;
use super::body::{self, Encoding};
use super::problem::{Problem, error_object};
use crate::decode::event::{self, Common, Layout};
use crate::decode::{self, BadRows, Decoded};
use crate::error::{Error, Report, Result, SqlState};
use crate::exec::ingest::Refused;
use crate::metrics;
use crate::protocol::backend::Keyed;
use crate::session::IngestTable;
use crate::stream::letters::{Form, Letters, Raw};
use crate::stream::line::Turn;

/// The calls, with what they are in a `type`.
const CALLS: [&str; 7] = [
    "track", "identify", "page", "screen", "group", "alias", "batch",
];
/// Errors that are reported one by one.
const REPORTED: usize = 100;

/// What a request came to.
#[derive(Debug, Default)]
struct Outcome {
    accepted: u64,
    duplicate: u64,
    /// How many of the wrong ones became dead letters.
    kept: u64,
    token: Option<String>,
    /// Which event, its `messageId`, and what is wrong with it.
    errors: Vec<(usize, Option<String>, Report)>,
}

/// A good event: its place in the request, its row as a JSON object.
struct Good {
    index: usize,
    row: String,
}

/// The events of a request, and what is wrong with some before the table has seen them.
struct Events {
    ids: Vec<Option<String>>,
    raws: Arc<[Raw]>,
    malformed: Vec<(usize, Error)>,
}

/// Stores the events of a body. Success means that they are durable and visible.
pub(super) async fn post(
    State(shared): State<Shared>,
    Path(call): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = match Box::pin(take(&shared, &call, &headers, body)).await {
        Ok(outcome) => outcome.into_response(),
        Err(problem) => problem.into_response(),
    };
    let mut response = answer;
    let any = HeaderValue::from_static("*");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

/// Lets browsers send events from any page: the write key is all that counts.
pub(super) async fn preflight(Path(call): Path<String>) -> Response {
    if !CALLS.contains(&call.as_str()) {
        return no_such_call(&call).into_response();
    }
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Content-Encoding",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

async fn take(
    shared: &Shared,
    call: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Outcome, Problem> {
    if !CALLS.contains(&call) {
        return Err(no_such_call(call));
    }
    let started = Instant::now();
    let received = Utc::now();
    let from_header = match headers.get(header::AUTHORIZATION) {
        Some(value) => Some(shared.credentials.keyed(basic_user(value).as_deref())?),
        None => None,
    };
    let encoding = Encoding::of(headers)?;
    let limits = shared.segment;
    let (body, mut room, coming) = body::read_rows(headers, body, limits.body, shared).await?;
    let unpacked = encoding.unpacked(body.len());
    let _turn = shared.admission.turn(coming, unpacked).await?;
    let body = encoding.unpack(body, limits.body, &mut room).await?;
    let text = std::str::from_utf8(&body).map_err(|_| malformed("the body is not UTF-8"))?;
    let whole: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|e| malformed(&format!("invalid JSON: {e}")))?;
    let table = match from_header {
        Some(table) => table,
        None => {
            let key = whole.get("writeKey").and_then(|raw| event::text(raw));
            shared.credentials.keyed(key.as_deref())?
        }
    };
    let (events, common) = match call {
        "batch" => {
            let events = whole.get("batch").map(|raw| raw.get());
            let events: Vec<&RawValue> = events
                .and_then(|list| serde_json::from_str(list).ok())
                .ok_or_else(|| malformed("\"batch\" is no array of events"))?;
            (events, Common::of(&whole, received))
        }
        _ => {
            let only: &RawValue =
                serde_json::from_str(text).map_err(|e| malformed(&format!("invalid JSON: {e}")))?;
            (vec![only], Common::alone(call, received))
        }
    };
    let target = table
        .session
        .ingest_table(&table.schema, &table.table)
        .await?;
    let layout = Layout::new(&target.columns, table.event_time.as_deref());
    let mut outcome = Outcome::default();
    let mut good = Vec::with_capacity(events.len());
    let mut malformed = Vec::new();
    let shared_with: Arc<str> = common.context().into();
    let mut raws = Vec::with_capacity(events.len());
    let mut ids = Vec::with_capacity(events.len());
    for (index, raw) in events.into_iter().enumerate() {
        let id = event::id(raw);
        let row = match raw.get().len() <= limits.message {
            true => layout.row(raw, &common),
            false => Err(too_long(limits.message)),
        };
        match row {
            Ok(row) => good.push(Good { index, row }),
            Err(e) => {
                outcome.errors.push((index, id.clone(), e.report()));
                malformed.push((index, e));
            }
        }
        ids.push(id);
        raws.push(Raw {
            bytes: within(&body, raw.get()),
            form: Form::Segment,
            context: Some(Arc::clone(&shared_with)),
            position: Some(position(index)),
        });
    }
    let events = Events {
        ids,
        raws: raws.into(),
        malformed: match target.bad_rows {
            BadRows::Collect => malformed,
            BadRows::Refuse => Vec::new(),
        },
    };
    store(&table, &target, events, good, &mut outcome).await?;
    outcome.errors.sort_by_key(|(index, ..)| *index);
    metrics::ingested("segment", outcome.accepted, started.elapsed());
    Ok(outcome)
}

/// Where an event stands, as dead letters name it.
fn position(index: usize) -> String {
    format!("event {}", index + 1)
}

/// A part of the body, which shares its memory.
fn within(body: &Bytes, part: &str) -> Bytes {
    let from = (part.as_ptr() as usize).checked_sub(body.as_ptr() as usize);
    let range = from.map(|from| from..from + part.len());
    match range.filter(|range| range.end <= body.len()) {
        Some(range) => body.slice(range),
        None => Bytes::copy_from_slice(part.as_bytes()),
    }
}

/// Stores events together. Those that are wrong become dead letters, or, where the table refuses such,
/// are found by halves.
async fn store(
    table: &Keyed,
    target: &IngestTable,
    mut events: Events,
    good: Vec<Good>,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut open = vec![good];
    while let Some(mut group) = open.pop() {
        // malformed events go with the first that are stored, or alone if there are none
        if group.is_empty() && (events.malformed.is_empty() || !open.is_empty()) {
            continue;
        }
        let stored = match rows(&group, &events, target) {
            Ok(rows) => {
                let (schema, name) = (&table.schema, &table.table);
                let rows = table
                    .session
                    .ingest(schema, name, rows, Turn::default(), None);
                rows.await
            }
            Err(e) => Err(e),
        };
        match stored {
            Ok(receipt) => {
                outcome.accepted += receipt.accepted;
                outcome.duplicate += receipt.duplicate;
                outcome.kept += receipt.rejected;
                outcome.token = Some(receipt.token);
                let told: Vec<usize> = events.malformed.drain(..).map(|(index, _)| index).collect();
                let refused = receipt.refused.into_iter();
                let refused = refused.filter_map(|r| wrong(&events, r));
                let refused = refused.filter(|(index, ..)| told.binary_search(index).is_err());
                outcome.errors.extend(refused);
            }
            Err(e) if group.is_empty() || !of_the_data(&e) => return Err(e),
            Err(e) if group.len() == 1 => {
                let wrong = group.pop().map(|g| g.index);
                let wrong = wrong.map(|index| (index, events.ids[index].clone(), e.report()));
                outcome.errors.extend(wrong);
                if open.is_empty() {
                    open.push(group);
                }
            }
            Err(_) => {
                // the first half is stored first: events keep their order
                let rest = group.split_off(group.len() / 2);
                open.push(rest);
                open.push(group);
            }
        }
    }
    Ok(())
}

/// The event that was refused.
fn wrong(events: &Events, refused: Refused) -> Option<(usize, Option<String>, Report)> {
    let place = refused.position.as_deref()?.strip_prefix("event ")?;
    let index = place.parse::<usize>().ok()?.checked_sub(1)?;
    let id = events.ids.get(index)?.clone();
    let report = Report {
        state: refused.state,
        message: refused.message,
        detail: None,
        hint: None,
        position: None,
    };
    Some((index, id, report))
}

/// The rows of good events, a line each where the event stands in its request, and letters of others.
fn rows(group: &[Good], events: &Events, target: &IngestTable) -> Result<Decoded> {
    let lines = group.last().map_or(0, |last| last.index + 1);
    let mut text = String::with_capacity(group.iter().map(|g| g.row.len()).sum::<usize>() + lines);
    let mut line = 0;
    for good in group {
        text.extend(std::iter::repeat_n('\n', good.index - line));
        line = good.index;
        text.push_str(&good.row);
    }
    let raws = Arc::clone(&events.raws);
    let mut rows = decode::made(&text.into(), raws, &target.columns, target.bad_rows)?;
    let mut letters = Letters::default();
    for (index, e) in &events.malformed {
        if let Some(raw) = events.raws.get(*index) {
            letters.add(raw.clone(), e)?;
        }
    }
    letters.append(std::mem::take(&mut rows.letters))?;
    rows.letters = letters;
    Ok(rows)
}

/// True for what is wrong with a row, not with the server or the table.
fn of_the_data(e: &Error) -> bool {
    matches!(e.state().0.get(..2), Some("22" | "23" | "42"))
        && e.state() != SqlState::INSUFFICIENT_PRIVILEGE
        && e.state() != SqlState::UNDEFINED_TABLE
}

/// The user of Basic credentials, whose password means nothing.
fn basic_user(value: &HeaderValue) -> Option<String> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let user = text.split_once(':').map_or(text.as_str(), |(user, _)| user);
    Some(user.to_owned())
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let errors: Vec<Value> = self
            .errors
            .iter()
            .take(REPORTED)
            .map(|(index, id, report)| {
                let mut error = error_object(report);
                if let Some(error) = error.as_object_mut() {
                    error.insert("index".to_owned(), json!(index));
                    error.insert("messageId".to_owned(), json!(id));
                }
                error
            })
            .collect();
        let all_wrong = !self.errors.is_empty() && self.accepted + self.duplicate == 0;
        let mut body = json!({
            "success": !all_wrong,
            "token": self.token,
            "accepted": self.accepted,
            "rejected": self.errors.len(),
            "dead_letters": self.kept,
            "duplicate": self.duplicate,
            "errors": errors,
        });
        let first = self.errors.first().filter(|_| all_wrong);
        let status = match first {
            Some((_, _, report)) => {
                if let Some(body) = body.as_object_mut() {
                    body.insert("error".to_owned(), error_object(report));
                }
                StatusCode::BAD_REQUEST
            }
            None => StatusCode::OK,
        };
        (status, Json(body)).into_response()
    }
}

fn no_such_call(call: &str) -> Problem {
    let text = format!("path \"/v1/{call}\" does not exist");
    Problem::with_status(404, Error::refused(SqlState::UNDEFINED_OBJECT, text))
}

fn malformed(what: &str) -> Error {
    Error::refused(SqlState::INVALID_TEXT_REPRESENTATION, what)
}

fn too_long(limit: usize) -> Error {
    Error::refused(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("the event is larger than {limit} bytes"),
    )
    .with_hint("make it smaller, or raise segment.message")
}
