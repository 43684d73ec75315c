//! Texts and descriptors → message types.
//!
//! Imports come from what is given along and from protobuf's own files, never from the server's disk.
//! Options whose value is a text of its own are dropped before a schema is put together: nothing here
//! asks for them, and reading them has no bound on its depth.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, UninterpretedOption,
};
use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// The name of the file that is compiled for its own sake.
const MAIN: &str = "schema.proto";
/// A longer schema is none.
pub(in crate::kafka) const MOST_BYTES: usize = 4 << 20;
/// Files of one schema. They import each other, and each import is a call inside another.
pub(super) const MOST_FILES: usize = 256;

/// Why something is no schema.
pub(super) type Reason = String;

/// Compiles the text of a `.proto` file over the texts of those it imports, by their names.
///
/// # Errors
/// What is wrong with it.
pub(super) fn compile(
    text: &str,
    imports: &BTreeMap<String, String>,
) -> Result<FileDescriptor, Reason> {
    guarded(|| {
        let mut files = BTreeMap::from([(MAIN.to_owned(), parse(MAIN, text)?)]);
        for (name, text) in imports {
            files.insert(name.clone(), parse(name, text)?);
        }
        let pool = link(files)?;
        let file = pool.get_file_by_name(MAIN);
        file.ok_or_else(|| "its file is not there".to_owned())
    })
}

/// The message types that a schema offers as its own: those at the top of a `.proto` file, or of the
/// files of a compiled set but protobuf's own.
///
/// # Errors
/// What is wrong with it.
pub(super) fn offered(schema: &str) -> Result<Vec<MessageDescriptor>, Reason> {
    let Some(set) = as_set(schema) else {
        return Ok(compile(schema, &BTreeMap::new())?.messages().collect());
    };
    guarded(|| {
        let set = FileDescriptorSet::decode(set.as_slice()).map_err(|e| e.to_string())?;
        let files = set.file.into_iter();
        let pool = link(files.map(|f| (f.name().to_owned(), f)).collect())?;
        let own = pool
            .files()
            .filter(|f| !f.name().starts_with("google/protobuf/"));
        let messages = own.flat_map(|f| f.messages().collect::<Vec<_>>());
        Ok(messages.collect())
    })
}

/// A file's bytes in the form in which a schema is kept: a text as it is, a compiled set in base64.
pub(in crate::kafka) fn kept(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        // a set begins with the key of its first field, which no text does
        Ok(text) if !text.starts_with('\n') || as_text(&text) => text,
        Ok(text) => BASE64_STANDARD.encode(text),
        Err(e) => BASE64_STANDARD.encode(e.into_bytes()),
    }
}

fn as_text(text: &str) -> bool {
    parse(MAIN, text).is_ok()
}

/// The message type of a name among those offered and those inside them; without a name, the only one.
///
/// # Errors
/// Why none is meant.
pub(super) fn choose(
    offered: &[MessageDescriptor],
    name: Option<&str>,
) -> Result<MessageDescriptor, Reason> {
    let found = match (name, offered) {
        (Some(name), [first, ..]) => first.parent_pool().get_message_by_name(name),
        (None, [only]) => Some(only.clone()),
        _ => None,
    };
    found.filter(|m| !m.is_map_entry()).ok_or_else(|| {
        let names: Vec<&str> = offered.iter().map(MessageDescriptor::full_name).collect();
        format!("the message types are {}", names.join(", "))
    })
}

/// The message type that indexes lead to, as Confluent's serializers count: at the top of a file, then
/// inside the type before.
pub(super) fn by_indexes(file: &FileDescriptor, indexes: &[usize]) -> Option<MessageDescriptor> {
    let (first, rest) = indexes.split_first()?;
    let mut message = file.messages().nth(*first)?;
    for index in rest {
        let found = message
            .child_messages()
            .filter(|m| !m.is_map_entry())
            .nth(*index)?;
        message = found;
    }
    Some(message)
}

/// The bytes of a compiled set, if a text has the form of one; no `.proto` file has it.
fn as_set(schema: &str) -> Option<Vec<u8>> {
    let compact: String = schema.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(compact).ok()
}

