//! The rows that are sent: page events of 20 columns, the same for the same seed.
//!
//! Users follow a Zipf law, some events come late, a purchase has a revenue, properties are a JSON
//! text in which one event in twenty has a key of its own. Deliberate duplicates are left out: the
//! check afterwards counts rows.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::Result;

/// The table they go into.
pub(crate) const CREATE_TABLE: &str = "CREATE STREAMING TABLE events (
  event_id UUID NOT NULL, user_id BIGINT NOT NULL, session_id BIGINT NOT NULL,
  event_time TIMESTAMPTZ NOT NULL, ingest_time TIMESTAMPTZ NOT NULL, event_type TEXT NOT NULL,
  campaign TEXT, channel TEXT, page TEXT, referrer TEXT, device TEXT, os TEXT, browser TEXT,
  country TEXT, city TEXT, revenue DOUBLE PRECISION, duration_ms INTEGER, x INTEGER, y INTEGER,
  properties JSONB)";

const USERS: usize = 500_000;
const ZIPF: f64 = 1.05;
/// 2026-01-01T00:00:00Z in microseconds; events are a millisecond or so apart from there on.
const BEGIN: i64 = 1_767_225_600_000_000;
const MINUTE: i64 = 60_000_000;

const TYPES: [(&str, u32); 10] = [
    ("page_view", 50),
    ("product_view", 22),
    ("search", 9),
    ("scroll", 6),
    ("add_to_cart", 5),
    ("remove_from_cart", 2),
    ("checkout", 2),
    ("purchase", 2),
    ("login", 1),
    ("signup", 1),
];
const CHANNELS: [&str; 7] = [
    "organic",
    "paid_search",
    "email",
    "social",
    "referral",
    "display",
    "direct",
];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
const SYSTEMS: [&str; 5] = ["iOS", "Android", "Windows", "macOS", "Linux"];
const BROWSERS: [&str; 5] = ["Safari", "Chrome", "Firefox", "Edge", "Samsung Internet"];
const COUNTRIES: [&str; 12] = [
    "DE", "FR", "US", "GB", "ES", "IT", "NL", "PL", "SE", "BR", "IN", "JP",
];
/// Columns that take few values, for senders that encode them as dictionaries.
const FEW_VALUES: [&str; 10] = [
    "event_type",
    "campaign",
    "channel",
    "page",
    "referrer",
    "device",
    "os",
    "browser",
    "country",
    "city",
];

/// Makes batches one after the other.
#[derive(Debug)]
pub(crate) struct Events {
    random: StdRng,
    /// Cumulated weights of the users.
    users: Vec<f64>,
    at: i64,
}

impl Events {
    pub(crate) fn new(seed: u64) -> Self {
        let mut total = 0.0;
        let users = (1..=USERS)
            .map(|rank| {
                total += (rank as f64).powf(-ZIPF);
                total
            })
            .collect();
        Self {
            random: StdRng::seed_from_u64(seed),
            users,
            at: BEGIN,
        }
    }

    /// The next rows.
    pub(crate) fn batch(&mut self, rows: usize) -> Result<RecordBatch> {
        let mut columns = Columns::default();
        for _ in 0..rows {
            self.event(&mut columns);
        }
        columns.finish()
    }

    fn event(&mut self, to: &mut Columns) {
        let user = self.user();
        let random = &mut self.random;
        self.at += random.random_range(200..2_000);
        let late = match random.random_range(0..1000) {
            0 => random.random_range(0..7 * 24 * 60 * MINUTE),
            1..=30 => random.random_range(0..60 * MINUTE),
            _ => random.random_range(0..MINUTE / 30),
        };
        let kind = weighted(random.random_range(0..100));
        let time = self.at - late;
        to.text[0].append_value(uuid::Uuid::from_u128(random.random()).to_string());
        to.big[0].append_value(user);
        to.big[1].append_value(user * 1_000 + (time / (30 * MINUTE)) % 1_000);
        to.times[0].append_value(time);
        to.times[1].append_value(self.at);
        to.text[1].append_value(kind);
        to.text[2].append_value(format!("campaign-{:04}", random.random_range(0..2_000)));
        to.text[3].append_value(pick(random, &CHANNELS));
        let page = random.random_range(0..5_000);
        to.text[4].append_value(format!("/category-{}/product-{page}", page % 40));
        to.text[5].append_option(match random.random_range(0..3) {
            0 => None,
            _ => Some(format!(
                "https://ref-{}.example",
                random.random_range(0..300)
            )),
        });
        let device = (user % 3) as usize;
        to.text[6].append_value(DEVICES[device]);
        to.text[7].append_value(SYSTEMS[(user % 5) as usize]);
        to.text[8].append_value(pick(random, &BROWSERS));
        to.text[9].append_value(COUNTRIES[(user % 12) as usize]);
        to.text[10].append_value(format!("city-{:03}", user % 800));
        to.revenue
            .append_option((kind == "purchase").then(|| price(random)));
        to.small[0].append_value(random.random_range(10..120_000));
        to.small[1].append_value(random.random_range(0..1_920));
        to.small[2].append_value(random.random_range(0..1_080));
        to.text[11].append_value(properties(random));
    }

    fn user(&mut self) -> i64 {
        let most = self.users.last().copied().unwrap_or(1.0);
        let point = self.random.random_range(0.0..most);
        self.users.partition_point(|w| *w <= point) as i64
    }
}

