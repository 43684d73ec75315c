//! Functions of texts and bytes: `format`, patterns of `LIKE` and `SIMILAR TO`, quoting, encodings, bits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::ScalarValue;

use super::{Entry, Row, Ty, int4, invalid, strict, text, variadic};
use crate::error::{Error, SqlState};

pub(super) const LIST: &[Entry] = &[
    variadic("format", &[&[Ty::Text, Ty::Any]], Ty::Text, format),
    strict(
        "like_escape",
        &[&[Ty::Text, Ty::Text]],
        Ty::Text,
        like_escape,
    ),
    strict(
        "similar_to_escape",
        &[&[Ty::Text], &[Ty::Text, Ty::Text]],
        Ty::Text,
        similar_to_escape,
    ),
    strict("quote_literal", &[&[Ty::Any]], Ty::Text, |row| {
        Ok(text(quote_literal(&row.shown(0)?.unwrap_or_default())))
    }),
    variadic("quote_nullable", &[&[Ty::Any]], Ty::Text, |row| {
        Ok(text(match row.shown(0)? {
            Some(value) => quote_literal(&value),
            None => "NULL".to_owned(),
        }))
    }),
    strict("encode", &[&[Ty::Bytes, Ty::Text]], Ty::Text, encode),
    strict("decode", &[&[Ty::Text, Ty::Text]], Ty::Bytes, decode),
    strict("get_byte", &[&[Ty::Bytes, Ty::Int4]], Ty::Int4, |row| {
        let (bytes, at) = (row.bytes(0), row.int(1));
        let at = place(at, bytes.len())?;
        int4(bytes[at].into())
    }),
    strict(
        "set_byte",
        &[&[Ty::Bytes, Ty::Int4, Ty::Int4]],
        Ty::Bytes,
        |row| {
            let mut bytes = row.bytes(0).to_vec();
            let at = place(row.int(1), bytes.len())?;
            bytes[at] = u8::try_from(row.int(2) & 0xff).unwrap_or_default();
            Ok(ScalarValue::Binary(Some(bytes)))
        },
    ),
    strict("get_bit", &[&[Ty::Bytes, Ty::Int8]], Ty::Int4, |row| {
        let bytes = row.bytes(0);
        let at = place(row.int(1), bytes.len() * 8)?;
        int4(i64::from(bytes[at / 8] >> (at % 8) & 1))
    }),
    strict(
        "set_bit",
        &[&[Ty::Bytes, Ty::Int8, Ty::Int4]],
        Ty::Bytes,
        |row| {
            let mut bytes = row.bytes(0).to_vec();
            let at = place(row.int(1), bytes.len() * 8)?;
            match row.int(2) {
                0 => bytes[at / 8] &= !(1 << (at % 8)),
                1 => bytes[at / 8] |= 1 << (at % 8),
                _ => return Err(invalid("new bit must be 0 or 1")),
            }
            Ok(ScalarValue::Binary(Some(bytes)))
        },
    ),
    strict("bit_count", &[&[Ty::Bytes]], Ty::Int8, |row| {
        let bits: u32 = row.bytes(0).iter().map(|b| b.count_ones()).sum();
        Ok(ScalarValue::Int64(Some(bits.into())))
    }),
    strict("unistr", &[&[Ty::Text]], Ty::Text, unistr),
];

fn place(at: i64, length: usize) -> Result<usize, Error> {
    usize::try_from(at)
        .ok()
        .filter(|at| *at < length)
        .ok_or_else(|| {
            let last = i64::try_from(length).unwrap_or(i64::MAX) - 1;
            Error::refused(
                SqlState("2202E"),
                format!("index {at} out of valid range, 0..{last}"),
            )
        })
}

fn quote_literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// An identifier in quotes where it needs them. Key words are quoted too.
fn quote_identifier(value: &str) -> String {
    use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
    let plain = value
        .bytes()
        .enumerate()
        .all(|(i, b)| b.is_ascii_lowercase() || b == b'_' || (i > 0 && b.is_ascii_digit()));
    let keyword = ALL_KEYWORDS
        .binary_search(&value.to_ascii_uppercase().as_str())
        .is_ok_and(|_| RESERVED.contains(&value));
    match plain && !value.is_empty() && !keyword {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('"', "\"\"")),
    }
}

