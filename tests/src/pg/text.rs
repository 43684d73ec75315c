//! Binary results of the Postgres wire → the text PostgreSQL prints for them (`DateStyle` ISO, UTC).
//!
//! Written from the protocol's documentation, apart from the server's encoder, so that the same test
//! file passing both protocols says that both encodings mean the same value.

use std::error::Error;
use std::fmt::Write as _;

use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, NaiveTime};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, Type};

/// The bytes of a value of any type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Column `i` of a row as text.
pub(super) fn value(row: &Row, i: usize) -> Option<String> {
    let raw: Option<Raw<'_>> = row.get(i);
    raw.map(|raw| text(row.columns()[i].type_(), raw.0))
}

fn text(ty: &Type, raw: &[u8]) -> String {
    if let Kind::Array(of) = ty.kind() {
        return array(of, raw);
    }
    match *ty {
        Type::BOOL => (if raw[0] == 0 { "f" } else { "t" }).to_owned(),
        Type::INT2 => i16::from_be_bytes(fixed(raw)).to_string(),
        Type::INT4 => i32::from_be_bytes(fixed(raw)).to_string(),
        Type::INT8 => i64::from_be_bytes(fixed(raw)).to_string(),
        Type::OID => u32::from_be_bytes(fixed(raw)).to_string(),
        Type::FLOAT4 => float4(f32::from_be_bytes(fixed(raw))),
        Type::FLOAT8 => float8(f64::from_be_bytes(fixed(raw))),
        Type::NUMERIC => numeric(raw),
        Type::BYTEA => raw.iter().fold("\\x".to_owned(), |mut out, byte| {
            write!(out, "{byte:02x}").expect("writes to a text");
            out
        }),
        Type::DATE => date(i32::from_be_bytes(fixed(raw))).to_string(),
        Type::TIME => time(i64::from_be_bytes(fixed(raw))),
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(fixed(raw))),
        Type::TIMESTAMPTZ => timestamp(i64::from_be_bytes(fixed(raw))) + "+00",
        Type::INTERVAL => interval(raw),
        Type::UUID => uuid::Uuid::from_bytes(fixed(raw)).to_string(),
        Type::JSONB => {
            assert_eq!(raw[0], 1, "jsonb version");
            utf8(&raw[1..])
        }
        Type::CHAR => utf8(raw),
        Type::VOID => String::new(),
        _ => utf8(raw),
    }
}

fn fixed<const N: usize>(raw: &[u8]) -> [u8; N] {
    raw.try_into()
        .unwrap_or_else(|_| panic!("expected {N} bytes, got {raw:?}"))
}

fn utf8(raw: &[u8]) -> String {
    String::from_utf8(raw.to_vec()).expect("text is UTF-8")
}

/// PostgreSQL prints the shortest text that reads back, in scientific form from 1e15 and below 1e-4.
fn float8(v: f64) -> String {
    scientific(v, &format!("{v:e}"), format!("{v}"), 15)
}

fn float4(v: f32) -> String {
    scientific(f64::from(v), &format!("{v:e}"), format!("{v}"), 6)
}

