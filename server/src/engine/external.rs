//! Tables whose files others own: a Delta table, or files of Parquet, CSV or JSON lines. They are read
//! where they lie, as they are when a statement reads them, and never written.
//!
//! Owns what their options mean and how they become providers. Their columns are the catalog's: what a
//! file lacks is NULL, what it has beside them is not seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{Field, Schema, SchemaRef};
use catalog::{Oid, Relation};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::execution::SessionState;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use url::{Position, Url};

use super::open::location;
use super::scan::WeirTable;
use crate::error::{Error, Result, SqlState};
use crate::lake::{self, At, LakeSnapshot};
use crate::types;

/// The option of the catalog that holds the format.
pub const FORMAT: &str = "format";
/// Rows of CSV and JSON that are looked at for their columns.
const INFERRED_ROWS: usize = 10_000;

/// What files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Delta table.
    Delta,
    /// Parquet files.
    Parquet,
    /// Comma-separated values.
    Csv,
    /// A JSON object on each line.
    Json,
}

/// How the files of a table are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What they hold.
    pub format: Format,
    header: bool,
    delimiter: u8,
}

impl Reading {
    /// Reads a format and options as they were written.
    ///
    /// # Errors
    /// 0A000 for a format there is none of, 22023 for an unknown option or value.
    pub fn parse(format: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        let format = match format {
            "delta" => Format::Delta,
            "parquet" => Format::Parquet,
            "csv" => Format::Csv,
            "json" | "ndjson" => Format::Json,
            other => {
                return Err(Error::unsupported(
                    format!("STORED AS {} is not supported", other.to_uppercase()),
                    "use DELTA, PARQUET, CSV or JSON (an object on each line)",
                ));
            }
        };
        let mut reading = Self {
            format,
            header: true,
            delimiter: b',',
        };
        for (key, value) in options {
            match (format, key.as_str()) {
                (Format::Csv, "header") => {
                    reading.header = match value.to_lowercase().as_str() {
                        "true" | "on" | "yes" | "1" => true,
                        "false" | "off" | "no" | "0" => false,
                        _ => return Err(bad_value(key, value, "true or false")),
                    }
                }
                (Format::Csv, "delimiter") => match value.as_bytes() {
                    [one] if one.is_ascii() && !b"\"\r\n".contains(one) => reading.delimiter = *one,
                    _ => return Err(bad_value(key, value, "one character")),
                },
                _ => {
                    let message = format!("unrecognized option \"{key}\"");
                    return Err(Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
                        .with_hint(
                            "CSV has the options header and delimiter, the other formats none",
                        ));
                }
            }
        }
        Ok(reading)
    }

    fn of(relation: &Relation) -> Result<Self> {
        let mut options = relation.options.clone();
        let format = options.remove(FORMAT).unwrap_or_default();
        Self::parse(&format, &options)
    }

    fn files(self, packing: FileCompressionType) -> Arc<dyn FileFormat> {
        match self.format {
            Format::Delta | Format::Parquet => Arc::new(ParquetFormat::default()),
            Format::Csv => Arc::new(
                CsvFormat::default()
                    .with_has_header(self.header)
                    .with_delimiter(self.delimiter)
                    .with_newlines_in_values(true)
                    .with_schema_infer_max_rec(INFERRED_ROWS)
                    .with_file_compression_type(packing),
            ),
            Format::Json => Arc::new(
                JsonFormat::default()
                    .with_schema_infer_max_rec(INFERRED_ROWS)
                    .with_file_compression_type(packing),
            ),
        }
    }

    fn extension(self) -> &'static str {
        match self.format {
            Format::Delta | Format::Parquet => ".parquet",
            Format::Csv => ".csv",
            Format::Json => ".json",
        }
    }
}

fn bad_value(key: &str, value: &str, wanted: &str) -> Error {
    let message = format!("{key} = '{value}' is not supported");
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
        .with_hint(format!("{key} is {wanted}"))
}

