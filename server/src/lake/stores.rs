//! The stores tables lie in: one client per bucket, made on first use and shared by everything.
//!
//! | URL | store |
//! |---|---|
//! | `file:///…` | the local file system, every write synced (`store`) |
//! | `s3://bucket/…`, `s3a://…` | Amazon S3 and what speaks its API |
//! | `gs://bucket/…` | Google Cloud Storage |
//! | `az://container/…`, `azure://…` | Azure Blob Storage |
//! | `hdfs://host:port/…` | Hadoop, when built with the feature `hdfs` |
//!
//! Credentials come from the environment as the providers' own tools read them (`AWS_…`, `GOOGLE_…`,
//! `AZURE_…`), or from the `storage.*` settings, which win. Commits rest on *put if absent*: it is the
//! only way used, and [`prove`] tries it out before a server relies on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use deltalake::DeltaResult;
use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use url::{Position, Url};

use super::store::DurableFs;
use crate::config::Secret;
use crate::error::{Error, Result, SqlState};

/// Schemes besides `file`.
const REMOTE: [&str; 6] = ["s3", "s3a", "gs", "az", "azure", "hdfs"];

/// What one request may take with all its repetitions. A flush that fails is made again later.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RETRIES: usize = 6;

/// Options of the stores by name, as `object_store` spells them (`aws_endpoint`, `aws_region`, …).
pub type StorageOptions = BTreeMap<String, Secret>;

#[derive(Debug, Default)]
struct Stores {
    options: StorageOptions,
    clients: HashMap<String, Arc<dyn ObjectStore>>,
}

static STORES: LazyLock<RwLock<Stores>> = LazyLock::new(|| {
    // Delta's log over put-if-absent is the same everywhere; it only has to be told the schemes.
    for scheme in REMOTE {
        if let Ok(url) = Url::parse(&format!("{scheme}://")) {
            logstore_factories().insert(url, Arc::new(PutIfAbsent));
        }
    }
    RwLock::default()
});

/// Sets the options clients are made with from now on.
pub fn configure(options: &StorageOptions) {
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    if stores.options != *options {
        stores.options = options.clone();
        stores.clients.clear();
    }
}

/// The client for what lies at a URL; its root is the bucket's.
///
/// # Errors
/// `0A000` for a scheme there is no store for, `F0000` for options that do not make a client.
pub fn object_store(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let root = &url[..Position::BeforePath];
    {
        let stores = STORES.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = stores.clients.get(root) {
            return Ok(Arc::clone(client));
        }
    }
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    let client = client(url, &stores.options)?;
    let entry = stores.clients.entry(root.to_owned());
    Ok(Arc::clone(entry.or_insert(client)))
}

/// Puts a store of a test's own in the place of a bucket's.
#[cfg(test)]
pub(crate) fn install(url: &Url, store: Arc<dyn ObjectStore>) {
    let root = url[..Position::BeforePath].to_owned();
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    stores.clients.insert(root, store);
}

/// Tries out that a warehouse can be written and that of two writers of one name only one wins.
///
/// # Errors
/// `58030` when it cannot be written, `0A000` when the second writer overwrites the first: commits
/// would be lost there.
pub async fn prove(warehouse: &Url) -> Result<()> {
    if warehouse.scheme() == "file" {
        return Ok(());
    }
    let store = object_store(warehouse)?;
    let name = format!("_weir/probe-{}", uuid::Uuid::new_v4());
    let path = Path::from_url_path(warehouse.path())
        .map_err(|e| Error::Delta(object_store::Error::from(e).into()))?;
    let path = Path::from_iter(path.parts().chain(Path::from(name).parts()));
    let once = || PutOptions::from(PutMode::Create);
    let failed = |e: object_store::Error| {
        Error::refused(
            SqlState::IO_ERROR,
            format!("cannot write to the warehouse \"{warehouse}\""),
        )
        .with_detail(e.to_string())
    };
    store
        .put_opts(&path, "1".into(), once())
        .await
        .map_err(failed)?;
    let second = store.put_opts(&path, "2".into(), once()).await;
    let deleted = store.delete(&path).await;
    match second {
        Err(object_store::Error::AlreadyExists { .. }) => deleted.map_err(failed),
        Err(e) => Err(failed(e)),
        Ok(_) => Err(Error::unsupported(
            format!("the store of \"{warehouse}\" overwrites where it was asked to put if absent"),
            "use a store with conditional writes (If-None-Match): commits would be lost on this one",
        )),
    }
}