fn scientific(v: f64, exp_form: &str, plain: String, digits: i32) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return (if v > 0.0 { "Infinity" } else { "-Infinity" }).to_owned();
    }
    let (mantissa, exponent) = exp_form.split_once('e').expect("an exponent");
    let exponent: i32 = exponent.parse().expect("a number");
    if (-4..digits).contains(&exponent) {
        return plain;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Base-10000 digits, a weight, a sign and the digits to show after the point.
fn numeric(raw: &[u8]) -> String {
    let field = |i: usize| i16::from_be_bytes(fixed(&raw[2 * i..2 * i + 2]));
    let (count, weight, sign, scale) = (field(0), field(1), field(2), field(3));
    let digit = |position: i16| {
        let i = weight - position;
        if (0..count).contains(&i) {
            field(4 + usize::try_from(i).expect("an index"))
        } else {
            0
        }
    };
    match sign {
        -0x4000 => return "NaN".to_owned(),
        0 | 0x4000 => {}
        other => panic!("numeric sign {other:#x}"),
    }
    let mut whole = String::new();
    for position in (0..=weight.max(0)).rev() {
        write!(whole, "{:04}", digit(position)).expect("writes to a text");
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    let scale = usize::try_from(scale).expect("a scale");
    let mut position = -1;
    while fraction.len() < scale {
        write!(fraction, "{:04}", digit(position)).expect("writes to a text");
        position -= 1;
    }
    fraction.truncate(scale);
    let mut out = String::new();
    if sign == 0x4000 {
        out.push('-');
    }
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        out.push('.');
        out.push_str(&fraction);
    }
    out
}

fn epoch() -> NaiveDate {
    NaiveDate::from_ymd_opt(2000, 1, 1).expect("a date")
}

fn date(days: i32) -> NaiveDate {
    epoch() + Duration::days(i64::from(days))
}

fn trimmed(time: NaiveTime) -> String {
    let text = time.format("%H:%M:%S%.6f").to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn time(micros: i64) -> String {
    let at = NaiveDateTime::from(epoch()) + Duration::microseconds(micros);
    hms(at.time())
}

/// `12:30:00`, `12:30:00.25`: trailing zeros of the fraction go, those of the seconds stay.
fn hms(time: NaiveTime) -> String {
    if time.format("%6f").to_string() == "000000" {
        return time.format("%H:%M:%S").to_string();
    }
    trimmed(time)
}

fn timestamp(micros: i64) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let start = NaiveDateTime::from(epoch()).and_utc().timestamp_micros();
    let at = DateTime::from_timestamp_micros(start + micros)
        .expect("a time")
        .naive_utc();
    format!("{} {}", at.date(), hms(at.time()))
}

/// `1 year 2 mons 3 days 04:05:06`, each part only where it is not zero.
fn interval(raw: &[u8]) -> String {
    let micros = i64::from_be_bytes(fixed(&raw[0..8]));
    let days = i32::from_be_bytes(fixed(&raw[8..12]));
    let months = i32::from_be_bytes(fixed(&raw[12..16]));
    let mut parts = Vec::new();
    let mut part = |n: i32, one: &str, many: &str| {
        if n != 0 {
            parts.push(format!("{n} {}", if n == 1 { one } else { many }));
        }
    };
    part(months / 12, "year", "years");
    part(months % 12, "mon", "mons");
    part(days, "day", "days");
    if micros != 0 || parts.is_empty() {
        let total = micros.unsigned_abs();
        let (seconds, rest) = (total / 1_000_000, total % 1_000_000);
        let sign = if micros < 0 { "-" } else { "" };
        let mut clock = format!(
            "{sign}{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        if rest != 0 {
            let fraction = format!("{rest:06}");
            write!(clock, ".{}", fraction.trim_end_matches('0')).expect("writes to a text");
        }
        parts.push(clock);
    }
    parts.join(" ")
}

/// One-dimensional arrays, quoted as PostgreSQL quotes them.
fn array(of: &Type, raw: &[u8]) -> String {
    let int = |at: usize| i32::from_be_bytes(fixed(&raw[at..at + 4]));
    match int(0) {
        0 => return "{}".to_owned(),
        1 => {}
        n => panic!("an array of {n} dimensions"),
    }
    let count = int(12);
    let mut at = 20;
    let mut parts = Vec::new();
    for _ in 0..count {
        let size = int(at);
        at += 4;
        let Ok(size) = usize::try_from(size) else {
            parts.push("NULL".to_owned());
            continue;
        };
        parts.push(quoted(&text(of, &raw[at..at + size])));
        at += size;
    }
    format!("{{{}}}", parts.join(","))
}

fn quoted(element: &str) -> String {
    let special = |c: char| c.is_ascii_whitespace() || "{}\",\\".contains(c);
    let plain =
        !element.is_empty() && !element.eq_ignore_ascii_case("null") && !element.contains(special);
    if plain {
        return element.to_owned();
    }
    format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_postgres_prints_them() {
        assert_eq!(float8(1.0), "1");
        assert_eq!(float8(0.1), "0.1");
        assert_eq!(float8(1e15), "1e+15");
        assert_eq!(float8(1e-5), "1e-05");
        assert_eq!(float8(123_456_789.125), "123456789.125");
        assert_eq!(float4(1e6), "1e+06");
        let words = |w: &[i16]| w.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<_>>();
        assert_eq!(numeric(&words(&[3, 1, 0, 2, 250, 315, 6300])), "2500315.63");
        assert_eq!(numeric(&words(&[1, -1, 0x4000, 3, 50])), "-0.005");
        assert_eq!(numeric(&words(&[0, 0, 0, 2])), "0.00");
        assert_eq!(numeric(&words(&[1, 1, 0, 0, 3])), "30000");
    }

    #[test]
    fn times_read_as_postgres_prints_them() {
        assert_eq!(timestamp(0), "2000-01-01 00:00:00");
        assert_eq!(timestamp(250_000), "2000-01-01 00:00:00.25");
        assert_eq!(time(45_000_000_000), "12:30:00");
        let mut raw = 14_706_000_000i64.to_be_bytes().to_vec();
        raw.extend(3i32.to_be_bytes());
        raw.extend(14i32.to_be_bytes());
        assert_eq!(interval(&raw), "1 year 2 mons 3 days 04:05:06");
    }

    #[test]
    fn array_elements_are_quoted_where_needed() {
        assert_eq!(quoted("a"), "a");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("NULL"), "\"NULL\"");
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }
}
