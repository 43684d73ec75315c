//! Producers: one per door, each sending numbered rows until the server dies, and somebody who keeps
//! flushing and refreshing meanwhile.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::flight::FlightSession;
use tests::http::{HttpSession, answer};
use tests::{ADMIN, Addresses, PASSWORD, PgFailure, PgSession};
use tokio::task::JoinSet;

use crate::ledger::{Ledger, Request};

/// No request takes longer; a server that hangs instead of dying fails the test.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Everybody who talks to one server process.
pub(crate) struct Crowd(JoinSet<()>);

impl Crowd {
    /// Starts a producer per door, and those who disturb them.
    pub(crate) fn start(at: Addresses, ledger: &Arc<Ledger>, seed: u64) -> Self {
        let mut crowd = Self::at_doors(at, ledger, seed, &DOORS);
        crowd.0.spawn(async move { drop(disturb(at).await) });
        crowd.0.spawn(async move { drop(tend(at).await) });
        crowd
    }

    /// Starts a producer at each of these doors.
    pub(crate) fn at_doors(at: Addresses, ledger: &Arc<Ledger>, seed: u64, doors: &[Door]) -> Self {
        let mut all = JoinSet::new();
        for (number, door) in (0..).zip(doors.iter().copied()) {
            let ledger = Arc::clone(ledger);
            all.spawn(async move {
                let mut rng = StdRng::seed_from_u64(seed ^ number);
                // An error is the server's death; who never came in has nothing to report either.
                drop(produce(door, at, &ledger, &mut rng).await);
            });
        }
        Self(all)
    }

    /// Waits until everybody has noticed that the server is gone.
    pub(crate) async fn ended(mut self) {
        while let Some(ended) = self.0.join_next().await {
            ended.expect("producers do not panic");
        }
    }
}

/// All of them.
const DOORS: [Door; 7] = [
    Door::Insert,
    Door::Copy,
    Door::Http,
    Door::Flight,
    Door::Plain,
    Door::Fleeting,
    Door::Segment,
];

/// The key of the table `tracked`.
pub(crate) const WRITE_KEY: &str = "crash-test-write-key";

/// A way into the server.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    Insert,
    Copy,
    Http,
    Flight,
    /// A Segment library's batches, into `tracked`.
    Segment,
    /// `INSERT` into an ordinary table, which does not go through the log.
    Plain,
    /// `INSERT` of rows whose retention is over.
    Fleeting,
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

async fn produce(
    door: Door,
    at: Addresses,
    ledger: &Ledger,
    rng: &mut StdRng,
) -> Result<(), Fault> {
    let name = match door {
        Door::Insert => "insert",
        Door::Copy => "copy",
        Door::Http => "http",
        Door::Flight => "flight",
        Door::Plain => "plain",
        Door::Fleeting => "fleeting",
        Door::Segment => "segment",
    };
    let pg = PgSession::open(at.pg, ADMIN, PASSWORD).await?;
    let mut flight = FlightSession::open(at.flight, ADMIN, PASSWORD).await?;
    let http = HttpSession::new(at.http, ADMIN, PASSWORD);
    let library = HttpSession::new(at.http, WRITE_KEY, "");
    loop {
        let size = if rng.random_bool(0.1) {
            rng.random_range(50..800)
        } else {
            rng.random_range(1..20)
        };
        let request = ledger.send(name, size);
        let sent = async {
            match door {
                Door::Insert => insert(&pg, "acked", name, &request).await,
                Door::Copy => copy(&pg, name, &request).await,
                Door::Http => post(&http, name, &request).await,
                Door::Flight => put(&mut flight, name, &request).await,
                Door::Plain => insert(&pg, "plain", name, &request).await,
                Door::Fleeting => insert_old(&pg, name, &request).await,
                Door::Segment => track(&library, name, &request).await,
            }
        };
        tokio::time::timeout(REQUEST_LIMIT, sent)
            .await
            .expect("an answer or a broken connection")?;
        ledger.acknowledge(&request);
        if matches!(door, Door::Plain | Door::Fleeting) {
            // Each one is a Delta commit and a file: a few are enough.
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
    }
}

/// Longer now and then, so that records span pages and segments.
fn filler(seq: i64) -> String {
    "f".repeat(if seq % 97 == 0 { 3000 } else { 20 })
}

fn told(rows: u64, request: &Request) -> Result<(), Fault> {
    let sent = u64::try_from(request.rows.end - request.rows.start)?;
    assert_eq!(rows, sent, "the server acknowledged another number of rows");
    Ok(())
}

async fn insert(pg: &PgSession, table: &str, name: &str, request: &Request) -> Result<(), Fault> {
    let mut sql = format!("INSERT INTO {table} VALUES ");
    for seq in request.rows.clone() {
        let comma = if seq == request.rows.start { "" } else { ", " };
        write!(sql, "{comma}('{name}', {seq}, '{}')", filler(seq))?;
    }
    let rows = pg.client().execute(&sql, &[]).await?;
    told(rows, request)
}

async fn insert_old(pg: &PgSession, name: &str, request: &Request) -> Result<(), Fault> {
    let mut sql = "INSERT INTO fleeting VALUES ".to_owned();
    for seq in request.rows.clone() {
        let comma = if seq == request.rows.start { "" } else { ", " };
        write!(sql, "{comma}('{name}', {seq}, now() - INTERVAL '2 days')")?;
    }
    let rows = pg.client().execute(&sql, &[]).await?;
    told(rows, request)
}

async fn copy(pg: &PgSession, name: &str, request: &Request) -> Result<(), Fault> {
    let mut data = String::new();
    for seq in request.rows.clone() {
        writeln!(data, "{name}\t{seq}\t{}", filler(seq))?;
    }
    let rows = pg.copy_in("COPY acked FROM STDIN", data.as_bytes()).await?;
    told(rows, request)
}

async fn post(http: &HttpSession, name: &str, request: &Request) -> Result<(), Fault> {
    let mut body = String::new();
    for seq in request.rows.clone() {
        let filler = filler(seq);
        writeln!(
            body,
            "{{\"producer\":\"{name}\",\"seq\":{seq},\"filler\":\"{filler}\"}}"
        )?;
    }
    let answer = http.send_rows("public", "acked", body).await?;
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, answer.text).into());
    }
    told(answer.body["accepted"].as_u64().ok_or("no count")?, request)
}

