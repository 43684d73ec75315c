//! The text of a stored query after relations that it reads got other names. The text is edited where
//! the names stand, and nowhere else.

use std::ops::{ControlFlow, Range};

use datafusion::sql::sqlparser::ast::{ObjectName, Query, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::parser::Parser;

use super::postgres::WeirDialect;
use super::split::{self, range_of};
use super::syntax_error;
use super::words::fold;
use crate::error::Result;

/// The query with new last names for the relations in FROM that have one. A relation without an alias
/// gets its old name as one, so that what it qualifies stays.
///
/// `None` when a common table expression has one of the `names`: which of both is meant somewhere is not
/// told by the name alone.
///
/// # Errors
/// 42601 when the text is no query.
pub fn rename_relations(
    sql: &str,
    names: [&str; 2],
    new_name: &mut dyn FnMut(&ObjectName) -> Option<String>,
) -> Result<Option<String>> {
    let dialect = WeirDialect::default();
    let piece = split::split(&dialect, sql)?.into_iter().next();
    let tokens = piece.map(|p| p.tokens).unwrap_or_default();
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let query = parser.parse_query().map_err(|e| syntax_error(sql, &e))?;
    let mut found = Names {
        sql,
        names,
        new_name,
        edits: Vec::new(),
    };
    if query.visit(&mut found).is_break() {
        return Ok(None);
    }
    let mut edits = found.edits;
    edits.sort_by_key(|(range, _)| range.start);
    let mut text = sql.to_owned();
    for (range, put) in edits.into_iter().rev() {
        text.replace_range(range, &put);
    }
    Ok(Some(text))
}

struct Names<'a> {
    sql: &'a str,
    names: [&'a str; 2],
    new_name: &'a mut dyn FnMut(&ObjectName) -> Option<String>,
    edits: Vec<(Range<usize>, String)>,
}

impl Visitor for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut expressions = query.with.iter().flat_map(|with| &with.cte_tables);
        match expressions.any(|e| self.names.contains(&fold(&e.alias.name).as_str())) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
            && let Some(last) = name.0.last().and_then(|part| part.as_ident())
            && let Some(new) = (self.new_name)(name)
        {
            let range = range_of(self.sql, last.span);
            let old = &self.sql[range.clone()];
            let put = match alias {
                Some(_) => new,
                None => format!("{new} AS {old}"),
            };
            self.edits.push((range, put));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::rename_relations;
    use crate::dialect::words::parts;

    #[test]
    fn names_change_where_they_stand() {
        let text = "SELECT t.a, \"t\" FROM t JOIN s.t x\n ON é = 't' -- t\n WHERE t.a IN (SELECT t FROM \"t\")";
        let mut new_name =
            |name: &_| (parts(name).last().unwrap() == "t").then(|| "\"n w\"".to_owned());
        let renamed = rename_relations(text, ["t", "n w"], &mut new_name);
        assert_eq!(
            renamed.unwrap().unwrap(),
            "SELECT t.a, \"t\" FROM \"n w\" AS t JOIN s.\"n w\" x\n ON é = 't' -- t\n \
             WHERE t.a IN (SELECT t FROM \"n w\" AS \"t\")"
        );
        for expression in ["T", "\"n w\""] {
            let text = format!("SELECT * FROM (WITH {expression} AS (SELECT 1) SELECT * FROM t) x");
            let renamed = rename_relations(&text, ["t", "n w"], &mut new_name);
            assert_eq!(renamed.unwrap(), None);
        }
    }
}
