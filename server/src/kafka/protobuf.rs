//! Protobuf values: of one message type that the source was told, or in Confluent's frame, where a schema
//! of the registry and indexes into it say which.
//!
//! | module | what lies there |
//! |---|---|
//! | [`schema`] | texts and descriptors → message types |
//! | [`row`] | fields → cells |
//! | [`json`] | values as JSON |
//! | [`known`] | protobuf's own message types |

mod json;
mod known;
mod row;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use prost_reflect::{FileDescriptor, MessageDescriptor};

use super::decode::{Columns, MESSAGE, batches, table};
use super::messages::{Message, Messages};
use super::options::{Format, Options};
use super::registry::{Kind, Registered, Schemas, framed, no_frame, no_schema, unusable};
use crate::error::{Error, Result, SqlState};
use row::Plan;

pub(super) use schema::{MOST_BYTES, kept};

/// Types of messages inside each other; the compiler of schemas allows fewer.
const MOST_INDEXES: usize = 64;
/// Schemas that are kept; a topic has a handful.
const MOST_SCHEMAS: usize = 1024;

/// What is known of one id.
#[derive(Debug)]
enum Known {
    /// The registry has no such schema, or one that cannot be used: why.
    Bad(Arc<Error>),
    /// Its file.
    Good(FileDescriptor),
}

/// Decodes messages of one source.
#[derive(Debug)]
pub(super) struct Protobuf {
    schemas: Option<Schemas>,
    known: HashMap<u32, Known>,
    /// The text of the one schema, and the name of the message type, as the source was told.
    told: (Option<String>, Option<String>),
    /// The type that these mean.
    only: Option<MessageDescriptor>,
}

/// Checks the schema and the message type that a source is told.
///
/// # Errors
/// 22023 when there is none.
pub(super) fn check(options: &Options) -> Result<()> {
    match (options.format, &options.schema) {
        (Format::Protobuf, Some(text)) => only(text, options.message.as_deref()).map(drop),
        _ => Ok(()),
    }
}

fn only(text: &str, name: Option<&str>) -> Result<MessageDescriptor> {
    let invalid = |text: &str| Error::refused(SqlState::INVALID_PARAMETER_VALUE, text);
    if text.len() > MOST_BYTES {
        return Err(invalid("the schema is too long"));
    }
    let offered = schema::offered(text).map_err(|why| {
        invalid("the schema is neither a .proto file nor a compiled set of descriptors")
            .with_detail(why)
    })?;
    schema::choose(&offered, name).map_err(|why| {
        invalid("the option \"message\" has to name a message type of the schema").with_detail(why)
    })
}

