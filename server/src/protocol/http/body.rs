//! Request bodies: bounded as they arrive and again when they are decompressed.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use super::problem::Problem;
use crate::error::{Error, SqlState};
use crate::protocol::admission::Coming;
use crate::protocol::buffers::{Buffers, Room};

/// The longest pause between two parts of a body.
const PART_DEADLINE: Duration = Duration::from_secs(30);

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// From `Content-Encoding`; 415 for one that is not known.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        match value.to_str().unwrap_or("?").trim() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(Problem::with_status(
                415,
                Error::unsupported(
                    format!("content encoding \"{other}\" is not supported"),
                    "use gzip, zstd or none",
                ),
            )),
        }
    }

    /// About how large a body of that many bytes is unpacked.
    pub(super) fn unpacked(self, bytes: usize) -> usize {
        match self {
            Self::Identity => bytes,
            Self::Gzip | Self::Zstd => bytes.saturating_mul(USUAL_RATIO / 2),
        }
    }

    /// Unpacks a body of at most `limit` bytes, and makes its room as large as what comes out.
    pub(super) async fn unpack(
        self,
        body: Bytes,
        limit: usize,
        room: &mut Room,
    ) -> Result<Bytes, Error> {
        if self == Self::Identity {
            return Ok(body);
        }
        let usual = limit.min(body.len().saturating_mul(USUAL_RATIO));
        room.grow_to(usual * COPIES).await?;
        let packed = body.clone();
        let unpacked = off_io(usual, move || self.unpack_here(&packed, usual)).await;
        if usual == limit || !unpacked.as_ref().is_err_and(is_too_large) {
            return unpacked;
        }
        room.grow_to(limit * COPIES).await?;
        off_io(limit, move || self.unpack_here(&body, limit)).await
    }

    fn unpack_here(self, body: &Bytes, limit: usize) -> Result<Bytes, Error> {
        let unpacked = match self {
            Self::Identity => return Ok(body.clone()),
            Self::Gzip => bounded(flate2::read::MultiGzDecoder::new(&**body), limit),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(&**body)
                .and_then(|decoder| bounded(decoder, limit)),
        };
        match unpacked {
            Ok(bytes) if bytes.len() > limit => Err(too_large(limit)),
            Ok(bytes) => Ok(bytes.into()),
            Err(e) => Err(Error::refused(
                SqlState::INVALID_TEXT_REPRESENTATION,
                "the body cannot be decompressed",
            )
            .with_detail(e.to_string())),
        }
    }
}

/// Bodies up to this size are worked on where they arrived; larger ones off the I/O threads.
const INLINE_BYTES: usize = 16 << 10;
/// How many times smaller rows get when they are packed: room for what comes out is taken by this
/// first, and for the largest body allowed when that was too little.
const USUAL_RATIO: usize = 16;
/// What a body takes in memory while it is decoded, in bodies.
const COPIES: usize = 2;
/// A body up to this size is read although nobody looks at it.
const PASSED_OVER: usize = 4 << 20;
/// How long room is kept for what has not arrived yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs CPU work of a body of that size.
pub(super) async fn off_io<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if size <= INLINE_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("work on a body failed: {e}")))?
}

/// Reads a body of rows, of at most `limit` bytes; 413 beyond, without reading on. The room is for what it
/// takes to work on it, once its turn has come.
///
/// # Errors
/// 429 when there is no room for it, or when rows that came before wait too long.
pub(super) async fn read_rows(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    shared: &Shared,
) -> Result<(Bytes, Room, Coming), Problem> {
    let announced = announced(headers, limit)?;
    let room = match shared.admission.let_in(announced) {
        Ok(coming) => shared
            .buffers
            .take(announced * COPIES)
            .await
            .map(|room| (room, coming)),
        Err(e) => Err(e),
    };
    match room {
        Ok((room, coming)) => {
            let (body, room) = arrived(body, limit, announced, room).await?;
            Ok((body, room, coming))
        }
        Err(e) => {
            pass_over(body, announced).await;
            Err(e.into())
        }
    }
}

/// [`read_rows`] of anything else.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    buffers: &Buffers,
) -> Result<(Bytes, Room), Problem> {
    let announced = announced(headers, limit)?;
    let room = buffers.take(announced * COPIES).await?;
    arrived(body, limit, announced, room).await
}

/// How large a body says it is; 0 where it does not.
fn announced(headers: &HeaderMap, limit: usize) -> Result<usize, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    match announced {
        Some(n) if n > limit => Err(too_large(limit).into()),
        Some(n) => Ok(n),
        None => Ok(0),
    }
}

/// Lets a small body come in and go: a sender that is cut off in the middle of it may not see why, and has
/// to connect again.
async fn pass_over(body: Body, announced: usize) {
    if announced > PASSED_OVER {
        return;
    }
    let mut parts = body.into_data_stream();
    let all = async {
        let mut bytes = 0;
        while let Some(Ok(part)) = parts.next().await {
            bytes += part.len();
            if bytes > PASSED_OVER {
                break;
            }
        }
    };
    // the answer goes out all the same
    let _ = timeout(PATIENCE, all).await;
}

/// `reserved` bytes have room already: all at once, so that bodies which are half there do not wait for
/// each other.
async fn arrived(
    body: Body,
    limit: usize,
    mut reserved: usize,
    mut room: Room,
) -> Result<(Bytes, Room), Problem> {
    let patience = Instant::now() + PATIENCE;
    let mut parts = body.into_data_stream();
    let mut whole = BytesMut::with_capacity(reserved);
    loop {
        let part = match timeout_at(patience, parts.next()).await {
            Ok(part) => part,
            Err(_) => {
                // a slow sender keeps no room from others that it does not use
                reserved = 0;
                room.shrink_to(whole.len() * COPIES);
                timeout(PART_DEADLINE, parts.next())
                    .await
                    .map_err(|_| did_not_arrive())?
            }
        };
        let part = match part {
            None => return Ok((whole.freeze(), room)),
            Some(Ok(part)) => part,
            Some(Err(e)) => {
                return Err(Error::refused(
                    SqlState::PROTOCOL_VIOLATION,
                    "the body cannot be read",
                )
                .with_detail(e.to_string())
                .into());
            }
        };
        let length = whole.len() + part.len();
        if length > limit {
            return Err(too_large(limit).into());
        }
        if length > reserved {
            room.grow_to(length * COPIES).await?;
        }
        whole.extend_from_slice(&part);
    }
}

fn did_not_arrive() -> Problem {
    Problem::with_status(
        408,
        Error::refused(SqlState::PROTOCOL_VIOLATION, "the body did not arrive"),
    )
}

/// One byte more than allowed, so that the caller can tell.
fn bounded(reader: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut out)?;
    Ok(out)
}

fn is_too_large(e: &Error) -> bool {
    e.state() == SqlState::PROGRAM_LIMIT_EXCEEDED
}

fn too_large(limit: usize) -> Error {
    Error::refused(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("the body is larger than {limit} bytes"),
    )
    .with_hint("send it in parts, or raise limits.body")
}
