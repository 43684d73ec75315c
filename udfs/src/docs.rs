//! The function reference: `sql/FUNCTIONS.md` is made from what the functions say about themselves.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{Documentation, ScalarUDFImpl};

use crate::scalar::hash_token::SecretKeys;
use crate::{FunctionError, aggregate, scalar, window};

/// A function's name and what it says about itself.
#[derive(Debug, Clone)]
pub struct FunctionDoc {
    /// SQL name.
    pub name: String,
    /// Its documentation.
    pub doc: Documentation,
}

/// The reference page of all functions: those of this package and `more`. By section, then by name.
pub fn functions_markdown(more: Vec<FunctionDoc>) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<&str, &Documentation>> = BTreeMap::new();
    let all: Vec<FunctionDoc> = own().into_iter().chain(more).collect();
    for FunctionDoc { name, doc } in &all {
        let section = sections.entry(doc.doc_section.label).or_default();
        section.insert(name, doc);
    }
    let mut page = String::from(
        "# Functions of weir\n\nGenerated from the functions' own documentation; do not edit. Beside these \
         there are all functions of DataFusion.\n",
    );
    for (label, functions) in sections {
        let _ = write!(page, "\n## {label}\n");
        for (name, doc) in functions {
            write_function(&mut page, name, doc);
        }
    }
    page
}

fn write_function(page: &mut String, name: &str, doc: &Documentation) {
    let _ = write!(page, "\n### `{name}`\n\n```sql\n{}\n", doc.syntax_example);
    for other in doc.alternative_syntax.iter().flatten() {
        let _ = writeln!(page, "{other}");
    }
    let _ = write!(page, "```\n\n{}\n", doc.description.trim());
    let mut lead = "\n";
    for (argument, meaning) in doc.arguments.iter().flatten() {
        let _ = writeln!(page, "{lead}- `{argument}`: {}", meaning.trim());
        lead = "";
    }
    if let Some(example) = &doc.sql_example {
        let _ = write!(page, "\n{}\n", example.trim());
    }
}

/// Documentation of the functions of this package.
fn own() -> Vec<FunctionDoc> {
    let keys: Arc<dyn SecretKeys> = Arc::new(NoKeys);
    let scalar = scalar::functions()
        .into_iter()
        .chain([scalar::keyed(&keys)]);
    let scalar = scalar.map(|f| (f.name().to_owned(), f.documentation().cloned()));
    let aggregate = aggregate::functions().into_iter();
    let aggregate = aggregate.map(|f| (f.name().to_owned(), f.documentation().cloned()));
    let window = window::functions().into_iter();
    let window = window.map(|f| (f.name().to_owned(), f.documentation().cloned()));
    // the wrapper of a function that waits does not hand its documentation on
    let sleep = scalar::pg_sleep::PgSleep::default();
    let waiting = [(sleep.name().to_owned(), sleep.documentation().cloned())];
    scalar
        .chain(waiting)
        .chain(aggregate)
        .chain(window)
        .filter_map(|(name, doc)| Some(FunctionDoc { name, doc: doc? }))
        .collect()
}

/// Stands in where only names and texts are wanted.
#[derive(Debug)]
struct NoKeys;

impl SecretKeys for NoKeys {
    fn key(&self, name: &str) -> Result<Arc<[u8]>> {
        Err(FunctionError::invalid(format!("secret \"{name}\" does not exist")).into())
    }
}
