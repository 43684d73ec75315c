//! The SQL dialect: PostgreSQL's, with `VERSION AS OF` and `TIMESTAMP AS OF` after table names.

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// PostgreSQL's dialect with table versioning switched on. It answers to PostgreSQL's type id, so
/// every branch of the parser that asks for PostgreSQL is taken; each method PostgreSQL overrides
/// is forwarded.
#[derive(Debug)]
pub(crate) struct WeirDialect(PostgreSqlDialect, AtomicUsize);

impl Default for WeirDialect {
    fn default() -> Self {
        Self(PostgreSqlDialect {}, AtomicUsize::new(usize::MAX))
    }
}

/// Expressions that any statement may begin, and how many more for each of its tokens: many times what one
/// that can be read takes.
const STEPS: usize = 20_000;
const STEPS_A_TOKEN: usize = 100;

/// The parser takes `at` after a table for the begin of a version; what follows says that it is a name.
pub(super) fn plain_names(tokens: &mut [TokenWithSpan]) {
    // whether what comes next leaves a word AT its meaning
    let mut stays = false;
    for token in tokens.iter_mut().rev() {
        match &mut token.token {
            Token::Whitespace(_) => continue,
            Token::Word(word) => {
                if word.keyword == Keyword::AT && !stays {
                    word.keyword = Keyword::NoKeyword;
                }
                stays = matches!(word.keyword, Keyword::TIME | Keyword::LOCAL);
            }
            other => stays = *other == Token::LParen,
        }
    }
}

impl WeirDialect {
    /// Sets a limit to the work that the next so many tokens may make.
    ///
    /// The parser reads a word like `CASE` or `CAST` once as what it means and, when that fails, once more
    /// as a name: a syntax error below twenty of them would take minutes.
    pub(super) fn limit(&self, tokens: usize) {
        let steps = STEPS.saturating_add(tokens.saturating_mul(STEPS_A_TOKEN));
        self.1.store(steps, Ordering::Relaxed);
    }
}

impl Dialect for WeirDialect {
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        // the parser does not count how deep it is in these
        let interval = |token: &Token| matches!(token, Token::Word(w) if w.keyword == Keyword::INTERVAL && w.quote_style.is_none());
        if interval(&parser.peek_token_ref().token) && interval(&parser.peek_nth_token(1).token) {
            let found = parser.peek_nth_token(1);
            return Some(parser.expected("a text", found));
        }
        // the parser reads a precision, and forgets it
        if interval(&parser.peek_token_ref().token)
            && parser.peek_nth_token(1).token == Token::LParen
            && matches!(parser.peek_nth_token(2).token, Token::Number(..))
        {
            let found = parser.peek_nth_token(1);
            return Some(parser.expected("a text: an interval has microseconds", found));
        }
        let left = |steps: usize| steps.checked_sub(1);
        let spent = self
            .1
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        spent
            .is_err()
            .then_some(Err(ParserError::RecursionLimitExceeded))
    }

    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.0.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    fn supports_unicode_string_literal(&self) -> bool {
        self.0.supports_unicode_string_literal()
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        self.0.is_reserved_for_identifier(kw)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        self.0.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        self.0.get_next_precedence(parser)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        self.0.supports_filter_during_aggregation()
    }

    fn supports_group_by_expr(&self) -> bool {
        self.0.supports_group_by_expr()
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        self.0.prec_value(prec)
    }

    fn allow_extract_custom(&self) -> bool {
        self.0.allow_extract_custom()
    }

    fn allow_extract_single_quotes(&self) -> bool {
        self.0.allow_extract_single_quotes()
    }

    fn supports_create_index_with_clause(&self) -> bool {
        self.0.supports_create_index_with_clause()
    }

    fn supports_explain_with_utility_options(&self) -> bool {
        self.0.supports_explain_with_utility_options()
    }

    fn supports_listen_notify(&self) -> bool {
        self.0.supports_listen_notify()
    }

    fn supports_factorial_operator(&self) -> bool {
        self.0.supports_factorial_operator()
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        self.0.supports_bitwise_shift_operators()
    }

    fn supports_comment_on(&self) -> bool {
        self.0.supports_comment_on()
    }

    fn supports_load_extension(&self) -> bool {
        self.0.supports_load_extension()
    }

    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        self.0.supports_named_fn_args_with_colon_operator()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        self.0.supports_named_fn_args_with_expr_name()
    }

    fn supports_empty_projections(&self) -> bool {
        self.0.supports_empty_projections()
    }

    fn supports_nested_comments(&self) -> bool {
        self.0.supports_nested_comments()
    }

    fn supports_string_escape_constant(&self) -> bool {
        self.0.supports_string_escape_constant()
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        self.0.supports_numeric_literal_underscores()
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        self.0.supports_array_typedef_with_brackets()
    }

    fn supports_geometric_types(&self) -> bool {
        self.0.supports_geometric_types()
    }

    fn supports_set_names(&self) -> bool {
        self.0.supports_set_names()
    }

    fn supports_alter_column_type_using(&self) -> bool {
        self.0.supports_alter_column_type_using()
    }

    fn supports_notnull_operator(&self) -> bool {
        self.0.supports_notnull_operator()
    }

    fn supports_interval_options(&self) -> bool {
        self.0.supports_interval_options()
    }

    fn supports_insert_table_alias(&self) -> bool {
        self.0.supports_insert_table_alias()
    }

    fn supports_create_table_like_parenthesized(&self) -> bool {
        self.0.supports_create_table_like_parenthesized()
    }

    fn supports_select_wildcard_with_alias(&self) -> bool {
        self.0.supports_select_wildcard_with_alias()
    }

    fn supports_comma_separated_trim(&self) -> bool {
        self.0.supports_comma_separated_trim()
    }

    fn supports_xml_expressions(&self) -> bool {
        self.0.supports_xml_expressions()
    }

    fn supports_comment_optimizer_hint(&self) -> bool {
        self.0.supports_comment_optimizer_hint()
    }
}
