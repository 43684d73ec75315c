//! One event of Segment's API → one row: what Segment's specification calls *common fields* by the names
//! of columns.
//!
//! | column | takes |
//! |---|---|
//! | `message_id`, `event_id` | `messageId`, made up where missing; in a `uuid` column another text's v5 UUID |
//! | `type` | `track`, `identify`, … |
//! | `event`, `event_name` | the event of a track call; `event_name` also the name of a page or screen |
//! | `event_type` | the event of a track call, else the type |
//! | `timestamp`, `ts`, the table's `event_time` | when it happened, corrected for the client's clock |
//! | `original_timestamp`, `sent_at`, `received_at` | the times as they are |
//! | `user_id`, `anonymous_id`, `group_id`, `previous_id`, `name`, `category`, `channel`, `version`, `integrations`, `context` | the field of that name in camel case |
//! | `properties`, `traits` | the field; without a `traits` column, traits go to `properties` |
//! | `context_page_url` and the like | what lies at that path in `context` |
//! | any other | the property or trait of that name, or the field |
//!
//! Of the common fields, a table keeps those it has columns for. What a user made up is never lost:
//! properties and traits without a column, and fields that Segment does not know, go to `properties`
//! or `context`. Where the table has neither, its `schema_evolution` says what becomes of them and of what
//! lies in `context`: they are keys of the row by names that would find them again (`shoe_size`,
//! `context_page_url`). Without it the event is refused, and so is one whose values are two for one place.

mod times;

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, SchemaRef};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::times::{check_times, happened, moment, original, sent, time};
use crate::error::{Error, Result, SqlState};
use crate::types::{Evolution, TYPE_KEY};

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// A value that no column takes: what it is a member of, its name there, and itself.
type Homeless<'a> = (&'static str, String, &'a RawValue);

/// Fields that Segment knows: a table that has no column for one does not keep it.
const KNOWN: [&str; 24] = [
    "_metadata",
    "anonymousId",
    "batch",
    "category",
    "channel",
    "context",
    "event",
    "groupId",
    "integrations",
    "messageId",
    "name",
    "options",
    "originalTimestamp",
    "previousId",
    "projectId",
    "properties",
    "receivedAt",
    "sentAt",
    "timestamp",
    "traits",
    "type",
    "userId",
    "version",
    "writeKey",
];

/// How deep members of `context` become columns of their own; what lies below is JSON.
const DEPTH: usize = 2;

/// What the events of a request share.
pub(crate) struct Common<'a> {
    /// The call, when the path tells it.
    call: Option<String>,
    received: DateTime<Utc>,
    sent: Option<DateTime<Utc>>,
    context: Option<&'a RawValue>,
    integrations: Option<&'a RawValue>,
}

impl<'a> Common<'a> {
    /// Of a batch.
    pub(crate) fn of(whole: &Object<'a>, received: DateTime<Utc>) -> Self {
        Self {
            call: None,
            received,
            sent: whole.get("sentAt").and_then(|raw| time(raw)),
            context: whole.get("context").copied(),
            integrations: whole.get("integrations").copied(),
        }
    }

    /// Of an event that came alone.
    pub(crate) fn alone(call: &str, received: DateTime<Utc>) -> Self {
        Self {
            call: Some(call.to_owned()),
            received,
            sent: None,
            context: None,
            integrations: None,
        }
    }

    /// What a dead letter must keep of it, as a JSON object.
    pub(crate) fn context(&self) -> String {
        let mut kept = serde_json::Map::new();
        let time = |at: DateTime<Utc>| Value::from(at.to_rfc3339_opts(SecondsFormat::Nanos, true));
        kept.insert("received".to_owned(), time(self.received));
        kept.extend(self.call.clone().map(|c| ("call".to_owned(), c.into())));
        kept.extend(self.sent.map(|at| ("sent".to_owned(), time(at))));
        let mut text = Value::Object(kept).to_string();
        let shared = [
            ("context", self.context),
            ("integrations", self.integrations),
        ];
        for (name, raw) in shared {
            if let Some(raw) = raw {
                text.pop();
                text.push_str(&format!(",{}:{}}}", quoted(name), raw.get()));
            }
        }
        text
    }

