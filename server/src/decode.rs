//! Text rows → Arrow batches of a table's columns: NDJSON, JSON arrays, CSV, and single messages.
//!
//! Owns what makes a value of a column's type out of JSON or text, strictly: a value that is not of
//! its column's type is an error that names its place. It knows neither doors nor tables' constraints.
//!
//! | module | what lies there |
//! |---|---|
//! | [`json`], [`csv`] | the formats |
//! | [`table`] | rows of cells → batches |
//! | `columns` | cells → arrays |
//! | `scan` | the quick reader of plain lines |

pub(crate) mod columns;
pub(crate) mod csv;
mod datetime;
mod decimal;
pub(crate) mod json;
mod scan;
pub(crate) mod table;

#[cfg(test)]
mod tests;