/// Words that are no names in PostgreSQL.
const RESERVED: [&str; 77] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// `format(pattern, value, …)` with `%s`, `%I`, `%L` and `%%`.
fn format(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let Some(pattern) = row.text_or_null(0) else {
        return Ok(ScalarValue::Utf8(None));
    };
    let few = || invalid("too few arguments for format()");
    let mut out = String::new();
    let mut next = 1;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if let Some((position, after)) = digits(rest)
            && let Some(after) = after.strip_prefix('$')
        {
            if position == 0 {
                return Err(invalid(
                    "format specifies argument 0, but arguments are numbered from 1",
                ));
            }
            (next, rest) = (position, after);
        }
        let mut left = false;
        while let Some(after) = rest.strip_prefix('-') {
            (left, rest) = (true, after);
        }
        let mut width = 0;
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            let mut from = next;
            if let Some((position, after)) = digits(rest)
                && let Some(after) = after.strip_prefix('$')
            {
                (from, rest) = (position, after);
                next = position.saturating_add(1);
            } else {
                next += 1;
            }
            if from >= row.len() {
                return Err(few());
            }
            let shown = row.shown(from)?.unwrap_or_default();
            let wanted: i64 = shown.parse().unwrap_or_default();
            left = left || wanted < 0;
            width = usize::try_from(wanted.unsigned_abs()).unwrap_or_default();
        } else if let Some((wanted, after)) = digits(rest) {
            (width, rest) = (wanted, after);
        }
        if width > 1_000_000 {
            return Err(invalid("the width of a field is out of range"));
        }
        let kind = rest.chars().next().ok_or_else(|| {
            invalid("unterminated format() type specifier")
                .with_hint("for a single \"%\" use \"%%\"")
        })?;
        rest = &rest[kind.len_utf8()..];
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(
                invalid(format!("unrecognized format() type specifier \"{kind}\""))
                    .with_hint("for a single \"%\" use \"%%\""),
            );
        }
        if next >= row.len() {
            return Err(few());
        }
        let value = row.shown(next)?;
        next += 1;
        let shown = match (kind, value) {
            ('s', value) => value.unwrap_or_default(),
            ('I', Some(value)) => quote_identifier(&value),
            ('I', None) => {
                return Err(Error::refused(
                    SqlState("22004"),
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            (_, Some(value)) => quote_literal(&value),
            (_, None) => "NULL".to_owned(),
        };
        match left {
            true => out.push_str(&format!("{shown:<width$}")),
            false => out.push_str(&format!("{shown:>width$}")),
        }
    }
    out.push_str(rest);
    Ok(text(out))
}

fn digits(text: &str) -> Option<(usize, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn escape_of(row: &Row<'_>, i: usize) -> Result<Option<char>, Error> {
    let written = row.text(i);
    let mut characters = written.chars();
    let first = characters.next();
    match characters.next() {
        None => Ok(first),
        Some(_) => Err(Error::refused(SqlState("22019"), "invalid escape string")
            .with_hint("escape string must be empty or one character")),
    }
}

/// The pattern with a backslash as its escape.
fn like_escape(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let escape = escape_of(row, 1)?;
    let mut out = String::new();
    let mut characters = row.text(0).chars();
    while let Some(c) = characters.next() {
        if Some(c) == escape {
            out.push('\\');
            match characters.next() {
                Some(next) => out.push(next),
                None => {
                    return Err(Error::refused(
                        SqlState("22025"),
                        "LIKE pattern must not end with escape character",
                    ));
                }
            }
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    Ok(text(out))
}

/// The regular expression of a `SIMILAR TO` pattern.
fn similar_to_escape(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let escape = match row.len() {
        1 => Some('\\'),
        _ => escape_of(row, 1)?,
    };
    let mut out = String::from("^(?:");
    let mut class = false;
    let mut characters = row.text(0).chars();
    while let Some(c) = characters.next() {
        if Some(c) == escape {
            match characters.next() {
                Some('"') => {
                    return Err(Error::unsupported(
                        "parts of SIMILAR TO patterns are not supported",
                        "use a regular expression",
                    ));
                }
                Some(next) => {
                    out.push('\\');
                    out.push(next);
                }
                None => {
                    return Err(Error::refused(
                        SqlState("22025"),
                        "SIMILAR TO pattern must not end with escape character",
                    ));
                }
            }
            continue;
        }
        match c {
            ']' => {
                class = false;
                out.push(c);
            }
            c if class => {
                if c == '\\' {
                    out.push('\\');
                }
                out.push(c);
            }
            '[' => {
                class = true;
                out.push(c);
            }
            '%' => out.push_str("(?s:.*)"),
            '_' => out.push_str("(?s:.)"),
            '(' => out.push_str("(?:"),
            '\\' | '.' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
    Ok(text(out))
}

fn unknown_encoding(name: &str) -> Error {
    invalid(format!("unrecognized encoding: \"{name}\""))
}

fn encode(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let bytes = row.bytes(0);
    let name = row.text(1);
    Ok(text(match name.to_ascii_lowercase().as_str() {
        "hex" => bytes.iter().map(|b| format!("{b:02x}")).collect(),
        "base64" => {
            // lines of 76 characters, as MIME wants
            let plain = STANDARD.encode(bytes);
            let lines: Vec<&str> = plain
                .as_bytes()
                .chunks(76)
                .filter_map(|line| std::str::from_utf8(line).ok())
                .collect();
            lines.join("\n")
        }
        "escape" => bytes
            .iter()
            .map(|b| match b {
                b'\\' => "\\\\".to_owned(),
                0 | 0x80.. => format!("\\{b:03o}"),
                b => char::from(*b).to_string(),
            })
            .collect(),
        _ => return Err(unknown_encoding(name)),
    }))
}

fn decode(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let (input, name) = (row.text(0), row.text(1));
    let bytes = match name.to_ascii_lowercase().as_str() {
        "hex" => {
            let digits: Vec<u8> = input.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            if !digits.len().is_multiple_of(2) {
                return Err(invalid("invalid hexadecimal data: odd number of digits"));
            }
            let pairs = digits.chunks(2).map(|pair| {
                let digits = std::str::from_utf8(pair).ok();
                digits
                    .and_then(|d| u8::from_str_radix(d, 16).ok())
                    .ok_or_else(|| invalid("invalid hexadecimal digit"))
            });
            pairs.collect::<Result<Vec<u8>, Error>>()?
        }
        "base64" => {
            let kept: String = input.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            STANDARD
                .decode(kept)
                .map_err(|_| invalid("invalid base64 sequence"))?
        }
        "escape" => unescaped(input)?,
        _ => return Err(unknown_encoding(name)),
    };
    Ok(ScalarValue::Binary(Some(bytes)))
}

fn unescaped(input: &str) -> Result<Vec<u8>, Error> {
    let wrong = || {
        Error::refused(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type bytea",
        )
    };
    let mut out = Vec::with_capacity(input.len());
    let mut rest = input.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        if let Some(after) = rest.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = after;
            continue;
        }
        let digits = rest.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        out.push(
            digits
                .and_then(|d| u8::from_str_radix(d, 8).ok())
                .ok_or_else(wrong)?,
        );
        rest = &rest[3..];
    }
    Ok(out)
}

/// Escapes of four, six or eight hexadecimal digits.
fn unistr(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let wrong = || {
        Error::refused(SqlState::SYNTAX_ERROR, "invalid Unicode escape")
            .with_hint("escapes are \\XXXX, \\+XXXXXX, \\uXXXX and \\UXXXXXXXX")
    };
    let mut out = String::new();
    let mut rest = row.text(0);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            out.push('\\');
            rest = after;
            continue;
        }
        let (skip, length) = match rest.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let digits = rest.get(skip..skip + length).ok_or_else(wrong)?;
        let code = u32::from_str_radix(digits, 16).map_err(|_| wrong())?;
        out.push(char::from_u32(code).ok_or_else(wrong)?);
        rest = &rest[skip + length..];
    }
    out.push_str(rest);
    Ok(text(out))
}
