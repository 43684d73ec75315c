//! The options of `FROM KAFKA (…)`: checked when the table is made, kept among the table's options.
//!
//! Options of weir's own are kept as `source.<name>`, librdkafka's properties as `kafka.<property>`.
//! Values that open a door are never shown ([`is_secret`]).

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::{Column, SqlType};
use url::Url;

use super::protobuf;
use crate::error::{Error, Result, SqlState};

/// The option that says what kind of source a table has.
pub const KIND: &str = "source";
/// The option that stops a source.
pub const PAUSED: &str = "source.paused";
/// What own options are kept under.
const OWN: &str = "source.";
/// What properties of the client are given and kept under.
const PROPERTY: &str = "kafka.";

/// Names of the own options.
const KNOWN: [&str; 20] = [
    "brokers",
    "topic",
    "format",
    "start",
    "value_column",
    "key_column",
    "headers_column",
    "timestamp_column",
    "topic_column",
    "partition_column",
    "offset_column",
    "partition_discovery",
    "on_gap",
    "schema_registry",
    "schema_registry_user",
    "schema_registry_password",
    "schema",
    SCHEMA_FILE,
    "message",
    "group",
];

/// The option that names a file of the server, which is read when the table is made.
const SCHEMA_FILE: &str = "schema_file";

/// Properties that weir sets itself, since what it promises depends on them.
const OURS: [&str; 11] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "statistics.interval.ms",
    "max.poll.interval.ms",
];

/// Properties that load code into the server or run a program.
const FOREIGN_CODE: [&str; 5] = [
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.engine.id",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
];

/// The form of a message's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object whose keys are column names.
    Json,
    /// Avro in Confluent's frame, its schema in a registry.
    Avro,
    /// Protobuf: messages of one type, or in Confluent's frame with a registry.
    Protobuf,
    /// The value as it is, into one column.
    Raw,
}

/// Where reading begins in partitions that were never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message there is.
    Earliest,
    /// Behind the newest.
    Latest,
    /// At the first message of a time, in milliseconds since the Unix epoch.
    Time(i64),
}

/// What happens when the broker no longer has the messages that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// The source stops and says so.
    Fail,
    /// It goes on with the oldest message there is, and says so.
    Continue,
}

/// What of a message beside its value becomes a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    /// Its key.
    Key,
    /// Its headers, as a JSON object.
    Headers,
    /// Its time by the broker.
    Timestamp,
    /// Its topic.
    Topic,
    /// Its partition.
    Partition,
    /// Its offset.
    Offset,
}

/// The schema registry of a source.
#[derive(Clone, PartialEq, Eq)]
pub struct Registry {
    /// Its address.
    pub url: Url,
    /// Name and password, where it wants them.
    pub login: Option<(String, String)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.url)
    }
}

/// A source as it was declared.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `host:port, …` to begin with.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The form of values.
    pub format: Format,
    /// Where reading begins.
    pub start: Start,
    /// The column of raw values.
    pub value_column: Option<String>,
    /// Columns that are filled from beside the value.
    pub beside: BTreeMap<Beside, String>,
    /// Time between two looks for new partitions.
    pub discovery: Duration,
    /// What happens at a gap.
    pub on_gap: OnGap,
    /// Where schemas are.
    pub registry: Option<Registry>,
    /// The schema of Protobuf messages: the text of a `.proto` file, or a compiled set in base64.
    pub schema: Option<String>,
    /// The name of their type.
    pub message: Option<String>,
    /// The consumer group that the broker is told; offsets are never kept there.
    pub group: Option<String>,
    /// Properties of librdkafka.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Checks what a statement says of a Kafka source and gives it as the catalog keeps it.