async fn track(library: &HttpSession, name: &str, request: &Request) -> Result<(), Fault> {
    let event = |seq: i64| {
        serde_json::json!({"type": "track", "userId": name, "event": "e",
            "properties": {"seq": seq, "padding": filler(seq)}})
    };
    let batch: Vec<_> = request.rows.clone().map(event).collect();
    let body = serde_json::json!({ "batch": batch });
    let answer = answer(library.post("/v1/batch").json(&body)).await?;
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, answer.text).into());
    }
    told(answer.body["accepted"].as_u64().ok_or("no count")?, request)
}

async fn put(flight: &mut FlightSession, name: &str, request: &Request) -> Result<(), Fault> {
    let schema = Schema::new(vec![
        Field::new("producer", DataType::Utf8, false),
        Field::new("seq", DataType::Int64, false),
        Field::new("filler", DataType::Utf8, true),
    ]);
    let seqs: Vec<i64> = request.rows.clone().collect();
    let names = StringArray::from(vec![name; seqs.len()]);
    let fillers = StringArray::from_iter_values(seqs.iter().map(|seq| filler(*seq)));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(names),
        Arc::new(Int64Array::from(seqs)),
        Arc::new(fillers),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema), columns)?;
    flight.put("public", "acked", vec![batch]).await?;
    Ok(())
}

/// Flushes, refreshes and alters as fast as it can, so that deaths fall into those too.
async fn disturb(at: Addresses) -> Result<(), Fault> {
    let pg = PgSession::open(at.pg, ADMIN, PASSWORD).await?;
    loop {
        pg.rows("FLUSH TABLE acked").await?;
        for view in ["per_producer", "follows", "kinds", "sketched"] {
            pg.rows(&format!("REFRESH MATERIALIZED VIEW {view}"))
                .await?;
        }
        pg.rows("ALTER TABLE altered ALTER COLUMN v SET NOT NULL")
            .await?;
        pg.rows("ALTER TABLE altered ALTER COLUMN v DROP NOT NULL")
            .await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Lets a row grow and takes the table back to what it was, again and again.
async fn tend(at: Addresses) -> Result<(), Fault> {
    let pg = PgSession::open(at.pg, ADMIN, PASSWORD).await?;
    loop {
        match weed(&pg).await {
            // the version may have been vacuumed: there is another one next time
            Err(e) if !e.state.is_empty() => {}
            other => other?,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn weed(pg: &PgSession) -> Result<(), PgFailure> {
    pg.rows("DELETE FROM garden WHERE id > 100").await?;
    let history = pg.rows("DESCRIBE HISTORY garden").await?;
    let version = history.first().and_then(|row| row[0].clone());
    pg.rows("INSERT INTO garden VALUES (101)").await?;
    let version = version.unwrap_or_default();
    pg.rows(&format!("RESTORE TABLE garden TO VERSION AS OF {version}"))
        .await?;
    Ok(())
}
