//! One client's byte stream: frames in, buffered messages out.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Error, Report, SqlState};

/// Bytes read ahead while a statement runs, to notice a client that went away.
const READ_AHEAD: usize = 64 << 10;
/// Bytes gathered before they are written.
pub(super) const WRITE_BLOCK: usize = 48 << 10;
/// An output buffer that grew beyond this is given back.
const KEEP_CAPACITY: usize = 1 << 20;

/// A TCP or TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client is not there any more.
    Gone,
    /// It is told why.
    Fatal(Box<Report>),
}

impl Broken {
    pub(super) fn fatal(state: SqlState, message: impl Into<String>) -> Self {
        Self::Fatal(Box::new(Error::refused(state, message).report()))
    }
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl From<Error> for Broken {
    fn from(e: Error) -> Self {
        Self::Fatal(Box::new(e.report()))
    }
}

/// Why a message was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// The statement failed; the connection goes on.
    Statement(Error),
    /// The connection ends.
    Broken(Broken),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Statement(e)
    }
}

impl From<Broken> for Failure {
    fn from(e: Broken) -> Self {
        Self::Broken(e)
    }
}

/// Type byte and body of a message.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) body: Bytes,
}

pub(super) struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// Messages waiting to be written.
    pub(super) out: Vec<u8>,
    /// Largest message taken.
    pub(super) limit: usize,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, limit: usize) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(8 << 10),
            out: Vec::with_capacity(8 << 10),
            limit,
        }
    }

    /// Hands the stream over for TLS; refused when the client already sent more in the clear, which
    /// a man in the middle could have put there.
    pub(super) fn into_plain(self) -> Result<Box<dyn Stream>, Broken> {
        if self.input.is_empty() {
            Ok(self.stream)
        } else {
            Err(Broken::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "received unencrypted data after SSL request",
            ))
        }
    }

    /// Makes sure that `length` bytes of input are there.
    async fn need(&mut self, length: usize) -> Result<(), Broken> {
        while self.input.len() < length {
            // a claimed length alone does not get memory
            self.input.reserve((length - self.input.len()).min(1 << 20));
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Broken::Gone);
            }
        }
        Ok(())
    }

    /// A start-up packet: a length and a body without a type byte.
    pub(super) async fn startup_packet(&mut self) -> Result<Bytes, Broken> {
        self.need(4).await?;
        let length = self.length_at(0);
        if !(8..=10_000).contains(&length) {
            return Err(Broken::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "invalid length of startup packet",
            ));
        }
        self.need(length).await?;
        Ok(self.input.split_to(length).freeze().slice(4..))
    }

    /// The next message. Dropping the future loses nothing.
    pub(super) async fn frame(&mut self) -> Result<Frame, Broken> {
        self.need(1).await?;
        let kind = self.input[0];
        if !b"BCDEFHPQSXcdfp".contains(&kind) {
            return Err(Broken::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!("invalid frontend message type {kind}"),
            ));
        }
        self.need(5).await?;
        let length = self.length_at(1);
        if length < 4 {
            return Err(Broken::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "invalid message length",
            ));
        }
        if length > self.limit {
            return Err(Broken::fatal(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "a message of {length} bytes is longer than the limit of {} bytes",
                    self.limit
                ),
            ));
        }
        self.need(length + 1).await?;
        let body = self.input.split_to(length + 1).freeze().slice(5..);
        Ok(Frame { kind, body })
    }

    fn length_at(&self, at: usize) -> usize {
        match self.input.get(at..at + 4).and_then(|b| b.first_chunk()) {
            // a negative length becomes too large a one
            Some(bytes) => usize::try_from(u32::from_be_bytes(*bytes)).unwrap_or(usize::MAX),
            None => 0,
        }
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self) -> Result<(), Broken> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            if self.out.capacity() > KEEP_CAPACITY {
                self.out = Vec::with_capacity(WRITE_BLOCK);
            }
        }
        self.stream.flush().await?;
        Ok(())
    }

    /// Writes when a block is full.
    pub(super) async fn flush_block(&mut self) -> Result<(), Broken> {
        if self.out.len() >= WRITE_BLOCK {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends when the client is gone. Until then it reads ahead a little, so that a closed
    /// connection is noticed while nothing is written.
    pub(super) async fn gone(&mut self) {
        loop {
            if self.input.len() >= READ_AHEAD {
                return std::future::pending().await;
            }
            self.input.reserve(4 << 10);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Says goodbye: what waits is written, then the stream closed.
    pub(super) async fn close(&mut self) {
        if self.flush().await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }
}
