//! Why a measurement could not be made.

use std::path::PathBuf;

/// Any failure ends the run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read or write a file")]
    Io(#[from] std::io::Error),
    #[error("\"{}\" is not there; build it first: cargo build --release -p server", .0.display())]
    NoProgram(PathBuf),
    #[error("the server ended or did not open its doors; the end of its log:\n{0}")]
    Server(String),
    #[error("the PostgreSQL door failed")]
    Pg(#[from] tokio_postgres::Error),
    #[error("the Flight door failed")]
    Flight(#[from] arrow_flight::error::FlightError),
    #[error("cannot connect to the Flight door")]
    Connect(#[from] tonic::transport::Error),
    #[error("the Kafka cluster of the measurement failed")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("{0}")]
    Options(&'static str),
    #[error("the HTTP door failed")]
    Http(#[from] reqwest::Error),
    #[error("cannot make the rows to send")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("a task of the measurement failed")]
    Task(#[from] tokio::task::JoinError),
    #[error("unexpected answer: {0}")]
    Answer(String),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