/// The batch with [`FEW_VALUES`] as dictionaries.
pub(crate) fn with_dictionaries(batch: &RecordBatch) -> Result<RecordBatch> {
    let ty = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8));
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if FEW_VALUES.contains(&field.name().as_str()) {
            let field = Field::new(field.name(), ty.clone(), field.is_nullable());
            columns.push((field, cast(column, &ty)?));
        } else {
            columns.push((field.as_ref().clone(), Arc::clone(column)));
        }
    }
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The rows as one JSON object per line.
pub(crate) fn ndjson(batch: &RecordBatch) -> Result<Vec<u8>> {
    let options = FormatOptions::default();
    let schema = batch.schema();
    let mut arrays = Vec::new();
    for column in batch.columns() {
        arrays.push(match column.data_type() {
            // an offset instead of a name needs no time zone database to be printed
            DataType::Timestamp(unit, Some(_)) => {
                cast(column, &DataType::Timestamp(*unit, Some("+00:00".into())))?
            }
            _ => Arc::clone(column),
        });
    }
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(&arrays) {
        // no text of ours needs an escape
        let quoted = field.name() != "properties" && !field.data_type().is_numeric();
        let values = ArrayFormatter::try_new(column, &options)?;
        columns.push((field.name(), column, quoted, values));
    }
    let mut text = String::with_capacity(batch.num_rows() * 600);
    for row in 0..batch.num_rows() {
        let mut before = '{';
        for (name, column, quoted, values) in &columns {
            if column.is_null(row) {
                continue;
            }
            let value = values.value(row);
            let written = match quoted {
                true => write!(text, "{before}\"{name}\":\"{value}\""),
                false => write!(text, "{before}\"{name}\":{value}"),
            };
            debug_assert!(written.is_ok(), "a String takes everything");
            before = ',';
        }
        text.push_str("}\n");
    }
    Ok(text.into_bytes())
}

/// Columns under construction, by type in the order of the table.
#[derive(Debug, Default)]
struct Columns {
    text: [StringBuilder; 12],
    big: [Int64Builder; 2],
    times: [TimestampMicrosecondBuilder; 2],
    small: [Int32Builder; 3],
    revenue: Float64Builder,
}

impl Columns {
    fn finish(mut self) -> Result<RecordBatch> {
        let mut text = self
            .text
            .iter_mut()
            .map(|b| Arc::new(b.finish()) as ArrayRef);
        let mut next_text = || {
            text.next()
                .unwrap_or_else(|| Arc::new(StringBuilder::new().finish()))
        };
        let [user, session] = self
            .big
            .each_mut()
            .map(|b| Arc::new(b.finish()) as ArrayRef);
        let [event_time, ingest_time] = self
            .times
            .each_mut()
            .map(|b| Arc::new(b.finish().with_timezone("UTC")) as ArrayRef);
        let [duration, x, y] = self
            .small
            .each_mut()
            .map(|b| Arc::new(b.finish()) as ArrayRef);
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("event_id", next_text()),
            ("user_id", user),
            ("session_id", session),
            ("event_time", event_time),
            ("ingest_time", ingest_time),
        ];
        columns.push(("event_type", next_text()));
        for name in FEW_VALUES.iter().skip(1) {
            columns.push((name, next_text()));
        }
        columns.push(("revenue", Arc::new(self.revenue.finish())));
        columns.push(("duration_ms", duration));
        columns.push(("x", x));
        columns.push(("y", y));
        columns.push(("properties", next_text()));
        Ok(RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .enumerate()
                .map(|(at, (name, array))| (name, array, at > 5)),
        )?)
    }
}

fn weighted(mut point: u32) -> &'static str {
    for (name, weight) in TYPES {
        if point < weight {
            return name;
        }
        point -= weight;
    }
    TYPES[0].0
}

fn pick(random: &mut StdRng, of: &[&'static str]) -> &'static str {
    of[random.random_range(0..of.len())]
}

/// Lognormal, in cents.
fn price(random: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (random.random_range(1e-9..1.0), random.random());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    ((3.5 + 0.8 * normal).exp() * 100.0).round() / 100.0
}

fn properties(random: &mut StdRng) -> String {
    let (sku, qty) = (random.random_range(0..20_000), random.random_range(1..5));
    let variant = pick(random, &["A", "B", "C"]);
    let extra = match random.random_range(0..20) {
        0 => format!(",\"key_{}\":true", random.random_range(0..50)),
        _ => String::new(),
    };
    format!(
        "{{\"sku\":\"SKU-{sku:05}\",\"qty\":{qty},\"currency\":\"EUR\",\"variant\":\"{variant}\"{extra}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_twenty_columns() {
        let batch = Events::new(7).batch(1_000).unwrap();
        assert_eq!(batch.num_columns(), 20);
        assert_eq!(batch, Events::new(7).batch(1_000).unwrap());
        assert_ne!(batch, Events::new(8).batch(1_000).unwrap());
        let packed = with_dictionaries(&batch).unwrap();
        assert!(packed.get_array_memory_size() < batch.get_array_memory_size());
    }

    #[test]
    fn lines_are_json() {
        let batch = Events::new(7).batch(200).unwrap();
        let text = String::from_utf8(ndjson(&batch).unwrap()).unwrap();
        let mut rows = 0;
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(row["properties"]["qty"].is_u64(), "{line}");
            assert!(row["event_time"].is_string(), "{line}");
            rows += 1;
        }
        assert_eq!(rows, 200);
    }
}
