//! HTTP calls for tests.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde_json::Value;

/// The media type of one JSON object per line.
pub const NDJSON: &str = "application/x-ndjson";

/// An answer: status, body as JSON (null when it is none) and headers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Value,
    /// Body as it came.
    pub text: String,
    /// `Retry-After`, if given.
    pub retry_after: Option<String>,
}

/// Calls of one user.
#[derive(Clone)]
pub struct HttpSession {
    client: Client,
    root: String,
    user: String,
    password: String,
}

impl HttpSession {
    /// Calls with Basic authentication.
    pub fn new(addr: SocketAddr, user: &str, password: &str) -> Self {
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .expect("a client");
        Self {
            client,
            root: format!("http://{addr}"),
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    /// A `GET` with credentials.
    pub fn get(&self, path: &str) -> RequestBuilder {
        let request = self.client.get(format!("{}{path}", self.root));
        request.basic_auth(&self.user, Some(&self.password))
    }

    /// A `POST` with credentials.
    pub fn post(&self, path: &str) -> RequestBuilder {
        let request = self.client.post(format!("{}{path}", self.root));
        request.basic_auth(&self.user, Some(&self.password))
    }

    /// A `POST` without credentials.
    pub fn post_anonymously(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.root))
    }

    /// Sends rows as NDJSON to `schema.table`.
    pub async fn send_rows(
        &self,
        schema: &str,
        table: &str,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Answer> {
        let path = format!("/v1/tables/{schema}/{table}/rows");
        answer(self.post(&path).header("content-type", NDJSON).body(body)).await
    }

    /// `POST /v1/sql`.
    pub async fn sql(&self, sql: &str) -> reqwest::Result<Answer> {
        let body = serde_json::json!({ "sql": sql });
        answer(self.post("/v1/sql").json(&body)).await
    }
}

/// Sends a request and takes the answer apart.
pub async fn answer(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|v| v.to_str().ok()).map(str::to_owned);
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Answer {
        status,
        body,
        text,
        retry_after,
    })
}
