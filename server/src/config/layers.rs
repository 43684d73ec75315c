//! Applies the sources of settings in their order and remembers where each value came from.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::keys::{KEYS, Key};
use super::{Config, Secret, invalid, values};
use crate::error::{Error, Result};

/// Prefix of the environment's settings.
const PREFIX: &str = "WEIR__";
/// Prefix of the options that are handed to the clients of object stores.
const STORAGE: &str = "storage.";

/// The environment's settings: `WEIR__PG__ADDR` and so on, with their values.
pub fn environment() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|n| n.starts_with(PREFIX)) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| invalid(format!("environment variable \"{name}\" is not UTF-8")))?;
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

/// A configuration under construction: each source is applied over the ones before it.
#[derive(Debug, Default)]
pub struct Layers {
    config: Config,
    origins: HashMap<&'static str, String>,
    storage_origins: BTreeMap<String, String>,
}

impl Layers {
    /// Applies a TOML file.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            invalid(format!(
                "cannot read configuration file \"{}\"",
                path.display()
            ))
            .with_detail(e.to_string())
        })?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            invalid(format!(
                "configuration file \"{}\" is not valid TOML",
                path.display()
            ))
            .with_detail(e.to_string())
        })?;
        let mut settings = Vec::new();
        flatten("", &table, &mut settings)?;
        for (key, value) in settings {
            self.set(&key, &value, &format!("file \"{}\"", path.display()))?;
        }
        Ok(())
    }

    /// Applies `WEIR__A__B` variables as [`environment`] gives them.
    pub fn environment(&mut self, variables: &[(String, String)]) -> Result<()> {
        for (name, value) in variables {
            let key = name
                .strip_prefix(PREFIX)
                .unwrap_or(name)
                .to_ascii_lowercase()
                .replace("__", ".");
            self.set(&key, value, &format!("environment variable \"{name}\""))?;
        }
        Ok(())
    }

    /// Applies one command-line flag: the setting's key and the text given.
    pub fn flag(&mut self, key: &str, value: &str) -> Result<()> {
        self.set(key, value, "command line")
    }

    /// The checked result.
    pub fn finish(self) -> Result<Config> {
        if let Some(tls) = &self.config.tls {
            for (key, path) in [("tls.cert", &tls.cert), ("tls.key", &tls.key)] {
                if path.as_os_str().is_empty() {
                    return Err(invalid(format!("setting \"{key}\" is missing"))
                        .with_hint("tls.cert and tls.key go together"));
                }
            }
        }
        self.config.check()?;
        Ok(self.config)
    }

    /// All settings as a configuration file, each with where it came from; secrets hidden.
    pub fn print(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if table != section {
                out.push_str(&format!("\n[{table}]\n"));
                section = table;
            }
            let origin = self.origins.get(key.name).map_or("default", String::as_str);
            let line = match (key.get)(&self.config) {
                None => format!("# {name} is not set"),
                Some(_) if key.secret => format!("# {name} is set and not shown"),
                Some(value) => format!("{name} = {}", toml::Value::String(value)),
            };
            out.push_str(&format!("{line:<48} # {origin}\n"));
        }
        if !self.storage_origins.is_empty() {
            out.push_str("\n[storage]\n");
        }
        for (name, origin) in &self.storage_origins {
            let line = format!("# {name} is set and not shown");
            out.push_str(&format!("{line:<48} # {origin}\n"));
        }
        out
    }

    fn set(&mut self, name: &str, value: &str, origin: &str) -> Result<()> {
        if let Some(option) = name.strip_prefix(STORAGE) {
            if !values::is_storage_option(option) {
                return Err(unknown(name, origin).with_hint(
                    "options of object stores are spelled as in aws_endpoint, aws_region, \
                     google_service_account, azure_storage_account_name",
                ));
            }
            let value = Secret(value.to_owned());
            self.config.storage.insert(option.to_owned(), value);
            self.storage_origins
                .insert(option.to_owned(), origin.to_owned());
            return Ok(());
        }
        let key = KEYS
            .iter()
            .find(|k| k.name == name)
            .ok_or_else(|| unknown(name, origin))?;
        (key.set)(&mut self.config, value).map_err(|problem| {
            let shown = if key.secret { "***" } else { value };
            invalid(format!("setting \"{name}\" = \"{shown}\" {problem}"))
                .with_detail(format!("set by {origin}"))
        })?;
        self.origins.insert(key.name, origin.to_owned());
        Ok(())
    }
}

fn unknown(name: &str, origin: &str) -> Error {
    let error =
        invalid(format!("unknown setting \"{name}\"")).with_detail(format!("set by {origin}"));
    match nearest(name) {
        Some(key) => error.with_hint(format!("did you mean \"{}\"?", key.name)),
        None => error.with_hint("weir print-config lists all settings"),
    }
}

/// A key that shares its last word, or differs in few letters.
fn nearest(name: &str) -> Option<&'static Key> {
    let last = name.rsplit('.').next().unwrap_or(name);
    KEYS.iter()
        .find(|k| k.name.rsplit('.').next() == Some(last))
        .or_else(|| {
            KEYS.iter()
                .map(|k| (edit_distance(name, k.name), k))
                .filter(|(distance, _)| *distance <= 2)
                .min_by_key(|(distance, _)| *distance)
                .map(|(_, k)| k)
        })
}

/// Edit distance of two short ASCII texts.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) -> Result<()> {
    for (name, value) in table {
        let key = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, out)?,
            toml::Value::String(text) => out.push((key, text.clone())),
            toml::Value::Integer(n) => out.push((key, n.to_string())),
            toml::Value::Boolean(b) => out.push((key, b.to_string())),
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) => {
                return Err(invalid(format!(
                    "setting \"{key}\" has a {} where a text, a whole number or a switch belongs",
                    value.type_str()
                )));
            }
        }
    }
    Ok(())
}
