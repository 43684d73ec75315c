//! `VACUUM [TABLE] t [RETAIN n HOURS] [DRY RUN]`. Executed in `exec/vacuum.rs`.

use std::time::Duration;

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{expect_words, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct Vacuum {
    /// The table.
    pub name: ObjectName,
    /// How long files stay that have left the table.
    pub retain: Option<Duration>,
    /// Only say which files would go.
    pub dry_run: bool,
}

impl Vacuum {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["VACUUM"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["VACUUM"])?;
        take_words(p, &["TABLE"]);
        let name = p.parse_object_name(false)?;
        let retain = match take_words(p, &["RETAIN"]) {
            true => Some(hours(p)?),
            false => None,
        };
        let dry_run = take_words(p, &["DRY", "RUN"]);
        Ok(Self {
            name,
            retain,
            dry_run,
        })
    }
}

fn hours(p: &mut Parser<'_>) -> Result<Duration, ParserError> {
    let next = p.next_token();
    let hours = match &next.token {
        Token::Number(text, _) => text.parse::<f64>().ok(),
        _ => None,
    };
    // a century is more than anybody keeps
    let Some(hours) = hours.filter(|h| (0.0..=876_000.0).contains(h)) else {
        return p.expected("a number of hours", next);
    };
    if !take_words(p, &["HOUR"]) {
        expect_words(p, &["HOURS"])?;
    }
    Ok(Duration::from_secs_f64(hours * 3600.0))
}
