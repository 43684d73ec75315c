//! Segments: the files of the log.
//!
//! A segment is `<id>.wal`, ids ascending without gaps. A `.wal` file with a bad header is damage, never
//! a crash. Its length is set at birth; a segment no longer needed becomes `<id>.spare` and is written
//! over as a later one, which spares the file system new blocks. What a spare still holds cannot be
//! mistaken for records: their checksums start from the segment's id and a random epoch.
//!
//! The next segment is made ahead as `<id>.next`, with a header that says that nothing is in it. It
//! begins by that header being written over, in place, so that no name has to change before rows can
//! go into it: a `.next` file whose header has begun is a segment like any other.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use catalog::Oid;

use super::dedup::clock;
use super::head::Lsn;
use super::position;
use super::record::{HEADER, NoRecord, Record, put_u32, put_u64, u32_at, u64_at};
use crate::error::{Error, Result, SqlState};
use crate::lake::crash::crash_point;
use crate::lake::sync_dir;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"WEIR-WAL";
const FORMAT: u32 = 1;

/// What is known of a segment that is no longer written.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) id: u64,
    /// Highest position per table in it.
    pub(super) highest: HashMap<Oid, Lsn>,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) file: File,
    pub(super) seed: u32,
    pub(super) highest: HashMap<Oid, Lsn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    id: u64,
    epoch: u64,
    /// Where the segment before it ended.
    continues: Lsn,
    /// Position of its first row; positions begin at 1, and 0 says that it has not begun.
    first: Lsn,
}

impl Header {
    fn to_bytes(self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 8, FORMAT);
        put_u64(&mut bytes, 16, self.id);
        put_u64(&mut bytes, 24, self.epoch);
        put_u64(&mut bytes, 32, self.continues.0.cast_unsigned());
        put_u64(&mut bytes, 40, self.first.0.cast_unsigned());
        let crc = crc32fast::hash(&bytes[16..]);
        put_u32(&mut bytes, 12, crc);
        bytes
    }

    fn read(bytes: &[u8], path: &Path) -> Result<Self> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER) else {
            return Err(damaged(path, "it is too short for its header"));
        };
        if &bytes[..8] != MAGIC || u32_at(bytes, 12) != crc32fast::hash(&bytes[16..]) {
            return Err(damaged(path, "its header does not check"));
        }
        if u32_at(bytes, 8) != FORMAT {
            return Err(Error::unsupported(
                format!("log segment \"{}\" has another format", path.display()),
                "start the weir version that wrote it and stop it cleanly first",
            ));
        }
        Ok(Self {
            id: u64_at(bytes, 16),
            epoch: u64_at(bytes, 24),
            continues: Lsn(u64_at(bytes, 32).cast_signed()),
            first: Lsn(u64_at(bytes, 40).cast_signed()),
        })
    }

    fn seed(self) -> u32 {
        let mut bytes = [0; 16];
        put_u64(&mut bytes, 0, self.id);
        put_u64(&mut bytes, 8, self.epoch);
        crc32fast::hash(&bytes)
    }
}

/// A segment that is made and has not begun.
#[derive(Debug)]
pub(super) struct Prepared {
    file: File,
    header: Header,
}

/// How the file of a segment ends that is written or was,
pub(super) const WRITTEN: &str = "wal";
/// of one that is made ahead,
const NEXT: &str = "next";
/// of one that may be written over,
pub(super) const SPARE: &str = "spare";
/// and of one that is being made.
const NEW: &str = "new";

/// The file of a segment.
pub(super) fn path(dir: &Path, id: u64, kind: &str) -> PathBuf {
    dir.join(format!("{id:020}.{kind}"))
}

/// Gives a segment that has begun its name.
pub(super) fn name(dir: &Path, id: u64) -> std::io::Result<()> {
    crash_point("wal-roll-before-rename");
    std::fs::rename(path(dir, id, NEXT), path(dir, id, WRITTEN))?;
    sync_dir(dir)?;
    crash_point("wal-roll-after-rename");
    Ok(())
}

