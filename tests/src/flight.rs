//! Flight SQL sessions for tests.

use std::net::SocketAddr;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::transport::{Channel, Endpoint};

/// One session.
#[derive(Clone)]
pub struct FlightSession {
    client: FlightSqlServiceClient<Channel>,
}

impl FlightSession {
    /// Connects without logging in.
    pub async fn connect(addr: SocketAddr) -> Result<Self, FlightError> {
        let channel = Endpoint::new(format!("http://{addr}"))
            .expect("an address")
            .connect_timeout(Duration::from_secs(10))
            .connect()
            .await
            .map_err(|e| FlightError::ExternalError(Box::new(e)))?;
        let inner = arrow_flight::flight_service_client::FlightServiceClient::new(channel)
            .max_decoding_message_size(64 << 20);
        Ok(Self {
            client: FlightSqlServiceClient::new_from_inner(inner),
        })
    }

    /// Logs in by password.
    pub async fn open(addr: SocketAddr, user: &str, password: &str) -> Result<Self, FlightError> {
        let mut session = Self::connect(addr).await?;
        session.client.handshake(user, password).await?;
        Ok(session)
    }

    /// The driver itself.
    pub fn client(&mut self) -> &mut FlightSqlServiceClient<Channel> {
        &mut self.client
    }

    /// All rows of a query.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
        let info = self.client.execute(sql.to_owned(), None).await?;
        self.fetch(info).await
    }

    /// All rows that an answer to `GetFlightInfo` points at.
    pub async fn fetch(&mut self, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
        let mut batches = Vec::new();
        for endpoint in info.endpoint {
            let ticket = endpoint.ticket.expect("an endpoint has a ticket");
            let rows = self.client.do_get(ticket).await?;
            batches.extend(rows.try_collect::<Vec<_>>().await?);
        }
        Ok(batches)
    }

    /// The one value of a query, as Arrow prints it.
    pub async fn value(&mut self, sql: &str) -> String {
        let batches = self
            .query(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let mut cells = Vec::new();
        for batch in &batches {
            for column in batch.columns() {
                let options = FormatOptions::default().with_null("NULL");
                let text = ArrayFormatter::try_new(column, &options).expect("a printable column");
                cells.extend((0..batch.num_rows()).map(|row| text.value(row).to_string()));
            }
        }
        match cells.as_slice() {
            [one] => one.clone(),
            other => panic!("{sql}: expected one value, got {other:?}"),
        }
    }

    /// Runs a statement that gives no rows; the rows it changed.
    pub async fn run(&mut self, sql: &str) -> Result<i64, FlightError> {
        self.client.execute_update(sql.to_owned(), None).await
    }

    /// `DoPut` of batches to `schema.table`. Every row is durable when this returns `Ok`; the value
    /// is what the server put into its last answer: the commit token.
    pub async fn put(
        &mut self,
        schema: &str,
        table: &str,
        batches: Vec<RecordBatch>,
    ) -> Result<Bytes, FlightError> {
        let descriptor = FlightDescriptor::new_path(vec![schema.to_owned(), table.to_owned()]);
        let data: Vec<FlightData> = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(descriptor))
            .build(stream::iter(batches.into_iter().map(Ok)))
            .try_collect()
            .await?;
        let answers = self.client.do_put(stream::iter(data)).await?;
        let answers: Vec<_> = answers
            .map(|a| a.map_err(FlightError::from))
            .try_collect()
            .await?;
        let last = answers
            .last()
            .ok_or_else(|| FlightError::protocol("no answer to DoPut"))?;
        Ok(last.app_metadata.clone())
    }
}
