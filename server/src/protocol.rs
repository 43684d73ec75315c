//! Bytes ↔ session calls: Postgres, Flight SQL, HTTP. Nothing here knows SQL or tables.

pub mod calls;
pub mod pg;
