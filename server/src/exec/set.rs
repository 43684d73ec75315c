//! `SET`, `RESET`, `DISCARD`.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    ContextModifier, DiscardObject, Expr, ObjectName, Reset, ResetStatement, Set,
    SetSessionAuthorizationParam, SetSessionAuthorizationParamKind, TransactionAccessMode,
    TransactionMode, UnaryOperator, Value,
};

use super::relations::to_its_end;
use super::{Outcome, Run, token};
use crate::dialect::words::{fold, parts};
use crate::error::{Error, Result, SqlState};
use crate::session::Session;

/// Changes a setting of the session.
pub(super) fn execute(run: &Run, set: &Set) -> Result<Outcome> {
    let session = run.session()?;
    match set {
        Set::SingleAssignment {
            scope,
            hivevar: _,
            variable,
            values,
        } => {
            if matches!(scope, Some(ContextModifier::Global)) {
                return Err(Error::unsupported(
                    "SET GLOBAL is not supported",
                    "use the configuration file",
                ));
            }
            refuse_local(matches!(scope, Some(ContextModifier::Local)))?;
            let name = name_of(variable);
            if let [Expr::Identifier(word)] = values.as_slice()
                && word.quote_style.is_none()
                && word.value.eq_ignore_ascii_case("default")
            {
                session.with_settings(|s| s.reset(&name))?;
                return Outcome::command("SET");
            }
            let value = values
                .iter()
                .map(text)
                .collect::<Result<Vec<_>>>()?
                .join(", ");
            change(&session, &name, &value)?;
        }
        Set::SetTimeZone { local, value } => {
            refuse_local(*local)?;
            let value = text(value)?;
            let reset = ["local", "default"].contains(&value.to_lowercase().as_str());
            match reset {
                true => session.with_settings(|s| s.reset("TimeZone"))?,
                false => session.set("TimeZone", &value)?,
            }
        }
        Set::SetRole {
            context_modifier,
            role_name,
        } => {
            refuse_local(matches!(context_modifier, Some(ContextModifier::Local)))?;
            session.set_role(role_name.as_ref().map(fold).as_deref())?;
        }
        // who logged in is the session's role already; poolers say so before they hand it on
        Set::SetSessionAuthorization(SetSessionAuthorizationParam {
            kind: SetSessionAuthorizationParamKind::Default,
            ..
        }) => session.set_role(None)?,
        Set::SetNames {
            charset_name,
            collation_name: None,
        } => {
            session.set("client_encoding", &charset_name.value)?;
        }
        Set::SetTransaction {
            modes,
            snapshot: None,
            session: _,
        } => {
            // every isolation level is met: a statement reads one cut
            let read_only = modes.contains(&TransactionMode::AccessMode(
                TransactionAccessMode::ReadOnly,
            ));
            if read_only {
                return Err(Error::unsupported(
                    "SET TRANSACTION READ ONLY is not supported",
                    "use BEGIN READ ONLY",
                ));
            }
        }
        other => {
            return Err(Error::unsupported(
                format!("{other} is not supported"),
                "use SET name = value",
            ));
        }
    }
    Outcome::command("SET")
}

/// Gives a setting a value, once that is known to be one.
pub(super) fn change(session: &Session, name: &str, value: &str) -> Result<()> {
    if name.eq_ignore_ascii_case("weir.read_after") && !value.is_empty() {
        token::parse(value)?;
    }
    session.set(name, value)
}

/// Goes back to defaults.
pub(super) fn reset(run: &Run, statement: &ResetStatement) -> Result<Outcome> {
    let session = run.session()?;
    match &statement.reset {
        Reset::ALL => session.with_settings(|s| s.reset_all()),
        Reset::ConfigurationParameter(name) => match name_of(name).as_str() {
            "role" => session.set_role(None)?,
            name => session.with_settings(|s| s.reset(name))?,
        },
    }
    Outcome::command("RESET")
}

/// `DISCARD ALL` and its parts; statements prepared in the protocol are the door's.
pub(super) async fn discard(run: &Run, object: &DiscardObject) -> Result<Outcome> {
    let session = run.session()?;
    if matches!(object, DiscardObject::ALL | DiscardObject::TEMP) {
        let ending = Arc::clone(&session);
        to_its_end("discard", async move { ending.drop_temporary().await }).await?;
    }
    if matches!(object, DiscardObject::ALL) {
        session.with_settings(|s| s.reset_all());
        session.set_role(None)?;
        session.with_named(|named| {
            named.close_all();
            named.deallocate_all();
        });
    }
    Outcome::command(format!("DISCARD {object}"))
}

fn refuse_local(local: bool) -> Result<()> {
    match local {
        true => Err(Error::unsupported(
            "SET LOCAL is not supported",
            "use SET, and RESET afterwards",
        )),
        false => Ok(()),
    }
}

fn name_of(name: &ObjectName) -> String {
    parts(name).join(".")
}

fn text(value: &Expr) -> Result<String> {
    match value {
        Expr::Identifier(word) => Ok(word.value.clone()),
        Expr::CompoundIdentifier(words) => Ok(words
            .iter()
            .map(|w| w.value.as_str())
            .collect::<Vec<_>>()
            .join(".")),
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) | Value::Number(s, _) => {
                Ok(s.clone())
            }
            Value::Boolean(b) => Ok(if *b { "on" } else { "off" }.to_owned()),
            _ => Err(bad()),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => Ok(format!("-{}", text(expr)?)),
        _ => Err(bad()),
    }
}

fn bad() -> Error {
    Error::refused(
        SqlState::INVALID_PARAMETER_VALUE,
        "a setting's value must be a literal",
    )
}