///
/// # Errors
/// 22023 for an unknown option or a value that is none, 42703 for a column that is none, 42804 for
/// one of the wrong type, 0A000 for what is not supported.
pub fn declare(
    given: &BTreeMap<String, String>,
    columns: &[Column],
) -> Result<BTreeMap<String, String>> {
    let mut kept = BTreeMap::from([(KIND.to_owned(), "kafka".to_owned())]);
    for (key, value) in given {
        let own = KNOWN.contains(&key.as_str());
        if !own && !key.starts_with(PROPERTY) {
            return Err(invalid(format!("unrecognized option \"{key}\"")).with_hint(format!(
                "the options of a Kafka source are {}, and librdkafka's properties as \"kafka.<property>\"",
                KNOWN.join(", ")
            )));
        }
        let name = match own {
            true => format!("{OWN}{key}"),
            false => key.clone(),
        };
        kept.insert(name, value.clone());
    }
    protobuf::check(&Options::of(&kept, columns)?)?;
    Ok(kept)
}

/// Takes out the option that names a file of the server with a schema.
///
/// # Errors
/// 22023 when a schema is given beside it.
pub fn take_schema_file(given: &mut BTreeMap<String, String>) -> Result<Option<String>> {
    match (given.remove(SCHEMA_FILE), given.get("schema")) {
        (Some(_), Some(_)) => Err(invalid(
            "the options \"schema\" and \"schema_file\" exclude each other".to_owned(),
        )),
        (file, _) => Ok(file),
    }
}

/// Puts in what a file with a schema holds.
pub fn put_schema(given: &mut BTreeMap<String, String>, bytes: Vec<u8>) {
    given.insert("schema".to_owned(), protobuf::kept(bytes));
}

/// The bytes that a file with a schema has at most.
pub const SCHEMA_BYTES: usize = protobuf::MOST_BYTES;

/// True when a table has a source.
pub fn is_source(options: &BTreeMap<String, String>) -> bool {
    options.contains_key(KIND)
}

/// True when a table's source is stopped by its owner.
pub fn is_paused(options: &BTreeMap<String, String>) -> bool {
    options.get(PAUSED).is_some_and(|v| v == "true")
}

/// True for an option whose value opens a door, so that it is shown nowhere.
pub fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "write_key",
        "password",
        "passphrase",
        "secret",
        "token",
        ".pem",
        "jaas",
        "oauthbearer.config",
        "credential",
    ];
    let name = name.to_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

/// Properties that make the server read one of its files.
pub fn reads_files(options: &BTreeMap<String, String>) -> Option<&str> {
    options
        .keys()
        .filter_map(|key| key.strip_prefix(PROPERTY))
        .find(|p| p.ends_with(".location") || p.ends_with(".keytab") || p.ends_with(".path"))
}

impl Options {
    /// Reads a table's options.
    ///
    /// # Errors
    /// As [`declare`].
    pub fn of(kept: &BTreeMap<String, String>, columns: &[Column]) -> Result<Self> {
        let own = |name: &str| kept.get(&format!("{OWN}{name}")).map(String::as_str);
        let required = |name: &str| match own(name) {
            Some(value) if !value.trim().is_empty() => Ok(value.trim().to_owned()),
            _ => Err(invalid(format!(
                "a Kafka source needs the option \"{name}\""
            ))),
        };
        let topic = required("topic")?;
        check_topic(&topic)?;
        let options = Self {
            brokers: required("brokers")?,
            topic,
            format: format(own("format").unwrap_or("json"))?,
            start: start(own("start").unwrap_or("earliest"))?,
            value_column: own("value_column").map(str::to_owned),
            beside: beside(&own, columns)?,
            discovery: match own("partition_discovery") {
                Some(text) => crate::engine::open::parse_duration(text)?,
                None => Duration::from_secs(30),
            },
            on_gap: on_gap(own("on_gap").unwrap_or("fail"))?,
            registry: registry(&own)?,
            schema: own("schema").map(str::to_owned),
            message: own("message").map(str::to_owned),
            group: own("group").map(str::to_owned),
            properties: properties(kept)?,
        };
        options.check_format(columns)?;
        Ok(options)
    }