    /// Reads [`Self::context`].
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn of_context(text: &'a str) -> Result<Self> {
        let none = || Error::Internal("an event's dead letter has no context".to_owned());
        let kept: Object<'a> = serde_json::from_str(text).map_err(|_| none())?;
        Ok(Self {
            call: kept.get("call").and_then(|raw| self::text(raw)),
            received: kept
                .get("received")
                .and_then(|raw| time(raw))
                .ok_or_else(none)?,
            sent: kept.get("sent").and_then(|raw| time(raw)),
            context: kept.get("context").copied(),
            integrations: kept.get("integrations").copied(),
        })
    }
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    MessageId,
    Type,
    EventType,
    EventName,
    Happened,
    Original,
    Sent,
    Received,
    Field(&'static str),
    Context,
    Properties,
    Traits,
    /// Below `context`, in snake case.
    ContextPath(String),
    /// A property, a trait, or a field of the user's own, in snake case.
    Own(String),
}

/// How a table takes events.
pub(crate) struct Layout<'t> {
    columns: Vec<(&'t Field, Source)>,
    /// A JSON column of that name is there.
    properties: bool,
    traits: bool,
    context: bool,
    /// The table makes a place for what has none.
    evolves: bool,
    event_time: Option<String>,
}

impl<'t> Layout<'t> {
    /// Of a table's columns.
    pub(crate) fn new(schema: &'t SchemaRef, event_time: Option<&str>) -> Self {
        let columns: Vec<(&Field, Source)> = schema
            .fields()
            .iter()
            .map(|field| (field.as_ref(), source(field.name(), event_time)))
            .collect();
        let has = |name: &str| {
            columns
                .iter()
                .any(|(f, _)| f.name() == name && keeps_objects(f))
        };
        Self {
            properties: has("properties"),
            traits: has("traits"),
            context: has("context"),
            columns,
            evolves: Evolution::of(schema).is_some(),
            event_time: event_time.map(str::to_owned),
        }
    }

    /// The row of an event, as a JSON object.
    ///
    /// # Errors
    /// 22023 for what Segment requires, 22007 for times that are none, 42703 for what the table has no
    /// column for, 42701 for two values that one column or name would have to hold.
    pub(crate) fn row(&self, raw: &RawValue, common: &Common<'_>) -> Result<String> {
        let fields: Object<'_> =
            serde_json::from_str(raw.get()).map_err(|_| wrong("the event is no JSON object"))?;
        let kind = kind(&fields, common)?;
        check(&kind, &fields)?;
        check_times(&fields)?;
        let traits_alone = matches!(kind.as_str(), "identify" | "group");
        let properties = object(&fields, "properties")?;
        let traits = object(&fields, "traits")?;
        let own = self.own(&fields, &properties, &traits, traits_alone)?;
        let (extra, homeless) = self.left_over(&fields, &properties, &traits, common)?;
        let context = self.context_of(&fields, common, &extra)?;
        let mut row = String::with_capacity(raw.get().len() + 256);
        for (field, source) in &self.columns {
            let value: Option<Cow<'_, str>> = match source {
                Source::MessageId => Some(message_id(field, &fields)),
                Source::Type => Some(quoted(&kind)),
                Source::EventType => raw_of(&fields, "event").or_else(|| Some(quoted(&kind))),
                Source::EventName => raw_of(&fields, "event").or_else(|| raw_of(&fields, "name")),
                Source::Happened => Some(moment(happened(&fields, common))),
                Source::Original => original(&fields).map(moment),
                Source::Sent => sent(&fields, common).map(moment),
                Source::Received => Some(moment(common.received)),
                Source::Field("integrations") => raw_of(&fields, "integrations")
                    .or_else(|| common.integrations.map(|raw| Cow::Borrowed(raw.get()))),
                Source::Field(name) => raw_of(&fields, name),
                Source::Context => context.as_deref().map(Cow::Borrowed),
                Source::Properties => self.properties_of(&properties, &traits, &extra)?,
                Source::Traits => (!traits.is_empty()).then(|| Cow::Owned(written(&traits))),
                Source::ContextPath(path) => {
                    let found = fields.get("context").and_then(|raw| dig(raw, path));
                    found
                        .or_else(|| common.context.and_then(|raw| dig(raw, path)))
                        .map(Cow::Owned)
                }
                Source::Own(name) => own.get(name).map(|raw| Cow::Borrowed(raw.get())),
            };
            let Some(value) = value.filter(|v| v != "null") else {
                continue;
            };
            row.push(if row.is_empty() { '{' } else { ',' });
            row.push_str(&quoted(field.name()));
            row.push(':');
            row.push_str(&fitting(field, value));
        }
        for (name, raw) in homeless {
            row.push(if row.is_empty() { '{' } else { ',' });
            row.push_str(&quoted(&name));
            row.push(':');
            row.push_str(raw.get());
        }
        row.push_str(if row.is_empty() { "{}" } else { "}" });
        // outside of texts, which cannot hold them, they are blanks; rows are a line each
        Ok(match row.contains(['\n', '\r']) {
            true => row.replace(['\n', '\r'], " "),
            false => row,
        })
    }

