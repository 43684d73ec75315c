//! Result rows → DataRow messages, a block at a time: memory holds one batch and one block.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, StreamExt};

use super::reply;
use super::wire::{Broken, Failure, Wire};
use crate::error::{Error, Result, SqlState};
use crate::protocol::calls::SessionCalls;
use crate::values::{ColumnWriter, Style, WireFormat, sized};

/// The formats a client asked its columns in.
#[derive(Debug, Clone)]
pub(super) enum Formats {
    All(WireFormat),
    Each(Vec<WireFormat>),
}

impl Formats {
    pub(super) fn of_codes(codes: &[i16]) -> Result<Self> {
        let format = |code: &i16| match code {
            0 => Ok(WireFormat::Text),
            1 => Ok(WireFormat::Binary),
            other => Err(Error::refused(
                SqlState::PROTOCOL_VIOLATION,
                format!("unsupported format code: {other}"),
            )),
        };
        Ok(match codes {
            [] => Self::All(WireFormat::Text),
            [one] => Self::All(format(one)?),
            many => Self::Each(many.iter().map(format).collect::<Result<_>>()?),
        })
    }

    pub(super) fn get(&self, column: usize) -> WireFormat {
        match self {
            Self::All(format) => *format,
            Self::Each(each) => each.get(column).copied().unwrap_or(WireFormat::Text),
        }
    }

    /// Refuses a list of formats that is not as long as the result is wide.
    pub(super) fn check(&self, columns: usize) -> Result<()> {
        match self {
            Self::Each(each) if each.len() != columns => Err(Error::refused(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {columns} columns",
                    each.len()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// A running query and how far its rows are sent.
pub(super) struct Rows {
    pub(super) tag: &'static str,
    pub(super) schema: SchemaRef,
    stream: SendableRecordBatchStream,
    formats: Formats,
    style: Style,
    batch: Option<Prepared>,
}

struct Prepared {
    columns: Vec<ColumnWriter>,
    rows: usize,
    next: usize,
}

/// How a round of sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// All rows are sent; this many in this round.
    All(u64),
    /// The limit of the round is reached; there may be more.
    Limit,
}

impl Rows {
    pub(super) fn new(
        tag: &'static str,
        schema: SchemaRef,
        stream: SendableRecordBatchStream,
        formats: Formats,
        style: Style,
    ) -> Self {
        Self {
            tag,
            schema,
            stream,
            formats,
            style,
            batch: None,
        }
    }

    /// Sends up to `limit` rows (0: all).
    pub(super) async fn send(&mut self, wire: &mut Wire, limit: u64) -> Result<Sent, Failure> {
        let mut sent = 0;
        loop {
            if let Some(batch) = &mut self.batch {
                while batch.next < batch.rows {
                    if limit > 0 && sent == limit {
                        return Ok(Sent::Limit);
                    }
                    data_row(&mut wire.out, &batch.columns, batch.next)?;
                    batch.next += 1;
                    sent += 1;
                    wire.flush_block().await?;
                }
                self.batch = None;
            }
            if limit > 0 && sent == limit {
                return Ok(Sent::Limit);
            }
            // a query that is always ready must not keep the thread to itself
            tokio::task::yield_now().await;
            let Some(batch) = self.next(wire).await? else {
                return Ok(Sent::All(sent));
            };
            self.batch = Some(self.prepare(&batch)?);
        }
    }

    /// The next batch. Rows that are ready are not kept back while the query works, and a client
    /// that goes away meanwhile ends it.
    async fn next(&mut self, wire: &mut Wire) -> Result<Option<RecordBatch>, Failure> {
        let next = match self.stream.next().now_or_never() {
            Some(next) => next,
            None => {
                wire.flush().await?;
                tokio::select! {
                    biased;
                    next = self.stream.next() => next,
                    () = wire.gone() => return Err(Broken::Gone.into()),
                }
            }
        };
        match next {
            Some(batch) => Ok(Some(batch.map_err(Error::from)?)),
            None => Ok(None),
        }
    }

    fn prepare(&self, batch: &RecordBatch) -> Result<Prepared> {
        let columns = self
            .schema
            .fields()
            .iter()
            .zip(batch.columns())
            .enumerate()
            .map(|(i, (field, column))| {
                ColumnWriter::new(field, column, self.formats.get(i), self.style)
            })
            .collect::<Result<_>>()?;
        Ok(Prepared {
            columns,
            rows: batch.num_rows(),
            next: 0,
        })
    }
}

/// Appends one DataRow; on an error nothing of it.
fn data_row(out: &mut Vec<u8>, columns: &[ColumnWriter], row: usize) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&[b'D', 0, 0, 0, 0]);
    let written = reply::short(out, columns.len())
        .and_then(|()| columns.iter().try_for_each(|c| sized(c, row, out)))
        .and_then(|()| {
            i32::try_from(out.len() - start - 1).map_err(|_| {
                Error::refused(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "a row is too long for the PostgreSQL protocol",
                )
            })
        });
    match written {
        Ok(length) => {
            out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(e) => {
            out.truncate(start);
            Err(e)
        }
    }
}

/// The tag of a finished result, with the rows sent where PostgreSQL tells them.
pub(super) fn tag(word: &str, rows: u64) -> String {
    match word {
        "SELECT" | "FETCH" | "MOVE" | "UPDATE" | "DELETE" | "MERGE" | "COPY" => {
            format!("{word} {rows}")
        }
        "INSERT" => format!("INSERT 0 {rows}"),
        other => other.to_owned(),
    }
}

/// How the session wants values printed and read.
pub(super) fn style(session: &dyn SessionCalls) -> Result<Style> {
    let mut style = Style::default();
    if let Some(name) = session.setting("TimeZone") {
        style.time_zone = name.parse().map_err(|_| {
            Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("time zone \"{name}\" not recognized"),
            )
        })?;
    }
    if let Some(digits) = session.setting("extra_float_digits") {
        style.float_digits = digits.parse().unwrap_or(style.float_digits);
    }
    Ok(style)
}
