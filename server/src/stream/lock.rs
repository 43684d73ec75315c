//! The lock that keeps a second process out of a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result, SqlState};
use crate::lake::make_dirs_durable;

/// Held for the life of the process; the system takes it back when the process ends, however.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    released: CancellationToken,
}

impl DirLock {
    /// Takes the lock of a data directory, making the directory where there is none.
    ///
    /// # Errors
    /// `55006` when another process has it.
    pub fn take(dir: &Path) -> Result<Self> {
        make_dirs_durable(dir).map_err(Error::io("make the data directory"))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(Error::io("open the data directory's lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                file,
                released: CancellationToken::new(),
            }),
            Err(TryLockError::WouldBlock) => Err(Error::refused(
                SqlState::OBJECT_IN_USE,
                format!(
                    "data directory \"{}\" is in use by another weir process",
                    dir.display()
                ),
            )
            .with_hint("stop that process or start this one with another --data directory")),
            Err(TryLockError::Error(source)) => Err(Error::Io {
                action: "lock the data directory",
                source,
            }),
        }
    }

    /// Cancelled once the directory is free for another process.
    pub fn released(&self) -> CancellationToken {
        self.released.clone()
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // closing the file would do it too, but only after whoever waits was told
        if let Err(e) = self.file.unlock() {
            tracing::warn!(error = %e, "cannot unlock the data directory");
        }
        self.released.cancel();
    }
}