    /// What no column takes: fields of the user's own that go to `context`, or to `properties`; and, by
    /// the names of columns that would take it, what the table must make a place for.
    fn left_over<'a>(
        &self,
        fields: &Object<'a>,
        properties: &Object<'a>,
        traits: &Object<'a>,
        common: &Common<'a>,
    ) -> Result<(Object<'a>, Object<'a>)> {
        let columned = |name: &str| {
            let snake = snake(name);
            self.columns
                .iter()
                .any(|(_, source)| matches!(source, Source::Own(own) if *own == snake))
        };
        let left = |kind: &'static str, object: &Object<'a>| -> Vec<Homeless<'a>> {
            let left = object.iter().filter(|(name, _)| !columned(name));
            left.map(|(name, raw)| (kind, name.clone(), *raw)).collect()
        };
        let mut homeless = Vec::new();
        if !self.properties {
            homeless.extend(left("properties", properties));
            if !self.traits {
                homeless.extend(left("traits", traits));
            }
        }
        let extra: Object<'a> = fields
            .iter()
            .filter(|(name, _)| !KNOWN.contains(&name.as_str()) && !columned(name))
            .map(|(name, raw)| (name.clone(), *raw))
            .collect();
        if !self.context && !self.properties {
            homeless.extend(left("field", &extra));
        }
        if !self.evolves {
            return match homeless.first() {
                None => Ok((extra, Object::new())),
                Some((_, name, _)) => Err(no_column(name)),
            };
        }
        let mut named = Object::new();
        for (kind, name, raw) in homeless.into_iter().filter(|(_, _, raw)| !is_null(raw)) {
            let own = snake(&name);
            // a column of that name would take something else
            let name = match source(&own, self.event_time.as_deref()) {
                Source::Own(_) => own,
                _ => format!("{kind}_{own}"),
            };
            put(&mut named, name, raw)?;
        }
        if !self.context {
            let context = shared_context(fields, common)?;
            self.below_context("", context, DEPTH, &mut named)?;
        }
        Ok((extra, named))
    }

    /// Adds what lies in a context and no column takes, by paths in snake case.
    fn below_context<'a>(
        &self,
        path: &str,
        object: Object<'a>,
        depth: usize,
        named: &mut Object<'a>,
    ) -> Result<()> {
        for (name, raw) in object.into_iter().filter(|(_, raw)| !is_null(raw)) {
            let path = format!("{path}{}", snake(&name));
            let takes = |source: &Source| matches!(source, Source::ContextPath(p) if *p == path);
            if self.columns.iter().any(|(_, source)| takes(source)) {
                continue;
            }
            let inside = (depth > 1 && raw.get().starts_with('{'))
                .then(|| serde_json::from_str::<Object<'a>>(raw.get()).ok());
            match inside.flatten() {
                Some(inside) => {
                    self.below_context(&format!("{path}_"), inside, depth - 1, named)?;
                }
                None => put(named, format!("context_{path}"), raw)?,
            }
        }
        Ok(())
    }

    /// The context of the request below that of the event, and what else has no other place.
    fn context_of<'a>(
        &self,
        fields: &Object<'a>,
        common: &Common<'a>,
        extra: &Object<'a>,
    ) -> Result<Option<String>> {
        if !self.context {
            return Ok(fields.get("context").map(|raw| raw.get().to_owned()));
        }
        let mut context = shared_context(fields, common)?;
        join(&mut context, extra)?;
        Ok((!context.is_empty()).then(|| written(&context)))
    }

    fn properties_of<'v>(
        &self,
        properties: &Object<'v>,
        traits: &Object<'v>,
        extra: &Object<'v>,
    ) -> Result<Option<Cow<'v, str>>> {
        let mut all = properties.clone();
        if !self.traits {
            join(&mut all, traits)?;
        }
        if !self.context {
            join(&mut all, extra)?;
        }
        Ok((!all.is_empty()).then(|| Cow::Owned(written(&all))))
    }

    /// The user's own values by their names in snake case: of the call's kind first. One that gives way
    /// to another of its name must have a place besides its column.
    fn own<'a>(
        &self,
        fields: &Object<'a>,
        properties: &Object<'a>,
        traits: &Object<'a>,
        traits_first: bool,
    ) -> Result<BTreeMap<String, &'a RawValue>> {
        let properties = (properties, self.properties);
        let traits = (traits, self.traits || self.properties);
        let groups = match traits_first {
            true => [traits, properties],
            false => [properties, traits],
        };
        let known = groups
            .into_iter()
            .flat_map(|(group, kept)| group.iter().map(move |(name, raw)| (name, raw, kept)));
        let unknown = fields
            .iter()
            .filter(|(name, _)| !KNOWN.contains(&name.as_str()))
            .map(|(name, raw)| (name, raw, self.context || self.properties));
        let mut all: BTreeMap<String, &RawValue> = BTreeMap::new();
        for (name, raw, kept) in known.chain(unknown).filter(|(_, raw, _)| !is_null(raw)) {
            let first = *all.entry(snake(name)).or_insert(*raw);
            if first.get() != raw.get() && !kept {
                return Err(two_values(name));
            }
        }
        Ok(all)
    }
}

