//! One record of the log: how an accepted append looks in bytes.
//!
//! ```text
//! header (64)   magic, crc, body length, first lsn, rows, body crc, parts, source length, format, synced,
//!               time of acceptance in microseconds
//! source        positions of the source the rows come from, padded to 8
//! directory     per part 32 bytes: table, schema fingerprint, rows, payload length
//! payloads      per part one Arrow IPC stream of visible columns, padded to 8
//! ```
//! The header's checksum starts from a seed of the segment's id and epoch and covers the body's
//! checksum, so bytes left over in a recycled segment never pass for a record of this one.

use std::io::Cursor;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamEncoder;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use catalog::Oid;

use super::head::Lsn;
use crate::error::{Error, Result, SqlState};

/// Bytes of a record's header.
pub(super) const HEADER: usize = 64;
const PART: usize = 32;
const MAGIC: u32 = u32::from_le_bytes(*b"WREC");
const FORMAT_ARROW_IPC: u16 = 0;
/// Larger appends are refused; a reader never believes a larger length.
const MAX_BODY: usize = 1 << 30;

/// Rows for one table, in its visible columns.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) oid: Oid,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) rows: u64,
}

/// A record with everything but its place in the log: see [`Encoded::place`].
#[derive(Debug)]
pub(super) struct Encoded {
    /// Header, source and directory.
    head: Vec<u8>,
    /// The payloads. Their large pieces are the rows' own memory, not copies of it.
    payloads: Vec<Buffer>,
    length: usize,
    /// Positions of the log that it takes.
    rows: u64,
}

/// A record as read back.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) first: Lsn,
    pub(super) rows: u64,
    /// When it was written; 0 of a log that did not say.
    pub(super) at: i64,
    /// The positions of a source that its rows bring it to: see [`super::position`].
    pub(super) source: Bytes,
    parts: Vec<(Oid, u64, Bytes)>,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// Nothing was written here.
    Empty,
    /// Something that does not check.
    Damaged,
}

impl Encoded {
    /// Lays an append out once; the log only fills in where it landed. One without rows, which only
    /// says where a source stands, takes a position of its own, so that what is stored up to a
    /// position is well defined for it too.
    pub(super) fn new(parts: &[Part], source: &[u8]) -> Result<Self> {
        let mut head = vec![0; HEADER];
        head.extend_from_slice(source);
        pad(&mut head);
        let directory = head.len();
        head.resize(directory + parts.len() * PART, 0);
        let mut payloads = Vec::new();
        let mut rows = 0;
        let mut length = head.len();
        for (n, part) in parts.iter().enumerate() {
            let (fingerprint, bytes) = write_payload(&mut payloads, part)?;
            let at = directory + n * PART;
            put_u32(&mut head, at, part.oid.0);
            put_u32(&mut head, at + 4, fingerprint);
            put_u64(&mut head, at + 8, part.rows);
            put_u64(&mut head, at + 16, bytes as u64);
            rows += part.rows;
            length += bytes.next_multiple_of(8);
        }
        if parts.is_empty() {
            rows = 1;
        }
        let body = length - HEADER;
        if body > MAX_BODY {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("{body} bytes are too many for one append"),
            )
            .with_hint(format!("send at most {MAX_BODY} bytes at a time")));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(head.get(HEADER..).unwrap_or_default());
        for piece in &payloads {
            crc.update(piece);
        }
        put_u32(&mut head, 0, MAGIC);
        put_u64(&mut head, 8, body as u64);
        put_u64(&mut head, 24, rows);
        put_u32(&mut head, 32, crc.finalize());
        put_u32(&mut head, 36, parts.len() as u32);
        put_u32(&mut head, 40, source.len() as u32);
        put_u32(&mut head, 44, u32::from(FORMAT_ARROW_IPC));
        Ok(Self {
            head,
            payloads,
            length,
            rows,
        })
    }

    /// Bytes it takes in the log.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many positions of the log it takes.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Gives it a place and a time: `seed` is the segment's, `synced` the offset known durable there.
    pub(super) fn place(&mut self, seed: u32, first: Lsn, synced: u64, at: i64) {
        put_u64(&mut self.head, 16, first.0.cast_unsigned());
        put_u64(&mut self.head, 48, synced);
        put_u64(&mut self.head, 56, at.cast_unsigned());
        let crc = seeded(seed, self.head.get(8..HEADER).unwrap_or_default());
        put_u32(&mut self.head, 4, crc);
    }

    /// Its bytes in order, once it has a place.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let payloads = self.payloads.iter().map(Buffer::as_slice);
        std::iter::once(self.head.as_slice()).chain(payloads)
    }
}

