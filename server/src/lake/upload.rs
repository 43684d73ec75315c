//! Large local files on their way to disk, at a pace that leaves the disk to others.
//!
//! Parquet is written a row group at a time: tens of megabytes at once. Left to the file's final sync they
//! reach the disk together, and a sync of the log that comes meanwhile waits for all of them. Written back
//! piece by piece with a pause between, each such sync waits for a piece or two.
//!
//! What is written is durable and has its name only when the upload is complete.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use rustix::fs::{Advice, fadvise};

use super::crash::crash_point;
use super::store::{blocking, generic, stage, sync_dir};

/// Bytes handed to the disk at a time.
const PIECE: u64 = 512 << 10;
/// Between two pieces. With longer pauses flushes take longer when the tails are full, and the log's syncs
/// are no faster.
const PAUSE: Duration = Duration::from_micros(500);

/// A file that is being written under another name.
#[derive(Debug)]
pub(super) struct Upload {
    file: Arc<Mutex<File>>,
    /// Its name until it is complete; `None` once it is gone.
    staged: Option<PathBuf>,
    target: PathBuf,
    /// Where the next part goes.
    end: u64,
}

impl Upload {
    /// Begins the file that is to become `target`, whose directory is there.
    pub(super) async fn begin(target: PathBuf) -> Result<Self> {
        let path = target.clone();
        let (file, staged) =
            blocking(move || stage(&path).map_err(|e| generic("stage", e))).await?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            staged: Some(staged),
            target,
            end: 0,
        })
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let at = self.end;
        self.end += data.content_length() as u64;
        let file = Arc::clone(&self.file);
        blocking(move || {
            // one part at a time, or their pauses would be of no use
            let file = file.lock().unwrap_or_else(PoisonError::into_inner);
            write_back(&file, &data, at).map_err(|e| generic("write", e))
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(staged) = self.staged.clone() else {
            return Err(ended());
        };
        let (file, target) = (Arc::clone(&self.file), self.target.clone());
        blocking(move || {
            crash_point("data-before-fsync");
            let file = file.lock().unwrap_or_else(PoisonError::into_inner);
            place(&file, &staged, &target).map_err(|e| generic("sync", e))
        })
        .await?;
        self.staged = None;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged.take().ok_or_else(ended)?;
        blocking(move || std::fs::remove_file(&staged).map_err(|e| generic("remove", e))).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            // Left behind it does no harm: listings skip staging files.
            let _ = std::fs::remove_file(staged);
        }
    }
}

/// Writes a part and has the disk begin with each piece of it at once.
fn write_back(file: &File, data: &PutPayload, at: u64) -> std::io::Result<()> {
    let (mut at, mut begun) = (at, at);
    for bytes in data.iter() {
        for bytes in bytes.chunks(usize::try_from(PIECE).unwrap_or(usize::MAX)) {
            file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            if at - begun < PIECE {
                continue;
            }
            // "not needed soon" is what makes Linux begin: what is on its way to disk stays in memory
            if let Err(e) = fadvise(file, begun, NonZeroU64::new(at - begun), Advice::DontNeed) {
                // a file system may not know it: the final sync writes all, then
                tracing::trace!(error = %e, "cannot begin to write a data file back");
            }
            begun = at;
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

fn place(file: &File, staged: &Path, target: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    std::fs::rename(staged, target)?;
    match target.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

fn ended() -> object_store::Error {
    generic("write", std::io::Error::other("the upload has ended"))
}
