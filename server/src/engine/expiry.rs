//! What the server keeps for itself does not grow for ever: old days of its own tables are let go.
//!
//! Letters go after their retention, answers to requests after their window. A day goes whole, so what is
//! kept is kept a day longer at most. Files are left to vacuum.

use std::sync::Arc;
use std::time::Duration;

use catalog::Oid;
use datafusion::scalar::ScalarValue;
use deltalake::kernel::Remove;

use super::Engine;
use super::activity::now_micros;
use crate::error::{Error, Result};
use crate::lake::{self, LakeFile};
use crate::stream::internal::{self, DAY, DEAD_LETTERS, KEYS, REPLAYS};

/// Time between two looks.
pub(super) const PAUSE: Duration = Duration::from_secs(600);
const DAY_LENGTH: Duration = Duration::from_secs(24 * 3600);

impl Engine {
    /// Lets go of days of internal tables that are past their time; how many files that were.
    ///
    /// # Errors
    /// What a commit reports.
    pub async fn expire_internal(self: &Arc<Self>) -> Result<usize> {
        let letters = self.config.dead_letter_retention;
        let mut files = 0;
        for (oid, keep) in [
            (DEAD_LETTERS, letters),
            // attempts outlive their letters
            (REPLAYS, letters + DAY_LENGTH),
            (KEYS, self.config.idempotency_window),
        ] {
            let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
            let oldest = internal::day(now_micros().saturating_sub(keep));
            files += self.expire(oid, oldest).await?;
        }
        Ok(files)
    }

    async fn expire(&self, oid: Oid, oldest: i32) -> Result<usize> {
        let head = self.stream.head();
        let Some(head) = head.tables.get(&oid).cloned() else {
            return Err(Error::undefined_table(&oid.to_string()));
        };
        let Some(at) = head.lake.partition_by.iter().position(|name| name == DAY) else {
            return Err(Error::Internal(format!("table {oid} has no days")));
        };
        let is_old = |file: &LakeFile| matches!(file.partition_values.get(at), Some(ScalarValue::Date32(Some(day))) if *day < oldest);
        if !head.lake.files.iter().any(is_old) {
            return Ok(0);
        }
        self.stream
            .exclusive(oid, async |table| {
                let snapshot = head.lake.with_table(table)?;
                let old = snapshot.files.iter().filter(|file| is_old(file));
                let removes: Vec<Remove> = old.map(|file| remove(file, at)).collect();
                let files = removes.len();
                let commit = lake::Commit {
                    removes,
                    ..lake::Commit::default()
                };
                let after = lake::commit(&snapshot, commit).await?;
                Ok((after.table, files))
            })
            .await
    }
}

fn remove(file: &LakeFile, at: usize) -> Remove {
    let day = file.partition_values.get(at).map(ToString::to_string);
    Remove {
        path: file.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now_micros() / 1000),
        extended_file_metadata: Some(true),
        partition_values: Some([(DAY.to_owned(), day)].into()),
        size: i64::try_from(file.size).ok(),
        ..Remove::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::SqlState;
    use crate::stream::letters::{self, Addressee, Form, Letter, Letters, Raw};

    #[tokio::test(flavor = "multi_thread")]
    async fn old_days_go_and_young_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Config::for_test(dir.path())).await.unwrap();
        let to = Addressee {
            oid: Oid(20_000),
            schema: "public".to_owned(),
            name: "t".to_owned(),
            door: "http".to_owned(),
        };
        let mut one = Letters::default();
        one.push(Letter {
            raw: Raw {
                bytes: "x".into(),
                form: Form::Json,
                context: None,
                position: None,
            },
            state: SqlState::CHECK_VIOLATION,
            message: "no".to_owned(),
        })
        .unwrap();
        let day = 24 * 3600 * 1_000_000;
        for age in [0, 20, 29, 32, 400] {
            let batch = letters::batch(&to, &one, now_micros() - age * day).unwrap();
            let parts = vec![(DEAD_LETTERS, vec![batch])];
            engine.stream.append(parts).await.unwrap();
        }
        assert_eq!(engine.expire_internal().await.unwrap(), 0, "not stored yet");
        engine.stream.flush(DEAD_LETTERS).await.unwrap();
        assert_eq!(engine.expire_internal().await.unwrap(), 2);
        assert_eq!(engine.expire_internal().await.unwrap(), 0);
        let head = engine.stream.head();
        let table = &head.tables[&DEAD_LETTERS];
        assert_eq!(table.lake.rows(), Some(3));
        engine.close().await.unwrap();
    }
}
