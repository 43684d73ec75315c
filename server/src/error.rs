//! The server's error type and the one place that knows SQLSTATE and gRPC codes.
//!
//! Every layer below the protocols returns [`Error`]; a door calls [`Error::report`] and sends what
//! it gets. The text of an internal error is logged with an id and masked from the client.

use std::sync::Arc;

use catalog::{CatalogError, ObjectKind};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;

/// A five-character SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

/// The codes weir answers with, by PostgreSQL's names.
#[expect(missing_docs, reason = "the names are PostgreSQL's condition names")]
impl SqlState {
    pub const WARNING: Self = Self("01000");
    pub const FEATURE_NOT_SUPPORTED: Self = Self("0A000");
    pub const CARDINALITY_VIOLATION: Self = Self("21000");
    pub const DATA_EXCEPTION: Self = Self("22000");
    pub const NUMERIC_VALUE_OUT_OF_RANGE: Self = Self("22003");
    pub const DIVISION_BY_ZERO: Self = Self("22012");
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self("22021");
    pub const INVALID_PARAMETER_VALUE: Self = Self("22023");
    pub const INVALID_TEXT_REPRESENTATION: Self = Self("22P02");
    pub const INVALID_DATETIME_FORMAT: Self = Self("22007");
    pub const BAD_COPY_FILE_FORMAT: Self = Self("22P04");
    pub const NOT_NULL_VIOLATION: Self = Self("23502");
    pub const UNIQUE_VIOLATION: Self = Self("23505");
    pub const CHECK_VIOLATION: Self = Self("23514");
    pub const ACTIVE_SQL_TRANSACTION: Self = Self("25001");
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self("25006");
    pub const NO_ACTIVE_SQL_TRANSACTION: Self = Self("25P01");
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self("25P02");
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self("26000");
    pub const INVALID_GRANT_OPERATION: Self = Self("0LP01");
    pub const INVALID_AUTHORIZATION: Self = Self("28000");
    pub const INVALID_PASSWORD: Self = Self("28P01");
    pub const DEPENDENT_OBJECTS_STILL_EXIST: Self = Self("2BP01");
    pub const INVALID_CURSOR_NAME: Self = Self("34000");
    pub const INVALID_CATALOG_NAME: Self = Self("3D000");
    pub const INVALID_SCHEMA_NAME: Self = Self("3F000");
    pub const SERIALIZATION_FAILURE: Self = Self("40001");
    pub const STATEMENT_COMPLETION_UNKNOWN: Self = Self("40003");
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    pub const SYNTAX_ERROR: Self = Self("42601");
    pub const UNDEFINED_COLUMN: Self = Self("42703");
    pub const UNDEFINED_FUNCTION: Self = Self("42883");
    pub const UNDEFINED_TABLE: Self = Self("42P01");
    pub const UNDEFINED_PARAMETER: Self = Self("42P02");
    pub const UNDEFINED_OBJECT: Self = Self("42704");
    pub const DUPLICATE_COLUMN: Self = Self("42701");
    pub const DUPLICATE_TABLE: Self = Self("42P07");
    pub const DUPLICATE_SCHEMA: Self = Self("42P06");
    pub const DUPLICATE_OBJECT: Self = Self("42710");
    pub const AMBIGUOUS_COLUMN: Self = Self("42702");
    pub const GROUPING_ERROR: Self = Self("42803");
    pub const DATATYPE_MISMATCH: Self = Self("42804");
    pub const WRONG_OBJECT_TYPE: Self = Self("42809");
    pub const RESERVED_NAME: Self = Self("42939");
    pub const INDETERMINATE_DATATYPE: Self = Self("42P18");
    pub const INVALID_TABLE_DEFINITION: Self = Self("42P16");
    pub const OUT_OF_MEMORY: Self = Self("53200");
    pub const DISK_FULL: Self = Self("53100");
    pub const TOO_MANY_CONNECTIONS: Self = Self("53300");
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self("53400");
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self("54000");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self("55000");
    pub const OBJECT_IN_USE: Self = Self("55006");
    pub const QUERY_CANCELED: Self = Self("57014");
    pub const ADMIN_SHUTDOWN: Self = Self("57P01");
    pub const CANNOT_CONNECT_NOW: Self = Self("57P03");
    pub const IO_ERROR: Self = Self("58030");
    /// `undefined_file`
    pub const UNDEFINED_FILE: Self = Self("58P01");
    pub const CONNECTION_FAILURE: Self = Self("08006");
    pub const PROTOCOL_VIOLATION: Self = Self("08P01");
    pub const CONFIG_FILE_ERROR: Self = Self("F0000");
    pub const INTERNAL_ERROR: Self = Self("XX000");
    pub const DATA_CORRUPTED: Self = Self("XX001");
}

