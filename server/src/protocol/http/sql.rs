//! `POST /v1/sql`: one statement per request, its rows streamed in the form the client accepts.
//!
//! `{"sql": "…", "params": […], "settings": {"weir.read_after": "…"}}`; a session lives for one
//! request, so settings come along.

mod output;
mod params;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use self::output::{Form, Writer};
use super::body::{self, Encoding};
use super::problem::Problem;
use super::{Shared, media_type};
use crate::dialect::Statement;
use crate::error::{Error, Result, SqlState};
use crate::exec::Outcome;
use crate::protocol::backend::DataCalls;
use crate::protocol::plain::{plain_batch, plain_schema};

/// Statements are texts, not data.
const MAX_REQUEST: usize = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlRequest {
    sql: String,
    #[serde(default)]
    params: Vec<serde_json::Value>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// Runs a statement. A client that goes away ends its query.
pub(super) async fn post(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = shared.caller(&headers).await?;
    let form = form(&headers)?;
    let limit = shared.max_body.min(MAX_REQUEST);
    let encoding = Encoding::of(&headers)?;
    let (body, mut room) = body::read(&headers, body, limit, &shared.statements).await?;
    let body = encoding.unpack(body, limit, &mut room).await?;
    let request: SqlRequest = request(&headers, &body)?;
    drop((body, room));
    for (name, value) in &request.settings {
        caller.session.set(name, value)?;
    }
    let statement = only_statement(&*caller.session, &request.sql)?;
    let params = match request.params.is_empty() {
        true => Vec::new(),
        false => {
            let description = caller.session.describe(&statement, &[]).await?;
            params::bind(&request.params, &description.params)?
        }
    };
    let outcome = caller.session.execute(&statement, params).await?;
    // the session must outlive its rows
    Ok(answer(form, outcome, caller.session).await?)
}

async fn answer(form: Form, outcome: Outcome, session: Arc<dyn DataCalls>) -> Result<Response> {
    match outcome {
        Outcome::Rows { schema, stream, .. } => {
            let schema = plain_schema(&schema);
            let target = Arc::clone(&schema);
            let mut batches = stream
                .map(move |batch| plain_batch(&batch?, &target))
                .boxed();
            // an error before the first row still gets its status
            let first = batches.try_next().await?;
            let mut writer = Writer::new(form, schema)?;
            let head = writer.head()?;
            let batches = stream::iter(first.map(Ok)).chain(batches);
            let parts = stream::unfold(Some((writer, batches.boxed())), move |state| {
                let session = Arc::clone(&session);
                async move {
                    let part = next_part(state?).await;
                    drop(session);
                    Some(part)
                }
            });
            let parts = stream::iter([Ok(head)]).chain(parts);
            Ok(response(form, Body::from_stream(parts)))
        }
        Outcome::Command { tag, rows } => {
            let body = output::command(form, &tag, rows)?;
            Ok(response(form, Body::from(body)))
        }
        Outcome::Empty => Err(no_statement()),
        Outcome::CopyIn(_) => Err(Error::unsupported(
            "COPY FROM STDIN is not supported over HTTP",
            "post the rows to /v1/tables/{schema}/{table}/rows",
        )),
        Outcome::CopyOut { .. } => Err(Error::unsupported(
            "COPY TO STDOUT is not supported over HTTP",
            "send the query with the Accept header text/csv",
        )),
    }
}

type Batches = stream::BoxStream<'static, Result<arrow::array::RecordBatch>>;
type Part = Result<Bytes, std::io::Error>;

/// The next piece of an answer and what comes after it.
async fn next_part(
    (mut writer, mut batches): (Writer, Batches),
) -> (Part, Option<(Writer, Batches)>) {
    let written = match batches.try_next().await {
        Ok(Some(batch)) => writer.rows(&batch).map(|part| (part, true)),
        Ok(None) => writer.tail().map(|part| (part, false)),
        Err(e) => Err(e),
    };
    match written {
        Ok((part, true)) => (Ok(part), Some((writer, batches))),
        Ok((part, false)) => (Ok(part), None),
        // the status is out already: the error goes into the body where the form has a place for
        // it, and otherwise the body breaks off
        Err(e) => match writer.error_tail(&e.report()) {
            Some(part) => (Ok(part), None),
            None => {
                tracing::debug!(error = %e, "a result broke off");
                (Err(std::io::Error::other("the query failed")), None)
            }
        },
    }
}

fn response(form: Form, body: Body) -> Response {
    let kind = HeaderValue::from_static(form.media_type());
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let Some(accept) = accept else {
        return Ok(Form::Json);
    };
    accept
        .split(',')
        .find_map(|kind| Form::of(&media_type(kind)))
        .ok_or_else(|| {
            Problem::with_status(
                406,
                Error::unsupported(
                    format!("no form of \"{accept}\" is supported"),
                    "accept application/json, application/x-ndjson, text/csv or \
                     application/vnd.apache.arrow.stream",
                ),
            )
        })
}

fn request(headers: &HeaderMap, body: &[u8]) -> Result<SqlRequest, Problem> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map(media_type);
    if let Some(kind) = kind.filter(|k| k != "application/json") {
        return Err(Problem::with_status(
            415,
            Error::unsupported(
                format!("content type \"{kind}\" is not supported"),
                "send application/json: {\"sql\": \"…\"}",
            ),
        ));
    }
    serde_json::from_slice(body).map_err(|e| {
        Error::refused(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "the request is not the expected JSON",
        )
        .with_detail(e.to_string())
        .with_hint("send {\"sql\": \"…\", \"params\": […]}")
        .into()
    })
}

fn only_statement(session: &dyn DataCalls, sql: &str) -> Result<Arc<Statement>> {
    let mut statements = session.parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "the text holds several statements",
        )
        .with_hint("send one statement per request")),
        (None, _) => Err(no_statement()),
    }
}

fn no_statement() -> Error {
    Error::refused(SqlState::SYNTAX_ERROR, "the text holds no statement")
}
