//! `POST /v1/tables/{schema}/{table}/rows`: a body of rows, stored whole or not at all.

use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde_json::{Value, json};

use super::body::{self, Encoding};
use super::problem::Problem;
use super::{Shared, media_type};
use crate::decode::{csv, json, table};
use crate::error::{Error, Result};
use crate::metrics;
use crate::protocol::arrow_stream::Batches;
use crate::stream::line::Turn;

/// Bodies up to this size are decoded where they arrived; larger ones off the I/O threads.
const INLINE_BYTES: usize = 16 << 10;

/// The forms rows come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text(TextFormat),
    Arrow,
}

/// Forms that are decoded after the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextFormat {
    NdJson,
    JsonArray,
    Csv,
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
    if headers.contains_key("idempotency-key") {
        return Err(Error::unsupported(
            "the Idempotency-Key header is not supported yet",
            "send the rows without it; declare dedup_key on the table when that is there",
        )
        .into());
    }
    let format = Format::of(&headers)?;
    let encoding = Encoding::of(&headers)?;
    let columns = caller.session.ingest_schema(&schema, &table).await?;
    let body = body::read(&headers, body, shared.max_body).await?;
    let batches = decode(body, encoding, shared.max_body, format, columns).await?;
    let batches: Vec<RecordBatch> = batches.into_iter().filter(|b| b.num_rows() > 0).collect();
    if batches.is_empty() {
        return Ok(answer(0, 0, None));
    }
    let started = Instant::now();
    let receipt = caller
        .session
        .ingest(&schema, &table, batches, Turn::default())
        .await?;
    metrics::ingested("http", receipt.accepted, started.elapsed());
    Ok(answer(
        receipt.accepted,
        receipt.duplicate,
        Some(&receipt.token),
    ))
}

fn answer(accepted: u64, duplicate: u64, token: Option<&str>) -> Json<Value> {
    Json(json!({
        "accepted": accepted, "rejected": 0, "duplicate": duplicate, "token": token,
    }))
}

async fn decode(
    body: Bytes,
    encoding: Encoding,
    limit: usize,
    format: Format,
    columns: SchemaRef,
) -> Result<Vec<RecordBatch>> {
    match format {
        Format::Text(format) => {
            off_io(body.len(), move || {
                let body = encoding.unpack(&body, limit)?;
                let text = table::utf8(&body)?;
                match format {
                    TextFormat::NdJson => json::lines(text, &columns),
                    TextFormat::JsonArray => json::array(text, &columns),
                    TextFormat::Csv => csv::rows(text, &columns),
                }
            })
            .await
        }
        Format::Arrow => {
            let body = off_io(body.len(), move || encoding.unpack(&body, limit)).await?;
            let mut stream = Batches::from_ipc(body);
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await? {
                batches.push(batch);
                // decoding one batch is short; many in a row are not
                tokio::task::yield_now().await;
            }
            Ok(batches)
        }
    }
}

/// Rows of objects whose keys are column names, one per line.
pub(super) fn objects(text: &str, columns: &SchemaRef) -> Result<Vec<RecordBatch>> {
    json::lines(text, columns)
}

/// Runs CPU work of a body of that size.
async fn off_io<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if size <= INLINE_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("decoding a body failed: {e}")))?
}
