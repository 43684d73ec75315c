//! One consumer of one topic. All calls may block for their time limit: they belong on threads that
//! may wait.
//!
//! Partitions are assigned by hand, at offsets that the caller knows; no group is joined and no offset
//! is committed to the broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, Statistics, TopicPartitionList};

use super::messages::Messages;
use super::options::{Options, is_secret};
use crate::error::{Error, Result, SqlState};

/// How long a question to the broker may take; the first is asked again and again.
const ASK: Duration = Duration::from_secs(10);
const ASK_FIRST: Duration = Duration::from_secs(2);
/// How long one poll waits for a first message.
const IDLE: Duration = Duration::from_millis(100);
/// How long it waits for more behind the first.
const LINGER: Duration = Duration::from_millis(3);
/// A poll ends then, whatever still comes.
const LONGEST: Duration = Duration::from_millis(60);
/// One poll takes so many bytes and messages, and the one that goes over it.
const MOST_BYTES: usize = 8 << 20;
const MOST_MESSAGES: usize = 65_536;
/// Properties that are set unless the owner sets them: memory per source, and quick answers.
const DEFAULTS: [(&str, &str); 9] = [
    ("client.id", "weir"),
    ("isolation.level", "read_committed"),
    ("queued.max.messages.kbytes", "32768"),
    // a queue that was full is asked for again a second later otherwise, long after it ran empty
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "50"),
    ("topic.metadata.refresh.interval.ms", "60000"),
    ("reconnect.backoff.max.ms", "5000"),
    ("socket.keepalive.enable", "true"),
    ("allow.auto.create.topics", "false"),
];
/// Properties that must be so.
const FIXED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("statistics.interval.ms", "1000"),
    ("max.poll.interval.ms", "86400000"),
];

/// What the client tells of itself while it is polled.
#[derive(Debug, Default)]
pub struct Telemetry(Mutex<Told>);

/// See [`Telemetry`].
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// A broker is connected; `None` before the first second.
    pub connected: Option<bool>,
    /// The last error, as librdkafka words it.
    pub error: Option<String>,
    /// What is known of each partition.
    pub partitions: BTreeMap<i32, End>,
}

/// How far a partition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The offset that the next committed message gets, or a later one.
    pub end: i64,
    /// Everything up to the end was fetched and handed out.
    pub drained: bool,
}

impl Telemetry {
    /// What was told last.
    pub fn told(&self) -> Told {
        self.lock().clone()
    }

    /// The last error, once.
    pub fn take_error(&self) -> Option<String> {
        self.lock().error.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// librdkafka's callbacks.
struct Context {
    topic: String,
    telemetry: Arc<Telemetry>,
}

impl ConsumerContext for Context {}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // what matters to the owner comes as an error too; this is for whoever debugs a connection
        tracing::debug!(?level, facility, text, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        let mut told = self.telemetry.lock();
        let up = |b: &rdkafka::statistics::Broker| b.nodeid >= 0 && b.state == "UP";
        told.connected = Some(statistics.brokers.values().any(up));
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for (partition, figures) in &topic.partitions {
            let end = match figures.ls_offset {
                stable if stable >= 0 => stable,
                _ => figures.hi_offset,
            };
            if *partition >= 0 && end >= 0 {
                let drained = figures.fetchq_cnt == 0 && figures.next_offset >= end;
                told.partitions.insert(*partition, End { end, drained });
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        let text = match reason.is_empty() {
            true => error.to_string(),
            false => reason.to_owned(),
        };
        self.telemetry.lock().error = Some(text);
    }
}

/// What a poll found out beside messages.
#[derive(Debug)]
pub enum Polled {
    /// Messages, or none for a while.
    Messages(Messages),
    /// The broker no longer has what comes next in some partition.
    Gap,
}

/// A consumer of one topic.
pub struct Client {
    consumer: BaseConsumer<Context>,
    topic: String,
    telemetry: Arc<Telemetry>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.topic)
    }
}

impl Client {
    /// Makes a client. Connects in the background, so this fails only for what was declared.
    ///
    /// # Errors
    /// 22023 for a property or a value that librdkafka does not take.
    pub fn open(options: &Options, name: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (property, value) in DEFAULTS {
            config.set(property, value);
        }
        for (property, value) in &options.properties {
            config.set(property, value);
        }
        for (property, value) in FIXED {
            config.set(property, value);
        }
        config.set("bootstrap.servers", &options.brokers);
        config.set("group.id", options.group.as_deref().unwrap_or(name));
        let telemetry = Arc::new(Telemetry::default());
        let context = Context {
            topic: options.topic.clone(),
            telemetry: Arc::clone(&telemetry),
        };
        let consumer = config.create_with_context(context).map_err(refused)?;
        Ok(Self {
            consumer,
            topic: options.topic.clone(),
            telemetry,
        })
    }

