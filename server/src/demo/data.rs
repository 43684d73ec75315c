//! The shipped data and SQL, in the program itself.

use std::io::Read;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use flate2::read::GzDecoder;

use crate::error::{Error, Result};

macro_rules! sql {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../sql/demo/", $name)))
    };
}

/// The streaming table and what is made from it.
pub(super) const STREAM_SQL: [(&str, &str); 4] = [
    sql!("01_events.sql"),
    sql!("02_sessions.sql"),
    sql!("03_features.sql"),
    sql!("04_funnel.sql"),
];
/// The music shop.
pub(super) const PURCHASES_SQL: (&str, &str) = sql!("05_purchases.sql");
/// Role, grants, pseudonyms.
pub(super) const GOVERNANCE_SQL: (&str, &str) = sql!("07_governance.sql");
/// Three questions.
pub(super) const QUESTIONS_SQL: (&str, &str) = sql!("08_questions.sql");

const CHURN_SQL: (&str, &str) = sql!("06_churn.sql");
const EVENTS: &[u8] = include_bytes!("../../../sql/demo/data/ecom_clickstream/ecom.csv.gz");
const PURCHASES: &[u8] = include_bytes!("../../../sql/demo/data/cdnow/CDNOW_master.txt.gz");
const TELCO: &[u8] = include_bytes!("../../../sql/demo/data/telco_churn/telco_churn.csv.gz");

/// One event of the clickstream.
#[derive(Debug)]
pub(super) struct Event {
    at: DateTime<Utc>,
    user_id: String,
    session_id: String,
    event: String,
    platform: String,
    acquisition_channel: String,
    user_cohort: String,
    user_lifecycle: String,
}

impl Event {
    /// As a line of NDJSON, its time moved by `shift`.
    pub(super) fn line(&self, shift: Duration) -> String {
        let object = serde_json::json!({
            "user_id": self.user_id,
            "session_id": self.session_id,
            "event": self.event,
            "ts": (self.at + shift).to_rfc3339(),
            "platform": self.platform,
            "acquisition_channel": self.acquisition_channel,
            "user_cohort": self.user_cohort,
            "user_lifecycle": self.user_lifecycle,
        });
        format!("{object}\n")
    }

    /// When it happened.
    pub(super) fn at(&self) -> DateTime<Utc> {
        self.at
    }
}

/// The clickstream, in its file's order.
pub(super) fn events() -> Result<Vec<Event>> {
    let text = unpacked(EVENTS)?;
    let mut rows = csv::Reader::from_reader(text.as_slice());
    let mut events = Vec::new();
    for row in rows.records() {
        let row = row.map_err(|e| broken(&e.to_string()))?;
        let cell = |at: usize| row.get(at).unwrap_or_default().to_owned();
        let at = NaiveDateTime::parse_from_str(&cell(3), "%Y-%m-%d %H:%M:%S")
            .map_err(|e| broken(&e.to_string()))?;
        events.push(Event {
            at: at.and_utc(),
            user_id: cell(0),
            session_id: cell(1),
            event: cell(2),
            platform: cell(4),
            acquisition_channel: cell(5),
            user_cohort: cell(6),
            user_lifecycle: cell(7),
        });
    }
    Ok(events)
}

/// The purchases as CSV: `customer_id,date,cds,amount`.
pub(super) fn purchases() -> Result<Vec<u8>> {
    let text = String::from_utf8(unpacked(PURCHASES)?).map_err(|e| broken(&e.to_string()))?;
    let mut csv = String::with_capacity(text.len());
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        if let [customer, date, cds, amount] = cells.as_slice() {
            csv.push_str(&format!("{customer},{date},{cds},{amount}\n"));
        }
    }
    Ok(csv.into_bytes())
}

/// The subscribers as CSV with a header.
pub(super) fn telco() -> Result<Vec<u8>> {
    unpacked(TELCO)
}

/// The churn SQL, before and after the rows come in.
pub(super) fn churn_sql() -> (&'static str, &'static str) {
    CHURN_SQL
        .1
        .split_once("-- COPY telco")
        .map_or((CHURN_SQL.1, ""), |(table, rest)| {
            (table, rest.split_once('\n').map_or("", |(_, model)| model))
        })
}

fn unpacked(packed: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .map_err(Error::io("unpack the demo data"))?;
    Ok(bytes)
}

fn broken(why: &str) -> Error {
    Error::Internal(format!("the demo data is broken: {why}"))
}