/// The wires that have their own codes; their doors ask here and nowhere else.
impl SqlState {
    /// The HTTP status of an error with this code.
    pub fn http_status(self) -> u16 {
        match self.0 {
            // what a client sent is no message of its protocol
            "08P01" => 400,
            "42501" => 403,
            "42P01" | "3F000" | "3D000" | "42704" | "26000" | "34000" => 404,
            "40001" | "42P07" | "42P06" | "42710" | "2BP01" | "55000" | "55006" => 409,
            "54000" => 413,
            "53400" => 429,
            "53100" => 507,
            "57014" | "40003" => 504,
            code => match &code[..2] {
                "28" => 401,
                "08" | "53" | "57" => 503,
                "58" | "XX" | "F0" => 500,
                _ => 400,
            },
        }
    }

    /// The gRPC code of an error with this code.
    pub fn grpc_code(self) -> tonic::Code {
        use tonic::Code;
        match self.0 {
            "42501" => Code::PermissionDenied,
            "42P01" | "3F000" | "3D000" | "42704" | "26000" | "34000" => Code::NotFound,
            "42P07" | "42P06" | "42710" => Code::AlreadyExists,
            "40001" => Code::Aborted,
            "2BP01" => Code::FailedPrecondition,
            "54000" => Code::ResourceExhausted,
            "57014" => Code::Cancelled,
            "40003" => Code::DeadlineExceeded,
            "XX001" => Code::DataLoss,
            code => match &code[..2] {
                "0A" => Code::Unimplemented,
                "28" => Code::Unauthenticated,
                "25" | "55" => Code::FailedPrecondition,
                "53" => Code::ResourceExhausted,
                "08" | "57" => Code::Unavailable,
                "58" | "XX" | "F0" => Code::Internal,
                _ => Code::InvalidArgument,
            },
        }
    }
}

/// A refusal with everything a client may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its code.
    pub state: SqlState,
    /// Primary message: lower case, no period, names the object in quotes.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do instead.
    pub hint: Option<String>,
    /// 1-based character position in the statement.
    pub position: Option<usize>,
}

/// Anything that ends a statement or a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal made by weir itself: it already has its code and texts.
    #[error("{}", .0.message)]
    Refused(Box<Report>),
    /// From the catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// From planning or running a query.
    #[error(transparent)]
    Query(#[from] DataFusionError),
    /// From a Delta table.
    #[error(transparent)]
    Delta(#[from] DeltaTableError),
    /// From the file system.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The system's own error.
        #[source]
        source: std::io::Error,
    },
    /// One failure told to several waiters (group commit, shared tasks).
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
    /// Something that must not happen.
    #[error("{0}")]
    Internal(String),
}

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refusal with a code and a message.
    pub fn refused(state: SqlState, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Refused(Box::new(Report {
            state,
            message,
            detail: None,
            hint: None,
            position: None,
        }))
    }

    /// Not supported, with what to use instead.
    pub fn unsupported(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::refused(SqlState::FEATURE_NOT_SUPPORTED, message).with_hint(hint)
    }

    /// `relation "name" does not exist`.
    pub fn undefined_table(name: &str) -> Self {
        Self::refused(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{name}\" does not exist"),
        )
    }

    /// `permission denied for table "name"` and the like.
    pub fn denied(kind: &str, name: &str) -> Self {
        Self::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied for {kind} \"{name}\""),
        )
    }

    /// Adds the detail line (to a refusal; other errors make their own).
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        if let Self::Refused(report) = &mut self {
            report.detail = Some(detail.into());
        }
        self
    }

    /// Adds the hint line (to a refusal; other errors make their own).
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Refused(report) = &mut self {
            report.hint = Some(hint.into());
        }
        self
    }

    /// An I/O error with what was being done.
    pub fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    /// Its SQLSTATE.
    pub fn state(&self) -> SqlState {
        self.report().state
    }

    /// What a client is told.
    pub fn report(&self) -> Report {
        match self {
            Self::Refused(report) => (**report).clone(),
            Self::Catalog(e) => catalog_report(e),
            Self::Query(e) => query_report(e),
            Self::Delta(e) if disk_full(e) => plain(
                SqlState::DISK_FULL,
                "cannot write to table storage: no space left",
            ),
            Self::Delta(e) => plain(SqlState::IO_ERROR, format!("table storage failed: {e}")),
            Self::Io { action, source } => io_report(action, source),
            Self::Shared(e) => e.report(),
            Self::Internal(text) => masked(text),
        }
    }
}

