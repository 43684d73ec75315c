//! What `SET` and `SHOW` know: one list of settings with their defaults and rules.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dialect::time_travel::TableVersion;
use crate::engine::open::parse_duration;
use crate::engine::scope::DEFAULT_SCHEMA;
use crate::error::{Error, Result, SqlState};
use crate::system::Setting;

/// How a setting's text is checked.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Any text.
    Text,
    /// Whatever a client says, it must be this (compared without case).
    Only(&'static str),
    /// A whole number in a range.
    Whole(i64, i64),
    /// `on`, `off`, …
    Switch,
    /// An IANA time zone.
    Zone,
    /// Milliseconds, or a number with a unit; 0 switches off.
    Time,
    /// A moment or a version, or empty.
    AsOf,
    /// Cannot be set.
    Fixed,
}

struct Known {
    name: &'static str,
    default: &'static str,
    rule: Rule,
    reported: bool,
    description: &'static str,
}

const fn known(
    name: &'static str,
    default: &'static str,
    rule: Rule,
    reported: bool,
    description: &'static str,
) -> Known {
    Known {
        name,
        default,
        rule,
        reported,
        description,
    }
}

const KNOWN: &[Known] = &[
    known(
        "application_name",
        "",
        Rule::Text,
        true,
        "what the client calls itself",
    ),
    known(
        "client_encoding",
        "UTF8",
        Rule::Only("UTF8"),
        true,
        "encoding of the connection",
    ),
    known(
        "client_min_messages",
        "notice",
        Rule::Text,
        false,
        "least severe message that is sent",
    ),
    known(
        "DateStyle",
        "ISO, MDY",
        Rule::Only("ISO, MDY"),
        true,
        "how dates are printed",
    ),
    known(
        "IntervalStyle",
        "postgres",
        Rule::Only("postgres"),
        true,
        "how intervals are printed",
    ),
    known(
        "TimeZone",
        "UTC",
        Rule::Zone,
        true,
        "zone that timestamps are printed in",
    ),
    known(
        "extra_float_digits",
        "1",
        Rule::Whole(-15, 3),
        false,
        "digits of printed floats",
    ),
    known(
        "bytea_output",
        "hex",
        Rule::Only("hex"),
        false,
        "how bytea is printed",
    ),
    known(
        "search_path",
        "public",
        Rule::Text,
        false,
        "schemas that unqualified names mean",
    ),
    known(
        "statement_timeout",
        "0",
        Rule::Time,
        false,
        "longest time a statement may take",
    ),
    known(
        "lock_timeout",
        "0",
        Rule::Time,
        false,
        "accepted for clients; nothing waits for locks",
    ),
    known(
        "idle_in_transaction_session_timeout",
        "0",
        Rule::Only("0"),
        false,
        "not enforced, so only 0",
    ),
    known(
        "standard_conforming_strings",
        "on",
        Rule::Only("on"),
        true,
        "backslashes are literal",
    ),
    known(
        "default_transaction_isolation",
        "read committed",
        Rule::Text,
        false,
        "every statement reads one cut",
    ),
    known(
        "transaction_isolation",
        "read committed",
        Rule::Text,
        false,
        "every statement reads one cut",
    ),
    known(
        "default_transaction_read_only",
        "off",
        Rule::Only("off"),
        true,
        "use BEGIN READ ONLY",
    ),
    known(
        "transaction_read_only",
        "off",
        Rule::Only("off"),
        false,
        "use BEGIN READ ONLY",
    ),
    known(
        "jit",
        "off",
        Rule::Switch,
        false,
        "accepted for clients; nothing is compiled",
    ),
    known(
        "row_security",
        "on",
        Rule::Only("on"),
        false,
        "policies always hold",
    ),
    known(
        "max_identifier_length",
        "63",
        Rule::Fixed,
        false,
        "bytes of a name",
    ),
    known(
        "max_index_keys",
        "32",
        Rule::Fixed,
        false,
        "columns an index may have; there are no indexes",
    ),
    known(
        "server_version",
        "15.18",
        Rule::Fixed,
        true,
        "PostgreSQL version clients may count on",
    ),
    known(
        "server_version_num",
        "150018",
        Rule::Fixed,
        false,
        "the same as a number",
    ),
    known(
        "server_encoding",
        "UTF8",
        Rule::Fixed,
        true,
        "encoding of stored text",
    ),
    known(
        "integer_datetimes",
        "on",
        Rule::Fixed,
        true,
        "timestamps are whole microseconds",
    ),
    known(
        "is_superuser",
        "off",
        Rule::Fixed,
        true,
        "whether the role passes every check",
    ),
    known(
        "session_authorization",
        "",
        Rule::Fixed,
        true,
        "role that logged in",
    ),
    known(
        "in_hot_standby",
        "off",
        Rule::Fixed,
        true,
        "whether writes are refused",
    ),
    known(
        "weir.as_of",
        "",
        Rule::AsOf,
        false,
        "read every table as of a time or version",
    ),
    known(
        "weir.read_after",
        "",
        Rule::Text,
        false,
        "wait until the cut contains this token",
    ),
    known(
        "weir.idempotency_key",
        "",
        Rule::Text,
        false,
        "key of the next INSERT or COPY into a streaming table: sent again, it is not stored again",
    ),
    known(
        "weir.last_token",
        "",
        Rule::Fixed,
        false,
        "token of this session's last write",
    ),
];