    /// The column that a raw value goes to.
    pub fn raw_column<'a>(&'a self, columns: &'a [Column]) -> Option<&'a str> {
        let free = |c: &&Column| {
            c.generated.is_none() && !self.beside.values().any(|taken| *taken == c.name)
        };
        match &self.value_column {
            Some(name) => Some(name),
            None => {
                let mut free = columns.iter().filter(free);
                match (free.next(), free.next()) {
                    (Some(only), None) => Some(&only.name),
                    _ => None,
                }
            }
        }
    }

    fn check_format(&self, columns: &[Column]) -> Result<()> {
        if self.format == Format::Raw {
            let Some(name) = self.raw_column(columns) else {
                return Err(
                    invalid("format = 'raw' needs one column for the value".to_owned())
                        .with_hint("name it: value_column = '…'"),
                );
            };
            let bytes_or_text = [SqlType::Bytea, SqlType::Text, SqlType::Json, SqlType::Jsonb];
            return typed("value_column", name, columns, |ty| {
                bytes_or_text.contains(ty) || matches!(ty, SqlType::Varchar(_))
            });
        }
        if self.value_column.is_some() {
            return Err(invalid(
                "option \"value_column\" goes with format = 'raw' only".to_owned(),
            ));
        }
        if self.format == Format::Avro && self.registry.is_none() {
            return Err(
                invalid("format = 'avro' needs the option \"schema_registry\"".to_owned())
                    .with_hint("schema_registry = 'http://host:8081'"),
            );
        }
        self.check_protobuf()
    }

    fn check_protobuf(&self) -> Result<()> {
        if self.format != Format::Protobuf {
            return match self.schema.is_some() || self.message.is_some() {
                true => Err(invalid(
                    "options \"schema\", \"schema_file\" and \"message\" go with format = 'protobuf' only"
                        .to_owned(),
                )),
                false => Ok(()),
            };
        }
        match (&self.registry, &self.schema) {
            (Some(_), Some(_)) => Err(invalid(
                "the schema of Protobuf messages is either given or in a registry".to_owned(),
            )),
            (None, None) => Err(invalid("format = 'protobuf' needs a schema".to_owned()).with_hint(
                "schema = 'syntax = \"proto3\"; message …', schema_file = '/…/events.proto', or \
                 schema_registry = 'http://host:8081'",
            )),
            _ => Ok(()),
        }
    }
}

fn invalid(message: String) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn bad_value(option: &str, value: &str, hint: &str) -> Error {
    invalid(format!(
        "invalid value for option \"{option}\": \"{value}\""
    ))
    .with_hint(hint)
}

/// Kafka's own rule for names of topics; they become part of names in the Delta log.
fn check_topic(topic: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match topic.len() <= 249 && topic.chars().all(legal) && topic != "." && topic != ".." {
        true => Ok(()),
        false => Err(bad_value(
            "topic",
            topic,
            "a topic's name has at most 249 letters, digits, dots, underscores and hyphens",
        )),
    }
}

fn format(text: &str) -> Result<Format> {
    match text.to_lowercase().as_str() {
        "json" => Ok(Format::Json),
        "avro" => Ok(Format::Avro),
        "protobuf" => Ok(Format::Protobuf),
        "raw" => Ok(Format::Raw),
        other @ ("csv" | "debezium" | "debezium-json") => Err(Error::unsupported(
            format!("format = '{other}' is not supported"),
            "use format = 'json', 'avro', 'protobuf' or 'raw'",
        )),
        _ => Err(bad_value(
            "format",
            text,
            "use 'json', 'avro', 'protobuf' or 'raw'",
        )),
    }
}

