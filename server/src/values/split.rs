//! Finds where records end in text and csv data that arrives in pieces, and takes records apart.

use super::{CopyFormat, CopyOptions};
use crate::error::{Error, Result, SqlState};

/// Remembers between pieces what the next byte means.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Inside csv quotes.
    quoted: bool,
    /// The last byte was an escape.
    escaped: bool,
    /// Bytes looked at since the record's start.
    seen: usize,
}

impl Splitter {
    /// Length of the record at the start of `data`, with its line end, once it is complete.
    /// Called with the same start until it gives one.
    pub(super) fn next(&mut self, data: &[u8], options: &CopyOptions) -> Option<usize> {
        let csv = options.format == CopyFormat::Csv;
        for (i, byte) in data.iter().enumerate().skip(self.seen) {
            if csv {
                self.csv(*byte, options);
            } else if self.escaped {
                self.escaped = false;
                continue;
            } else if *byte == b'\\' {
                self.escaped = true;
            }
            if *byte == b'\n' && !self.quoted {
                *self = Self::default();
                return Some(i + 1);
            }
        }
        self.seen = data.len();
        None
    }

    fn csv(&mut self, byte: u8, options: &CopyOptions) {
        let escaped = std::mem::take(&mut self.escaped);
        if self.quoted && options.escape != options.quote {
            if escaped && (byte == options.quote || byte == options.escape) {
                return;
            }
            if byte == options.escape {
                self.escaped = true;
                return;
            }
        }
        if byte == options.quote {
            self.quoted = !self.quoted; // a doubled quote toggles twice
        }
    }

    /// Whether the data ended inside quotes.
    pub(super) fn in_quotes(&self) -> bool {
        self.quoted
    }
}

/// The fields of one record, reused from record to record.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: Vec<u8>,
    /// End in `text`, and whether the field is NULL.
    ends: Vec<(usize, bool)>,
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field's bytes; `None` is NULL.
    pub(super) fn get(&self, i: usize) -> Option<&[u8]> {
        let (end, null) = *self.ends.get(i)?;
        let start = match i.checked_sub(1).and_then(|before| self.ends.get(before)) {
            Some((end, _)) => *end,
            None => 0,
        };
        (!null).then(|| &self.text[start..end])
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn end(&mut self, null: bool) {
        self.ends.push((self.text.len(), null));
    }

    /// Takes a record of the text format apart.
    pub(super) fn split_text(&mut self, record: &[u8], options: &CopyOptions) -> Result<()> {
        self.clear();
        let mut rest = record;
        loop {
            let length = raw_length(rest, options.delimiter);
            let raw = &rest[..length];
            if raw == options.null.as_bytes() {
                self.end(true);
            } else {
                self.unescape(raw)?;
                self.end(false);
            }
            match rest.get(length + 1..) {
                Some(tail) => rest = tail,
                None => return Ok(()),
            }
        }
    }

    fn unescape(&mut self, raw: &[u8]) -> Result<()> {
        if !raw.iter().any(|b| matches!(b, b'\\' | b'\r')) {
            self.text.extend_from_slice(raw);
            return Ok(());
        }
        let mut bytes = raw.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if byte == b'\r' {
                return Err(Error::refused(
                    SqlState::BAD_COPY_FILE_FORMAT,
                    "literal carriage return found in data",
                )
                .with_hint("use \"\\r\" to represent carriage return"));
            }
            if byte != b'\\' {
                self.text.push(byte);
                continue;
            }
            let Some(escaped) = bytes.next() else {
                self.text.push(b'\\');
                break;
            };
            let value = match escaped {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'0'..=b'7' => {
                    let mut value = escaped - b'0';
                    for _ in 0..2 {
                        match bytes.next_if(|b| (b'0'..=b'7').contains(b)) {
                            // as in PostgreSQL, only the low eight bits count
                            Some(digit) => value = (value << 3) | (digit - b'0'),
                            None => break,
                        }
                    }
                    value
                }
                b'x' => {
                    let mut value = None;
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(u8::is_ascii_hexdigit) else {
                            break;
                        };
                        let digit = char::from(digit).to_digit(16).unwrap_or_default();
                        let digit = u8::try_from(digit).unwrap_or_default();
                        value = Some((value.unwrap_or(0) << 4) | digit);
                    }
                    value.unwrap_or(b'x')
                }
                other => other,
            };
            self.text.push(value);
        }
        Ok(())
    }

    /// Takes a record of the csv format apart.
    pub(super) fn split_csv(&mut self, record: &[u8], options: &CopyOptions) -> Result<()> {
        self.clear();
        let mut start = 0;
        let mut any_quote = false;
        let mut quoted = false;
        let mut bytes = record.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if quoted {
                let next = bytes.peek().copied();
                let literal = byte == options.escape
                    && next.is_some_and(|n| n == options.quote || n == options.escape);
                if literal {
                    self.text.extend(bytes.next());
                } else if byte == options.quote {
                    quoted = false;
                } else {
                    self.text.push(byte);
                }
            } else if byte == options.quote {
                quoted = true;
                any_quote = true;
            } else if byte == options.delimiter {
                self.end_csv(start, any_quote, options);
                start = self.text.len();
                any_quote = false;
            } else if byte == b'\r' {
                return Err(Error::refused(
                    SqlState::BAD_COPY_FILE_FORMAT,
                    "unquoted carriage return found in data",
                )
                .with_hint("use quoted CSV field to represent carriage return"));
            } else {
                self.text.push(byte);
            }
        }
        if quoted {
            return Err(unterminated());
        }
        self.end_csv(start, any_quote, options);
        Ok(())
    }

    fn end_csv(&mut self, start: usize, quoted: bool, options: &CopyOptions) {
        let column = self.ends.len();
        let is_null_text = &self.text[start..] == options.null.as_bytes();
        let null = is_null_text
            && if quoted {
                options.force_null.contains(column)
            } else {
                !options.force_not_null.contains(column)
            };
        self.end(null);
    }
}

pub(super) fn unterminated() -> Error {
    Error::refused(
        SqlState::BAD_COPY_FILE_FORMAT,
        "unterminated CSV quoted field",
    )
}

/// Length up to the next delimiter that no backslash stands before.
fn raw_length(data: &[u8], delimiter: u8) -> usize {
    let mut escaped = false;
    for (i, byte) in data.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if *byte == b'\\' {
            escaped = true;
        } else if *byte == delimiter {
            return i;
        }
    }
    data.len()
}
