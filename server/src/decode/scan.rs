//! A quick reader of plain lines: objects as machines write them.
//!
//! It takes what it is sure of: known keys (others where the table keeps them), strings without
//! escapes, numbers, `true`, `false`, `null`, and nested values by way of serde. From anything else it keeps its hands off; the
//! caller's full reader takes the line then, and says what is wrong with it if something is.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::columns::{Cell, Stray};
use super::table::Table;

/// Reads one object into cells, and what has no column into strays. `None` when it is not plain; both
/// are undefined then.
pub(super) fn plain<'de>(
    line: &'de str,
    table: &Table,
    cells: &mut [Cell<'de>],
    strays: &mut Vec<Stray<'de>>,
) -> Option<()> {
    cells.fill(Cell::Absent);
    strays.clear();
    let mut rest = Rest { line, at: 0 };
    rest.blanks();
    rest.take(b'{')?;
    rest.blanks();
    if rest.take(b'}').is_some() {
        return rest.end();
    }
    let mut expected = 0;
    loop {
        let key = rest.key(table, expected)?;
        rest.blanks();
        rest.take(b':')?;
        rest.blanks();
        match key {
            Ok(column) => {
                expected = column + 1;
                let cell = cells.get_mut(column)?;
                if !matches!(cell, Cell::Absent) {
                    return None;
                }
                *cell = rest.value()?;
            }
            Err(name) if table.keeps() => {
                let value = match rest.value()? {
                    Cell::Json(json) | Cell::Plain(json) | Cell::Text(json) => json,
                    Cell::Null | Cell::Absent => "null",
                    // no JSON value is read as one of these
                    Cell::Bytes(_) | Cell::Int(_) => return None,
                };
                strays.push((Cow::Borrowed(name), value));
            }
            Err(_) => return None,
        }
        rest.blanks();
        if rest.take(b',').is_some() {
            rest.blanks();
            continue;
        }
        rest.take(b'}')?;
        return rest.end();
    }
}

/// What is still to be read of a line.
struct Rest<'de> {
    line: &'de str,
    at: usize,
}

impl<'de> Rest<'de> {
    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Option<()> {
        self.blanks();
        (self.at == self.line.len()).then_some(())
    }

    /// Rows tend to keep the order of the columns, so the expected name is compared first.
    /// The column, or the name that is none.
    fn key(&mut self, table: &Table, expected: usize) -> Option<Result<usize, &'de str>> {
        let bytes = self.line.as_bytes().get(self.at..)?;
        if let Some(name) = table.name(expected)
            && bytes.len() > name.len() + 1
            && bytes[0] == b'"'
            && bytes[name.len() + 1] == b'"'
            && &bytes[1..=name.len()] == name.as_bytes()
        {
            self.at += name.len() + 2;
            return Some(Ok(expected));
        }
        let quoted = self.string()?;
        let name = &quoted[1..quoted.len() - 1];
        Some(table.column(name, expected).ok_or(name))
    }

    fn value(&mut self) -> Option<Cell<'de>> {
        match self.peek()? {
            b'"' => self.string().map(Cell::Plain),
            b'-' | b'0'..=b'9' => self.number().map(Cell::Json),
            b't' => self.word("true").map(Cell::Json),
            b'f' => self.word("false").map(Cell::Json),
            b'n' => self.word("null").map(|_| Cell::Null),
            b'{' | b'[' => self.nested().map(Cell::Json),
            _ => None,
        }
    }

    /// A string with its quotes, if it has neither escapes nor control characters.
    fn string(&mut self) -> Option<&'de str> {
        let start = self.at;
        self.take(b'"')?;
        let bytes = self.line.as_bytes().get(self.at..)?;
        let length = until_special(bytes)?;
        self.at += length;
        self.take(b'"')?;
        self.line.get(start..self.at)
    }

    fn word(&mut self, word: &str) -> Option<&'de str> {
        let found = self.line.get(self.at..self.at + word.len())?;
        (found == word).then(|| {
            self.at += word.len();
            found
        })
    }

    /// A number as JSON spells it.
    fn number(&mut self) -> Option<&'de str> {
        let start = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
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
        self.line.get(start..self.at)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// An object or array, read by serde, which bounds its depth.
    fn nested(&mut self) -> Option<&'de str> {
        let rest = self.line.get(self.at..)?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let value = values.next()?.ok()?.get();
        self.at += value.len();
        Some(value)
    }
}

/// Bytes before the first quote, backslash or control character; eight are looked at together.
fn until_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = zero_in(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_in(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = quote | backslash | control;
        if found != 0 {
            // the lowest hit is exact; carries make wrong ones only above it
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let tail = bytes.get(at..)?;
    let special = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
    tail.iter().position(special).map(|n| at + n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_bytes_are_found_wherever_they_stand() {
        for special in [b'"', b'\\', 0, 9, 0x1f] {
            for length in 0..40 {
                for at in 0..length {
                    let mut bytes: Vec<u8> = (0..length).map(|n| b' ' + n as u8 % 2).collect();
                    bytes[at] = special;
                    assert_eq!(until_special(&bytes), Some(at), "{special} of {length}");
                    // what comes later changes nothing
                    bytes[length - 1] = b'"';
                    assert_eq!(until_special(&bytes), Some(at));
                }
            }
        }
        assert_eq!(until_special("äöü€ ✓ no end".as_bytes()), None);
        assert_eq!(until_special("äöü€\u{7f}✓\"".as_bytes()), Some(13));
    }

    #[test]
    fn numbers_are_those_of_json() {
        for (text, good) in [
            ("0", true),
            ("-0.5e+10", true),
            ("12.25", true),
            ("1E5", true),
            ("-", false),
            ("1.", false),
            ("1e", false),
            (".5", false),
        ] {
            let mut rest = Rest { line: text, at: 0 };
            let read = rest.number() == Some(text);
            assert_eq!(read, good, "{text}");
        }
        let mut zeros = Rest { line: "01", at: 0 };
        assert_eq!(zeros.number(), Some("0"));
    }

    proptest! {
        #[test]
        fn first_special_byte(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let naive = bytes.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20);
            prop_assert_eq!(until_special(&bytes), naive);
        }
    }
}
