//! Kafka: what a source is told, the client, messages and what becomes of them.
//!
//! Owns every call into librdkafka and the schema registry, and makes batches of a table's columns
//! out of messages. It knows neither the log nor statements: `sources` brings the two together.
//!
//! | module | what lies there |
//! |---|---|
//! | [`options`] | `FROM KAFKA (…)`, checked, and as the catalog keeps it |
//! | [`client`] | one consumer: partitions, offsets, polling |
//! | [`messages`] | messages of one poll, in two pieces of memory |
//! | [`decode`] | messages → batches |
//! | [`avro`], `protobuf` | values with a schema |
//! | [`registry`] | a registry of schemas |

pub mod avro;
pub mod client;
pub mod decode;
pub mod messages;
pub mod options;
mod protobuf;
pub mod registry;