fn start(text: &str) -> Result<Start> {
    match text.to_lowercase().as_str() {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    arrow::compute::kernels::cast_utils::string_to_datetime(&chrono::Utc, text.trim())
        .map(|at| Start::Time(at.timestamp_millis()))
        .map_err(|_| {
            bad_value(
                "start",
                text,
                "use 'earliest', 'latest' or a time like '2026-01-31T12:00:00Z'",
            )
        })
}

fn on_gap(text: &str) -> Result<OnGap> {
    match text.to_lowercase().as_str() {
        "fail" => Ok(OnGap::Fail),
        "continue" => Ok(OnGap::Continue),
        _ => Err(bad_value("on_gap", text, "use 'fail' or 'continue'")),
    }
}

fn beside<'a>(
    own: &impl Fn(&str) -> Option<&'a str>,
    columns: &[Column],
) -> Result<BTreeMap<Beside, String>> {
    type Fits = fn(&SqlType) -> bool;
    let text: Fits = |ty| matches!(ty, SqlType::Text | SqlType::Varchar(_));
    let all: [(Beside, &str, Fits); 6] = [
        (Beside::Key, "key_column", |ty| {
            matches!(
                ty,
                SqlType::Text | SqlType::Varchar(_) | SqlType::Bytea | SqlType::Uuid
            )
        }),
        (Beside::Headers, "headers_column", |ty| {
            matches!(ty, SqlType::Json | SqlType::Jsonb | SqlType::Text)
        }),
        (Beside::Timestamp, "timestamp_column", |ty| {
            matches!(ty, SqlType::Timestamptz | SqlType::Timestamp)
        }),
        (Beside::Topic, "topic_column", text),
        (Beside::Partition, "partition_column", |ty| {
            matches!(ty, SqlType::Int4 | SqlType::Int8)
        }),
        (Beside::Offset, "offset_column", |ty| {
            matches!(ty, SqlType::Int8)
        }),
    ];
    let mut found: BTreeMap<Beside, String> = BTreeMap::new();
    for (what, option, fits) in all {
        let Some(name) = own(option) else {
            continue;
        };
        typed(option, name, columns, fits)?;
        if found.values().any(|taken| taken == name) {
            return Err(invalid(format!("two options name the column \"{name}\"")));
        }
        found.insert(what, name.to_owned());
    }
    if let Some(value) = own("value_column")
        && found.values().any(|taken| taken == value)
    {
        return Err(invalid(format!("two options name the column \"{value}\"")));
    }
    Ok(found)
}

/// Checks that an option names a column that rows may bring, of a type that fits.
fn typed(
    option: &str,
    name: &str,
    columns: &[Column],
    fits: impl Fn(&SqlType) -> bool,
) -> Result<()> {
    let Some(column) = columns.iter().find(|c| c.name == name) else {
        return Err(Error::refused(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" does not exist"),
        )
        .with_detail(format!("the option \"{option}\" names it")));
    };
    if column.generated.is_some() {
        return Err(invalid(format!(
            "the option \"{option}\" names the generated column \"{name}\""
        )));
    }
    match fits(&column.sql_type) {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::DATATYPE_MISMATCH,
            format!("column \"{name}\" is of type {}", column.sql_type),
        )
        .with_detail(format!(
            "the option \"{option}\" cannot fill a column of that type"
        ))),
    }
}

fn registry<'a>(own: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<Registry>> {
    let Some(text) = own("schema_registry") else {
        return Ok(None);
    };
    let wrong = || {
        // the text may hold a password
        invalid("invalid value for option \"schema_registry\"".to_owned()).with_hint(
            "write 'http://host:8081' and give name and password as schema_registry_user and \
             schema_registry_password",
        )
    };
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|_| wrong())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !plain || !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    let login = own("schema_registry_user").map(|user| {
        let password = own("schema_registry_password").unwrap_or_default();
        (user.to_owned(), password.to_owned())
    });
    Ok(Some(Registry { url, login }))
}