/// The context of the request below that of the event.
fn shared_context<'a>(fields: &Object<'a>, common: &Common<'a>) -> Result<Object<'a>> {
    let mut context = match common.context {
        Some(raw) => serde_json::from_str(raw.get()).unwrap_or_default(),
        None => Object::new(),
    };
    context.extend(object(fields, "context")?);
    Ok(context)
}

/// Adds members to an object.
///
/// # Errors
/// 42701 when a name has another value there.
fn join<'a>(all: &mut Object<'a>, more: &Object<'a>) -> Result<()> {
    for (name, raw) in more.iter().filter(|(_, raw)| !is_null(raw)) {
        let there = *all.entry(name.clone()).or_insert(*raw);
        if is_null(there) {
            all.insert(name.clone(), *raw);
        } else if there.get() != raw.get() {
            return Err(two_values(name));
        }
    }
    Ok(())
}

/// Adds a member.
///
/// # Errors
/// 42701 when another value has the name.
fn put<'a>(all: &mut Object<'a>, name: String, raw: &'a RawValue) -> Result<()> {
    match all.get(&name) {
        Some(there) if there.get() != raw.get() => Err(two_values(&name)),
        _ => {
            all.insert(name, raw);
            Ok(())
        }
    }
}

fn no_column(name: &str) -> Error {
    let shown: String = name.chars().take(60).collect();
    Error::refused(
        SqlState::UNDEFINED_COLUMN,
        format!("the table has no column for \"{shown}\""),
    )
    .with_hint("add a column of that name, or \"properties\" of type jsonb for all")
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

fn two_values(name: &str) -> Error {
    let shown: String = name.chars().take(60).collect();
    Error::refused(
        SqlState::DUPLICATE_COLUMN,
        format!("the event has two values for \"{shown}\""),
    )
    .with_hint("give them names of their own, or the table columns \"properties\", \"traits\" and \"context\" of type jsonb")
}

fn source(column: &str, event_time: Option<&str>) -> Source {
    if event_time == Some(column) {
        return match column {
            "received_at" => Source::Received,
            "sent_at" => Source::Sent,
            "original_timestamp" => Source::Original,
            _ => Source::Happened,
        };
    }
    match column {
        "message_id" | "event_id" => Source::MessageId,
        "type" => Source::Type,
        "event_type" => Source::EventType,
        "event_name" => Source::EventName,
        "timestamp" | "ts" => Source::Happened,
        "original_timestamp" => Source::Original,
        "sent_at" => Source::Sent,
        "received_at" => Source::Received,
        "event" => Source::Field("event"),
        "user_id" => Source::Field("userId"),
        "anonymous_id" => Source::Field("anonymousId"),
        "group_id" => Source::Field("groupId"),
        "previous_id" => Source::Field("previousId"),
        "name" => Source::Field("name"),
        "category" => Source::Field("category"),
        "channel" => Source::Field("channel"),
        "version" => Source::Field("version"),
        "integrations" => Source::Field("integrations"),
        "context" => Source::Context,
        "properties" => Source::Properties,
        "traits" => Source::Traits,
        other => match other.strip_prefix("context_") {
            Some(path) => Source::ContextPath(path.to_owned()),
            None => Source::Own(snake(other)),
        },
    }
}

/// The call an event is of.
fn kind(fields: &Object<'_>, common: &Common<'_>) -> Result<String> {
    let kind = match &common.call {
        Some(call) => call.clone(),
        None => fields
            .get("type")
            .and_then(|raw| text(raw))
            .ok_or_else(|| wrong("the event has no \"type\""))?,
    };
    match kind.as_str() {
        "track" | "identify" | "page" | "screen" | "group" | "alias" => Ok(kind),
        _ => Err(wrong("the \"type\" of the event is not known")
            .with_hint("types are track, identify, page, screen, group and alias")),
    }
}

/// What Segment requires of a call.
fn check(kind: &str, fields: &Object<'_>) -> Result<()> {
    let has = |name: &str| {
        fields
            .get(name)
            .is_some_and(|raw| !matches!(raw.get(), "null" | "\"\""))
    };
    let missing = match kind {
        "track" if !has("event") => Some("event"),
        "group" if !has("groupId") => Some("groupId"),
        "alias" if !has("previousId") => Some("previousId"),
        "alias" if !has("userId") => Some("userId"),
        _ => None,
    };
    if let Some(name) = missing {
        return Err(wrong(&format!("a {kind} call needs \"{name}\"")));
    }
    match has("userId") || has("anonymousId") {
        true => Ok(()),
        false => Err(wrong(
            "the event has neither \"userId\" nor \"anonymousId\"",
        )),
    }
}

fn object<'a>(fields: &Object<'a>, name: &str) -> Result<Object<'a>> {
    match fields.get(name).map(|raw| raw.get()) {
        None | Some("null") => Ok(Object::new()),
        Some(text) => {
            serde_json::from_str(text).map_err(|_| wrong(&format!("\"{name}\" is no JSON object")))
        }
    }
}

