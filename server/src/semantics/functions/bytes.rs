//! Functions of `bytea` that share their name with one of text: `length`, `overlay`.
//! [`super::super::arguments`] sends calls here by the type of what they are given.

use datafusion::common::ScalarValue;

use super::{Entry, Row, Ty, int4, strict};
use crate::error::{Error, SqlState};

pub(super) const LIST: &[Entry] = &[
    strict("byte_length", &[&[Ty::Bytes]], Ty::Int4, |row| {
        int4(length(row.bytes(0)))
    }),
    strict(
        "byte_overlay",
        &[
            &[Ty::Bytes, Ty::Bytes, Ty::Int4],
            &[Ty::Bytes, Ty::Bytes, Ty::Int4, Ty::Int4],
        ],
        Ty::Bytes,
        overlay,
    ),
];

fn length(of: &[u8]) -> i64 {
    i64::try_from(of.len()).unwrap_or(i64::MAX)
}

/// New bytes in the place of some, from the place that is counted from 1; of as many as they are when
/// nothing else is said.
fn overlay(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let (of, new, first) = (row.bytes(0), row.bytes(1), row.int(2));
    let count = match row.args.len() {
        4 => row.int(3),
        _ => length(new),
    };
    if first < 1 {
        return Err(Error::refused(
            SqlState("22011"),
            "negative substring length not allowed",
        ));
    }
    let whole = length(of);
    let place = |at: i64| usize::try_from(at.clamp(0, whole)).unwrap_or_default();
    let mut made = of[..place(first - 1)].to_vec();
    made.extend_from_slice(new);
    made.extend_from_slice(&of[place((first - 1).saturating_add(count))..]);
    Ok(ScalarValue::Binary(Some(made)))
}
