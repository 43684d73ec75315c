//! Arrow data from clients: messages → checked batches, for Flight and for HTTP bodies.
//!
//! Everything a message claims about its size is checked before anything is allocated for it.

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::{CompressionType, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use bytes::{Buf, Bytes};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::engine::keys::RequestKey;
use crate::error::{Error, Result, SqlState};

/// Rows of one batch.
const MAX_ROWS: i64 = 16 << 20;
/// Bytes of one batch once decompressed.
const MAX_BATCH_BYTES: i64 = 256 << 20;
/// Marks the start of a message in a stream.
const CONTINUATION: u32 = 0xffff_ffff;

/// A client's stream of batches, decoded and validated as it is read.
pub(super) struct Batches {
    decoder: FlightDataDecoder,
    schema: Option<SchemaRef>,
    size: usize,
    whole: Option<(String, Sha256)>,
    key: Option<RequestKey>,
}

impl Batches {
    /// Over the messages of a Flight call.
    pub(super) fn new(
        messages: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
    ) -> Self {
        // a descriptor may come in a message of its own, without Arrow data
        let data = messages
            .try_filter(|m| std::future::ready(!m.data_header.is_empty()))
            .map(|m| {
                let m = m?;
                check_sizes(&m.data_header, &m.data_body)
                    .map_err(|e| FlightError::ExternalError(Box::new(e)))?;
                Ok(m)
            });
        Self {
            decoder: FlightDataDecoder::new(data),
            schema: None,
            size: 0,
            whole: None,
            key: None,
        }
    }

    /// Over a whole Arrow IPC stream.
    pub(super) fn from_ipc(body: Bytes) -> Self {
        let mut rest = Some(body);
        let messages = std::iter::from_fn(move || {
            let body = rest.as_mut()?;
            match next_message(body) {
                Ok(Some(message)) => Some(Ok(message)),
                Ok(None) => {
                    rest = None;
                    None
                }
                Err(e) => {
                    rest = None;
                    Some(Err(FlightError::ExternalError(Box::new(e))))
                }
            }
        });
        Self::new(stream::iter(messages))
    }

    /// The stream's schema; `None` when it ends before it has one.
    pub(super) async fn schema(&mut self) -> Result<Option<SchemaRef>> {
        if self.schema.is_none() && matches!(self.message().await?, Some(Some(_))) {
            return Err(malformed("a batch came before its schema"));
        }
        Ok(self.schema.clone())
    }

    /// The next batch; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.message().await? {
                None => return Ok(None),
                Some(Some(batch)) => return Ok(Some(batch)),
                Some(None) => {}
            }
        }
    }

    /// Bytes of the last batch's message. Arrays of a batch share its memory, so their own sizes
    /// say more than there is.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The idempotency key that came with the last batch, for that batch alone.
    pub(super) fn take_key(&mut self) -> Option<RequestKey> {
        self.key.take()
    }

    /// True when the schema came with a key, which is for all batches together.
    pub(super) fn has_key_for_all(&self) -> bool {
        self.whole.is_some()
    }

    /// The key that came with the schema; to be asked after the last batch.
    pub(super) fn take_key_for_all(&mut self) -> Result<Option<RequestKey>> {
        let whole = self.whole.take();
        whole
            .map(|(k, hash)| RequestKey::of_hash(&k, hash))
            .transpose()
    }

    /// One message: its batch, or nothing for a schema.
    async fn message(&mut self) -> Result<Option<Option<RecordBatch>>> {
        // arrow's reader has assertions that a hostile message may reach: that is the client's error
        let next = AssertUnwindSafe(self.decoder.next()).catch_unwind().await;
        let decoded = match next {
            Ok(None) => return Ok(None),
            Ok(Some(decoded)) => decoded.map_err(stream_error)?,
            Err(_) => return Err(malformed("the Arrow data is malformed")),
        };
        let FlightData {
            app_metadata,
            data_header,
            data_body,
            ..
        } = &decoded.inner;
        if let Some((_, hash)) = &mut self.whole {
            hash.update(data_header);
            hash.update(data_body);
        }
        let key = match app_metadata.is_empty() {
            true => None,
            false => Some(key_text(app_metadata)?),
        };
        match decoded.payload {
            DecodedPayload::None => Ok(Some(None)),
            DecodedPayload::Schema(_) if self.schema.is_some() => {
                Err(malformed("the stream has a second schema"))
            }
            DecodedPayload::Schema(schema) => {
                self.schema = Some(schema);
                self.whole = key.map(|key| (key.to_owned(), Sha256::new()));
                Ok(Some(None))
            }
            DecodedPayload::RecordBatch(batch) => {
                if key.is_some() && self.whole.is_some() {
                    return Err(malformed(
                        "a batch has an idempotency key, and the whole stream has one too",
                    ));
                }
                let key = key.map(|k| RequestKey::new(k, &[data_header, data_body]));
                self.key = key.transpose()?;
                self.size = data_body.len();
                Ok(Some(Some(batch)))
            }
        }
    }
}

/// An idempotency key as application metadata: its text.
fn key_text(metadata: &Bytes) -> Result<&str> {
    std::str::from_utf8(metadata).map_err(|_| {
        Error::refused(SqlState::INVALID_PARAMETER_VALUE, "invalid idempotency key")
            .with_detail("app_metadata is not UTF-8")
    })
}

/// A message that does not follow the protocol.
pub(super) fn malformed(message: impl Into<String>) -> Error {
    Error::refused(SqlState::PROTOCOL_VIOLATION, message)
}

