//! A local object store whose writes are durable when they return.
//!
//! `object_store`'s own file system store neither syncs files nor directories, so a commit could
//! survive a power failure without its data, or as an empty file. This one writes a staging file,
//! syncs it, links or renames it into place and syncs the directory. Reading is left to the
//! inner store.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result,
};

use super::crash::crash_point;
use super::upload::Upload;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct DurableFs {
    inner: Arc<LocalFileSystem>,
}

impl DurableFs {
    pub(super) fn new() -> Self {
        Self {
            inner: Arc::new(LocalFileSystem::new()),
        }
    }
}

impl std::fmt::Display for DurableFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Durable{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableFs {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "conditional update".to_owned(),
                    implementer: self.to_string(),
                });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        let is_log = location.as_ref().contains("_delta_log/");
        blocking(move || put_durably(&target, &payload, create, is_log)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let parent = parent_of(&target)?.to_path_buf();
        blocking(move || make_dirs_durable(&parent).map_err(|e| generic("make directory", e)))
            .await?;
        Ok(Box::new(Upload::begin(target).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

impl DurableFs {
    async fn sync(&self, location: &Path) -> Result<()> {
        let target = self.inner.path_to_filesystem(location)?;
        blocking(move || sync_file_and_dir(&target).map_err(|e| generic("sync", e))).await
    }
}

fn put_durably(target: &FsPath, payload: &PutPayload, create: bool, is_log: bool) -> Result<()> {
    let parent = parent_of(target)?;
    make_dirs_durable(parent).map_err(|e| generic("make directory", e))?;
    let (mut file, staged) = stage(target).map_err(|e| generic("stage", e))?;
    let written = payload
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| {
            if !is_log {
                crash_point("data-before-fsync");
            }
            file.sync_all()
        });
    drop(file);
    if is_log {
        crash_point("commit-before-link");
    }
    let placed = written.and_then(|()| {
        if create {
            std::fs::hard_link(&staged, target)
        } else {
            std::fs::rename(&staged, target)
        }
    });
    if create || placed.is_err() {
        // Left behind it does no harm: listings skip staging files.
        let _ = std::fs::remove_file(&staged);
    }
    match placed {
        Ok(()) => {
            if is_log {
                crash_point("commit-after-link-before-fsync");
            }
            sync_dir(parent).map_err(|e| generic("sync directory", e))
        }
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Err(Error::AlreadyExists {
            path: target.display().to_string(),
            source: Box::new(source),
        }),
        Err(source) => Err(generic("write", source)),
    }
}

/// Creates `<target>#<n>`: names with a numeric `#` suffix are invisible to listings.
pub(super) fn stage(target: &FsPath) -> std::io::Result<(File, PathBuf)> {
    let mut n: u64 = 1;
    loop {
        let mut name = target.as_os_str().to_owned();
        name.push(format!("#{n}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&staged)
        {
            Ok(file) => return Ok((file, staged)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(e) => return Err(e),
        }
    }
}

fn parent_of(target: &FsPath) -> Result<&FsPath> {
    target.parent().ok_or_else(|| Error::Generic {
        store: "DurableFs",
        source: format!("\"{}\" has no directory", target.display()).into(),
    })
}

/// Creates a directory and its missing ancestors and syncs every directory that got an entry.
pub(crate) fn make_dirs_durable(dir: &FsPath) -> std::io::Result<()> {
    let mut missing = Vec::new();
    let mut at = dir;
    while !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    for made in missing {
        sync_dir(made)?;
    }
    sync_dir(at)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &FsPath) -> std::io::Result<()> {
    let dir = if dir.as_os_str().is_empty() {
        FsPath::new(".")
    } else {
        dir
    };
    File::open(dir)?.sync_all()
}

fn sync_file_and_dir(target: &FsPath) -> std::io::Result<()> {
    File::open(target)?.sync_all()?;
    match target.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

pub(super) fn generic(action: &str, source: std::io::Error) -> Error {
    tracing::warn!(action, error = %source, "local table storage failed");
    Error::Generic {
        store: "DurableFs",
        source: Box::new(source),
    }
}

/// Runs file work on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Generic {
            store: "DurableFs",
            source: Box::new(e),
        }),
    }
}