/// What a search path may name that is searched anyhow, or is nobody's.
const IMPLIED: [&str; 3] = ["$user", "pg_catalog", "pg_temp"];

/// A session's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<String, String>,
    changed: Vec<(String, String)>,
}

impl Settings {
    /// The defaults, for a role.
    pub fn new(role: &str) -> Self {
        let mut values: BTreeMap<_, _> = KNOWN
            .iter()
            .map(|k| (k.name.to_lowercase(), k.default.to_owned()))
            .collect();
        values.insert("session_authorization".to_owned(), role.to_owned());
        if role == crate::engine::open::ADMIN {
            values.insert("is_superuser".to_owned(), "on".to_owned());
        }
        Self {
            values,
            changed: Vec::new(),
        }
    }

    /// The value as `SHOW` prints it; the name in any case.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(&canonical(name)).cloned()
    }

    /// `SET name = value`.
    ///
    /// # Errors
    /// 42704 for an unknown name without a dot, 22023 for a value it cannot have, 55P02 for a fixed one.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let key = canonical(name);
        let Some(known) = KNOWN.iter().find(|k| k.name.eq_ignore_ascii_case(&key)) else {
            if key.contains('.') && !key.starts_with("weir.") {
                self.values.insert(key, value.to_owned());
                return Ok(());
            }
            return Err(unknown(name));
        };
        let value = accepted(known, value)?;
        if known.reported && self.values.get(&key) != Some(&value) {
            self.changed.push((known.name.to_owned(), value.clone()));
        }
        self.values.insert(key, value);
        Ok(())
    }

    /// `RESET name`.
    ///
    /// # Errors
    /// 42704 for an unknown name.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        let key = canonical(name);
        match KNOWN.iter().find(|k| k.name.eq_ignore_ascii_case(&key)) {
            Some(Known {
                rule: Rule::Fixed, ..
            }) => Ok(()),
            Some(known) => self.set(name, known.default),
            None if self.values.remove(&key).is_some() => Ok(()),
            None => Err(unknown(name)),
        }
    }

    /// `RESET ALL`.
    pub fn reset_all(&mut self) {
        for known in KNOWN {
            // every default is accepted by its own rule
            let _ = self.reset(known.name);
        }
        self.values
            .retain(|key, _| KNOWN.iter().any(|k| k.name.eq_ignore_ascii_case(key)));
    }

    /// Changed values that clients are told of.
    pub fn take_reported(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changed)
    }

    /// All of them, for `SHOW ALL` and `pg_settings`.
    pub fn list(&self) -> Vec<Setting> {
        let known = KNOWN.iter().map(|k| Setting {
            name: k.name,
            value: self.get(k.name),
            description: k.description,
        });
        known.collect()
    }

    /// Schemas that unqualified names are looked up in.
    pub fn search_path(&self) -> Vec<String> {
        let text = self.get("search_path").unwrap_or_default();
        let path: Vec<String> = text
            .split(',')
            .map(|s| s.trim().trim_matches('"').to_owned())
            .filter(|s| !s.is_empty() && !IMPLIED.contains(&s.as_str()))
            .collect();
        if path.is_empty() {
            vec![DEFAULT_SCHEMA.to_owned()]
        } else {
            path
        }
    }

    /// The schema that new objects go to.
    pub fn schema(&self) -> String {
        self.search_path()
            .into_iter()
            .next()
            .unwrap_or_else(|| DEFAULT_SCHEMA.to_owned())
    }

    /// `statement_timeout`, if there is one.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.get("statement_timeout")
            .and_then(|t| time(&t).ok())
            .filter(|t| !t.is_zero())
    }

    /// `weir.as_of`, if it is set.
    pub fn as_of(&self) -> Option<TableVersion> {
        let text = self.get("weir.as_of").filter(|t| !t.is_empty())?;
        Some(match text.parse() {
            Ok(version) => TableVersion::Version(version),
            Err(_) => TableVersion::Timestamp(text),
        })
    }

    /// Takes `weir.idempotency_key` back.
    pub fn forget_idempotency_key(&mut self) {
        self.values
            .insert("weir.idempotency_key".to_owned(), String::new());
    }

    /// Notes the token of a write.
    pub fn set_last_token(&mut self, token: &str) {
        self.values
            .insert("weir.last_token".to_owned(), token.to_owned());
    }
}

