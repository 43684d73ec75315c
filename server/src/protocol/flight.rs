//! The Flight SQL door: gRPC over HTTP/2.
//!
//! Owns authentication headers, tickets, prepared statement handles and the Arrow stream encoding.
//! It implements the whole Flight service itself rather than through arrow-flight's SQL trait, which
//! fixes `GetSchema` and `PollFlightInfo` as missing and cannot say whether a prepared statement is
//! an update. SQL belongs to the session behind it.

mod actions;
mod handles;
mod info;
mod ingest;
mod metadata;
mod put;
mod query;
mod session_options;
mod sql_info;
mod status;
mod transactions;
mod type_info;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, BasicAuth, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{Stream, stream};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use self::handles::Handles;
use self::status::status;
use super::buffers::Buffers;
use super::credentials::{Caller, Credentials};
use super::listen::Accept;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::session::Door;
use crate::tasks;
use crate::tls::Tls;

/// Bytes a client may send ahead per stream: a 64k-row batch without waiting for credit.
const STREAM_WINDOW: u32 = 8 << 20;
/// The same over all streams of a connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_SIZE: u32 = 256 << 10;
const STREAMS_PER_CONNECTION: u32 = 256;
/// Dead peers are found by pings.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(20);
/// How long a client may take to send its half of the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves connections until `stop`, then waits for running calls.
pub fn serve(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    buffers: &Buffers,
    config: &Config,
    tls: Option<&Tls>,
    stop: CancellationToken,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let door = FlightDoor::new(credentials, buffers.clone());
    let service = FlightServiceServer::new(door)
        .max_decoding_message_size(config.max_message)
        .max_encoding_message_size(usize::MAX);
    let accept = Accept {
        door: "flight",
        listener,
        max_connections: config.max_connections,
        tls: tls.map(|t| t.acceptor(&["h2"])),
        stop,
    };
    accept.run(move |io, stop| {
        let service = TowerToHyperService::new(service.clone());
        async move {
            let connection = http2::Builder::new(NamedTasks)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME_SIZE)
                .max_concurrent_streams(STREAMS_PER_CONNECTION)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_DEADLINE)
                .serve_connection(TokioIo::new(io), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(e) = ended {
                tracing::debug!(error = %e, "flight connection ended");
            }
        }
    })
}

/// Runs the streams of a connection as named tasks. They end when their connection does.
#[derive(Clone, Copy)]
struct NamedTasks;

impl<F> hyper::rt::Executor<F> for NamedTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(tasks::spawn("flight-call", future));
    }
}

/// The service; every method finds out who calls, then hands over to a submodule.
struct FlightDoor {
    credentials: Arc<Credentials>,
    buffers: Buffers,
    handles: Arc<Handles>,
}

impl FlightDoor {
    fn new(credentials: Arc<Credentials>, buffers: Buffers) -> Self {
        Self {
            credentials,
            buffers,
            handles: Arc::new(Handles::default()),
        }
    }

    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        self.credentials
            .caller(authorization(metadata), Door::Flight)
            .await
            .map_err(|e| status(&e))
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization")?.to_str().ok()
}

#[tonic::async_trait]
impl FlightService for FlightDoor {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    /// Basic credentials (in the header, or as `BasicAuth` in the payload) → a bearer token (in the
    /// header and the payload).
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let header = match authorization(request.metadata()) {
            Some(header) => Some(header.to_owned()),
            None => basic_auth(request.into_inner()).await?,
        };
        let caller = self
            .credentials
            .caller(header.as_deref(), Door::Flight)
            .await
            .map_err(|e| status(&e))?;
        let token = self.credentials.issue(&caller).map_err(|e| status(&e))?;
        let answer = HandshakeResponse {
            protocol_version: 0,
            payload: token.clone().into(),
        };
        let answers: Self::HandshakeStream = Box::pin(stream::iter([Ok(answer)]));
        let mut response = Response::new(answers);
        let value = format!("Bearer {token}")
            .parse()
            .map_err(|_| status(&Error::Internal("a token does not fit a header".to_owned())))?;
        response.metadata_mut().insert("authorization", value);
        Ok(response)
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.caller(request.metadata()).await?;
        Err(not_here("ListFlights", "use GetTables"))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let info = info::flight_info(&caller, &self.handles, request.into_inner()).await;
        info.map(Response::new).map_err(|e| status(&e))
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let info = info::flight_info(&caller, &self.handles, request.into_inner()).await;
        // results stream while they are computed, so a statement is ready as soon as it is planned
        info.map(|info| {
            Response::new(PollInfo {
                info: Some(info),
                flight_descriptor: None,
                progress: Some(1.0),
                expiration_time: None,
            })
        })
        .map_err(|e| status(&e))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let schema = info::schema_result(&caller, &self.handles, request.into_inner()).await;
        schema.map(Response::new).map_err(|e| status(&e))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let rows = query::rows(&caller, &self.handles, &request.into_inner()).await;
        rows.map(Response::new).map_err(|e| status(&e))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let answers = put::put(caller, &self.handles, &self.buffers, request.into_inner()).await;
        answers.map(Response::new).map_err(|e| status(&e))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.caller(request.metadata()).await?;
        Err(not_here("DoExchange", "use DoPut and DoGet"))
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let header = authorization(request.metadata()).map(str::to_owned);
        let action = request.into_inner();
        let answer = match action.r#type.as_str() {
            "CloseSession" => {
                self.credentials.revoke(header.as_deref());
                Ok(Some(session_options::closed()))
            }
            _ => actions::run(&caller, &self.handles, &action).await,
        };
        let body = answer.map_err(|e| status(&e))?;
        let results = body.map(|body| Ok(arrow_flight::Result { body }));
        Ok(Response::new(Box::pin(stream::iter(results))))
    }

    async fn list_actions(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        self.caller(request.metadata()).await?;
        let actions = actions::ACTIONS.iter().map(|(name, about)| {
            Ok(ActionType {
                r#type: (*name).to_owned(),
                description: (*about).to_owned(),
            })
        });
        Ok(Response::new(Box::pin(stream::iter(actions))))
    }
}

/// The header that the older handshake's payload stands for.
async fn basic_auth(mut messages: Streaming<HandshakeRequest>) -> Result<Option<String>, Status> {
    let first = tokio::time::timeout(HANDSHAKE_DEADLINE, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no handshake message"))??;
    let auth = first.and_then(|m| BasicAuth::decode(m.payload).ok());
    Ok(auth.filter(|a| !a.username.is_empty()).map(|a| {
        let pair = STANDARD.encode(format!("{}:{}", a.username, a.password));
        format!("Basic {pair}")
    }))
}

fn not_here(what: &str, hint: &str) -> Status {
    status(&Error::unsupported(
        format!("{what} is not supported"),
        hint,
    ))
}
