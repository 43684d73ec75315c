//! `weir demo`: a server with real data, a live stream, views, a model and a restricted role.
//!
//! Owns the shipped data and SQL (`sql/demo/`) and what the demo prints. It is a client of its own
//! server: everything goes in and out by the doors, as it would for any user.

mod data;
mod live;
mod report;

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::cli::print;
use crate::config::{Config, Secret};
use crate::error::{Error, Result};
use crate::server::{self, ServerHandle};
use crate::tasks::{self, AbortOnDrop};

/// Events of one HTTP request.
const BATCH: usize = 1_000;

/// Starts the server, loads the data, and then checks and ends (`once`) or keeps streaming until
/// interrupted.
///
/// # Errors
/// When the server does not start, a step fails, or a figure is not what it must be.
pub async fn run(mut config: Config, once: bool) -> Result<()> {
    let password = match &config.admin_password {
        Some(given) => given.0.clone(),
        None => uuid::Uuid::new_v4().simple().to_string(),
    };
    config.admin_password = Some(Secret(password.clone()));
    let started = Instant::now();
    let server = server::start(config).await?;
    let outcome = serve(&server, &password, once, started).await;
    let stopped = server.shutdown().await;
    outcome.and(stopped)
}

async fn serve(server: &ServerHandle, password: &str, once: bool, started: Instant) -> Result<()> {
    let demo = Demo::connect(server, password).await?;
    say(&format!(
        "server ready after {:.1} s\n",
        started.elapsed().as_secs_f64()
    ));
    let fresh = demo.number("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name = 'events'").await? == 0.0;
    if fresh {
        demo.create_and_load(once).await?;
    } else {
        say("the demo's tables are here already; nothing is loaded again\n");
    }
    if once {
        return report::print(&demo, started).await;
    }
    say(&demo.what_to_paste());
    tokio::select! {
        result = live::run(&demo, server, fresh) => result,
        _ = tokio::signal::ctrl_c() => {
            say("\nstopping\n");
            Ok(())
        }
    }
}

/// The demo as a client of its server.
struct Demo {
    pg: Client,
    http: reqwest::Client,
    addrs: server::Addrs,
    password: String,
    _connection: AbortOnDrop<()>,
}

impl Demo {
    async fn connect(server: &ServerHandle, password: &str) -> Result<Self> {
        let addrs = server.addrs();
        let mut config = tokio_postgres::Config::new();
        config
            .host(addrs.pg.ip().to_string())
            .port(addrs.pg.port())
            .user("weir")
            .password(password)
            .dbname("weir")
            .application_name("weir demo");
        let (pg, connection) = config.connect(NoTls).await.map_err(client)?;
        let connection = tasks::spawn("demo connection", async move {
            if let Err(e) = connection.await {
                tracing::warn!(error = %e, "the demo's connection ended");
            }
        });
        Ok(Self {
            pg,
            http: reqwest::Client::new(),
            addrs,
            password: password.to_owned(),
            _connection: AbortOnDrop::new(connection),
        })
    }

    async fn create_and_load(&self, all_events: bool) -> Result<()> {
        for file in &data::STREAM_SQL {
            self.run_file(file).await?;
        }
        if all_events {
            self.load_events().await?;
        }
        self.run_file(&data::PURCHASES_SQL).await?;
        let rows = self
            .copy(
                "COPY purchases FROM STDIN WITH (FORMAT csv)",
                data::purchases()?,
            )
            .await?;
        say(&format!("  purchases: {rows} rows by COPY\n"));
        let (table, model) = data::churn_sql();
        self.batch(table).await?;
        let rows = self
            .copy(
                "COPY telco FROM STDIN WITH (FORMAT csv, HEADER)",
                data::telco()?,
            )
            .await?;
        say(&format!("  telco: {rows} rows by COPY\n"));
        let training = Instant::now();
        self.batch(model).await?;
        say(&format!(
            "  model churn trained in {:.1} s\n",
            training.elapsed().as_secs_f64()
        ));
        self.run_file(&data::GOVERNANCE_SQL).await
    }

    async fn run_file(&self, (name, sql): &(&str, &str)) -> Result<()> {
        say(&format!("  sql/demo/{name}\n"));
        self.batch(sql).await
    }

    async fn load_events(&self) -> Result<()> {
        let events = data::events()?;
        let started = Instant::now();
        for chunk in events.chunks(BATCH) {
            self.send(
                chunk
                    .iter()
                    .map(|e| e.line(Duration::ZERO))
                    .collect::<String>(),
            )
            .await?;
        }
        say(&format!(
            "  events: {} rows over HTTP, acknowledged durable in {:.1} s\n",
            events.len(),
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Sends NDJSON to the events table; acknowledged on return.
    async fn send(&self, lines: String) -> Result<()> {
        let url = format!("http://{}/v1/tables/public/events/rows", self.addrs.http);
        let request = self
            .http
            .post(url)
            .basic_auth("weir", Some(&self.password))
            .header("content-type", "application/x-ndjson")
            .body(lines);
        let answer = request.send().await.map_err(client)?;
        let status = answer.status();
        let text = answer.text().await.map_err(client)?;
        match status.is_success() {
            true => Ok(()),
            false => Err(Error::Internal(format!(
                "events were refused with {status}: {text}"
            ))),
        }
    }

    async fn batch(&self, sql: &str) -> Result<()> {
        self.pg.batch_execute(sql).await.map_err(client)
    }

    async fn copy(&self, statement: &str, csv: Vec<u8>) -> Result<u64> {
        use futures::SinkExt;
        let sink = self.pg.copy_in(statement).await.map_err(client)?;
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from(csv)).await.map_err(client)?;
        sink.finish().await.map_err(client)
    }

    /// The single value of a query, as text.
    async fn value(&self, sql: &str) -> Result<String> {
        for message in self.pg.simple_query(sql).await.map_err(client)? {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                return Ok(row.get(0).unwrap_or_default().to_owned());
            }
        }
        Err(Error::Internal(
            "a query of the demo gave no row".to_owned(),
        ))
    }

    async fn number(&self, sql: &str) -> Result<f64> {
        let text = self.value(sql).await?;
        text.parse()
            .map_err(|_| Error::Internal(format!("\"{text}\" is no number")))
    }

    fn what_to_paste(&self) -> String {
        let Self {
            addrs, password, ..
        } = self;
        let (pg, flight) = (addrs.pg, addrs.flight);
        let questions = data::QUESTIONS_SQL.1;
        format!(
            "\nConnect with psql:\n\n  \
             psql 'postgres://weir:{password}@{pg}/weir'\n\n\
             or with Python (pip install adbc-driver-flightsql adbc-driver-manager pyarrow):\n\n  \
             import adbc_driver_flightsql.dbapi as flight\n  \
             login = {{\"username\": \"weir\", \"password\": \"{password}\"}}\n  \
             with flight.connect(\"grpc://{flight}\", db_kwargs=login, autocommit=True) as db, db.cursor() as cursor:\n      \
             cursor.execute(\"SELECT * FROM user_features ORDER BY events DESC LIMIT 5\")\n      \
             print(cursor.fetch_arrow_table())\n\n\
             {questions}\n\
             All SQL of the demo lies in sql/demo/. Stop with Ctrl-C.\n\n"
        )
    }
}

/// Writes to standard output at once.
fn say(text: &str) {
    print(text);
}

/// What a client of the demo reports; the server's own log has the rest.
fn client(e: impl std::error::Error + 'static) -> Error {
    let cause = e.source().map(|s| format!(": {s}")).unwrap_or_default();
    Error::Internal(format!("{e}{cause}"))
}
