//! `DROP [STREAMING] TABLE | [MATERIALIZED] VIEW | SCHEMA | MODEL | SECRET | ROLE | USER
//! [IF EXISTS] name, … [CASCADE | RESTRICT]`. Executed in `exec/drop_object.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::words::{expect_words, next_words_are, take_words};

/// What is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropKind {
    /// A table, ordinary or streaming.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A schema.
    Schema,
    /// A model.
    Model,
    /// A secret.
    Secret,
    /// A role.
    Role,
}

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct DropObject {
    /// What kind of objects.
    pub kind: DropKind,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// Which ones.
    pub names: Vec<ObjectName>,
    /// `CASCADE`
    pub cascade: bool,
}

const KINDS: [(&[&str], DropKind); 9] = [
    (&["TABLE"], DropKind::Table),
    (&["STREAMING", "TABLE"], DropKind::Table),
    (&["VIEW"], DropKind::View),
    (&["MATERIALIZED", "VIEW"], DropKind::MaterializedView),
    (&["SCHEMA"], DropKind::Schema),
    (&["MODEL"], DropKind::Model),
    (&["SECRET"], DropKind::Secret),
    (&["ROLE"], DropKind::Role),
    (&["USER"], DropKind::Role),
];

impl DropObject {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        KINDS
            .iter()
            .any(|(words, _)| next_words_are(p, &[&["DROP"], *words].concat()))
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["DROP"])?;
        let Some((_, kind)) = KINDS.iter().find(|(words, _)| take_words(p, words)) else {
            return p.expected("an object kind", p.peek_token());
        };
        let if_exists = take_words(p, &["IF", "EXISTS"]);
        let names = p.parse_comma_separated(|p| p.parse_object_name(false))?;
        let cascade = take_words(p, &["CASCADE"]);
        if !cascade {
            take_words(p, &["RESTRICT"]);
        }
        Ok(Self {
            kind: *kind,
            if_exists,
            names,
            cascade,
        })
    }
}
