//! Bytes ↔ session calls: Postgres, Flight SQL, HTTP. Nothing here knows SQL or tables.

pub mod admission;
mod arrow_stream;
pub mod backend;
pub mod buffers;
pub mod calls;
pub mod credentials;
pub mod flight;
pub mod http;
mod listen;
#[cfg(test)]
mod mock;
pub mod pg;
mod plain;