impl Record {
    /// Reads the record that starts `bytes`; gives its length in the log too.
    pub(super) fn read(bytes: &Bytes, seed: u32) -> Result<(Self, usize), NoRecord> {
        let header = bytes.get(..HEADER).ok_or(NoRecord::Empty)?;
        if header.iter().all(|b| *b == 0) {
            return Err(NoRecord::Empty);
        }
        if u32_at(header, 0) != MAGIC || u32_at(header, 4) != seeded(seed, &header[8..]) {
            return Err(NoRecord::Damaged);
        }
        let length = usize::try_from(u64_at(header, 8)).map_err(|_| NoRecord::Damaged)?;
        if length > MAX_BODY || bytes.len() - HEADER < length {
            return Err(NoRecord::Damaged);
        }
        let body = bytes.slice(HEADER..HEADER + length);
        if crc32fast::hash(&body) != u32_at(header, 32) {
            return Err(NoRecord::Damaged);
        }
        let source_length = u32_at(header, 40) as usize;
        let record = Self {
            first: Lsn(u64_at(header, 16).cast_signed()),
            rows: u64_at(header, 24),
            at: u64_at(header, 56).cast_signed(),
            source: part_of(&body, 0, source_length)?,
            parts: directory(&body, source_length, u32_at(header, 36) as usize)?,
        };
        Ok((record, HEADER + length))
    }

    /// The offset that was durable when the record that starts `header` was written.
    pub(super) fn synced_before(header: &[u8]) -> u64 {
        header.get(..HEADER).map_or(0, |h| u64_at(h, 48))
    }

    /// True when a record of this segment may start here: cheap, before the real check.
    pub(super) fn may_start(bytes: &[u8]) -> bool {
        bytes.len() >= HEADER && u32_at(bytes, 0) == MAGIC
    }

    /// The tables it has rows for, with the positions `lo..=hi` of theirs.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Oid, Lsn, Lsn, &Bytes)> {
        let mut next = self.first.0;
        self.parts.iter().map(move |(oid, rows, payload)| {
            let lo = next;
            next += rows.cast_signed();
            (*oid, Lsn(lo), Lsn(next - 1), payload)
        })
    }

    /// The position after its last row.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.first.0 + self.rows.cast_signed())
    }
}

/// Reads a part's batches.
pub(super) fn read_payload(payload: &Bytes) -> Result<Vec<RecordBatch>> {
    let reader = StreamReader::try_new(Cursor::new(payload.as_ref()), None)?;
    Ok(reader.collect::<Result<Vec<_>, _>>()?)
}

/// Adds a part's batches, padded; gives the schema's fingerprint and the length without padding.
fn write_payload(pieces: &mut Vec<Buffer>, part: &Part) -> Result<(u32, usize)> {
    let Some(first) = part.batches.first() else {
        return Err(Error::Internal("an append without rows".to_owned()));
    };
    let schema = first.schema();
    let start = pieces.len();
    let mut encoder = StreamEncoder::try_new(&schema)?;
    for batch in &part.batches {
        pieces.append(&mut encoder.encode(batch)?);
    }
    pieces.append(&mut encoder.finish()?);
    let bytes: usize = pieces.iter().skip(start).map(Buffer::len).sum();
    let padding = bytes.next_multiple_of(8) - bytes;
    if padding > 0 {
        pieces.push(Buffer::from(vec![0u8; padding]));
    }
    Ok((fingerprint(&schema), bytes))
}

/// Tells schemas apart; equal schemas have equal fingerprints.
fn fingerprint(schema: &Schema) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for field in schema.fields() {
        hasher.update(field.name().as_bytes());
        hasher.update(&[0, u8::from(field.is_nullable())]);
        hasher.update(field.data_type().to_string().as_bytes());
    }
    hasher.finalize()
}

fn directory(
    body: &Bytes,
    source: usize,
    parts: usize,
) -> Result<Vec<(Oid, u64, Bytes)>, NoRecord> {
    let start = source.next_multiple_of(8);
    let mut at = start + parts * PART;
    let mut found = Vec::new();
    for n in 0..parts {
        let entry = part_of(body, start + n * PART, PART)?;
        let length = usize::try_from(u64_at(&entry, 16)).map_err(|_| NoRecord::Damaged)?;
        let payload = part_of(body, at, length)?;
        found.push((Oid(u32_at(&entry, 0)), u64_at(&entry, 8), payload));
        at += length.next_multiple_of(8);
    }
    Ok(found)
}

fn part_of(body: &Bytes, start: usize, length: usize) -> Result<Bytes, NoRecord> {
    match start.checked_add(length) {
        Some(end) if end <= body.len() => Ok(body.slice(start..end)),
        _ => Err(NoRecord::Damaged),
    }
}

/// CRC-32 of `bytes` that starts from `seed`.
pub(super) fn seeded(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(slot) = bytes.get_mut(at..at + 4) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(slot) = bytes.get_mut(at..at + 8) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
}

/// The number at an offset; zero beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

/// The number at an offset; zero beyond the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}