impl Prepared {
    /// Makes segment `id`, from a spare where there is one. Durable on return.
    pub(super) fn make(dir: &Path, id: u64, size: u64, spare: Option<PathBuf>) -> Result<Self> {
        const ACTION: &str = "make a log segment";
        crash_point("wal-roll-before-create");
        let header = Header {
            id,
            epoch: uuid::Uuid::new_v4().as_u64_pair().0,
            continues: Lsn::default(),
            first: Lsn::default(),
        };
        let staged = spare.unwrap_or_else(|| path(dir, id, NEW));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&staged)
            .map_err(Error::io(ACTION))?;
        file.set_len(size).map_err(Error::io(ACTION))?;
        file.write_all_at(&header.to_bytes(), 0)
            .map_err(Error::io(ACTION))?;
        file.sync_all().map_err(Error::io(ACTION))?;
        std::fs::rename(&staged, path(dir, id, NEXT)).map_err(Error::io(ACTION))?;
        sync_dir(dir).map_err(Error::io(ACTION))?;
        crash_point("wal-roll-after-create");
        Ok(Self { file, header })
    }

    /// Begins it where the one before ended. Durable on return.
    pub(super) fn begin(self, continues: Lsn, first: Lsn) -> Result<Open> {
        const ACTION: &str = "begin a log segment";
        let header = Header {
            continues,
            first,
            ..self.header
        };
        crash_point("wal-roll-before-begin");
        self.file
            .write_all_at(&header.to_bytes(), 0)
            .map_err(Error::io(ACTION))?;
        self.file.sync_data().map_err(Error::io(ACTION))?;
        crash_point("wal-roll-after-begin");
        Ok(Open {
            id: header.id,
            file: self.file,
            seed: header.seed(),
            highest: HashMap::new(),
        })
    }
}

impl Open {
    /// Notes that rows of `oid` up to `hi` lie in it.
    pub(super) fn note(&mut self, oid: Oid, hi: Lsn) {
        let highest = self.highest.entry(oid).or_default();
        *highest = (*highest).max(hi);
    }

    pub(super) fn close(self) -> Closed {
        Closed {
            id: self.id,
            highest: self.highest,
        }
    }
}

/// What the log held at start.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) closed: Vec<Closed>,
    pub(super) spares: Vec<PathBuf>,
    pub(super) next_id: u64,
    /// Where the log ends: the position after its last row.
    pub(super) end: Lsn,
}

/// Reads the whole log in order and hands on every record.
///
/// # Errors
/// `XX001` when a record is damaged that was durable once: acknowledged rows would be missing.
pub(super) fn replay(
    dir: &Path,
    mut on_record: impl FnMut(&Record) -> Result<()>,
) -> Result<Replayed> {
    let (segments, spares) = list(dir)?;
    let mut replayed = Replayed {
        closed: Vec::new(),
        spares,
        next_id: segments.last().map_or(1, |(id, _)| id + 1),
        end: Lsn(1),
    };
    let last = segments.last().map(|(id, _)| *id);
    let mut before: Option<u64> = None;
    for (id, path) in segments {
        let bytes = Bytes::from(std::fs::read(&path).map_err(Error::io("read a log segment"))?);
        let header = Header::read(&bytes, &path)?;
        if header.id != id {
            return Err(damaged(&path, "it is another segment's copy"));
        }
        if let Some(before) = before {
            if before + 1 != id {
                return Err(damaged(&path, "the segment before it is missing"));
            }
            if header.continues != replayed.end {
                return Err(damaged(&path, "the segment before it lost records"));
            }
        }
        let mut highest: HashMap<Oid, Lsn> = HashMap::new();
        let mut next = header.first;
        let end = read_records(&bytes, header.seed(), &mut next, |record| {
            for (oid, _, hi, _) in record.parts() {
                highest.insert(oid, hi);
            }
            if let Some(table) = position::table_of(&record.source) {
                highest.insert(table, Lsn(record.end().0 - 1));
            }
            on_record(record)
        })?;
        if Some(id) == last && durable_record_after(&bytes, end, header.seed()) {
            return Err(damaged(
                &path,
                &format!("the record at byte {end} does not check, later ones do"),
            ));
        }
        replayed.end = next;
        replayed.closed.push(Closed { id, highest });
        before = Some(id);
    }
    Ok(replayed)
}

