//! The Kafka door: JSON messages that lie with a broker before the clock starts.
//!
//! The broker is librdkafka's mock cluster in this process, so what it costs counts as the sender's. It
//! keeps 5 MB a partition and lets go of the oldest then: the topic has as many partitions as hold all
//! rows, and that nothing is gone is checked before the table is made. Nor does it tell a waiting
//! consumer of a new message: that one is found with the next question, 50 ms later at most.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tokio_postgres::Client;

use super::Sent;
use crate::cli::{Compression, IngestOptions};
use crate::error::{Error, Result};
use crate::events::{self, Events};

const TOPIC: &str = "events";
/// Bytes of values for one partition; with what frames them, still less than the cluster keeps.
const PARTITION_BYTES: f64 = 4e6;
/// Rows that are made at a time.
const PIECE: u64 = 16_384;
/// The cluster has everything by then, and the server too.
const LIMIT: Duration = Duration::from_secs(600);
/// An answer of the cluster, which runs in this process.
const ASK: Duration = Duration::from_secs(10);
/// Between two looks at how far the source is.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks whether a single message is there.
const LOOK_CLOSELY: Duration = Duration::from_millis(1);
const SINGLE_MESSAGES: usize = 100;

/// A topic that holds all rows.
pub(super) struct Topic {
    // dropped first: they are clients of the cluster
    producer: BaseProducer,
    /// Waits for no second message.
    hasty: BaseProducer,
    _cluster: MockCluster<'static, DefaultProducerContext>,
    create: String,
    partitions: u32,
    rows: u64,
    bytes: u64,
}

/// Starts a cluster and sends the rows to it; `create` makes the table, without its source.
pub(super) fn prepare(options: &IngestOptions, create: &str) -> Result<Topic> {
    if options.seconds.is_some() || options.connections != 1 || options.dictionary {
        return Err(Error::Options(
            "--seconds, --connections and --dictionary are not for --door kafka",
        ));
    }
    // it blocks the measuring thread alone, which has nothing else to do
    fill(options, create)
}

/// What the producer's property is set to.
pub(super) fn codec(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

fn fill(options: &IngestOptions, create: &str) -> Result<Topic> {
    let cluster = MockCluster::new(1)?;
    let brokers = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &brokers)
        .set("compression.codec", codec(options.compression))
        .set("queue.buffering.max.messages", "200000");
    let hasty = config.clone().set("linger.ms", "0").create()?;
    // sets of messages as a busy producer makes them
    let producer: BaseProducer = config.set("linger.ms", "100").create()?;
    let in_a_row = u64::from(super::batch_rows(options));
    let mut events = Events::new(super::SEED);
    let mut partitions = None;
    let (mut made, mut bytes) = (0, 0);
    while made < options.rows {
        let rows = PIECE.min(options.rows - made);
        let batch = events.batch(usize::try_from(rows).unwrap_or(usize::MAX))?;
        let text = events::ndjson(&batch)?;
        let partitions = match partitions {
            Some(partitions) => partitions,
            None => {
                let all = text.len() as f64 / rows as f64 * options.rows as f64;
                let enough = (all / PARTITION_BYTES).ceil() as u32;
                let wanted = options.partitions.unwrap_or(enough.clamp(4, 1000));
                cluster.create_topic(TOPIC, wanted.cast_signed(), 1)?;
                *partitions.insert(wanted)
            }
        };
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        for (row, line) in (made..).zip(lines) {
            let partition = (row / in_a_row % u64::from(partitions)) as i32;
            send(&producer, partition, line)?;
            bytes += line.len() as u64;
        }
        made += rows;
    }
    producer.flush(LIMIT)?;
    let topic = Topic {
        producer,
        hasty,
        _cluster: cluster,
        create: format!("{create} FROM KAFKA (brokers = '{brokers}', topic = '{TOPIC}')"),
        partitions: partitions.unwrap_or(1),
        rows: made,
        bytes,
    };
    topic.check()?;
    Ok(topic)
}

/// Sends one message; waits while the producer's queue is full.
fn send(producer: &BaseProducer, partition: i32, value: &[u8]) -> Result<()> {
    let mut record = BaseRecord::<[u8], [u8]>::to(TOPIC)
        .partition(partition)
        .payload(value);
    let begun = Instant::now();
    while let Err((e, back)) = producer.send(record) {
        if e.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull)
            || begun.elapsed() > LIMIT
        {
            return Err(e.into());
        }
        record = back;
        producer.poll(Duration::from_millis(5));
    }
    Ok(())
}

impl Topic {
    /// How many partitions it has.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Makes the table with the topic as its source and waits until all messages are rows.
    pub(super) async fn read(&self, client: &Client) -> Result<Sent> {
        client.batch_execute(&self.create).await?;
        let begun = Instant::now();
        loop {
            let source = client
                .query_one("SELECT rows, rejected, last_error FROM weir.sources", &[])
                .await?;
            let (rows, rejected): (i64, i64) = (source.get(0), source.get(1));
            if rows.cast_unsigned() >= self.rows {
                break;
            }
            if rejected > 0 || begun.elapsed() > LIMIT {
                let error: Option<String> = source.get(2);
                return Err(Error::Answer(format!(
                    "the source has {rows} of {} rows, {rejected} are rejected: {}",
                    self.rows,
                    error.unwrap_or_default()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Sent {
            rows: self.rows,
            bytes: self.bytes,
            acknowledged: Vec::new(),
        })
    }

    /// Seconds from handing a message to the producer until it is a row, one after the other; the table
    /// has `rows` rows before.
    pub(super) async fn single_messages(&self, client: &Client, rows: i64) -> Result<Vec<f64>> {
        let text = events::ndjson(&Events::new(super::SEED + 1).batch(SINGLE_MESSAGES)?)?;
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let count = client.prepare("SELECT count(*) FROM events").await?;
        let mut waited = Vec::with_capacity(SINGLE_MESSAGES);
        for (before, line) in (rows..).zip(lines) {
            let begun = Instant::now();
            send(&self.hasty, 0, line)?;
            self.hasty.flush(ASK)?;
            while client.query_one(&count, &[]).await?.get::<_, i64>(0) <= before {
                if begun.elapsed() > LIMIT {
                    return Err(Error::Answer("a message did not become a row".to_owned()));
                }
                tokio::time::sleep(LOOK_CLOSELY).await;
            }
            waited.push(begun.elapsed().as_secs_f64());
        }
        Ok(waited)
    }

    /// Checks that the cluster still has everything.
    fn check(&self) -> Result<()> {
        let mut rows = 0;
        for partition in 0..self.partitions.cast_signed() {
            let client = self.producer.client();
            let (oldest, end) = client.fetch_watermarks(TOPIC, partition, ASK)?;
            if oldest > 0 {
                return Err(Error::Options(
                    "the cluster has let go of messages: it needs more --partitions, or fewer \
                     --batch-rows",
                ));
            }
            rows += end.cast_unsigned();
        }
        match rows == self.rows {
            true => Ok(()),
            false => Err(Error::Answer(format!(
                "the cluster has {rows} of {} messages",
                self.rows
            ))),
        }
    }
}
