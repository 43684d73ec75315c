//! Texts of settings ↔ values: durations and sizes with units, addresses, switches.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;

/// `5 s`, `200ms`, `1 minute`, `12 h`; a unit is required.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let millis: u64 = match unit.as_str() {
        "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "second" | "seconds" => 1000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return Err("expected a number with a unit: ms, s, min, h or d".to_owned()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "is too long".to_owned())
}

/// A duration above zero, or `off`.
pub(super) fn interval(text: &str) -> Result<Option<Duration>, String> {
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    match duration(text)? {
        Duration::ZERO => Err("expected a time above zero, or off".to_owned()),
        some => Ok(Some(some)),
    }
}

/// The text of an interval.
pub(super) fn show_interval(interval: Option<Duration>) -> String {
    interval.map_or_else(|| "off".to_owned(), show_duration)
}

/// `64 MiB`, `1 GiB`, `500 MB`, `1048576`.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err("expected a number of bytes or a unit: KiB, MiB, GiB, kB, MB, GB".into()),
    };
    number
        .checked_mul(factor)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| "is too large".to_owned())
}

/// A whole number above zero.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("expected a whole number above zero".to_owned()),
        Ok(n) => Ok(n),
    }
}

/// `127.0.0.1:5433`, `[::1]:5433`, `localhost:5433`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| "has no valid port".to_owned())?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse()
        .map_err(|_| "expected an IP address and a port, as in 127.0.0.1:5433".to_owned())
}

/// `true`, `false` and their relatives.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A duration as [`duration`] reads it.
pub(super) fn show_duration(value: Duration) -> String {
    let millis = value.as_millis();
    match millis {
        0 => "0 s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{} h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{} min", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{} s", millis / 1000),
        _ => format!("{millis} ms"),
    }
}

/// A size as [`bytes`] reads it.
pub(super) fn show_bytes(value: usize) -> String {
    match value {
        _ if value > 0 && value.is_multiple_of(1 << 30) => format!("{} GiB", value >> 30),
        _ if value > 0 && value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
        _ => value.to_string(),
    }
}

fn split_unit(text: &str) -> Result<(u64, String), String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number
        .parse()
        .map_err(|_| "expected a whole number first".to_owned())?;
    Ok((number, unit.trim().to_ascii_lowercase()))
}

/// True when a client of an object store knows an option of that name.
pub(super) fn is_storage_option(name: &str) -> bool {
    name.parse::<AmazonS3ConfigKey>().is_ok()
        || name.parse::<GoogleConfigKey>().is_ok()
        || name.parse::<AzureConfigKey>().is_ok()
}