fn properties(kept: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (key, value) in kept {
        let Some(property) = key.strip_prefix(PROPERTY) else {
            continue;
        };
        if OURS.contains(&property) {
            return Err(
                invalid(format!("the property \"{property}\" cannot be set"))
                    .with_hint("offsets are part of weir's log; the broker keeps none"),
            );
        }
        if FOREIGN_CODE.contains(&property) {
            return Err(Error::refused(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("the property \"{property}\" cannot be set"),
            )
            .with_detail("it would run foreign code in the server"));
        }
        found.insert(property.to_owned(), value.clone());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, sql_type: SqlType) -> Column {
        Column {
            since: None,
            name: name.to_owned(),
            sql_type,
            nullable: true,
            default: None,
            generated: None,
            comment: None,
        }
    }

    fn of(pairs: &[(&str, &str)]) -> Result<Options> {
        let columns = [
            column("v", SqlType::Text),
            column("k", SqlType::Bytea),
            column("h", SqlType::Jsonb),
            column("at", SqlType::Timestamptz),
            column("p", SqlType::Int4),
        ];
        let base = [("brokers", "h:9092"), ("topic", "t")];
        let given: BTreeMap<String, String> = base
            .iter()
            .chain(pairs)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let kept = declare(&given, &columns)?;
        Options::of(&kept, &columns)
    }

    #[test]
    fn what_is_said_is_kept() {
        let options = of(&[
            ("key_column", "k"),
            ("headers_column", "h"),
            ("timestamp_column", "at"),
            ("start", "2026-01-31T12:00:00Z"),
            ("kafka.sasl.password", "hush"),
            ("on_gap", "continue"),
        ])
        .unwrap();
        assert_eq!(options.format, Format::Json);
        assert_eq!(options.start, Start::Time(1_769_860_800_000));
        assert_eq!(options.beside.len(), 3);
        assert_eq!(options.properties["sasl.password"], "hush");
        assert_eq!(options.on_gap, OnGap::Continue);
        assert!(!format!("{options:?}").contains("hush"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (pairs, state) in [
            (&[("topic", "")][..], "22023"),
            (&[("topic", "a/b")], "22023"),
            (&[("colour", "red")], "22023"),
            (&[("format", "yaml")], "22023"),
            (&[("format", "csv")], "0A000"),
            (&[("format", "protobuf")], "22023"),
            (&[("format", "protobuf"), ("schema", "message")], "22023"),
            (&[("message", "m")], "22023"),
            (&[("format", "avro")], "22023"),
            (&[("format", "raw")], "22023"),
            (&[("start", "soon")], "22023"),
            (&[("key_column", "none")], "42703"),
            (&[("key_column", "h")], "42804"),
            (&[("value_column", "v")], "22023"),
            (&[("key_column", "v"), ("topic_column", "v")], "22023"),
            (&[("kafka.auto.offset.reset", "latest")], "22023"),
            (&[("kafka.plugin.library.paths", "x.so")], "42501"),
            (&[("schema_registry", "http://u:hush@h")], "22023"),
        ] {
            let e = of(pairs).unwrap_err();
            assert_eq!(e.state().0, state, "{pairs:?}: {e}");
            assert!(!format!("{e:?}").contains("hush"));
        }
        let raw = of(&[("format", "raw"), ("value_column", "v")]).unwrap();
        assert_eq!(raw.raw_column(&[]), Some("v"));
    }

    #[test]
    fn secrets_are_known_by_name() {
        for name in [
            "kafka.sasl.password",
            "kafka.ssl.key.password",
            "kafka.ssl.key.pem",
            "kafka.sasl.oauthbearer.client.secret",
            "source.schema_registry_password",
            "segment_write_key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("source.topic") && !is_secret("kafka.sasl.username"));
        let files = BTreeMap::from([("kafka.ssl.ca.location".to_owned(), "x".to_owned())]);
        assert_eq!(reads_files(&files), Some("ssl.ca.location"));
    }
}