fn client(url: &Url, options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig {
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    // what an option is called says which stores it is for; the others do not know it
    macro_rules! with_options {
        ($builder:expr) => {
            options
                .iter()
                .fold($builder, |builder, (name, value)| match name.parse() {
                    Ok(key) => builder.with_config(key, value.0.as_str()),
                    Err(_) => builder,
                })
        };
    }
    let made: object_store::Result<Arc<dyn ObjectStore>> = match url.scheme() {
        "file" => Ok(Arc::new(DurableFs::new())),
        "s3" | "s3a" => with_options!(AmazonS3Builder::from_env())
            .with_url(url.as_str())
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(retry)
            .build()
            .map(|s| Arc::new(s) as _),
        "gs" => with_options!(GoogleCloudStorageBuilder::from_env())
            .with_url(url.as_str())
            .with_retry(retry)
            .build()
            .map(|s| Arc::new(s) as _),
        "az" | "azure" => with_options!(MicrosoftAzureBuilder::from_env())
            .with_url(url.as_str())
            .with_retry(retry)
            .build()
            .map(|s| Arc::new(s) as _),
        "hdfs" => return hdfs(url, options),
        scheme => {
            return Err(Error::unsupported(
                format!("storage scheme \"{scheme}\" is not supported"),
                "use a local directory, s3://, gs://, az:// or hdfs://",
            ));
        }
    };
    made.map_err(|e| {
        let place = &url[..Position::BeforePath];
        Error::refused(
            SqlState::CONFIG_FILE_ERROR,
            format!("the settings do not make a client for \"{place}\""),
        )
        .with_detail(e.to_string())
    })
}

#[cfg(feature = "hdfs")]
fn hdfs(url: &Url, _options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
    let place = &url[..Position::BeforePath];
    hdfs_native_object_store::HdfsObjectStoreBuilder::new()
        .with_url(place)
        .build()
        .map(|s| Arc::new(s) as _)
        .map_err(|e| {
            Error::refused(
                SqlState::CONFIG_FILE_ERROR,
                format!("the settings do not make a client for \"{place}\""),
            )
            .with_detail(e.to_string())
        })
}

#[cfg(not(feature = "hdfs"))]
fn hdfs(_url: &Url, _options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
    Err(Error::unsupported(
        "this build has no client for HDFS",
        "build weir with the feature \"hdfs\"",
    ))
}

/// Delta's log by put-if-absent.
struct PutIfAbsent;

impl LogStoreFactory for PutIfAbsent {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(
            prefixed_store,
            root_store,
            location,
            options,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[test]
    fn a_scheme_without_a_store_is_refused() {
        let url = Url::parse("ftp://host/dir/").unwrap();
        let refused = object_store(&url).unwrap_err();
        assert_eq!(refused.state(), SqlState::FEATURE_NOT_SUPPORTED);
    }

    #[tokio::test]
    async fn a_store_with_put_if_absent_proves_itself() {
        let url = Url::parse("s3://weir-prove/a/b/").unwrap();
        let memory = Arc::new(InMemory::new());
        install(&url, Arc::clone(&memory) as _);
        prove(&url).await.unwrap();
        let left = futures::StreamExt::count(memory.list(None)).await;
        assert_eq!(left, 0);
    }
}
