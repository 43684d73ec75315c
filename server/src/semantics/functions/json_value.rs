//! JSON texts taken apart and put together as PostgreSQL does: `json` keeps its text, `jsonb` has each key
//! once, shorter keys first, and one blank behind `:` and `,`.

use std::fmt::Write as _;

use crate::error::{Error, SqlState};

/// How deep values may lie in each other.
const DEEPEST: usize = 512;

/// A value, with the text it was read from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    /// Members in the order they are written, with the place of their value in the text.
    Object(Vec<(String, Json)>),
}

/// `jsonb` as PostgreSQL prints it, by way of its values.
pub(super) fn normalized_tree(text: &str) -> Result<String, Error> {
    Ok(read(text, "jsonb")?.unique().to_string())
}

/// Reads a whole text.
pub(super) fn read(text: &str, kind: &str) -> Result<Json, Error> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    let value = reader.value();
    reader.blanks();
    match value {
        Some(value) if reader.at == text.len() => Ok(value),
        _ => Err(Error::refused(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type {kind}"),
        )),
    }
}

/// The text of a part of a `json` value, as it is written.
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(i64),
}

/// Follows one step into a text; the part's text as written, the last one of equal keys.
pub(super) fn part<'t>(text: &'t str, step: &Step<'_>) -> Option<&'t str> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    let parts = reader.parts()?;
    match (step, parts) {
        (Step::Key(key), Parts::Members(members)) => members
            .into_iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value),
        (Step::Index(at), Parts::Elements(elements)) => {
            let at = match *at {
                at if at < 0 => i64::try_from(elements.len()).ok()? + at,
                at => at,
            };
            elements.get(usize::try_from(at).ok()?).copied()
        }
        _ => None,
    }
}

