//! Messages of the server, appended to an output buffer.

use arrow::datatypes::Schema;

use crate::error::{Error, Report, Result, SqlState};
use crate::session::TransactionStatus;
use crate::types::Origin;
use crate::values::{PgType, WireFormat};

/// Appends a message: type, length, and the body that `body` writes.
pub(super) fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // bodies that can be long are checked where they are made
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(super) fn bare(out: &mut Vec<u8>, kind: u8) {
    message(out, kind, |_| {});
}

pub(super) const PARSE_COMPLETE: u8 = b'1';
pub(super) const BIND_COMPLETE: u8 = b'2';
pub(super) const CLOSE_COMPLETE: u8 = b'3';
pub(super) const NO_DATA: u8 = b'n';
pub(super) const PORTAL_SUSPENDED: u8 = b's';
pub(super) const EMPTY_QUERY: u8 = b'I';
pub(super) const COPY_DONE: u8 = b'c';

/// Text with its NUL; a NUL inside would end it early.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|b| *b != 0));
    out.push(0);
}

/// A count of columns.
pub(super) fn short(out: &mut Vec<u8>, value: usize) -> Result<()> {
    let value = u16::try_from(value).map_err(|_| {
        Error::refused(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "too many columns for the PostgreSQL protocol",
        )
    })?;
    out.extend_from_slice(&value.to_be_bytes());
    Ok(())
}

pub(super) fn authentication(out: &mut Vec<u8>, code: i32, data: &[u8]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(data);
    });
}

pub(super) fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |out| {
        text(out, name);
        text(out, value);
    });
}

pub(super) fn backend_key(out: &mut Vec<u8>, pid: i32, secret: u32) {
    message(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(&secret.to_be_bytes());
    });
}

/// NegotiateProtocolVersion: 3.0 is what is spoken, and these options are not known.
pub(super) fn negotiate(out: &mut Vec<u8>, unknown: &[&str]) {
    message(out, b'v', |out| {
        out.extend_from_slice(&(3i32 << 16).to_be_bytes());
        let count = i32::try_from(unknown.len()).unwrap_or(i32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for name in unknown {
            text(out, name);
        }
    });
}

pub(super) fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
    message(out, b'Z', |out| {
        out.push(match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::Open => b'T',
            TransactionStatus::Failed => b'E',
        });
    });
}

pub(super) fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| text(out, tag));
}

/// An ErrorResponse; `severity` is `ERROR` or `FATAL`.
pub(super) fn error(out: &mut Vec<u8>, severity: &str, report: &Report) {
    told(out, b'E', severity, report);
}

/// A NoticeResponse of severity `WARNING`.
pub(super) fn warning(out: &mut Vec<u8>, report: &Report) {
    told(out, b'N', "WARNING", report);
}

fn told(out: &mut Vec<u8>, kind: u8, severity: &str, report: &Report) {
    message(out, kind, |out| {
        let mut field = |kind: u8, value: &str| {
            out.push(kind);
            text(out, value);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', report.state.0);
        field(b'M', &report.message);
        if let Some(detail) = &report.detail {
            field(b'D', detail);
        }
        if let Some(hint) = &report.hint {
            field(b'H', hint);
        }
        if let Some(position) = report.position {
            field(b'P', &position.to_string());
        }
        out.push(0);
    });
}

pub(super) fn parameter_description(out: &mut Vec<u8>, oids: &[u32]) -> Result<()> {
    let mut counted = Vec::new();
    short(&mut counted, oids.len())?;
    message(out, b't', |out| {
        out.extend_from_slice(&counted);
        for oid in oids {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
    Ok(())
}

/// RowDescription; `format` tells a column's format.
pub(super) fn row_description(
    out: &mut Vec<u8>,
    schema: &Schema,
    format: impl Fn(usize) -> WireFormat,
) -> Result<()> {
    let mut counted = Vec::new();
    short(&mut counted, schema.fields().len())?;
    message(out, b'T', |out| {
        out.extend_from_slice(&counted);
        for (i, field) in schema.fields().iter().enumerate() {
            let ty = PgType::of(field);
            text(out, field.name());
            let (table, column) = Origin::of(field).map_or((0, 0), |o| (o.table, o.column));
            out.extend_from_slice(&table.to_be_bytes());
            out.extend_from_slice(&column.to_be_bytes());
            out.extend_from_slice(&ty.oid.to_be_bytes());
            out.extend_from_slice(&ty.size.to_be_bytes());
            out.extend_from_slice(&ty.typmod.to_be_bytes());
            out.extend_from_slice(&i16::from(format(i) == WireFormat::Binary).to_be_bytes());
        }
    });
    Ok(())
}

/// CopyInResponse (`G`) or CopyOutResponse (`H`).
pub(super) fn copy_response(
    out: &mut Vec<u8>,
    kind: u8,
    binary: bool,
    columns: usize,
) -> Result<()> {
    let mut counted = Vec::new();
    short(&mut counted, columns)?;
    message(out, kind, |out| {
        out.push(u8::from(binary));
        out.extend_from_slice(&counted);
        for _ in 0..columns {
            out.extend_from_slice(&i16::from(binary).to_be_bytes());
        }
    });
    Ok(())
}

pub(super) fn copy_data(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'd', |out| out.extend_from_slice(data));
}
