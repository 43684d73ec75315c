//! The text of a view's query inside `CREATE VIEW`: stored as the user wrote it.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::postgres::WeirDialect;
use super::split::{self, start_of};
use crate::error::{Error, Result};

/// What follows the first `AS` outside of parentheses: the header has no other.
///
/// # Errors
/// XX000 when the text is no `CREATE VIEW`.
pub fn view_query_text(statement: &str) -> Result<&str> {
    let pieces = split::split(&WeirDialect::default(), statement)?;
    let tokens = pieces.iter().flat_map(|piece| &piece.tokens);
    let mut depth = 0_usize;
    let mut after_as = false;
    for token in tokens.filter(|t| !matches!(t.token, Token::Whitespace(_))) {
        if after_as {
            return Ok(statement[start_of(statement, token)..].trim());
        }
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(word) => {
                let unquoted = word.quote_style.is_none();
                after_as = depth == 0 && unquoted && word.value.eq_ignore_ascii_case("as");
            }
            _ => {}
        }
    }
    Err(Error::Internal(
        "a view's statement has no query".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::view_query_text;

    #[test]
    fn the_query_keeps_its_spelling() {
        let text =
            "create or replace VIEW \"as\".v (a, \"as\") /* as */ AS\n  SELECT 1 AS  a, (2) -- two";
        assert_eq!(view_query_text(text).unwrap(), "SELECT 1 AS  a, (2) -- two");
    }
}
