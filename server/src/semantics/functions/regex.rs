//! Functions of regular expressions that the planner lacks.

use datafusion::common::ScalarValue;
use regex::{Regex, RegexBuilder};

use super::{Entry, Row, Ty, invalid, strict, texts};
use crate::error::{Error, SqlState};

pub(super) const LIST: &[Entry] = &[
    strict(
        "regexp_split_to_array",
        &[&[Ty::Text, Ty::Text], &[Ty::Text, Ty::Text, Ty::Text]],
        Ty::TextList,
        split,
    ),
    strict(
        "regexp_substr",
        &[
            &[Ty::Text, Ty::Text],
            &[Ty::Text, Ty::Text, Ty::Int4],
            &[Ty::Text, Ty::Text, Ty::Int4, Ty::Int4],
            &[Ty::Text, Ty::Text, Ty::Int4, Ty::Int4, Ty::Text],
            &[Ty::Text, Ty::Text, Ty::Int4, Ty::Int4, Ty::Text, Ty::Int4],
        ],
        Ty::Text,
        substr,
    ),
];

/// The largest compiled pattern, in bytes.
const LARGEST: usize = 1 << 20;

fn compiled(pattern: &str, flags: &str) -> Result<Regex, Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(LARGEST).dot_matches_new_line(true);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'c' => builder.case_insensitive(false),
            'n' | 'm' => builder.multi_line(true).dot_matches_new_line(false),
            's' => builder.multi_line(false).dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            'g' => {
                return Err(invalid(
                    "this function does not support the \"global\" option",
                ));
            }
            other => {
                return Err(invalid(format!(
                    "invalid regular expression option: \"{other}\""
                )));
            }
        };
    }
    builder.build().map_err(|_| {
        Error::refused(
            SqlState("2201B"),
            format!("invalid regular expression: \"{pattern}\""),
        )
    })
}

/// Pieces between the matches. A match of nothing at an end, or right behind another match, does not count.
fn split(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let input = row.text(0);
    let flags = if row.len() > 2 { row.text(2) } else { "" };
    let pattern = compiled(row.text(1), flags)?;
    let mut pieces = Vec::new();
    let mut from = 0;
    for found in pattern.find_iter(input) {
        if found.is_empty() && (found.end() >= input.len() || found.start() == from) {
            continue;
        }
        pieces.push(Some(&input[from..found.start()]));
        from = found.end();
    }
    pieces.push(Some(&input[from..]));
    Ok(texts(pieces))
}

fn substr(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let whole = |i: usize, otherwise: i64| if i < row.len() { row.int(i) } else { otherwise };
    let (start, nth, group) = (whole(2, 1), whole(3, 1), whole(5, 0));
    for (name, value, least) in [("start", start, 1), ("n", nth, 1), ("subexpr", group, 0)] {
        if value < least {
            return Err(invalid(format!(
                "invalid value for parameter \"{name}\": {value}"
            )));
        }
    }
    let pattern = compiled(row.text(1), if row.len() > 4 { row.text(4) } else { "" })?;
    let place = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
    let input = row.text(0);
    let Some((from, _)) = input.char_indices().nth(place(start - 1)) else {
        return Ok(ScalarValue::Utf8(None));
    };
    let found = pattern
        .captures_iter(&input[from..])
        .nth(place(nth - 1))
        .and_then(|captures| captures.get(place(group)));
    Ok(ScalarValue::Utf8(found.map(|m| m.as_str().to_owned())))
}
