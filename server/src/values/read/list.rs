//! One-dimensional arrays: `{a,"b c",NULL}` and their binary form.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef};
use catalog::SqlType;

use super::{CellReader, bad_binary, shown, unsupported};
use crate::error::{Error, Result, SqlState};
use crate::types::arrow_type;

pub(super) struct List {
    element: FieldRef,
    cells: Box<dyn CellReader>,
    count: usize,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

impl List {
    pub(super) fn new(of: &SqlType, cells: Box<dyn CellReader>) -> Result<Self> {
        let DataType::List(element) = arrow_type(&SqlType::Array(Box::new(of.clone()))) else {
            return Err(unsupported(of));
        };
        if matches!(of, SqlType::Array(_)) {
            return Err(unsupported(format!("{of}[]")));
        }
        Ok(Self {
            element,
            cells,
            count: 0,
            offsets: vec![0],
            valid: Vec::new(),
        })
    }

    fn element(&mut self, value: Option<&str>) -> Result<()> {
        match value {
            Some(text) => self.cells.text(text)?,
            None => self.cells.null(),
        }
        self.count += 1;
        Ok(())
    }

    fn close(&mut self, valid: bool) -> Result<()> {
        let end = i32::try_from(self.count).map_err(|_| {
            Error::refused(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many array elements")
        })?;
        self.offsets.push(end);
        self.valid.push(valid);
        Ok(())
    }
}

fn malformed(text: &str, why: &str) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed array literal: \"{}\"", shown(text)),
    )
    .with_detail(why)
}

impl CellReader for List {
    fn text(&mut self, text: &str) -> Result<()> {
        let trimmed = text.trim_ascii();
        let inner = trimmed
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .ok_or_else(|| malformed(text, "an array value stands in curly braces"))?;
        if inner.trim_ascii().is_empty() {
            return self.close(true);
        }
        let mut chars = inner.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            let mut value = String::new();
            let quoted = chars.next_if_eq(&'"').is_some();
            // length up to the last character that is not trailing blank
            let mut kept = 0;
            let mut escaped = false;
            loop {
                match chars.peek().copied() {
                    Some('"') if quoted => {
                        chars.next();
                        break;
                    }
                    None if quoted => return Err(malformed(text, "a quoted element has no end")),
                    Some(',') | None if !quoted => break,
                    Some('\\') => {
                        escaped = true;
                        chars.next();
                        value.push(
                            chars
                                .next()
                                .ok_or_else(|| malformed(text, "a backslash stands at the end"))?,
                        );
                        kept = value.len();
                    }
                    Some('{' | '}') if !quoted => {
                        return Err(Error::unsupported(
                            "arrays of more than one dimension are not supported",
                            "use a jsonb value",
                        ));
                    }
                    Some('"') => return Err(malformed(text, "a quote stands inside an element")),
                    Some(c) => {
                        chars.next();
                        value.push(c);
                        if !c.is_ascii_whitespace() {
                            kept = value.len();
                        }
                    }
                    None => break,
                }
            }
            if quoted {
                self.element(Some(&value))?;
            } else {
                value.truncate(kept);
                if value.is_empty() {
                    return Err(malformed(text, "an element is empty"));
                }
                let null = !escaped && value.eq_ignore_ascii_case("null");
                self.element((!null).then_some(value.as_str()))?;
            }
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            match chars.next() {
                Some(',') => {}
                None => return self.close(true),
                Some(_) => return Err(malformed(text, "text follows a quoted element")),
            }
        }
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        let mut word = || {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            rest = tail;
            Some(i32::from_be_bytes(*head))
        };
        let bad = || bad_binary("array");
        let dimensions = word().ok_or_else(bad)?;
        let _has_null = word().ok_or_else(bad)?;
        let _element_oid = word().ok_or_else(bad)?;
        match dimensions {
            0 => return self.close(true),
            1 => {}
            _ => {
                return Err(Error::unsupported(
                    "arrays of more than one dimension are not supported",
                    "use a jsonb value",
                ));
            }
        }
        let count = word().ok_or_else(bad)?;
        let _lower_bound = word().ok_or_else(bad)?;
        for _ in 0..count {
            let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
            rest = tail;
            match usize::try_from(i32::from_be_bytes(*head)) {
                Ok(length) => {
                    let (value, tail) = rest.split_at_checked(length).ok_or_else(bad)?;
                    rest = tail;
                    self.cells.binary(value)?;
                }
                Err(_) => self.cells.null(),
            }
            self.count += 1;
        }
        if rest.is_empty() {
            self.close(true)
        } else {
            Err(bad())
        }
    }

    fn null(&mut self) {
        // the count did not grow, so it still fits
        let _ = self.close(false);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let valid = std::mem::take(&mut self.valid);
        self.count = 0;
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(&self.element),
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            self.cells.finish()?,
            Some(NullBuffer::from(valid)),
        )?))
    }
}
