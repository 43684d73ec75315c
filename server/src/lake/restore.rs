//! What makes an older version of a table its newest state again.

use std::collections::HashSet;

use deltalake::kernel::{Add, Remove};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};

use super::LakeSnapshot;
use crate::error::{Error, Result, SqlState};

/// Files that are looked for at the same time.
const AT_ONCE: usize = 16;

/// Files to be added and removed.
#[derive(Debug, Default)]
pub struct Difference {
    /// Files the older version has and the newest has not.
    pub adds: Vec<Add>,
    /// The opposite.
    pub removes: Vec<Remove>,
}

/// What leads from `now` to the rows of `then`, two versions of one table. Columns stay those of now.
///
/// # Errors
/// `0A000` when a column of then is missing or has another type now; `55000` when files of then were
/// vacuumed.
pub async fn difference(now: &LakeSnapshot, then: &LakeSnapshot) -> Result<Difference> {
    check_columns(now, then)?;
    let current: HashSet<&str> = now.files.iter().map(|f| f.path.as_str()).collect();
    let wanted: HashSet<&str> = then.files.iter().map(|f| f.path.as_str()).collect();
    let mut adds = Vec::new();
    for file in then.table.snapshot()?.log_data().iter() {
        if !current.contains(file.path().as_ref()) {
            #[expect(deprecated, reason = "the log's own action is what is committed again")]
            adds.push(file.add_action());
        }
    }
    let removes = now
        .table
        .snapshot()?
        .log_data()
        .iter()
        .filter(|file| !wanted.contains(file.path().as_ref()))
        .map(|file| file.remove_action(true))
        .collect();
    check_files(now, then, &adds).await?;
    Ok(Difference { adds, removes })
}

fn check_columns(now: &LakeSnapshot, then: &LakeSnapshot) -> Result<()> {
    let same = |name: &str, ty| {
        let found = now.schema.field_with_name(name);
        found.is_ok_and(|f| f.data_type() == ty)
    };
    // rows of then may have NULL where none is taken now
    let strict = now.schema.fields().iter().find(|f| {
        let then = then.schema.field_with_name(f.name());
        !f.is_nullable() && then.map_or(true, |f| f.is_nullable())
    });
    let changed = then
        .schema
        .fields()
        .iter()
        .find(|f| !same(f.name(), f.data_type()))
        .or(strict);
    let message = match changed {
        Some(field) => format!("column \"{}\" was changed since then", field.name()),
        None if now.partition_by != then.partition_by => {
            "the table was partitioned in another way then".to_owned()
        }
        None => return Ok(()),
    };
    Err(Error::unsupported(
        message,
        "copy the rows: INSERT INTO … SELECT … FROM the table VERSION AS OF n",
    ))
}

async fn check_files(now: &LakeSnapshot, then: &LakeSnapshot, adds: &[Add]) -> Result<()> {
    let store = now.table.object_store();
    let paths: Vec<Path> = adds
        .iter()
        .map(|add| Path::parse(&add.path).unwrap_or_else(|_| Path::from(add.path.as_str())))
        .collect();
    let missing: usize = stream::iter(paths)
        .map(|path| {
            let store = std::sync::Arc::clone(&store);
            async move {
                match store.head(&path).await {
                    Ok(_) => Ok(0),
                    Err(StoreError::NotFound { .. }) => Ok(1),
                    Err(e) => Err(Error::Delta(e.into())),
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_fold(0, |sum, n| async move { Ok(sum + n) })
        .await?;
    if missing == 0 {
        return Ok(());
    }
    Err(Error::refused(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("version {} cannot be restored", then.version),
    )
    .with_detail(format!("{missing} of its files were vacuumed since")))
}
