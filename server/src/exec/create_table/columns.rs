//! Column definitions and table constraints → the catalog's columns and checks.

use std::collections::{BTreeMap, BTreeSet};

use catalog::{Column, SqlType};
use datafusion::sql::sqlparser::ast::{
    CheckConstraint, ColumnDef, ColumnOption, Expr, GeneratedAs, GeneratedExpressionMode,
    TableConstraint,
};

use super::no_column;
use crate::dialect::data_type::sql_type;
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::error::{Error, Result, SqlState};

const NO_KEYS: &str = "rows have no keys: make them unique when you read or MERGE them";

/// What a table is made of.
#[derive(Debug)]
pub(in crate::exec) struct Defined {
    pub(in crate::exec) columns: Vec<Column>,
    pub(in crate::exec) checks: BTreeMap<String, String>,
}

/// Reads the definitions. Their expressions are texts by then, not checked yet.
pub(in crate::exec) fn define(
    columns: &[ColumnDef],
    constraints: &[TableConstraint],
    table: &str,
) -> Result<Defined> {
    let mut checks = Checks {
        table,
        all: BTreeMap::new(),
    };
    let columns = columns
        .iter()
        .map(|c| column(c, &mut checks))
        .collect::<Result<Vec<_>>>()?;
    for constraint in constraints {
        match constraint {
            TableConstraint::Check(check) => checks.add(check, None)?,
            TableConstraint::PrimaryKey(_) => clause(true, "PRIMARY KEY", NO_KEYS)?,
            TableConstraint::Unique(_) => clause(true, "UNIQUE", NO_KEYS)?,
            TableConstraint::ForeignKey(_) => clause(true, "FOREIGN KEY", "leave it out")?,
            other => clause(true, &format!("\"{other}\""), "use NOT NULL and CHECK")?,
        }
    }
    Ok(Defined {
        columns,
        checks: checks.all,
    })
}

fn column(written: &ColumnDef, checks: &mut Checks<'_>) -> Result<Column> {
    let name = fold(&written.name);
    let mut column = Column {
        sql_type: sql_type(&written.data_type)?,
        name,
        nullable: true,
        default: None,
        generated: None,
        comment: None,
        since: None,
    };
    for option in &written.options {
        match &option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::Default(expr) => column.default = Some(expr.to_string()),
            ColumnOption::Check(check) => {
                let named = CheckConstraint {
                    name: check.name.clone().or_else(|| option.name.clone()),
                    ..check.clone()
                };
                checks.add(&named, Some(&column.name))?;
            }
            ColumnOption::Generated {
                generated_as: GeneratedAs::ExpStored | GeneratedAs::Always,
                generation_expr: Some(expr),
                generation_expr_mode,
                sequence_options: _,
                generated_keyword: _,
            } => {
                let stored = matches!(generation_expr_mode, Some(GeneratedExpressionMode::Stored));
                clause(
                    !stored,
                    "a generated column that is not STORED",
                    "write STORED after it",
                )?;
                column.generated = Some(expr.to_string());
            }
            other => unhonoured(other)?,
        }
    }
    if column.default.is_some() && column.generated.is_some() {
        return Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            format!(
                "both default and generation expression specified for column \"{}\"",
                column.name
            ),
        ));
    }
    Ok(column)
}

fn unhonoured(option: &ColumnOption) -> Result<()> {
    match option {
        ColumnOption::PrimaryKey(_) => clause(true, "PRIMARY KEY", NO_KEYS),
        ColumnOption::Unique(_) => clause(true, "UNIQUE", NO_KEYS),
        ColumnOption::ForeignKey(_) => clause(true, "REFERENCES", "leave it out"),
        ColumnOption::Collation(_) => clause(true, "COLLATE", "texts are ordered by their bytes"),
        ColumnOption::Generated { .. } | ColumnOption::Identity(_) => clause(
            true,
            "an identity column",
            "give the numbers yourself, or use uuid DEFAULT gen_random_uuid()",
        ),
        ColumnOption::Comment(_) => clause(true, "COMMENT in a column", "use COMMENT ON COLUMN"),
        other => clause(true, &format!("column option \"{other}\""), "leave it out"),
    }
}

/// Checks with the names PostgreSQL would give them.
struct Checks<'a> {
    table: &'a str,
    all: BTreeMap<String, String>,
}

impl Checks<'_> {
    fn add(&mut self, check: &CheckConstraint, column: Option<&str>) -> Result<()> {
        clause(
            check.enforced == Some(false),
            "NOT ENFORCED",
            "leave the constraint out",
        )?;
        let name = match &check.name {
            Some(name) => fold(name),
            None => self.free_name(column.or(only_column(&check.expr).as_deref())),
        };
        let duplicate = format!(
            "constraint \"{name}\" for relation \"{}\" already exists",
            self.table
        );
        match self.all.insert(name, check.expr.to_string()) {
            None => Ok(()),
            Some(_) => Err(Error::refused(SqlState::DUPLICATE_OBJECT, duplicate)),
        }
    }

    fn free_name(&self, column: Option<&str>) -> String {
        let base = match column {
            Some(column) => format!("{}_{column}_check", self.table),
            None => format!("{}_check", self.table),
        };
        let mut name = base.clone();
        let mut number = 0;
        while self.all.contains_key(&name) {
            number += 1;
            name = format!("{base}{number}");
        }
        name
    }
}

/// The column an expression names, when it is only one.
fn only_column(expr: &Expr) -> Option<String> {
    use datafusion::sql::sqlparser::ast::visit_expressions;
    let mut names = BTreeSet::new();
    // nothing breaks the walk
    let _ = visit_expressions(expr, |e: &Expr| {
        if let Expr::Identifier(name) = e {
            names.insert(fold(name));
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    let first = names.pop_first()?;
    names.is_empty().then_some(first)
}

/// Refuses partition columns that are not there, twice there, of no plain type, or all there is.
pub(super) fn check_partitions(columns: &[Column], partition_by: &[String]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in partition_by {
        let Some(column) = columns.iter().find(|c| &c.name == name) else {
            return Err(no_column(name));
        };
        if !seen.insert(name) {
            return Err(Error::refused(
                SqlState::DUPLICATE_COLUMN,
                format!("partition column \"{name}\" specified more than once"),
            ));
        }
        let plain = !matches!(
            column.sql_type,
            SqlType::Array(_)
                | SqlType::Record(_)
                | SqlType::Bytea
                | SqlType::Json
                | SqlType::Jsonb
        );
        clause(
            !plain,
            &format!(
                "partitioning by column \"{name}\" of type {}",
                column.sql_type
            ),
            "partition by a date, number or text",
        )?;
    }
    match seen.len() == columns.len() {
        true => Err(Error::refused(
            SqlState::INVALID_TABLE_DEFINITION,
            "a table needs a column that it is not partitioned by",
        )),
        false => Ok(()),
    }
}