fn written(object: &Object<'_>) -> String {
    let mut text = String::from("{");
    for (at, (name, raw)) in object.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&quoted(name));
        text.push(':');
        text.push_str(raw.get());
    }
    text.push('}');
    text
}

fn raw_of<'a>(fields: &Object<'a>, name: &str) -> Option<Cow<'a, str>> {
    fields.get(name).map(|raw| Cow::Borrowed(raw.get()))
}

/// What lies below an object at a path in snake case, `page_url` for `page.url`.
fn dig(raw: &RawValue, path: &str) -> Option<String> {
    let object: Object<'_> = serde_json::from_str(raw.get()).ok()?;
    object.iter().find_map(|(name, raw)| {
        let name = snake(name);
        match path.strip_prefix(&name)? {
            "" => Some(raw.get().to_owned()),
            rest => dig(raw, rest.strip_prefix('_')?),
        }
    })
}

/// The id of an event, if it has one.
pub(crate) fn id(raw: &RawValue) -> Option<String> {
    let fields: Object<'_> = serde_json::from_str(raw.get()).ok()?;
    fields.get("messageId").and_then(|raw| text(raw))
}

fn message_id<'a>(field: &Field, fields: &Object<'a>) -> Cow<'a, str> {
    let given = raw_of(fields, "messageId").filter(|raw| !matches!(&**raw, "null" | "\"\""));
    let is_uuid = field.metadata().get(TYPE_KEY).is_some_and(|t| t == "uuid");
    match given {
        None => quoted(&Uuid::now_v7().to_string()).into_owned().into(),
        Some(raw) if is_uuid => {
            let text = serde_json::from_str(&raw).unwrap_or_else(|_| raw.clone().into_owned());
            // the same text gives the same id, so a repeated event is known by it
            let id = Uuid::parse_str(&text)
                .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()));
            Cow::Owned(quoted(&id.to_string()).into_owned())
        }
        Some(raw) => raw,
    }
}

/// A JSON string's text.
pub(crate) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A value in the form that the column reads: other values than texts are a text column's text.
fn fitting<'v>(field: &Field, value: Cow<'v, str>) -> Cow<'v, str> {
    let plain_text = *field.data_type() == DataType::Utf8
        && !field
            .metadata()
            .get(TYPE_KEY)
            .is_some_and(|t| matches!(t.as_str(), "json" | "jsonb"));
    match plain_text && !value.starts_with('"') {
        true => Cow::Owned(quoted(&value).into_owned()),
        false => value,
    }
}

fn keeps_objects(field: &Field) -> bool {
    *field.data_type() == DataType::Utf8
        && field.metadata().get(TYPE_KEY).is_none_or(|t| t != "uuid")
}

fn quoted(text: &str) -> Cow<'static, str> {
    Cow::Owned(Value::from(text).to_string())
}

/// `userAgent`, `User Agent` → `user_agent`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut lower_before = false;
    for c in name.chars() {
        if c.is_uppercase() {
            if lower_before {
                out.push('_');
            }
            out.extend(c.to_lowercase());
            lower_before = false;
        } else if c.is_alphanumeric() {
            out.push(c);
            lower_before = true;
        } else {
            out.push('_');
            lower_before = false;
        }
    }
    out
}

fn wrong(message: &str) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
}

#[cfg(test)]
mod tests;
