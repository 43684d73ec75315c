//! Small reading aids shared by weir's own statements.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, SqlOption, UnaryOperator, Value};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::split::start_of;

/// Lets a statement keep a part of its text as the user wrote it.
pub(super) struct Source<'a> {
    sql: &'a str,
    end: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(sql: &'a str, end: usize) -> Self {
        Self { sql, end }
    }

    /// From the next token to the end of the statement.
    pub(super) fn rest(&self, p: &Parser<'_>) -> String {
        let start = start_of(self.sql, p.peek_token_ref()).min(self.end);
        self.sql[start..self.end].trim().to_owned()
    }
}

/// True when the next unquoted words are these, in any case.
pub(super) fn next_words_are(p: &Parser<'_>, words: &[&str]) -> bool {
    words
        .iter()
        .enumerate()
        .all(|(n, word)| is_word(&p.peek_nth_token_ref(n).token, word))
}

/// Consumes these words when they come next.
pub(super) fn take_words(p: &mut Parser<'_>, words: &[&str]) -> bool {
    let there = next_words_are(p, words);
    if there {
        for _ in words {
            p.next_token();
        }
    }
    there
}

/// Consumes these words or fails at the first that differs.
pub(super) fn expect_words(p: &mut Parser<'_>, words: &[&str]) -> Result<(), ParserError> {
    for word in words {
        if !take_words(p, &[word]) {
            return p.expected(word, p.peek_token());
        }
    }
    Ok(())
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// `WITH (key = value, …)` or nothing; values as text. A key may have a dot.
pub(super) fn parse_options(p: &mut Parser<'_>) -> Result<BTreeMap<String, String>, ParserError> {
    let mut options = BTreeMap::new();
    for option in p.parse_options(Keyword::WITH)? {
        let (key, value) = match option {
            SqlOption::KeyValue { key, value } => (fold(&key), option_text(&value)?),
            SqlOption::Ident(key) => (fold(&key), "true".to_owned()),
            other => {
                return Err(ParserError::ParserError(format!(
                    "option {other} is not key = value"
                )));
            }
        };
        if options.insert(key.clone(), value).is_some() {
            return Err(ParserError::ParserError(format!(
                "option \"{key}\" is given twice"
            )));
        }
    }
    Ok(options)
}

/// `(name.with.dots = value, …)`; a name may stand in quotes of either kind.
pub(super) fn parse_dotted_options(
    p: &mut Parser<'_>,
) -> Result<BTreeMap<String, String>, ParserError> {
    let mut options = BTreeMap::new();
    p.expect_token(&Token::LParen)?;
    while !p.consume_token(&Token::RParen) {
        if !options.is_empty() {
            p.expect_token(&Token::Comma)?;
        }
        let key = dotted_name(p)?;
        p.expect_token(&Token::Eq)?;
        let value = option_text(&p.parse_expr()?)?;
        if options.insert(key.clone(), value).is_some() {
            return Err(ParserError::ParserError(format!(
                "option \"{key}\" is given twice"
            )));
        }
    }
    Ok(options)
}

fn dotted_name(p: &mut Parser<'_>) -> Result<String, ParserError> {
    let mut name = String::new();
    loop {
        let next = p.next_token();
        match &next.token {
            Token::Word(word) if word.quote_style.is_none() => {
                name.push_str(&word.value.to_lowercase());
            }
            Token::Word(word) => name.push_str(&word.value),
            Token::SingleQuotedString(text) if name.is_empty() => name.push_str(text),
            _ => return p.expected("the name of an option", next),
        }
        if !p.consume_token(&Token::Period) {
            return Ok(name);
        }
        name.push('.');
    }
}

fn option_text(value: &Expr) -> Result<String, ParserError> {
    match value {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) | Value::Number(s, _) => {
                Ok(s.clone())
            }
            Value::Boolean(b) => Ok(b.to_string()),
            other => Err(ParserError::ParserError(format!(
                "option value {other} is no literal"
            ))),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => Ok(format!("-{}", option_text(expr)?)),
        Expr::Identifier(word) => Ok(word.value.clone()),
        other => Err(ParserError::ParserError(format!(
            "option value {other} is no literal"
        ))),
    }
}

/// PostgreSQL's folding: unquoted names are lower case.
pub fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The folded parts of a name.
pub fn parts(name: &ObjectName) -> Vec<String> {
    name.0
        .iter()
        .map(|part| part.as_ident().map_or_else(|| part.to_string(), fold))
        .collect()
}

/// `(a, b, …)`.
pub(super) fn parse_name_list(p: &mut Parser<'_>) -> Result<Vec<String>, ParserError> {
    p.expect_token(&Token::LParen)?;
    let names = p.parse_comma_separated(|p| p.parse_identifier())?;
    p.expect_token(&Token::RParen)?;
    Ok(names.iter().map(fold).collect())
}
