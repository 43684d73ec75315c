//! The Flight door: one `DoPut` per connection, batches back to back, totals acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{Load, Parcel, Sent};
use crate::cli::IngestOptions;
use crate::error::{Error, Result};
use crate::events::with_dictionaries;
use crate::server::Server;

/// Connections that are logged in, and what they send.
pub(super) struct Ready {
    clients: Vec<FlightSqlServiceClient<Channel>>,
    schema: FlightData,
    load: Load<Vec<FlightData>>,
}

pub(super) async fn prepare(server: &Server, options: &IngestOptions) -> Result<Ready> {
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        clients.push(server.flight().await?);
    }
    let handle = tokio::runtime::Handle::current();
    let options = options.clone();
    // making rows is long CPU work
    let made = tokio::task::spawn_blocking(move || {
        let load = Load::new(&options, |number, rows| {
            super::parcels(number, rows, |batch| {
                let messages = handle.block_on(messages(batch, options.dictionary))?;
                let messages = messages.into_iter().skip(1).collect::<Vec<_>>();
                let bytes = messages.iter().map(size).sum();
                Ok((bytes, messages))
            })
        })?;
        let sample = crate::events::Events::new(super::SEED).batch(1)?;
        let mut schema = handle.block_on(messages(&sample, options.dictionary))?;
        Ok::<_, Error>((load, schema.swap_remove(0)))
    });
    let (load, schema) = made.await??;
    Ok(Ready {
        clients,
        schema,
        load,
    })
}

/// Schema, dictionaries and the batch as one message each.
pub(crate) async fn messages(batch: &RecordBatch, dictionary: bool) -> Result<Vec<FlightData>> {
    let batch = match dictionary {
        true => with_dictionaries(batch)?,
        false => batch.clone(),
    };
    let encoder = FlightDataEncoderBuilder::new()
        .with_max_flight_data_size(usize::MAX)
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(stream::iter([Ok(batch)]));
    Ok(encoder.try_collect().await?)
}

fn size(message: &FlightData) -> u64 {
    (message.data_header.len() + message.data_body.len()) as u64
}

pub(super) async fn send(ready: Ready, options: &IngestOptions) -> Result<Sent> {
    let mut load = ready.load;
    load.begin(options);
    let load = Arc::new(load);
    let mut running = JoinSet::new();
    for client in ready.clients {
        running.spawn(put(client, ready.schema.clone(), Arc::clone(&load)));
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

/// When the rows up to a total were handed over.
type Pending = Arc<Mutex<VecDeque<(u64, Instant)>>>;

async fn put(
    mut client: FlightSqlServiceClient<Channel>,
    mut schema: FlightData,
    load: Arc<Load<Vec<FlightData>>>,
) -> Result<Sent> {
    let path = vec!["public".to_owned(), "events".to_owned()];
    schema.flight_descriptor = Some(FlightDescriptor::new_path(path));
    let pending = Pending::default();
    let handed_over = Arc::clone(&pending);
    let mut total = 0;
    let batches = std::iter::from_fn(move || {
        let Parcel { rows, content, .. } = load.next()?;
        total += rows;
        lock(&handed_over).push_back((total, Instant::now()));
        Some(content.clone())
    });
    let messages = std::iter::once(schema).chain(batches.flatten());
    let mut sent = Sent::default();
    let counted = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let bytes = Arc::clone(&counted);
    let messages = messages.inspect(move |m| {
        bytes.fetch_add(size(m), std::sync::atomic::Ordering::Relaxed);
    });
    let answers = client.do_put(stream::iter(messages)).await?;
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(FlightError::from)?;
        let json: serde_json::Value = serde_json::from_slice(&answer.app_metadata)
            .map_err(|e| Error::Answer(format!("acknowledgement: {e}")))?;
        sent.rows = json["accepted"].as_u64().unwrap_or(0);
        let now = Instant::now();
        let mut pending = lock(&pending);
        while let Some((total, since)) = pending.front().copied() {
            if total > sent.rows {
                break;
            }
            sent.acknowledged.push((now - since).as_secs_f64());
            pending.pop_front();
        }
    }
    if let Some((total, _)) = lock(&pending).back() {
        let text = format!("{} of {total} rows were acknowledged", sent.rows);
        return Err(Error::Answer(text));
    }
    sent.bytes = counted.load(std::sync::atomic::Ordering::Relaxed);
    Ok(sent)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