/// What a client's stream can go wrong with.
pub(super) fn stream_error(e: FlightError) -> Error {
    match e {
        FlightError::Tonic(status) => Error::refused(
            match status.code() {
                tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
                    SqlState::PROGRAM_LIMIT_EXCEEDED
                }
                tonic::Code::Cancelled => SqlState::QUERY_CANCELED,
                _ => SqlState::PROTOCOL_VIOLATION,
            },
            format!("cannot read the stream: {}", status.message()),
        ),
        FlightError::ExternalError(e) => match e.downcast::<Error>() {
            Ok(own) => *own,
            Err(e) => malformed("the Arrow data is malformed").with_detail(e.to_string()),
        },
        other => malformed("the Arrow data is malformed").with_detail(other.to_string()),
    }
}

/// Cuts the next encapsulated message off; `None` at the end of the stream.
fn next_message(body: &mut Bytes) -> Result<Option<FlightData>> {
    let truncated = || malformed("the Arrow stream is cut off in the middle of a message");
    if body.is_empty() {
        return Ok(None);
    }
    let mut length = body.try_get_u32_le().map_err(|_| truncated())?;
    if length == CONTINUATION {
        length = body.try_get_u32_le().map_err(|_| truncated())?;
    }
    let length = length as usize;
    if length == 0 {
        return Ok(None);
    }
    if length > body.len() {
        return Err(truncated());
    }
    let data_header = body.split_to(length);
    let message = root_as_message(&data_header)
        .map_err(|e| malformed("the Arrow data is malformed").with_detail(e.to_string()))?;
    let size = usize::try_from(message.bodyLength())
        .ok()
        .filter(|size| *size <= body.len())
        .ok_or_else(truncated)?;
    let data_body = body.split_to(size);
    Ok(Some(FlightData {
        data_header,
        data_body,
        ..FlightData::default()
    }))
}

/// Refuses a message that claims more rows or bytes than a batch may have. The reader allocates what
/// a compressed buffer claims before it looks at it, and does not bound LZ4 at all.
fn check_sizes(header: &[u8], body: &[u8]) -> Result<()> {
    let message = root_as_message(header)
        .map_err(|e| malformed("the Arrow data is malformed").with_detail(e.to_string()))?;
    let batch = message.header_as_record_batch().or_else(|| {
        message
            .header_as_dictionary_batch()
            .and_then(|dictionary| dictionary.data())
    });
    let Some(batch) = batch else {
        return Ok(());
    };
    if !(0..=MAX_ROWS).contains(&batch.length()) {
        return Err(too_large(format!("a batch has more than {MAX_ROWS} rows")));
    }
    let nodes = batch.nodes().into_iter().flatten();
    if nodes
        .into_iter()
        .any(|n| !(0..=MAX_BATCH_BYTES).contains(&n.length()))
    {
        return Err(too_large("a column of a batch is too long"));
    }
    let Some(compression) = batch.compression() else {
        return Ok(());
    };
    if compression.codec() != CompressionType::ZSTD {
        return Err(Error::unsupported(
            "Arrow data compressed with LZ4 is not supported",
            "send it uncompressed or compressed with ZSTD",
        ));
    }
    let mut total = 0i64;
    for buffer in batch.buffers().into_iter().flatten() {
        let claimed = usize::try_from(buffer.offset())
            .ok()
            .and_then(|at| body.get(at..)?.first_chunk::<8>())
            .map_or(0, |prefix| i64::from_le_bytes(*prefix));
        // -1 marks a buffer that is not compressed after all
        total = total.saturating_add(claimed.max(0));
    }
    match total <= MAX_BATCH_BYTES {
        true => Ok(()),
        false => Err(too_large("a batch is too large once decompressed")),
    }
}

fn too_large(message: impl Into<String>) -> Error {
    Error::refused(SqlState::PROGRAM_LIMIT_EXCEEDED, message).with_hint("send smaller batches")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    use std::sync::Arc;

    fn ipc(options: IpcWriteOptions) -> Vec<u8> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn read(body: Vec<u8>) -> Result<usize> {
        let mut batches = Batches::from_ipc(body.into());
        let mut rows = 0;
        while let Some(batch) = batches.next().now_or_never().expect("is in memory")? {
            rows += batch.num_rows();
        }
        Ok(rows)
    }

    fn compressed(with: CompressionType) -> IpcWriteOptions {
        IpcWriteOptions::default()
            .try_with_compression(Some(with))
            .unwrap()
    }

    #[test]
    fn a_stream_is_read_whole() {
        assert_eq!(read(ipc(IpcWriteOptions::default())).unwrap(), 20_000);
        assert_eq!(
            read(ipc(compressed(CompressionType::ZSTD))).unwrap(),
            20_000
        );
        assert_eq!(read(Vec::new()).unwrap(), 0);
    }

    #[test]
    fn lz4_is_refused() {
        let refused = read(ipc(compressed(CompressionType::LZ4_FRAME))).unwrap_err();
        assert_eq!(refused.state(), SqlState::FEATURE_NOT_SUPPORTED);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let whole = ipc(compressed(CompressionType::ZSTD));
        for cut in (1..whole.len() - 8).step_by(97) {
            let _ = read(whole[..cut].to_vec());
        }
        for at in 0..whole.len().min(4000) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = read(damaged);
        }
        assert!(read(b"GET / HTTP/1.1\r\n\r\n".to_vec()).is_err());
    }
}