fn canonical(name: &str) -> String {
    match name.to_lowercase().as_str() {
        "time zone" => "timezone".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        other => other.to_owned(),
    }
}

fn unknown(name: &str) -> Error {
    Error::refused(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

fn accepted(known: &Known, value: &str) -> Result<String> {
    let bad = || {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "invalid value for parameter \"{}\": \"{value}\"",
                known.name
            ),
        )
    };
    match known.rule {
        Rule::Text => Ok(value.to_owned()),
        Rule::Only(only) => {
            let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
            let same = plain(value) == plain(only)
                || plain(only).starts_with(&format!("{},", plain(value)))
                || (plain(only) == "utf8" && matches!(plain(value).as_str(), "unicode"))
                || (only == "on" && matches!(plain(value).as_str(), "true" | "1" | "yes"))
                || (only == "off" && matches!(plain(value).as_str(), "false" | "0" | "no"));
            if same {
                Ok(only.to_owned())
            } else {
                Err(bad().with_hint(format!("only {only} is supported")))
            }
        }
        Rule::Whole(least, most) => match value.parse::<i64>() {
            Ok(n) if (least..=most).contains(&n) => Ok(n.to_string()),
            _ => Err(bad()),
        },
        Rule::Switch => match value.to_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" => Ok("off".to_owned()),
            _ => Err(bad()),
        },
        Rule::Zone => match zone(value) {
            Some(name) => Ok(name),
            None => Err(bad()),
        },
        Rule::Time => time(value).map(|_| value.to_owned()).map_err(|_| bad()),
        Rule::AsOf => {
            let moment = value.is_empty()
                || value.parse::<i64>().is_ok_and(|v| v >= 0)
                || crate::engine::names::parse_time(value).is_ok();
            if moment {
                Ok(value.to_owned())
            } else {
                Err(bad())
            }
        }
        Rule::Fixed => Err(Error::refused(
            SqlState("55P02"),
            format!("parameter \"{}\" cannot be changed", known.name),
        )),
    }
}

/// The zone's own spelling; `utc` and `gmt` in any case.
fn zone(value: &str) -> Option<String> {
    let found = chrono_tz::TZ_VARIANTS
        .iter()
        .find(|tz| tz.name().eq_ignore_ascii_case(value));
    found.map(|tz| tz.name().to_owned())
}

fn time(text: &str) -> Result<Duration> {
    match text.trim().parse::<u64>() {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => parse_duration(text.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_names_in_any_case_and_refuses_the_rest() {
        let mut s = Settings::new("r");
        s.set("datestyle", "ISO").unwrap();
        s.set("TIME ZONE", "europe/berlin").unwrap();
        assert_eq!(s.get("timezone").as_deref(), Some("Europe/Berlin"));
        assert_eq!(
            s.take_reported(),
            [("TimeZone".to_owned(), "Europe/Berlin".to_owned())]
        );
        assert_eq!(
            s.set("no_such", "1").unwrap_err().state(),
            SqlState::UNDEFINED_OBJECT
        );
        assert_eq!(
            s.set("client_encoding", "LATIN1").unwrap_err().state(),
            SqlState::INVALID_PARAMETER_VALUE
        );
        s.set("app.user", "x").unwrap();
        s.set("statement_timeout", "5s").unwrap();
        assert_eq!(s.statement_timeout(), Some(Duration::from_secs(5)));
        s.reset_all();
        assert_eq!((s.statement_timeout(), s.get("app.user")), (None, None));
    }
}