/// Lets an [`Error`] travel through DataFusion and come out whole (see [`Error::report`]).
impl From<Error> for DataFusionError {
    fn from(e: Error) -> Self {
        match e {
            Error::Query(inner) => inner,
            other => Self::External(Box::new(other)),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::Query(DataFusionError::ArrowError(Box::new(e), None))
    }
}

fn plain(state: SqlState, message: impl Into<String>) -> Report {
    Report {
        state,
        message: message.into(),
        detail: None,
        hint: None,
        position: None,
    }
}

/// Logs the text under an id and gives the client the id only.
fn masked(text: &str) -> Report {
    let id = uuid::Uuid::new_v4();
    tracing::error!(error_id = %id, detail = text, "internal error");
    let mut report = plain(SqlState::INTERNAL_ERROR, "internal error");
    report.detail = Some(format!("error id {id}; the server log has the details"));
    report
}

/// True when an error comes down to a full disk.
fn disk_full(e: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(e);
    while let Some(this) = next {
        if let Some(io) = this.downcast_ref::<std::io::Error>() {
            if out_of_space(io.kind()) {
                return true;
            }
            // what it was made from, not what that was made from
            next = io.get_ref().map(|inner| inner as _);
        } else {
            next = this.source();
        }
    }
    false
}

fn out_of_space(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded)
}

fn io_report(action: &str, source: &std::io::Error) -> Report {
    match source.kind() {
        kind if out_of_space(kind) => plain(
            SqlState::DISK_FULL,
            format!("cannot {action}: no space left"),
        ),
        kind => plain(SqlState::IO_ERROR, format!("cannot {action}: {kind}")),
    }
}

#[deny(clippy::wildcard_enum_match_arm)] // a new variant must choose its code
fn catalog_report(e: &CatalogError) -> Report {
    match e {
        CatalogError::NotFound { kind, .. } => plain(undefined(*kind), e.to_string()),
        CatalogError::AlreadyExists { kind, .. } => plain(duplicate(*kind), e.to_string()),
        CatalogError::ConcurrentModification { .. } => {
            plain(SqlState::SERIALIZATION_FAILURE, e.to_string())
        }
        CatalogError::DependentObjects { dependents, .. } => {
            let mut report = plain(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, e.to_string());
            report.detail = Some(format!("used by {}", dependents.join(", ")));
            report.hint = Some("use DROP … CASCADE to drop the dependent objects too".to_owned());
            report
        }
        CatalogError::Store { action, .. } if e.is_disk_full() => plain(
            SqlState::DISK_FULL,
            format!("cannot {action}: no space left for the catalog"),
        ),
        CatalogError::Corrupt { .. } | CatalogError::Store { .. } | CatalogError::Migration(_) => {
            masked(&format!("{e}: {:?}", std::error::Error::source(e)))
        }
    }
}