impl Protobuf {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            schemas: options.registry.as_ref().map(Schemas::new),
            known: HashMap::new(),
            told: (options.schema.clone(), options.message.clone()),
            only: None,
        }
    }

    /// Asks for the schemas of these messages that are not known.
    pub(super) async fn learn(&mut self, messages: &Messages) -> Result<()> {
        let Some(schemas) = &mut self.schemas else {
            return Ok(());
        };
        for message in messages.all() {
            let Some((id, _)) = messages.value(message).and_then(framed) else {
                continue;
            };
            if self.known.contains_key(&id) {
                continue;
            }
            if self.known.len() >= MOST_SCHEMAS {
                self.known.clear();
            }
            let known = match schemas.schema(id).await? {
                None => Err(no_schema(id)),
                Some(schema) if schema.kind == Kind::Protobuf => {
                    let imports = imports(schemas, &schema).await?;
                    let compiled = imports.and_then(|i| schema::compile(&schema.text, &i));
                    compiled.map_err(|why| unusable(id, why))
                }
                Some(_) => Err(unusable(id, "it is no Protobuf schema".to_owned())),
            };
            let known = known.map_or_else(|e| Known::Bad(Arc::new(e)), Known::Good);
            self.known.insert(id, known);
        }
        Ok(())
    }

    /// Rows of messages, all or none, in their order.
    pub(super) fn decode(
        &mut self,
        messages: &Messages,
        chosen: &[Message],
        schema: &SchemaRef,
        beside: &Columns<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let mut plans: Vec<(MessageDescriptor, Plan)> = Vec::new();
        let mut rows = table(schema);
        for message in chosen {
            let value = messages.value(message).unwrap_or_default();
            let (ty, bytes) = self.resolve(value)?;
            let found = plans.iter().position(|(known, _)| *known == ty);
            let at = found.unwrap_or_else(|| {
                let plan = Plan::new(&ty, schema, |column| beside.holds(column));
                plans.push((ty, plan));
                plans.len() - 1
            });
            let (_, plan) = &plans[at];
            let message_read = plan.message(bytes)?;
            let row = plan.row(&message_read)?;
            let mut strays = row.strays();
            if let (Some((name, _)), false) = (strays.first(), rows.keeps()) {
                return Err(rows.unknown(1, name));
            }
            let mut cells = row.cells();
            beside.fill(&mut cells, messages, message);
            rows.push(MESSAGE, &cells, &mut strays)?;
        }
        batches(rows)
    }

    /// The type of a value, and where it begins.
    fn resolve<'v>(&mut self, value: &'v [u8]) -> Result<(MessageDescriptor, &'v [u8])> {
        let (text, name) = &self.told;
        if let Some(text) = text {
            let only = match &self.only {
                Some(only) => only.clone(),
                None => self.only.insert(only(text, name.as_deref())?).clone(),
            };
            return Ok((only, value));
        }
        let (id, rest) = framed(value).ok_or_else(no_frame)?;
        let (indexes, bytes) = indexes(rest).ok_or_else(no_frame)?;
        let file = match self.known.get(&id) {
            Some(Known::Good(file)) => file,
            Some(Known::Bad(e)) => return Err(Error::Shared(Arc::clone(e))),
            None => return Err(no_schema(id)),
        };
        let found = schema::by_indexes(file, &indexes);
        let ty = found.ok_or_else(|| {
            malformed(&format!("schema {id} of the registry has no such message"))
        })?;
        match name {
            Some(name) if name != ty.full_name() => Err(Error::refused(
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!("the message is a \"{}\", not a \"{name}\"", ty.full_name()),
            )),
            _ => Ok((ty, bytes)),
        }
    }
}

/// The texts of all that a schema refers to, by their names, or why there is no such thing.
async fn imports(
    schemas: &mut Schemas,
    schema: &Registered,
) -> Result<Result<BTreeMap<String, String>, String>> {
    let mut texts = BTreeMap::new();
    let mut asked: HashSet<String> = HashSet::new();
    let mut open = schema.references.clone();
    let mut bytes = schema.text.len();
    while let Some(reference) = open.pop() {
        if !asked.insert(reference.name.clone()) {
            continue;
        }
        if asked.len() >= schema::MOST_FILES || bytes > MOST_BYTES {
            return Ok(Err("it refers to too much".to_owned()));
        }
        match schemas.referred(&reference).await? {
            Some(found) if found.kind == Kind::Protobuf => {
                bytes += found.text.len();
                open.extend(found.references);
                texts.insert(reference.name, found.text);
            }
            _ => {
                let why = format!("the registry does not have \"{}\"", reference.name);
                return Ok(Err(why));
            }
        }
    }
    Ok(Ok(texts))
}

/// Indexes before a message, and the message: their number and each of them as zigzag varints, where the
/// number zero stands for the first type of the file.
fn indexes(bytes: &[u8]) -> Option<(Vec<usize>, &[u8])> {
    let (count, mut rest) = varint(bytes)?;
    if count == 0 {
        return Some((vec![0], rest));
    }
    if count > MOST_INDEXES {
        return None;
    }
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, behind) = varint(rest)?;
        found.push(index);
        rest = behind;
    }
    Some((found, rest))
}

/// A zigzag varint that is not negative.
fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut rest = bytes;
    let raw = prost::decode_length_delimiter(&mut rest).ok()?;
    (raw % 2 == 0).then_some((raw / 2, rest))
}

fn malformed(what: &str) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        "the message is none of its type",
    )
    .with_detail(what)
}