/// Where files lie, from what was written: a URL, or an absolute path of the server's machine.
///
/// # Errors
/// 22023 for what is neither, 0A000 for a scheme there is no store for.
pub fn parse_location(written: &str) -> Result<Url> {
    let url = match written.starts_with('/') {
        true => Url::from_file_path(written).ok(),
        false => Url::parse(written).ok(),
    };
    let Some(mut url) = url.filter(|url| !url.cannot_be_a_base()) else {
        let message = format!("invalid location: \"{written}\"");
        return Err(
            Error::refused(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(
                "write a URL (file:///…, s3://…, gs://…, az://…) or an absolute path of the server",
            ),
        );
    };
    if url.password().is_some() || url.query().is_some() {
        // the catalog shows locations to everybody
        let message = "a location must not hold credentials";
        return Err(Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
            .with_hint("set them in the environment or in storage.* settings"));
    }
    let directory = match url.to_file_path() {
        Ok(path) if url.scheme() == "file" => path.is_dir(),
        _ => url
            .path_segments()
            .and_then(|mut s| s.next_back().map(|last| !last.contains('.')))
            .unwrap_or(true),
    };
    if directory && !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    lake::stores::object_store(&url)?;
    Ok(url)
}

/// The columns that the files have now.
///
/// # Errors
/// 42P01 or 58P01 when there is nothing there, and what reading it says.
pub async fn inspect(state: &SessionState, reading: Reading, at: &Url) -> Result<SchemaRef> {
    register(state, at)?;
    let found = match reading.format {
        Format::Delta => lake::open(at, At::Latest).await?.schema,
        Format::Parquet | Format::Csv | Format::Json => {
            let url = listing_url(at)?;
            let (options, found) = listing(state, reading, &url).await?;
            if !found {
                return Err(nothing(&url));
            }
            options.infer_schema(state, &url).await?
        }
    };
    let fields: Vec<Field> = found
        .fields()
        .iter()
        .map(|f| types::field(f.name(), &types::sql_type(f), true))
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Delta tables that were read before: the next read goes on from what is known of them.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<Oid, Arc<LakeSnapshot>>>);

impl Known {
    async fn newest(&self, relation: &Relation) -> Result<Arc<LakeSnapshot>> {
        // not held while a store is asked: one that does not answer must hold up its own readers only
        let before = self.known().get(&relation.oid).cloned();
        let newest = match before {
            Some(before) => before.refreshed().await?,
            None => lake::open(&location(relation)?, At::Latest).await?,
        };
        let newest = Arc::new(newest);
        self.known().insert(relation.oid, Arc::clone(&newest));
        Ok(newest)
    }

    /// Lets a table go.
    pub fn forget(&self, table: Oid) {
        self.known().remove(&table);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Oid, Arc<LakeSnapshot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An external table as it is now, or, if it is a Delta table, as it was.
    ///
    /// # Errors
    /// 0A000 for a version of files that have none.
    pub async fn provider(
        &self,
        state: &SessionState,
        relation: &Relation,
        version: Option<At>,
    ) -> Result<Arc<dyn TableProvider>> {
        let reading = Reading::of(relation)?;
        let at = location(relation)?;
        let schema = types::schema(&relation.columns);
        register(state, &at)?;
        match (reading.format, version) {
            (Format::Delta, version) => {
                let snapshot = match version {
                    None => self.newest(relation).await?,
                    Some(version) => Arc::new(lake::open(&at, version).await?),
                };
                let table = WeirTable::foreign(relation.oid, snapshot, schema);
                Ok(Arc::new(table))
            }
            (_, Some(_)) => Err(Error::unsupported(
                format!("external table \"{}\" has no versions", relation.name),
                "only Delta tables have them",
            )),
            (_, None) => {
                let url = listing_url(&at)?;
                let (options, _) = listing(state, reading, &url).await?;
                let config = ListingTableConfig::new(url)
                    .with_listing_options(options)
                    .with_schema(schema);
                Ok(Arc::new(ListingTable::try_new(config)?))
            }
        }
    }
}

/// Lets DataFusion find the store of a location.
fn register(state: &SessionState, at: &Url) -> Result<()> {
    let root = Url::parse(&at[..Position::BeforePath])
        .map_err(|e| Error::Internal(format!("the root of a location: {e}")))?;
    if at.scheme() != "file"
        && state
            .runtime_env()
            .object_store_registry
            .get_store(&root)
            .is_err()
    {
        let store = lake::stores::object_store(at)?;
        state.runtime_env().register_object_store(&root, store);
    }
    Ok(())
}

fn listing_url(at: &Url) -> Result<ListingTableUrl> {
    Ok(ListingTableUrl::try_new(at.clone(), None)?)
}

/// How files are found: a single one is read whatever its name; of a directory, those that the format has
/// by their ending, packed or not, and all packed alike. With it whether there are any.
///
/// # Errors
/// 58P01 for a single file that is not there.
async fn listing(
    state: &SessionState,
    reading: Reading,
    url: &ListingTableUrl,
) -> Result<(ListingOptions, bool)> {
    let store = state.runtime_env().object_store(url)?;
    let plain = reading.extension();
    let packable = matches!(reading.format, Format::Csv | Format::Json);
    let kinds = [
        ("", FileCompressionType::UNCOMPRESSED),
        (".gz", FileCompressionType::GZIP),
        (".zst", FileCompressionType::ZSTD),
    ];
    let mut chosen = (plain.to_owned(), FileCompressionType::UNCOMPRESSED);
    let mut found = true;
    if !url.is_collection() {
        match store.head(url.prefix()).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Err(nothing(url)),
            Err(e) => {
                let message = format!("cannot read \"{url}\"");
                return Err(Error::refused(SqlState::IO_ERROR, message).with_detail(e.to_string()));
            }
        }
        let path = url.as_str();
        let packing = kinds
            .iter()
            .skip(1)
            .find(|(end, _)| packable && path.ends_with(end));
        chosen = (
            String::new(),
            packing.map_or(chosen.1, |(_, packing)| *packing),
        );
    } else {
        found = false;
        let kinds = kinds.into_iter().take(if packable { 3 } else { 1 });
        for (end, packing) in kinds {
            let ending = format!("{plain}{end}");
            let mut files = url.list_all_files(state, store.as_ref(), &ending).await?;
            found = files.try_next().await?.is_some();
            drop(files);
            if found {
                chosen = (ending, packing);
                break;
            }
        }
    }
    let (ending, packing) = chosen;
    let options = ListingOptions::new(reading.files(packing)).with_file_extension(ending);
    Ok((options, found))
}

fn nothing(url: &ListingTableUrl) -> Error {
    let message = format!("there is nothing to read at \"{url}\"");
    Error::refused(SqlState::UNDEFINED_FILE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_urls_or_absolute_paths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let url = parse_location(path).unwrap();
        assert!(url.as_str().starts_with("file:///") && url.path().ends_with('/'));
        assert_eq!(
            parse_location(&format!("{path}/a.csv")).unwrap().path(),
            format!("{path}/a.csv")
        );
        for (bad, state) in [
            ("data/a.csv", "22023"),
            ("", "22023"),
            ("mailto:a", "22023"),
            ("s3://key:secret@bucket/x", "22023"),
            ("ftp://host/x/", "0A000"),
        ] {
            assert_eq!(parse_location(bad).unwrap_err().state().0, state, "{bad}");
        }
    }

    #[test]
    fn options_are_those_of_the_format() {
        let options = |all: &[(&str, &str)]| {
            let all = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            all.collect::<BTreeMap<_, _>>()
        };
        let csv =
            Reading::parse("csv", &options(&[("header", "off"), ("delimiter", ";")])).unwrap();
        assert_eq!((csv.header, csv.delimiter), (false, b';'));
        for (format, written, state) in [
            ("avro", &[][..], "0A000"),
            ("json", &[("header", "true")], "22023"),
            ("csv", &[("delimiter", "ab")], "22023"),
            ("csv", &[("delimiter", "\"")], "22023"),
            ("csv", &[("header", "maybe")], "22023"),
        ] {
            let e = Reading::parse(format, &options(written)).unwrap_err();
            assert_eq!(e.state().0, state, "{format} {written:?}");
        }
    }
}
