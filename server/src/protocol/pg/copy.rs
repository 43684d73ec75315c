//! `COPY` traffic in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::message::Message;
use super::reply;
use super::wire::{Broken, Failure, Wire};
use crate::error::{Error, Result, SqlState};
use crate::exec::CopySink;

/// Takes the client's data. When it fails, what the client still sends is left for the caller to
/// skip. Gives the number of rows stored.
pub(super) async fn copy_in(wire: &mut Wire, mut sink: Box<dyn CopySink>) -> Result<u64, Failure> {
    reply::copy_response(&mut wire.out, b'G', sink.binary(), sink.columns())?;
    loop {
        wire.flush().await?;
        let frame = wire.frame().await?;
        let kind = frame.kind;
        match Message::decode(frame)? {
            Message::CopyData(data) => {
                tokio::select! {
                    biased;
                    fed = sink.feed(data) => fed?,
                    () = wire.gone() => return Err(Broken::Gone.into()),
                }
            }
            Message::CopyDone => {
                // not given up when the client goes away: it may be durable already
                return Ok(sink.finish().await?);
            }
            Message::CopyFail(reason) => {
                return Err(Error::refused(
                    SqlState::QUERY_CANCELED,
                    format!("COPY from stdin failed: {reason}"),
                )
                .into());
            }
            // clients that pipeline send these early
            Message::Flush | Message::Sync => {}
            Message::Terminate => return Err(Broken::Gone.into()),
            _ => {
                return Err(Error::refused(
                    SqlState::PROTOCOL_VIOLATION,
                    format!("unexpected message type {kind} during COPY from stdin"),
                )
                .into());
            }
        }
    }
}

/// Sends the data of a `COPY … TO STDOUT`; gives the number of rows.
pub(super) async fn copy_out(
    wire: &mut Wire,
    binary: bool,
    columns: usize,
    mut stream: BoxStream<'static, Result<Bytes>>,
    rows: Arc<AtomicU64>,
) -> Result<u64, Failure> {
    reply::copy_response(&mut wire.out, b'H', binary, columns)?;
    loop {
        let next = match stream.next().now_or_never() {
            Some(next) => next,
            None => {
                wire.flush().await?;
                tokio::select! {
                    biased;
                    next = stream.next() => next,
                    () = wire.gone() => return Err(Broken::Gone.into()),
                }
            }
        };
        let Some(data) = next else { break };
        reply::copy_data(&mut wire.out, &data?);
        wire.flush_block().await?;
    }
    reply::bare(&mut wire.out, reply::COPY_DONE);
    Ok(rows.load(Ordering::Acquire))
}