fn undefined(kind: ObjectKind) -> SqlState {
    match kind {
        ObjectKind::Relation => SqlState::UNDEFINED_TABLE,
        ObjectKind::Schema => SqlState::INVALID_SCHEMA_NAME,
        ObjectKind::Role | ObjectKind::Model | ObjectKind::Secret => SqlState::UNDEFINED_OBJECT,
    }
}

fn duplicate(kind: ObjectKind) -> SqlState {
    match kind {
        ObjectKind::Relation => SqlState::DUPLICATE_TABLE,
        ObjectKind::Schema => SqlState::DUPLICATE_SCHEMA,
        ObjectKind::Role | ObjectKind::Model | ObjectKind::Secret => SqlState::DUPLICATE_OBJECT,
    }
}

/// The code of an error that is still on its way through DataFusion.
pub fn query_state(e: &DataFusionError) -> SqlState {
    query_report(e).state
}

/// Regular expressions are compiled in several places, which all tell of it in the same words.
fn regex_report(text: &str) -> Option<Report> {
    let (_, why) = text.split_once("regex parse error")?;
    let mut report = plain(SqlState("2201B"), "invalid regular expression");
    let why = why.rsplit_once("error: ").map(|(_, why)| why.trim());
    report.detail = why.map(str::to_owned);
    Some(report)
}

fn query_report(e: &DataFusionError) -> Report {
    if let Some(report) = regex_report(&e.find_root().to_string()) {
        return report;
    }
    match e.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(own) => own.report(),
            None => external_report(inner.as_ref()),
        },
        DataFusionError::SQL(parse, _) => {
            plain(SqlState::SYNTAX_ERROR, lower_first(&parse.to_string()))
        }
        DataFusionError::SchemaError(schema, _) => schema_report(schema),
        DataFusionError::ResourcesExhausted(text) => {
            let mut report = plain(SqlState::OUT_OF_MEMORY, "out of memory");
            report.detail = Some(text.clone());
            report
        }
        DataFusionError::NotImplemented(text) if text.contains("OuterReferenceColumn") => {
            let mut report = plain(
                SqlState::FEATURE_NOT_SUPPORTED,
                "a subquery looks into the query around it in a way that is not supported",
            );
            report.hint = Some("join what it reads instead".to_owned());
            report
        }
        DataFusionError::NotImplemented(text) => {
            plain(SqlState::FEATURE_NOT_SUPPORTED, lower_first(text))
        }
        DataFusionError::ArrowError(arrow, _) => arrow_report(arrow),
        DataFusionError::Plan(text) => plan_report(text),
        DataFusionError::Execution(text) => execution_report(text),
        DataFusionError::Internal(text) if text.contains("Failed to coerce types") => plain(
            SqlState::UNDEFINED_FUNCTION,
            "operator does not exist for these types",
        ),
        DataFusionError::Internal(text) => masked(text),
        other => plain(
            SqlState::INTERNAL_ERROR,
            lower_first(&other.strip_backtrace()),
        ),
    }
}

