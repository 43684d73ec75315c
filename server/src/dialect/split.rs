//! Splits a text into its statements, by tokens: a semicolon in a string or comment splits nothing.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Report, Result, SqlState};

/// The longest statement text that is parsed.
const MAX_TOKENS: usize = 4_000_000;
/// Operators in a row between two commas or parentheses.
const MAX_CHAIN: usize = 2_000;
/// Joins in one `FROM`: planning takes the square of them.
pub(super) const MAX_JOINS: usize = 250;
/// Links of a chain that a `UNION` counts for: without optimization each takes several times the stack.
const UNION_LINKS: usize = if cfg!(debug_assertions) { 4 } else { 1 };
/// Subqueries of expressions in each other: the planner checks each once more for every one around it,
/// so that one more doubles its time.
const MAX_SUBQUERIES: usize = 14;

/// One statement: its tokens and the bytes of the text it takes.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) tokens: Vec<TokenWithSpan>,
    pub(super) range: Range<usize>,
}

/// Splits at top-level semicolons; pieces without a token are left out.
pub(super) fn split(dialect: &dyn Dialect, sql: &str) -> Result<Vec<Piece>> {
    let tokens = Tokenizer::new(dialect, sql)
        .tokenize_with_location()
        .map_err(|e| {
            Error::Refused(Box::new(Report {
                state: SqlState::SYNTAX_ERROR,
                message: format!("syntax error: {}", e.message),
                detail: None,
                hint: None,
                position: Some(char_position(sql, e.location)),
            }))
        })?;
    if tokens.len() > MAX_TOKENS {
        return Err(Error::refused(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "statement is too long",
        ));
    }
    check_chains(&tokens)?;
    let lines = line_starts(sql);
    let mut pieces = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokens {
        if token.token == Token::SemiColon {
            push(&mut pieces, std::mem::take(&mut current), sql, &lines);
        } else if token.token != Token::EOF {
            current.push(plain(token));
        }
    }
    push(&mut pieces, current, sql, &lines);
    Ok(pieces)
}

/// A dollar-quoted text is a text like any other; the parser takes it in expressions only.
fn plain(mut token: TokenWithSpan) -> TokenWithSpan {
    if let Token::DollarQuotedString(quoted) = &mut token.token {
        token.token = Token::SingleQuotedString(std::mem::take(&mut quoted.value));
    }
    token
}

/// Refuses a chain of operators whose syntax tree would be too deep to walk: parentheses are bounded by
/// the parser, `1 + 1 + 1 …` is not. And subqueries that would take too long to plan.
fn check_chains(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut chains = vec![0_usize];
    // for each open parenthesis: whether it may begin a subquery of an expression, and does
    let mut opened: Vec<bool> = Vec::new();
    let mut subqueries = 0_usize;
    let mut before: Option<&Token> = None;
    for token in tokens {
        if let Token::Whitespace(_) = token.token {
            continue;
        }
        let last = before.replace(&token.token);
        if last == Some(&Token::LParen)
            && let Some(subquery) = opened.last_mut()
        {
            *subquery &= is_keyword(&token.token, &[Keyword::SELECT, Keyword::WITH]);
            subqueries += usize::from(*subquery);
            if subqueries > MAX_SUBQUERIES {
                return Err(too_deep().with_hint("use WITH, or joins"));
            }
        }
        match &token.token {
            Token::LParen => {
                chains.push(0);
                opened.push(!last.is_some_and(|last| is_keyword(last, &BEFORE_TABLES)));
            }
            Token::RParen if chains.len() > 1 => {
                chains.pop();
                subqueries -= usize::from(opened.pop() == Some(true));
            }
            Token::Comma | Token::SemiColon => {
                if let Some(chain) = chains.last_mut() {
                    *chain = 0;
                }
            }
            Token::RParen | Token::Period => {}
            other => {
                let links = match other {
                    Token::Word(w) => match w.keyword {
                        Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS => 1,
                        Keyword::LIKE | Keyword::ILIKE | Keyword::IN => 1,
                        Keyword::UNION => UNION_LINKS,
                        // these take the planner longer, or are deeper than they look
                        Keyword::EXCEPT | Keyword::INTERSECT | Keyword::AT => 8,
                        Keyword::JOIN => MAX_CHAIN / MAX_JOINS,
                        _ => 0,
                    },
                    Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => 0,
                    _ => 1,
                };
                let Some(chain) = chains.last_mut() else {
                    continue;
                };
                *chain += links;
                if *chain > MAX_CHAIN {
                    return Err(too_deep());
                }
            }
        }
    }
    Ok(())
}

/// What stands before a parenthesis with a table, or part of a query, in it.
const BEFORE_TABLES: [Keyword; 7] = [
    Keyword::FROM,
    Keyword::JOIN,
    Keyword::LATERAL,
    Keyword::AS,
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
];

fn is_keyword(token: &Token, any: &[Keyword]) -> bool {
    matches!(token, Token::Word(word) if any.contains(&word.keyword))
}

fn too_deep() -> Error {
    Error::refused(SqlState("54001"), "statement is nested too deeply")
}

fn push(pieces: &mut Vec<Piece>, tokens: Vec<TokenWithSpan>, sql: &str, lines: &[usize]) {
    let mut solid = tokens
        .iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_)));
    let Some(first) = solid.next() else { return };
    let last = solid.next_back().unwrap_or(first);
    let start = byte_offset(sql, lines, first.span.start);
    let end = byte_offset(sql, lines, last.span.end).max(start);
    pieces.push(Piece {
        range: start..end,
        tokens,
    });
}

fn line_starts(sql: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(sql.match_indices('\n').map(|(at, _)| at + 1))
        .collect()
}

/// Lines and columns count from 1, columns in characters.
fn byte_offset(sql: &str, lines: &[usize], at: Location) -> usize {
    let line = usize::try_from(at.line).unwrap_or(1).saturating_sub(1);
    let column = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
    let Some(start) = lines.get(line) else {
        return sql.len();
    };
    sql[*start..]
        .char_indices()
        .nth(column)
        .map_or(sql.len(), |(offset, _)| start + offset)
}

/// Byte offset of a token's start.
pub(super) fn start_of(sql: &str, token: &TokenWithSpan) -> usize {
    byte_offset(sql, &line_starts(sql), token.span.start)
}

/// Bytes that a span covers.
pub(super) fn range_of(sql: &str, span: Span) -> Range<usize> {
    let lines = line_starts(sql);
    let start = byte_offset(sql, &lines, span.start);
    start..byte_offset(sql, &lines, span.end).max(start)
}

fn char_position(sql: &str, at: Location) -> usize {
    sql[..byte_offset(sql, &line_starts(sql), at)]
        .chars()
        .count()
        + 1
}

/// Reads the end of sqlparser's messages, `<line>, Column: <column>`.
pub(super) fn offset_of(sql: &str, place: &str) -> Option<usize> {
    let (line, column) = place.split_once(", Column: ")?;
    let location = Location {
        line: line.trim().parse().ok()?,
        column: column.trim().parse().ok()?,
    };
    Some(char_position(sql, location))
}