/// Reads records until there is none; gives the offset where they end.
fn read_records(
    bytes: &Bytes,
    seed: u32,
    next: &mut Lsn,
    mut on_record: impl FnMut(&Record) -> Result<()>,
) -> Result<usize> {
    let mut at = SEGMENT_HEADER;
    while at < bytes.len() {
        match Record::read(&bytes.slice(at..), seed) {
            Ok((record, length)) if record.first == *next => {
                on_record(&record)?;
                *next = record.end();
                at += length;
            }
            Ok((record, _)) => {
                return Err(Error::refused(
                    SqlState::DATA_CORRUPTED,
                    format!(
                        "the log jumps from position {} to {}",
                        next.0, record.first.0
                    ),
                ));
            }
            Err(NoRecord::Empty | NoRecord::Damaged) => break,
        }
    }
    Ok(at)
}

/// True when a good record lies beyond `end` that was written after `end` had become durable:
/// then what stands at `end` is damage. Records written together may reach the disk in any order,
/// so one whose own group starts at or before `end` proves nothing.
fn durable_record_after(bytes: &Bytes, end: usize, seed: u32) -> bool {
    let last = bytes.len().saturating_sub(HEADER);
    (end..=last).step_by(8).any(|at| {
        Record::may_start(&bytes[at..])
            && Record::synced_before(&bytes[at..]) > end as u64
            && Record::read(&bytes.slice(at..), seed).is_ok()
    })
}

/// Segments with their ids, in order, and spares.
type Listed = (Vec<(u64, PathBuf)>, Vec<PathBuf>);

/// Segments in order and spares; leftovers of unfinished creations are removed.
fn list(dir: &Path) -> Result<Listed> {
    const ACTION: &str = "list the log's segments";
    let mut segments = Vec::new();
    let mut spares = Vec::new();
    let mut ahead = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(ACTION))? {
        let path = entry.map_err(Error::io(ACTION))?.path();
        let id = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse::<u64>().ok());
        match (path.extension().and_then(|e| e.to_str()), id) {
            (Some(WRITTEN), Some(id)) => segments.push((id, path)),
            (Some(SPARE), Some(_)) => spares.push(path),
            (Some(NEXT), Some(id)) => ahead.push((id, path)),
            (Some(NEW), Some(_)) => std::fs::remove_file(&path).map_err(Error::io(ACTION))?,
            _ if path.file_stem().is_some_and(|stem| stem == clock::FILE) => {}
            _ => tracing::warn!(path = %path.display(), "unknown file in the log directory"),
        }
    }
    ahead.sort_unstable();
    for (id, made) in ahead {
        if has_begun(&made, id)? {
            name(dir, id).map_err(Error::io(ACTION))?;
            segments.push((id, path(dir, id, WRITTEN)));
        } else {
            let spare = path(dir, id, SPARE);
            std::fs::rename(&made, &spare).map_err(Error::io(ACTION))?;
            spares.push(spare);
        }
    }
    segments.sort_unstable();
    Ok((segments, spares))
}

/// True for a segment made ahead that rows may be in.
///
/// # Errors
/// `XX001` when its header does not check. It had one before it got its name, and writing over it is one
/// write into one sector: no crash makes such a header, and acknowledged rows may stand behind it.
fn has_begun(path: &Path, id: u64) -> Result<bool> {
    let mut bytes = [0; SEGMENT_HEADER];
    let file = File::open(path).map_err(Error::io("read a log segment"))?;
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return Err(damaged(path, "it is too short for its header"));
    }
    let header = Header::read(&bytes, path)?;
    if header.id != id {
        return Err(damaged(path, "it is another segment's copy"));
    }
    Ok(header.first > Lsn::default())
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::refused(
        SqlState::DATA_CORRUPTED,
        format!("log segment \"{}\" is damaged: {what}", path.display()),
    )
    .with_hint("restore the file from a copy; starting without it would lose acknowledged rows")
}

/// The seed of a segment file's records, for tests that write into one.
#[cfg(test)]
pub(super) fn seed_of(bytes: &[u8], path: &Path) -> u32 {
    Header::read(bytes, path).unwrap().seed()
}
