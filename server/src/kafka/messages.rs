//! Messages of one poll, copied out of the client: values in one piece of memory, keys and headers in
//! another, so that a message costs no allocation of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use serde_json::Value;

use super::options::{Beside, Format, Options};

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time by the broker, in microseconds since the Unix epoch.
    pub micros: Option<i64>,
    value: Option<Range<usize>>,
    key: Option<Range<usize>>,
    headers: Option<Range<usize>>,
}

/// Messages in the order in which they came.
#[derive(Debug)]
pub struct Messages {
    values: Vec<u8>,
    extras: Vec<u8>,
    messages: Vec<Message>,
    next: BTreeMap<i32, i64>,
    without_value: u64,
    keeps_null: bool,
    keeps_key: bool,
    keeps_headers: bool,
}

impl Messages {
    /// None yet.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            values: Vec::new(),
            extras: Vec::new(),
            messages: Vec::new(),
            next: BTreeMap::new(),
            without_value: 0,
            keeps_null: options.format == Format::Raw,
            keeps_key: options.beside.contains_key(&Beside::Key),
            keeps_headers: options.beside.contains_key(&Beside::Headers),
        }
    }

    /// Takes a message in, unless it lies before `next` of its partition.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>, next: &BTreeMap<i32, i64>) {
        let (partition, offset) = (message.partition(), message.offset());
        if next.get(&partition).is_some_and(|next| offset < *next) {
            return;
        }
        self.next.insert(partition, offset + 1);
        let value = match message.payload() {
            Some(bytes) => Some(append(&mut self.values, bytes)),
            None if self.keeps_null => None,
            None => {
                self.without_value += 1;
                return;
            }
        };
        let key = match message.key() {
            Some(key) if self.keeps_key => Some(append(&mut self.extras, key)),
            _ => None,
        };
        let headers = match message.headers() {
            Some(headers) if self.keeps_headers => {
                let text = headers_json(headers);
                Some(append(&mut self.extras, text.as_bytes()))
            }
            _ => None,
        };
        self.messages.push(Message {
            partition,
            offset,
            micros: message
                .timestamp()
                .to_millis()
                .map(|ms| ms.saturating_mul(1000)),
            value,
            key,
            headers,
        });
    }

    /// How many there are that bring a row.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when there is nothing to store, not even that something was passed over.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// How many were taken in that have no value and bring no row.
    pub fn without_value(&self) -> u64 {
        self.without_value
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.values.len()
    }

    /// Next offsets of the partitions that messages came from.
    pub fn next(&self) -> &BTreeMap<i32, i64> {
        &self.next
    }

    /// Next offsets when only the first `count` of the messages are taken.
    pub fn next_of_first(&self, count: usize) -> BTreeMap<i32, i64> {
        let taken = self.messages.iter().take(count);
        taken.map(|m| (m.partition, m.offset + 1)).collect()
    }

    /// The messages.
    pub fn all(&self) -> &[Message] {
        &self.messages
    }

    /// All values, back to back.
    pub(super) fn values(&self) -> &[u8] {
        &self.values
    }

    /// A message's value.
    pub fn value(&self, message: &Message) -> Option<&[u8]> {
        self.values.get(message.value.clone()?)
    }

    /// Where a message's value lies in [`Self::values`].
    pub(super) fn place(message: &Message) -> Option<Range<usize>> {
        message.value.clone()
    }

    pub(super) fn key(&self, message: &Message) -> Option<&[u8]> {
        self.extras.get(message.key.clone()?)
    }

    pub(super) fn headers(&self, message: &Message) -> Option<&[u8]> {
        self.extras.get(message.headers.clone()?)
    }
}

fn append(to: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = to.len();
    to.extend_from_slice(bytes);
    start..to.len()
}

/// Headers as a JSON object. A name that comes several times has an array; bytes that are no UTF-8 are
/// spelled as PostgreSQL prints them.
fn headers_json<H: Headers>(headers: &H) -> String {
    let mut object = serde_json::Map::new();
    for at in 0..headers.count() {
        // the library takes every name for UTF-8 and panics otherwise
        let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(at)));
        let Ok(Some(header)) = header else {
            continue;
        };
        // PostgreSQL's jsonb cannot hold NUL
        let name = header.key.replace('\0', "");
        let value = header
            .value
            .map_or(Value::Null, |bytes| text_of(bytes).into());
        match object.get_mut(&name) {
            None => {
                object.insert(name, value);
            }
            Some(Value::Array(all)) => all.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::Object(object).to_string()
}

fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => hex(bytes),
    }
}

/// Bytes as PostgreSQL prints them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
        // writing into a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
impl Messages {
    /// Messages of partition 0 with these values, for tests.
    pub(super) fn of(options: &Options, values: &[Option<&[u8]>]) -> Self {
        let mut messages = Self::new(options);
        for (offset, value) in (0..).zip(values) {
            let value = value.map(|bytes| append(&mut messages.values, bytes));
            messages.next.insert(0, offset + 1);
            messages.messages.push(Message {
                partition: 0,
                offset,
                micros: Some(offset),
                value,
                key: None,
                headers: None,
            });
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    #[test]
    fn headers_are_an_object() {
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: "a",
                value: Some("1"),
            })
            .insert(Header {
                key: "b",
                value: Some(&b"\xff\x00"[..]),
            })
            .insert(Header {
                key: "a",
                value: Some("2"),
            })
            .insert(Header::<&str> {
                key: "c",
                value: None,
            });
        assert_eq!(
            headers_json(&headers),
            r#"{"a":["1","2"],"b":"\\xff00","c":null}"#
        );
    }
}
