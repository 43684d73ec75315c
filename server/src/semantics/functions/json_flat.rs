//! Texts in the form that `jsonb` has: the one place that brings them into it.
//!
//! Most events carry a flat object of plain texts and numbers. Those are put in order as they stand, without
//! a value being made; everything else takes the way over [`normalized_tree`], with the same result.

use arrow::array::{Array, StringArray, StringBuilder};

use super::json_value::normalized_tree;
use crate::error::Error;

/// `jsonb` as PostgreSQL prints it.
///
/// # Errors
/// 22P02 for what is not JSON.
pub(super) fn normalized(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len() + 16);
    match flat(text, &mut Vec::with_capacity(8), &mut out) {
        Some(()) => Ok(out),
        None => normalized_tree(text),
    }
}

/// Each text of a column as [`normalized`] has it; NULL stays NULL.
///
/// # Errors
/// 22P02 if one is not JSON.
pub(in crate::semantics) fn normalized_all(texts: &StringArray) -> Result<StringArray, Error> {
    let bytes = texts.values().len();
    let mut all = StringBuilder::with_capacity(texts.len(), bytes + bytes / 4);
    let mut out = String::new();
    let mut members = Vec::new();
    for text in texts {
        let Some(text) = text else {
            all.append_null();
            continue;
        };
        out.clear();
        match flat(text, &mut members, &mut out) {
            Some(()) => all.append_value(&out),
            None => all.append_value(normalized_tree(text)?),
        }
    }
    Ok(all.finish())
}

/// A key and a value, as they are written.
type Member<'t> = (&'t str, &'t str);

/// Writes an object of plain texts, numbers and words to `out`, which is empty. `None` for anything else,
/// right or wrong; what `out` holds then is worth nothing.
fn flat<'t>(text: &'t str, members: &mut Vec<Member<'t>>, out: &mut String) -> Option<()> {
    members.clear();
    let mut at = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
    };
    at.blanks();
    at.take(b'{')?;
    at.blanks();
    if at.take(b'}').is_none() {
        loop {
            let key = at.plain_text()?;
            at.blanks();
            at.take(b':')?;
            at.blanks();
            let value = at.plain()?;
            members.push((key, value));
            at.blanks();
            if at.take(b',').is_none() {
                break;
            }
            at.blanks();
        }
        at.take(b'}')?;
    }
    at.blanks();
    if at.at < at.bytes.len() {
        return None;
    }
    // equal keys stay in their order, and the last one is kept
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    out.push('{');
    for (at, (key, value)) in members.iter().enumerate() {
        if members.get(at + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(key);
        out.push_str(": ");
        out.push_str(value);
    }
    out.push('}');
    Some(())
}

struct Scanner<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Scanner<'t> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// What JSON lets stand between its parts.
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A text without escapes, with its quotes.
    fn plain_text(&mut self) -> Option<&'t str> {
        let from = self.at;
        self.take(b'"')?;
        let rest = self.bytes.get(self.at..)?;
        let end = rest
            .iter()
            .position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))?;
        self.at += end;
        self.take(b'"')?;
        self.text.get(from..self.at)
    }

    /// A plain text, a number without exponent, or a word.
    fn plain(&mut self) -> Option<&'t str> {
        match self.peek()? {
            b'"' => self.plain_text(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.plain_number(),
        }
    }

    fn word(&mut self, word: &'static str) -> Option<&'t str> {
        let found = self.text.get(self.at..self.at + word.len())?;
        self.at += word.len();
        (found == word).then_some(found)
    }

    /// One that is written as PostgreSQL writes it: no exponent, no sign before zero, not too long.
    fn plain_number(&mut self) -> Option<&'t str> {
        let from = self.at;
        let negative = self.take(b'-').is_some();
        let whole = self.digits()?;
        if whole.starts_with('0') && (negative || whole.len() > 1) {
            return None;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        match self.peek() {
            Some(b'.' | b'-' | b'+' | b'e' | b'E') => None,
            _ => self.text.get(from..self.at).filter(|n| n.len() < 30),
        }
    }

    fn digits(&mut self) -> Option<&'t str> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.text.get(from..self.at).filter(|d| !d.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const PIECES: [&str; 34] = [
        "{",
        "}",
        "{",
        "}",
        "\"a\"",
        "\"b\"",
        "\"aa\"",
        "\"ü\"",
        "\"x\\n\"",
        "\"\\u0041\"",
        ":",
        ":",
        ":",
        ",",
        ",",
        ",",
        "1",
        "-1.50",
        "-0",
        "0.0",
        "01",
        "1e3",
        "1.",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\u{c}",
        "[1]",
        "\"",
        "123456789012345678901234567890",
        "{}",
    ];

    #[test]
    fn objects_without_a_tree_are_as_with_one() {
        let mut random = StdRng::seed_from_u64(3);
        let mut taken = 0;
        for at in 0..200_000 {
            let piece = |random: &mut StdRng| PIECES[random.random_range(0..PIECES.len())];
            let text: String = if at % 2 == 0 {
                (0..random.random_range(1..9))
                    .map(|_| piece(&mut random))
                    .collect()
            } else {
                let members: Vec<String> = (0..random.random_range(0..5))
                    .map(|_| {
                        let key = PIECES[random.random_range(4..10)];
                        let blank = if random.random_bool(0.3) {
                            piece(&mut random)
                        } else {
                            ""
                        };
                        format!("{key}:{blank}{}", PIECES[random.random_range(4..26)])
                    })
                    .collect();
                format!("{{{}}}", members.join(","))
            };
            let mut fast = String::new();
            if flat(&text, &mut Vec::new(), &mut fast).is_some() {
                taken += 1;
                let slow = normalized_tree(&text).expect(&text);
                assert_eq!(fast, slow, "{text}");
            }
        }
        assert!(taken > 10_000, "{taken} of them were plain");
    }
}