/// The parts of a text, as they are written.
pub(super) enum Parts<'t> {
    Members(Vec<(String, &'t str)>),
    Elements(Vec<&'t str>),
    Scalar,
}

/// Takes the outermost level of a text apart.
pub(super) fn parts(text: &str) -> Option<Parts<'_>> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    reader.parts()
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Option<Json> {
        self.blanks();
        match self.peek()? {
            b'{' => {
                let mut members = Vec::new();
                self.members(|reader, key| {
                    let value = reader.value()?;
                    members.push((key, value));
                    Some(())
                })?;
                Some(Json::Object(members))
            }
            b'[' => {
                let mut elements = Vec::new();
                self.elements(|reader| {
                    elements.push(reader.value()?);
                    Some(())
                })?;
                Some(Json::List(elements))
            }
            b'"' => self.string().map(Json::Text),
            b't' => self.word("true").map(|()| Json::Bool(true)),
            b'f' => self.word("false").map(|()| Json::Bool(false)),
            b'n' => self.word("null").map(|()| Json::Null),
            _ => self.number().map(|n| Json::Number(n.to_owned())),
        }
    }

    fn parts(&mut self) -> Option<Parts<'t>> {
        self.blanks();
        match self.peek()? {
            b'{' => {
                let mut members = Vec::new();
                self.members(|reader, key| {
                    members.push((key, reader.slice()?));
                    Some(())
                })?;
                Some(Parts::Members(members))
            }
            b'[' => {
                let mut elements = Vec::new();
                self.elements(|reader| {
                    elements.push(reader.slice()?);
                    Some(())
                })?;
                Some(Parts::Elements(elements))
            }
            _ => Some(Parts::Scalar),
        }
    }

    /// The text of the next value.
    fn slice(&mut self) -> Option<&'t str> {
        self.blanks();
        let start = self.at;
        self.value()?;
        self.text.get(start..self.at)
    }

    fn members(&mut self, mut each: impl FnMut(&mut Self, String) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        self.deeper()?;
        self.blanks();
        if self.take(b'}').is_none() {
            loop {
                self.blanks();
                let key = self.string()?;
                self.blanks();
                self.take(b':')?;
                each(self, key)?;
                self.blanks();
                if self.take(b',').is_none() {
                    break self.take(b'}')?;
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        self.deeper()?;
        self.blanks();
        if self.take(b']').is_none() {
            loop {
                each(self)?;
                self.blanks();
                if self.take(b',').is_none() {
                    break self.take(b']')?;
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= DEEPEST).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text
            .get(self.at..)?
            .starts_with(word)
            .then(|| self.at += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<&'t str> {
        let start = self.at;
        let _ = self.take(b'-');
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.text.get(start..self.at)
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut value = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let stop = rest.find(['"', '\\'])?;
            let plain = &rest[..stop];
            if plain.bytes().any(|b| b < 0x20) {
                return None;
            }
            value.push_str(plain);
            self.at += stop + 1;
            if rest.as_bytes()[stop] == b'"' {
                return Some(value);
            }
            let escaped = self.peek()?;
            self.at += 1;
            value.push(match escaped {
                b'"' => '"',
                b'\\' => '\\',
                b'/' => '/',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.escaped()?,
                _ => return None,
            });
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).filter(|c| *c != '\0');
        }
        self.take(b'\\')?;
        self.take(b'u')?;
        let second = self.hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

impl Json {
    /// Each key once, the last value counts; shorter keys first.
    pub(super) fn unique(self) -> Self {
        match self {
            Self::Object(members) => {
                let mut kept: Vec<(String, Self)> = Vec::with_capacity(members.len());
                for (key, value) in members {
                    kept.push((key, value.unique()));
                }
                // stable: of equal keys the last written comes last
                kept.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
                let mut unique: Vec<(String, Self)> = Vec::with_capacity(kept.len());
                for (key, value) in kept {
                    match unique.last_mut() {
                        Some((last, old)) if *last == key => *old = value,
                        _ => unique.push((key, value)),
                    }
                }
                Self::Object(unique)
            }
            Self::List(elements) => Self::List(elements.into_iter().map(Self::unique).collect()),
            Self::Number(number) => Self::Number(plain_number(&number)),
            other => other,
        }
    }

    /// `jsonb_typeof`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::List(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// The value as `->>` gives it.
    pub(super) fn as_text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Whether every member and element of the other is in this one.
    pub(super) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(all), Self::Object(some)) => some
                .iter()
                .all(|(key, value)| all.iter().any(|(k, v)| k == key && v.holds(value))),
            (Self::List(all), Self::List(some)) => {
                some.iter().all(|value| all.iter().any(|v| v.holds(value)))
            }
            // a list holds a plain value
            (Self::List(all), value) if !matches!(value, Self::Object(_)) => all.contains(value),
            _ => self.same(other),
        }
    }

    fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(_), Self::Object(_)) | (Self::List(_), Self::List(_)) => {
                self.contains(other)
            }
            _ => self.same(other),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a == b || trimmed(a) == trimmed(b),
            _ => self == other,
        }
    }
}

/// Without zeros at the end of a fraction.
fn trimmed(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// A number without an exponent, as `numeric` prints it.
fn plain_number(number: &str) -> String {
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else {
        return match number {
            "-0" => "0".to_owned(),
            _ => number.to_owned(),
        };
    };
    let Some(exponent) = exponent.parse::<i32>().ok().filter(|e| e.abs() <= 1000) else {
        return number.to_owned();
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len())
        .unwrap_or(i32::MAX)
        .saturating_add(exponent);
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or_default());
    let plain = match point {
        p if p <= 0 => format!("0.{}{digits}", zeros(-p)),
        p if p >= length => format!("{digits}{}", zeros(p - length)),
        p => {
            let p = usize::try_from(p).unwrap_or_default();
            format!("{}.{}", &digits[..p], &digits[p..])
        }
    };
    let lead = plain.trim_start_matches('0');
    let lead = match lead.is_empty() || lead.starts_with('.') {
        true => format!("0{lead}"),
        false => lead.to_owned(),
    };
    format!("{sign}{lead}")
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => f.write_str(number),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::List(elements) => {
                f.write_char('[')?;
                for (at, element) in elements.iter().enumerate() {
                    f.write_str(if at > 0 { ", " } else { "" })?;
                    write!(f, "{element}")?;
                }
                f.write_char(']')
            }
            Self::Object(members) => {
                f.write_char('{')?;
                for (at, (key, value)) in members.iter().enumerate() {
                    f.write_str(if at > 0 { ", " } else { "" })?;
                    write!(f, "{}: {value}", quoted(key))?;
                }
                f.write_char('}')
            }
        }
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
