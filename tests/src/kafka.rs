//! A Kafka cluster inside the test process: librdkafka's own, on loopback, with one broker.
//!
//! It keeps about 5 MB a partition and then lets go of the oldest.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

/// Everything sent must be acknowledged by then.
const SENT: Duration = Duration::from_secs(30);

/// A cluster and somebody who sends to it.
pub struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Kafka {
    /// A cluster with these topics: name and number of partitions.
    pub fn start(topics: &[(&str, i32)]) -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        for (topic, partitions) in topics {
            cluster
                .create_topic(topic, *partitions, 1)
                .expect("a topic");
        }
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "1000000")
            .create()
            .expect("a producer");
        Self { cluster, producer }
    }

    /// Where it listens.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The cluster itself, to make trouble.
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }

    /// Sends values to a partition, and waits until the broker has them.
    pub fn send<V: AsRef<[u8]>>(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = V>,
    ) {
        for value in values {
            self.put(
                BaseRecord::<[u8], [u8]>::to(topic)
                    .partition(partition)
                    .payload(value.as_ref()),
            );
        }
        self.flush();
    }

    /// Sends one message with a key and headers; without a value it is a tombstone.
    pub fn send_whole(
        &self,
        topic: &str,
        key: &str,
        value: Option<&str>,
        headers: &[(&str, &str)],
        millis: i64,
    ) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
        let record = BaseRecord::to(topic)
            .partition(0)
            .key(key)
            .headers(headers)
            .timestamp(millis);
        match value {
            Some(value) => self.put(record.payload(value)),
            None => self.put(record),
        }
        self.flush();
    }

    fn put<K: rdkafka::message::ToBytes + ?Sized, V: rdkafka::message::ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, V>,
    ) {
        // a full queue empties while the producer is polled
        while let Err((_, back)) = self.producer.send(record) {
            record = back;
            self.producer.poll(Duration::from_millis(5));
        }
    }

    fn flush(&self) {
        self.producer.flush(SENT).expect("everything is sent");
    }
}