    /// What the client tells of itself.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The topic's partitions, ascending.
    ///
    /// # Errors
    /// 08006 when no broker answers, 42704 when there is no such topic.
    pub fn partitions(&self) -> Result<Vec<i32>> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), ASK_FIRST)
            .map_err(|e| self.failed("ask for the partitions", &e))?;
        let topic = metadata.topics().iter().find(|t| t.name() == self.topic);
        let Some(topic) = topic else {
            return Err(self.no_topic());
        };
        if let Some(code) = topic.error() {
            let code = RDKafkaErrorCode::from(code);
            return Err(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    self.no_topic()
                }
                other => self.failed("ask for the partitions", &KafkaError::MetadataFetch(other)),
            });
        }
        let mut found: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
        if found.is_empty() {
            return Err(self.no_topic());
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The oldest offset that a partition has, and the next one.
    pub fn range(&self, partition: i32) -> Result<(i64, i64)> {
        self.consumer
            .fetch_watermarks(&self.topic, partition, ASK)
            .map_err(|e| self.failed("ask for the offsets", &e))
    }

    /// The first offset of each partition whose message is of that time or later, in milliseconds since
    /// the Unix epoch; the next one to come where there is none.
    pub fn offsets_at(&self, partitions: &[i32], millis: i64) -> Result<BTreeMap<i32, i64>> {
        let wrong = |e: KafkaError| self.failed("ask for the offsets of a time", &e);
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked
                .add_partition_offset(&self.topic, *partition, Offset::Offset(millis))
                .map_err(wrong)?;
        }
        let answer = self.consumer.offsets_for_times(asked, ASK).map_err(wrong)?;
        let mut found = BTreeMap::new();
        for element in answer.elements_for_topic(&self.topic) {
            element.error().map_err(wrong)?;
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => self.range(element.partition())?.1,
            };
            found.insert(element.partition(), offset);
        }
        Ok(found)
    }

    /// Reads these partitions from now on, each from its offset, or from its oldest message.
    pub fn assign(&self, at: &BTreeMap<i32, Option<i64>>) -> Result<()> {
        let wrong = |e: KafkaError| self.failed("begin to read", &e);
        let mut list = TopicPartitionList::with_capacity(at.len());
        for (partition, offset) in at {
            let offset = offset.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&self.topic, *partition, offset)
                .map_err(wrong)?;
        }
        self.consumer.assign(&list).map_err(wrong)
    }

    /// The next messages: waits a short while for the first, takes what is there behind it. Messages
    /// before `next` of their partition are passed over.
    ///
    /// # Errors
    /// 08006 when the client cannot go on; a broker that is away is waited for.
    pub fn poll(&self, next: &BTreeMap<i32, i64>, options: &Options) -> Result<Polled> {
        let mut messages = Messages::new(options);
        let mut wait = IDLE;
        let begun = Instant::now();
        let mut first: Option<Instant> = None;
        while messages.bytes() < MOST_BYTES && messages.len() < MOST_MESSAGES {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    messages.push(&message, next);
                    let first = *first.get_or_insert_with(Instant::now);
                    let left = LONGEST.saturating_sub(first.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    wait = LINGER.min(left);
                }
                Some(Err(e))
                    if e.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) =>
                {
                    // what was taken before it is read again
                    return Ok(Polled::Gap);
                }
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    let e = KafkaError::MessageConsumptionFatal(code);
                    return Err(self.failed("go on reading", &e));
                }
                // told by `Context::error`; the client connects again by itself
                Some(Err(e)) => {
                    self.telemetry.lock().error.get_or_insert(e.to_string());
                    if first.is_some() || begun.elapsed() >= IDLE {
                        break;
                    }
                }
                None => break,
            }
        }
        Ok(Polled::Messages(messages))
    }

    fn no_topic(&self) -> Error {
        Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("topic \"{}\" does not exist", self.topic),
        )
    }

    fn failed(&self, what: &str, e: &KafkaError) -> Error {
        let mut error = Error::refused(
            SqlState::CONNECTION_FAILURE,
            format!("cannot {what} of topic \"{}\"", self.topic),
        );
        let code = e.rdkafka_error_code().map(|code| code.to_string());
        let detail = self.telemetry.take_error().or(code);
        if let Some(detail) = detail {
            error = error.with_detail(detail);
        }
        error
    }
}

/// A refusal of the configuration that does not repeat what may be a secret.
fn refused(e: KafkaError) -> Error {
    let (message, detail) = match e {
        KafkaError::ClientConfig(_, text, property, _) if !is_secret(&property) => (
            format!("the property \"kafka.{property}\" is not accepted"),
            Some(text),
        ),
        KafkaError::ClientConfig(_, _, property, _) => (
            format!("the property \"kafka.{property}\" is not accepted"),
            None,
        ),
        KafkaError::ClientCreation(text) => (
            "the Kafka client does not accept its properties".to_owned(),
            Some(text),
        ),
        other => (
            "the Kafka client cannot be made".to_owned(),
            other.rdkafka_error_code().map(|code| code.to_string()),
        ),
    };
    let error = Error::refused(SqlState::INVALID_PARAMETER_VALUE, message);
    match detail {
        Some(detail) => error.with_detail(detail),
        None => error,
    }
}
