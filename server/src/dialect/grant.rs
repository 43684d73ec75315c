//! `GRANT privileges ON [TABLE] | SCHEMA | MODEL | SECRET names TO roles [WITH GRANT OPTION]`,
//! `GRANT role, … TO role, …` and the `REVOKE` of both. Executed in `exec/grant.rs`.

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{expect_words, fold, next_words_are, parse_name_list, take_words};

/// What is granted.
#[derive(Debug, Clone, PartialEq)]
pub enum GrantTarget {
    /// Privileges on tables and views.
    Tables(Vec<ObjectName>),
    /// Privileges on every table and view of these schemas.
    AllTablesInSchemas(Vec<ObjectName>),
    /// Privileges on schemas.
    Schemas(Vec<ObjectName>),
    /// Privileges on models.
    Models(Vec<ObjectName>),
    /// Privileges on secrets.
    Secrets(Vec<ObjectName>),
    /// Membership in the roles named as privileges.
    Membership,
}

/// What the statement says.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// `REVOKE` instead of `GRANT`.
    pub revoke: bool,
    /// Privilege (or role) names with their column lists; `ALL [PRIVILEGES]` is `all`.
    pub privileges: Vec<(String, Vec<String>)>,
    /// On what.
    pub target: GrantTarget,
    /// To or from whom; `public` is everybody.
    pub grantees: Vec<String>,
    /// `WITH GRANT OPTION`, or `GRANT OPTION FOR`.
    pub grant_option: bool,
}

impl Grant {
    /// True when the next tokens open this statement. Consumes nothing.
    pub(super) fn starts(p: &Parser<'_>) -> bool {
        next_words_are(p, &["GRANT"]) || next_words_are(p, &["REVOKE"])
    }

    pub(super) fn parse(p: &mut Parser<'_>) -> Result<Self, ParserError> {
        let revoke =
            p.expect_one_of_keywords(&[Keyword::GRANT, Keyword::REVOKE])? == Keyword::REVOKE;
        let mut grant_option = revoke && take_words(p, &["GRANT", "OPTION", "FOR"]);
        let privileges = p.parse_comma_separated(parse_privilege)?;
        let target = match take_words(p, &["ON"]) {
            true => parse_target(p)?,
            false => GrantTarget::Membership,
        };
        expect_words(p, &[if revoke { "FROM" } else { "TO" }])?;
        let grantees = p.parse_comma_separated(|p| Ok(fold(&p.parse_identifier()?)))?;
        if revoke {
            take_words(p, &["RESTRICT"]);
        } else {
            grant_option = take_words(p, &["WITH", "GRANT", "OPTION"]);
        }
        Ok(Self {
            revoke,
            privileges,
            target,
            grantees,
            grant_option,
        })
    }
}

fn parse_privilege(p: &mut Parser<'_>) -> Result<(String, Vec<String>), ParserError> {
    let name = fold(&p.parse_identifier()?);
    if name == "all" {
        take_words(p, &["PRIVILEGES"]);
    }
    let columns = match p.peek_token_ref().token {
        Token::LParen => parse_name_list(p)?,
        _ => Vec::new(),
    };
    Ok((name, columns))
}

fn parse_target(p: &mut Parser<'_>) -> Result<GrantTarget, ParserError> {
    type Make = fn(Vec<ObjectName>) -> GrantTarget;
    let make: Make = if take_words(p, &["ALL", "TABLES", "IN", "SCHEMA"]) {
        GrantTarget::AllTablesInSchemas
    } else if take_words(p, &["SCHEMA"]) {
        GrantTarget::Schemas
    } else if take_words(p, &["MODEL"]) {
        GrantTarget::Models
    } else if take_words(p, &["SECRET"]) {
        GrantTarget::Secrets
    } else {
        take_words(p, &["TABLE"]);
        GrantTarget::Tables
    };
    Ok(make(
        p.parse_comma_separated(|p| p.parse_object_name(false))?,
    ))
}
