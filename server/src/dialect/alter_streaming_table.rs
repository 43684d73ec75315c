//! `ALTER STREAMING TABLE name PAUSE | RESUME`: stops and starts what feeds it. Executed in
//! `exec/alter_streaming_table.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterStreamingTable {
    /// The streaming table.
    pub name: ObjectName,
    /// What is to happen to its source.
    pub action: SourceAction,
}

/// What can happen to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceAction {
    /// It stops where it is.
    Pause,
    /// It goes on where it stopped.
    Resume,
}

impl AlterStreamingTable {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        const NAME_AT: usize = 3;
        if !next_words_are(p, &["ALTER", "STREAMING", "TABLE"]) {
            return false;
        }
        // name or schema.name
        [1, 3].iter().any(|length| {
            let word = p.peek_nth_token_ref(NAME_AT + length).token.to_string();
            word.eq_ignore_ascii_case("PAUSE") || word.eq_ignore_ascii_case("RESUME")
        })
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["ALTER", "STREAMING", "TABLE"])?;
        let name = p.parse_object_name(false)?;
        let action = match take_words(p, &["PAUSE"]) {
            true => SourceAction::Pause,
            false => {
                expect_words(p, &["RESUME"])?;
                SourceAction::Resume
            }
        };
        Ok(Self { name, action })
    }
}