fn external_report(e: &(dyn std::error::Error + Send + Sync + 'static)) -> Report {
    if let Some(function) = e.downcast_ref::<udfs::FunctionError>() {
        return function_report(function);
    }
    match e.downcast_ref::<Arc<Error>>() {
        Some(own) => own.report(),
        None => plain(SqlState::INTERNAL_ERROR, lower_first(&e.to_string())),
    }
}

fn function_report(e: &udfs::FunctionError) -> Report {
    let state = match e.kind {
        udfs::Kind::InvalidParameter => SqlState::INVALID_PARAMETER_VALUE,
        udfs::Kind::WrongType => SqlState::DATATYPE_MISMATCH,
        udfs::Kind::Misplaced => SqlState::GROUPING_ERROR,
        udfs::Kind::Unsupported => SqlState::FEATURE_NOT_SUPPORTED,
    };
    let mut report = plain(state, e.message.clone());
    report.hint = e.hint.clone();
    report
}

fn arrow_report(e: &arrow::error::ArrowError) -> Report {
    use arrow::error::ArrowError;
    match e {
        ArrowError::DivideByZero => plain(SqlState::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => {
            plain(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range")
        }
        ArrowError::CastError(text) if text.starts_with("Can't cast value") => {
            plain(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range")
        }
        ArrowError::CastError(text) => {
            plain(SqlState::INVALID_TEXT_REPRESENTATION, lower_first(text))
        }
        ArrowError::ParseError(text) => {
            plain(SqlState::INVALID_TEXT_REPRESENTATION, lower_first(text))
        }
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<Error>() {
            Some(own) => own.report(),
            None => plain(SqlState::INTERNAL_ERROR, lower_first(&inner.to_string())),
        },
        other => plain(SqlState::DATA_EXCEPTION, lower_first(&other.to_string())),
    }
}

fn execution_report(text: &str) -> Report {
    match text.contains("returned more than one row") {
        true => plain(
            SqlState::CARDINALITY_VIOLATION,
            "more than one row returned by a subquery used as an expression",
        ),
        false => plain(SqlState::DATA_EXCEPTION, lower_first(text)),
    }
}

fn schema_report(e: &SchemaError) -> Report {
    match e {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } if field.relation.as_ref().is_some_and(|table| {
            valid_fields
                .iter()
                .all(|known| known.relation.as_ref().map(|r| r.table()) != Some(table.table()))
        }) =>
        {
            let table = field.relation.as_ref().map_or("", |table| table.table());
            plain(
                SqlState::UNDEFINED_TABLE,
                format!("missing FROM-clause entry for table \"{table}\""),
            )
        }
        SchemaError::FieldNotFound { field, .. } => {
            let name = match &field.relation {
                Some(table) => format!("{}.{}", table.table(), field.name),
                None => format!("\"{}\"", field.name),
            };
            plain(
                SqlState::UNDEFINED_COLUMN,
                format!("column {name} does not exist"),
            )
        }
        SchemaError::AmbiguousReference { field } => plain(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        other @ (SchemaError::DuplicateQualifiedField { .. }
        | SchemaError::DuplicateUnqualifiedField { .. }) => {
            plain(SqlState::DUPLICATE_COLUMN, lower_first(&other.to_string()))
        }
    }
}

/// DataFusion reports several user errors as plain text; the ones clients look for get their codes.
fn plan_report(text: &str) -> Report {
    let lower = text.to_lowercase();
    if let Some(name) = between(text, "table '", "' not found") {
        let bare = name
            .trim_start_matches("weir.")
            .trim_start_matches("public.");
        return plain(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{bare}\" does not exist"),
        );
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        return plain(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        );
    }
    let state = if lower.contains("invalid function") || lower.contains("no function matches") {
        SqlState::UNDEFINED_FUNCTION
    } else if lower.contains("group by") || lower.contains("aggregate functions are not allowed") {
        SqlState::GROUPING_ERROR
    } else if lower.contains("type") || lower.contains("coerc") {
        SqlState::DATATYPE_MISMATCH
    } else {
        SqlState::SYNTAX_ERROR
    };
    plain(state, lower_first(text))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = start + text[start..].find(after)?;
    Some(&text[start..end])
}

fn lower_first(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_full_disk_is_told_through_all_layers() {
        for (kind, state) in [
            (ErrorKind::StorageFull, SqlState::DISK_FULL),
            (ErrorKind::QuotaExceeded, SqlState::DISK_FULL),
            (ErrorKind::ConnectionReset, SqlState::IO_ERROR),
        ] {
            let store = object_store::Error::Generic {
                store: "test",
                source: Box::new(std::io::Error::from(kind)),
            };
            let wrapped = std::io::Error::other(store);
            let again = object_store::Error::Generic {
                store: "test",
                source: Box::new(wrapped),
            };
            assert_eq!(Error::Delta(again.into()).state(), state, "{kind}");
        }
        assert_eq!(SqlState::DISK_FULL.http_status(), 507);
        assert_eq!(SqlState::STATEMENT_COMPLETION_UNKNOWN.http_status(), 504);
    }
}
