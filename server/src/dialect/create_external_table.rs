//! `CREATE EXTERNAL TABLE [IF NOT EXISTS] t [(columns)] STORED AS {DELTA | PARQUET | CSV | JSON}
//! [WITH (…)] LOCATION 'url' [WITH (…)]`. Executed in `exec/create_external_table.rs`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{ColumnDef, ObjectName, TableConstraint};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::create_table::parse_columns;
use super::words::{expect_words, fold, next_words_are, parse_options, take_words};

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateExternalTable {
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// Column definitions; the files say them where there are none.
    pub columns: Vec<ColumnDef>,
    /// Table constraints.
    pub constraints: Vec<TableConstraint>,
    /// `STORED AS`, in lower case.
    pub format: String,
    /// `LOCATION`
    pub location: String,
    /// `WITH`
    pub options: BTreeMap<String, String>,
}

impl CreateExternalTable {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["CREATE", "EXTERNAL", "TABLE"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        expect_words(p, &["CREATE", "EXTERNAL", "TABLE"])?;
        let if_not_exists = take_words(p, &["IF", "NOT", "EXISTS"]);
        let name = p.parse_object_name(false)?;
        let (columns, constraints) = parse_columns(p)?;
        expect_words(p, &["STORED", "AS"])?;
        let format = fold(&p.parse_identifier()?).to_lowercase();
        let before = parse_options(p)?;
        expect_words(p, &["LOCATION"])?;
        let location = p.parse_literal_string()?;
        let options = match before.is_empty() {
            true => parse_options(p)?,
            false => before,
        };
        Ok(Self {
            if_not_exists,
            name,
            columns,
            constraints,
            format,
            location,
            options,
        })
    }
}
