//! Errors → gRPC statuses.

use arrow_flight::error::FlightError;
use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::error::Error;

/// The header that carries the bare SQLSTATE.
const SQLSTATE: &str = "x-sqlstate";

/// Bytes of a message: it travels in a header, where each may become three, and clients refuse headers over
/// 16 KiB.
const LONGEST: usize = 4_096;

/// `SQLSTATE: message`, then detail and hint on lines of their own.
pub(super) fn status(e: &Error) -> Status {
    let report = e.report();
    let mut text = format!("{}: {}", report.state.0, report.message);
    if let Some(detail) = &report.detail {
        text.push_str(&format!("\nDETAIL: {detail}"));
    }
    if let Some(hint) = &report.hint {
        text.push_str(&format!("\nHINT: {hint}"));
    }
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    let mut status = Status::new(report.state.grpc_code(), text);
    status
        .metadata_mut()
        .insert(SQLSTATE, MetadataValue::from_static(report.state.0));
    status
}

/// An error on its way through arrow-flight's encoder.
pub(super) fn flight_error(e: &Error) -> FlightError {
    FlightError::Tonic(Box::new(status(e)))
}

/// What comes out of arrow-flight's encoder.
pub(super) fn encoder_status(e: FlightError) -> Status {
    match e {
        FlightError::Tonic(status) => *status,
        FlightError::ExternalError(e) => status(&Error::Internal(e.to_string())),
        FlightError::Arrow(e) => status(&Error::from(e)),
        other => status(&Error::Internal(other.to_string())),
    }
}

/// A message that does not follow the protocol.
pub(super) use crate::protocol::arrow_stream::malformed;
