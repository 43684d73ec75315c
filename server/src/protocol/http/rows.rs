//! `POST /v1/tables/{schema}/{table}/rows`: a body of rows, stored in one step. Bad rows of a streaming
//! table become dead letters, unless it refuses them.

use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde_json::{Value, json};

use super::body::{self, Encoding};
use super::problem::Problem;
use super::{Shared, media_type};
use crate::decode::{self, Decoded, TextFormat};
use crate::engine::keys::RequestKey;
use crate::error::{Error, Result};
use crate::metrics;
use crate::protocol::arrow_stream::Batches;
use crate::session::{IngestTable, Receipt};
use crate::stream::letters::Piece;
use crate::stream::line::Turn;

/// The forms rows come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text(TextFormat),
    Arrow,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        let kind = value.map(media_type).unwrap_or_default();
        match kind.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                Ok(Self::Text(TextFormat::NdJson))
            }
            "application/json" => Ok(Self::Text(TextFormat::JsonArray)),
            "text/csv" => Ok(Self::Text(TextFormat::Csv)),
            "application/vnd.apache.arrow.stream" => Ok(Self::Arrow),
            other => Err(Problem::with_status(
                415,
                Error::unsupported(
                    format!("content type \"{other}\" is not supported"),
                    "use application/x-ndjson, application/json (an array), text/csv or \
                     application/vnd.apache.arrow.stream",
                ),
            )),
        }
    }
}

/// Stores the rows of a body. The answer means that they are durable and visible.
pub(super) async fn post(
    State(shared): State<Shared>,
    Path((schema, table)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let caller = shared.caller(&headers).await?;
    let format = Format::of(&headers)?;
    let encoding = Encoding::of(&headers)?;
    let target = caller.session.ingest_table(&schema, &table).await?;
    let (body, mut room, coming) =
        body::read_rows(&headers, body, shared.max_body, &shared).await?;
    let unpacked = encoding.unpacked(body.len());
    let _turn = shared.admission.turn(coming, unpacked).await?;
    let key = key(&headers, &body)?;
    let body = encoding.unpack(body, shared.max_body, &mut room).await?;
    let rows = decode(body, format, target).await?;
    if rows.pieces.is_empty() && rows.letters.is_empty() {
        return Ok(answer(&Receipt::default()));
    }
    let started = Instant::now();
    let receipt = caller
        .session
        .ingest(&schema, &table, rows, Turn::default(), key)
        .await?;
    if !receipt.again {
        metrics::ingested("http", receipt.accepted, started.elapsed());
    }
    Ok(answer(&receipt))
}

fn answer(receipt: &Receipt) -> Json<Value> {
    let token = Some(&receipt.token).filter(|t| !t.is_empty());
    let mut answer = json!({
        "accepted": receipt.accepted,
        "rejected": receipt.rejected,
        "duplicate": receipt.duplicate,
        "token": token,
    });
    if receipt.again {
        answer["replayed"] = Value::Bool(true);
    }
    Json(answer)
}

/// `Idempotency-Key`: the same key with the same body is stored once.
fn key(headers: &HeaderMap, body: &Bytes) -> Result<Option<RequestKey>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    // what is no text is no key either
    let key = value.to_str().unwrap_or_default();
    RequestKey::new(key, &[body]).map(Some)
}

async fn decode(body: Bytes, format: Format, target: IngestTable) -> Result<Decoded> {
    match format {
        Format::Text(format) => {
            body::off_io(body.len(), move || {
                decode::text(format, &body, &target.columns, target.bad_rows)
            })
            .await
        }
        Format::Arrow => {
            let mut stream = Batches::from_ipc(body);
            let mut decoded = Decoded::default();
            let mut next_row = 1;
            while let Some(batch) = stream.next().await? {
                let rows = batch.num_rows() as u64;
                if rows > 0 {
                    decoded.pieces.push(Piece::arrow(batch, next_row));
                    next_row += rows;
                }
                // decoding one batch is short; many in a row are not
                tokio::task::yield_now().await;
            }
            Ok(decoded)
        }
    }
}
