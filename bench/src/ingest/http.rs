//! The HTTP door: NDJSON bodies, one after the other on each connection.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::Client;
use tokio::task::JoinSet;

use super::{Load, Sent};
use crate::cli::IngestOptions;
use crate::error::{Error, Result};
use crate::events;
use crate::server::{PASSWORD, Server, USER};

/// Where bodies go, and what they hold.
pub(super) struct Ready {
    url: String,
    load: Load<Bytes>,
}

pub(super) fn prepare(server: &Server, options: &IngestOptions) -> Result<Ready> {
    let load = Load::new(options, |number, rows| {
        super::parcels(number, rows, |batch| {
            let body = Bytes::from(events::ndjson(batch)?);
            Ok((body.len() as u64, body))
        })
    })?;
    Ok(Ready {
        url: format!("{}/v1/tables/public/events/rows", server.http()),
        load,
    })
}

pub(super) async fn send(ready: Ready, options: &IngestOptions) -> Result<Sent> {
    let mut load = ready.load;
    load.begin(options);
    let load = Arc::new(load);
    let mut running = JoinSet::new();
    for _ in 0..options.connections {
        running.spawn(post(ready.url.clone(), Arc::clone(&load)));
    }
    let mut all = Sent::default();
    while let Some(sent) = running.join_next().await {
        let mut sent = sent??;
        all.rows += sent.rows;
        all.bytes += sent.bytes;
        all.acknowledged.append(&mut sent.acknowledged);
    }
    Ok(all)
}

async fn post(url: String, load: Arc<Load<Bytes>>) -> Result<Sent> {
    // a client of its own has a connection of its own
    let client = Client::builder().no_proxy().build()?;
    let mut sent = Sent::default();
    while let Some(parcel) = load.next() {
        let begun = Instant::now();
        let request = client
            .post(&url)
            .basic_auth(USER, Some(PASSWORD))
            .header("content-type", "application/x-ndjson")
            .body(parcel.content.clone());
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            return Err(Error::Answer(format!("{status}: {text}")));
        }
        sent.acknowledged.push(begun.elapsed().as_secs_f64());
        sent.rows += parcel.rows;
        sent.bytes += parcel.bytes;
    }
    Ok(sent)
}
