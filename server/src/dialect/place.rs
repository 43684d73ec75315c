//! Where a statement stands in the text that was sent, and where in it something is that was not found.

use datafusion::common::Span;

use super::Statement;
use crate::error::{Error, SqlState};

/// The begin of a statement: before it are so many bytes, characters and lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Start {
    bytes: usize,
    characters: usize,
    lines: usize,
    /// Characters before it in its line.
    columns: usize,
}

impl Start {
    /// The place of a byte further on.
    pub(super) fn moved(self, sql: &str, to: usize) -> Self {
        let between = sql.get(self.bytes..to).unwrap_or_default();
        let columns = match between.rsplit_once('\n') {
            Some((_, line)) => line.chars().count(),
            None => self.columns + between.chars().count(),
        };
        Self {
            bytes: to,
            characters: self.characters + between.chars().count(),
            lines: self.lines + between.matches('\n').count(),
            columns,
        }
    }
}

/// What says where a name was written that is not known.
const PLACED: [SqlState; 4] = [
    SqlState::UNDEFINED_COLUMN,
    SqlState::AMBIGUOUS_COLUMN,
    SqlState::UNDEFINED_TABLE,
    SqlState::UNDEFINED_FUNCTION,
];

impl Statement {
    /// The error with the position that the planner noted, and a relation named as it was written.
    pub fn place(&self, e: Error) -> Error {
        let Error::Query(noted) = &e else {
            return e;
        };
        let Some(span) = noted.diagnostic().and_then(|d| d.span) else {
            return e;
        };
        let mut report = e.report();
        if report.position.is_some() || !PLACED.contains(&report.state) {
            return e;
        }
        let Some(range) = self.bytes(span) else {
            return e;
        };
        let written = self.text[range.clone()].replace('"', "");
        let last = written.rsplit('.').next().unwrap_or_default();
        if last.is_empty() || !report.message.to_lowercase().contains(&last.to_lowercase()) {
            // it stands in another text, a view's for one, or in an argument of what is written there
            return e;
        }
        let before = self.text[..range.start].chars().count();
        report.position = Some(self.start.characters + before + 1);
        if report.state == SqlState::UNDEFINED_TABLE && report.message.starts_with("relation ") {
            report.message = format!("relation \"{written}\" does not exist");
        }
        Error::Refused(Box::new(report))
    }

    /// The bytes of the text that a span of the whole text covers.
    fn bytes(&self, span: Span) -> Option<std::ops::Range<usize>> {
        let byte = |line: u64, column: u64| {
            let line = usize::try_from(line)
                .ok()?
                .checked_sub(self.start.lines + 1)?;
            let column = usize::try_from(column).ok()?.checked_sub(1)?;
            let (first, column) = match line {
                0 => (0, column.checked_sub(self.start.columns)?),
                line => {
                    let (at, _) = self.text.match_indices('\n').nth(line - 1)?;
                    (at + 1, column)
                }
            };
            let rest = self.text.get(first..)?;
            let ends = std::iter::once(rest.len());
            let within = rest
                .char_indices()
                .map(|(at, _)| at)
                .chain(ends)
                .nth(column)?;
            Some(first + within)
        };
        let from = byte(span.start.line, span.start.column)?;
        let to = byte(span.end.line, span.end.column)?;
        (from <= to).then_some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found_in_later_statements() {
        let sql = "SELECT 'é';\n  SELECT 1;  SELECT 'é',\n nothing FROM t";
        let statements = super::super::parse(sql).unwrap();
        let last = statements.last().unwrap();
        let location = |line, column| datafusion::common::Location { line, column };
        let span = Span::new(location(3, 2), location(3, 9));
        let range = last.bytes(span).unwrap();
        assert_eq!(&last.text[range.clone()], "nothing");
        let before = last.text[..range.start].chars().count();
        let position = last.start.characters + before;
        assert_eq!(
            sql.chars().skip(position).take(7).collect::<String>(),
            "nothing"
        );
        let first = Span::new(location(2, 14), location(2, 20));
        assert_eq!(&last.text[last.bytes(first).unwrap()], "SELECT");
        assert!(
            last.bytes(Span::new(location(1, 1), location(1, 2)))
                .is_none()
        );
    }
}
