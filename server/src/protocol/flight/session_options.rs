//! The session actions of Flight: `SetSessionOptions`, `GetSessionOptions`, `CloseSession`. The
//! messages are defined here because arrow-flight has none.

use std::collections::HashMap;

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

use super::status::malformed;
use crate::error::{Error, Result};
use crate::protocol::credentials::Caller;

#[derive(Clone, PartialEq, Message)]
struct SetRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(TextList),
}

#[derive(Clone, PartialEq, Message)]
struct TextList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, SetError>,
}

#[derive(Clone, PartialEq, Message)]
struct SetError {
    #[prost(enumeration = "SetErrorValue", tag = "1")]
    value: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum SetErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
}

#[derive(Clone, PartialEq, Message)]
struct GetResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
struct CloseResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

const CLOSED: i32 = 1;

/// `CloseSession`'s answer.
pub(super) fn closed() -> Bytes {
    CloseResult { status: CLOSED }.encode_to_vec().into()
}

/// Sets options on the token's session; the answer names those that could not be set.
pub(super) fn set(caller: &Caller, body: &Bytes) -> Result<Bytes> {
    if !caller.lasting {
        return Err(Error::unsupported(
            "a call with Basic credentials has no session to keep options in",
            "log in by Handshake and use the bearer token",
        ));
    }
    let request = SetRequest::decode(body.clone())
        .map_err(|e| malformed("the request is malformed").with_detail(e.to_string()))?;
    let mut errors = HashMap::new();
    for (name, option) in request.session_options {
        if let Err(value) = set_one(caller, &name, option.value) {
            let value = value as i32;
            errors.insert(name, SetError { value });
        }
    }
    Ok(SetResult { errors }.encode_to_vec().into())
}

/// Catalog and schema of the session.
pub(super) fn get(caller: &Caller) -> Bytes {
    let schema = caller.session.setting("search_path").unwrap_or_default();
    let session_options = [("catalog", "weir".to_owned()), ("schema", schema)]
        .into_iter()
        .map(|(name, text)| {
            let value = Some(Value::Text(text));
            (name.to_owned(), OptionValue { value })
        })
        .collect();
    GetResult { session_options }.encode_to_vec().into()
}

fn set_one(caller: &Caller, name: &str, value: Option<Value>) -> Result<(), SetErrorValue> {
    let text = match value {
        Some(Value::Text(text)) => text,
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Double(n)) => n.to_string(),
        Some(Value::List(list)) => list.values.join(", "),
        None => return Err(SetErrorValue::InvalidValue),
    };
    match name {
        "catalog" if text == "weir" => Ok(()),
        "catalog" => Err(SetErrorValue::InvalidValue),
        "schema" => apply(caller, "search_path", &text),
        other => apply(caller, other, &text),
    }
}

fn apply(caller: &Caller, name: &str, value: &str) -> Result<(), SetErrorValue> {
    caller
        .session
        .set(name, value)
        .map_err(|e| match caller.session.setting(name).is_some() {
            true => {
                tracing::debug!(name, error = %e, "session option refused");
                SetErrorValue::InvalidValue
            }
            false => SetErrorValue::InvalidName,
        })
}
