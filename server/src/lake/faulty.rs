//! An object store for tests that fails as real ones do: before the effect, after it, with an answer
//! that belongs to somebody else, with a listing of a while ago.
//!
//! Faults come from a seed, so a history that fails can be run again.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// 503, nothing done.
    Refused,
    /// Done, then 503 or no answer in time.
    Lost,
    /// Done, and the client's own repetition was told that somebody had done it: for a conditional
    /// put 412, which looks like another writer's.
    Repeated,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    random: Mutex<StdRng>,
    /// Of a hundred requests, how many go wrong.
    percent: u64,
    /// The store is out: every request is refused.
    out: AtomicBool,
    /// Faults so far.
    faults: AtomicU64,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, seed: u64, percent: u64) -> Self {
        Self {
            inner,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            percent,
            out: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        }
    }

    /// Begins or ends an outage.
    pub(crate) fn set_out(&self, out: bool) {
        self.out.store(out, Ordering::SeqCst);
    }

    /// How many requests went wrong.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }

    fn draw(&self) -> Option<Fault> {
        let fault = if self.out.load(Ordering::SeqCst) {
            Some(Fault::Refused)
        } else {
            let mut random = self.random.lock().unwrap();
            (random.random_range(0..100) < self.percent).then(|| match random.random_range(0..3) {
                0 => Fault::Refused,
                1 => Fault::Lost,
                _ => Fault::Repeated,
            })
        };
        if fault.is_some() {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        fault
    }

    /// For requests that change nothing.
    fn may_read(&self) -> Result<()> {
        match self.draw() {
            None => Ok(()),
            Some(_) => Err(unavailable()),
        }
    }
}

fn unavailable() -> Error {
    Error::Generic {
        store: "FaultyStore",
        source: "503 slow down".into(),
    }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let create = opts.mode == PutMode::Create;
        match self.draw() {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::Refused) => Err(unavailable()),
            Some(fault) => {
                self.inner.put_opts(location, payload, opts).await?;
                match fault {
                    Fault::Repeated if create => Err(Error::AlreadyExists {
                        path: location.to_string(),
                        source: "412 precondition failed".into(),
                    }),
                    _ => Err(unavailable()),
                }
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.may_read()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.may_read()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.may_read()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.may_read() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.draw() {
            None => self.inner.list(prefix),
            Some(Fault::Repeated) => stale(self.inner.list(prefix)),
            Some(_) => stream::once(async { Err(unavailable()) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.draw() {
            None => self.inner.list_with_offset(prefix, offset),
            Some(Fault::Repeated) => stale(self.inner.list_with_offset(prefix, offset)),
            Some(_) => stream::once(async { Err(unavailable()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.may_read()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.may_read()?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A listing without its newest object, as a cache in between may give it.
fn stale(
    listing: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    stream::once(async move {
        let mut found: Vec<ObjectMeta> = listing.try_collect().await?;
        let newest = found.iter().map(|m| m.location.clone()).max();
        found.retain(|m| Some(&m.location) != newest.as_ref());
        Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
    })
    .try_flatten()
    .boxed()
}
