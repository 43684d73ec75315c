//! Errors → HTTP answers: `{"error":{"code","message","detail","hint"}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::error::{Error, Report};

/// How long a client that was turned away for load should wait.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"weir\", charset=\"UTF-8\"");

/// A refused request.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    report: Report,
}

impl Problem {
    /// A status that only HTTP knows (415 and the like) instead of the one the code stands for.
    pub(super) fn with_status(status: u16, error: Error) -> Self {
        let report = error.report();
        drop(error);
        Self { status, report }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let report = error.report();
        Self {
            status: report.state.http_status(),
            report,
        }
    }
}

/// The `error` member of an answer.
pub(super) fn error_object(report: &Report) -> Value {
    let mut object = Map::new();
    object.insert("code".to_owned(), json!(report.state.0));
    object.insert("message".to_owned(), json!(report.message));
    if let Some(detail) = &report.detail {
        object.insert("detail".to_owned(), json!(detail));
    }
    if let Some(hint) = &report.hint {
        object.insert("hint".to_owned(), json!(hint));
    }
    if let Some(position) = report.position {
        object.insert("position".to_owned(), json!(position));
    }
    Value::Object(object)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::Json(json!({ "error": error_object(&self.report) }));
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        if matches!(self.status, 429 | 503) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if self.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        if self.status == 413 {
            // the rest of the body is not read, so the connection cannot be used again
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
