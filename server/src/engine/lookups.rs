//! Queries for one key of a materialized view that were asked before, and what they were found to be.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use catalog::Oid;
use datafusion::sql::sqlparser::ast::Query;

use super::scope::Caller;
use crate::views::{Kept, Lookup};

/// Queries that are remembered.
const MOST: usize = 1_000;

/// What is known of queries.
#[derive(Debug, Default)]
pub struct Lookups(Mutex<HashMap<u64, Vec<Entry>>>);

/// A query, by who asks it: everything about a session that a plan may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    query: Query,
    role: String,
    schema: String,
    search_path: Vec<String>,
    temporary: Option<String>,
    time_zone: String,
}

/// A query for one key of a view.
#[derive(Debug)]
pub struct Known {
    /// How it is answered.
    pub lookup: Lookup,
    /// The view.
    pub kept: Kept,
    /// Its columns.
    pub schema: SchemaRef,
    /// Relations that its plan reads, for the audit row.
    pub touched: Vec<Oid>,
}

#[derive(Debug)]
struct Entry {
    question: Question,
    /// Of the catalog that it was planned with.
    generation: i64,
    /// Nothing when it is no query for one key of a view.
    known: Option<Arc<Known>>,
}

impl Question {
    /// A query as that session means it.
    pub fn of(query: &Query, caller: &Caller) -> Self {
        Self {
            query: query.clone(),
            role: caller.role.clone(),
            schema: caller.schema.clone(),
            search_path: caller.search_path.clone(),
            temporary: caller.temporary.clone(),
            time_zone: caller.time_zone.clone(),
        }
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

impl Lookups {
    /// What is known of a question, if it was looked at with this catalog.
    pub fn find(&self, question: &Question, generation: i64) -> Option<Option<Arc<Known>>> {
        let all = self.lock();
        let entries = all.get(&question.hash())?;
        let entry = entries
            .iter()
            .find(|entry| entry.generation == generation && entry.question == *question)?;
        Some(entry.known.clone())
    }

    /// Remembers what a question was found to be with a catalog.
    pub fn learn(&self, question: Question, generation: i64, known: Option<Arc<Known>>) {
        let mut all = self.lock();
        if all.len() >= MOST {
            // whatever is asked again is found out again
            all.clear();
        }
        let same = all.entry(question.hash()).or_default();
        // what was found with another catalog is of no use any more
        same.retain(|entry| entry.generation == generation && entry.question != question);
        same.push(Entry {
            question,
            generation,
            known,
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Entry>>> {
        // every change of it is one step
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