fn parse(name: &str, text: &str) -> Result<FileDescriptorProto, Reason> {
    let file = File::from_source(name, text).map_err(|e| e.to_string())?;
    Ok(file.file_descriptor_proto().clone())
}

/// Puts files together.
fn link(files: BTreeMap<String, FileDescriptorProto>) -> Result<DescriptorPool, Reason> {
    if files.len() > MOST_FILES {
        return Err(format!("it has more than {MOST_FILES} files"));
    }
    let names: Vec<String> = files.keys().cloned().collect();
    let mut resolver = ChainFileResolver::new();
    resolver.add(GoogleFileResolver::new());
    resolver.add(Given(
        files
            .into_iter()
            .map(|(name, file)| (name, without_texts(file)))
            .collect(),
    ));
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    for name in &names {
        compiler.open_file(name).map_err(|e| e.to_string())?;
    }
    let pool = compiler.descriptor_pool();
    check_maps(&pool)?;
    Ok(pool)
}

/// Files that were given, by their names.
struct Given(BTreeMap<String, FileDescriptorProto>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let file = self.0.get(name).cloned();
        file.map(File::from_file_descriptor_proto)
            .ok_or_else(|| protox::Error::file_not_found(name))
    }
}

/// The library takes entries of maps for what its own compiler makes of them.
fn check_maps(pool: &DescriptorPool) -> Result<(), Reason> {
    for entry in pool.all_messages().filter(MessageDescriptor::is_map_entry) {
        let key = entry.get_field(1).filter(|f| !f.is_list());
        let value = entry.get_field(2).filter(|f| !f.is_list());
        let good = key.is_some_and(|key| {
            !matches!(
                key.kind(),
                Kind::Float | Kind::Double | Kind::Bytes | Kind::Message(_) | Kind::Enum(_)
            )
        });
        if !good || value.is_none() {
            return Err(format!("\"{}\" is no entry of a map", entry.full_name()));
        }
    }
    Ok(())
}

/// A file without the options whose values are texts, and without what no message needs.
fn without_texts(mut file: FileDescriptorProto) -> FileDescriptorProto {
    file.service.clear();
    file.source_code_info = None;
    if let Some(options) = &mut file.options {
        plain(&mut options.uninterpreted_option);
    }
    file.message_type.iter_mut().for_each(plain_message);
    file.enum_type.iter_mut().for_each(plain_enum);
    plain_fields(&mut file.extension);
    file
}

fn plain_message(message: &mut DescriptorProto) {
    if let Some(options) = &mut message.options {
        plain(&mut options.uninterpreted_option);
    }
    plain_fields(&mut message.field);
    plain_fields(&mut message.extension);
    for oneof in &mut message.oneof_decl {
        if let Some(options) = &mut oneof.options {
            plain(&mut options.uninterpreted_option);
        }
    }
    for range in &mut message.extension_range {
        if let Some(options) = &mut range.options {
            plain(&mut options.uninterpreted_option);
        }
    }
    message.enum_type.iter_mut().for_each(plain_enum);
    // as deep as the compiler, or the reader of sets, lets them be
    message.nested_type.iter_mut().for_each(plain_message);
}

fn plain_fields(fields: &mut [FieldDescriptorProto]) {
    for field in fields {
        if let Some(options) = &mut field.options {
            plain(&mut options.uninterpreted_option);
        }
    }
}

fn plain_enum(one: &mut EnumDescriptorProto) {
    if let Some(options) = &mut one.options {
        plain(&mut options.uninterpreted_option);
    }
    for value in &mut one.value {
        if let Some(options) = &mut value.options {
            plain(&mut options.uninterpreted_option);
        }
    }
}

fn plain(options: &mut Vec<UninterpretedOption>) {
    options.retain(|option| option.aggregate_value.is_none());
}

/// What foreign code makes of foreign input, without its panics.
fn guarded<T>(work: impl FnOnce() -> Result<T, Reason>) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it cannot be read".to_owned()))
}
