//! Functions of regular expressions that the planner lacks.

use arrow::datatypes::DataType;
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
        "regexp_matches_list",
        &[&[Ty::Text, Ty::Text], &[Ty::Text, Ty::Text, Ty::Text]],
        Ty::TextLists,
        matches,
    ),
    strict(
        "substring_matching",
        &[&[Ty::Text, Ty::Text]],
        Ty::Text,
        |row| {
            let pattern = compiled(row.text(1), "")?;
            let found = pattern
                .captures(row.text(0))
                // the first group, where there is one, whether it took part or not
                .and_then(|captures| captures.get(usize::from(captures.len() > 1)));
            Ok(ScalarValue::Utf8(found.map(|m| m.as_str().to_owned())))
        },
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

/// The groups of each match, or the match itself where the pattern has none; of the first match without the
/// flag `g`.
fn matches(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let flags = if row.len() > 2 { row.text(2) } else { "" };
    let all = flags.contains('g');
    let pattern = compiled(row.text(1), &flags.replace('g', ""))?;
    let groups = |captures: &regex::Captures<'_>| {
        let first = usize::from(captures.len() > 1);
        let groups = captures.iter().skip(first);
        let groups = groups.map(|group| group.map(|m| m.as_str().to_owned()));
        texts(groups.collect::<Vec<_>>())
    };
    let input = row.text(0);
    let mut found = Vec::new();
    let mut from = 0;
    // a match of nothing may follow right behind another one
    while let Some(captures) = pattern.captures_at(input, from)
        && let Some(whole) = captures.get(0)
    {
        found.push(groups(&captures));
        let next = input[whole.end()..]
            .chars()
            .next()
            .map_or(1, char::len_utf8);
        from = whole.end() + if whole.is_empty() { next } else { 0 };
        if !all || from > input.len() {
            break;
        }
    }
    let DataType::List(of) = row.gives else {
        return Ok(ScalarValue::Null);
    };
    let list = ScalarValue::new_list(&found, of.data_type(), true);
    Ok(ScalarValue::List(list))
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
