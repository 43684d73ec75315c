//! When positions of the log were given out: the arrival of rows.
//!
//! Every record of the log carries its time. What outlives the records is a list of positions with
//! times, ten a second at most, thinned with age: the arrival of a row is known to 0.1 s or to a
//! 256th of its age, whichever is more, and is never taken for earlier than it was. The list is
//! written beside the segments before any of them is let go.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result, SqlState};
use crate::lake::crash::crash_point;
use crate::lake::sync_dir;
use crate::stream::head::Lsn;
use crate::stream::record::{put_u64, u64_at};

/// The file's name in the log's directory.
pub(in crate::stream) const FILE: &str = "arrivals";
const MAGIC: &[u8; 8] = b"WEIRTIME";
const ENTRY: usize = 16;
/// Two entries are at least so far apart.
const STEP_MICROS: i64 = 100_000;
/// Entries thin out to this part of their age.
const AGE_PART: i64 = 256;
/// The list is thinned when it has grown to this length.
const LONG: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::stream) struct Clock(Mutex<Ticks>);

#[derive(Debug, Default)]
struct Ticks {
    /// Rows below a position had arrived by a time; both ascend.
    ends: Vec<(Lsn, i64)>,
    /// Where the last step began: a position, and when it was given out.
    last: Option<(Lsn, i64)>,
}

impl Clock {
    /// Microseconds since the Unix epoch; never less than a time that was noted.
    pub(in crate::stream) fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
        self.ticks().last.map_or(micros, |last| micros.max(last.1))
    }

    /// Notes that positions from `first` on were given out at `at` or later.
    pub(in crate::stream) fn note(&self, first: Lsn, at: i64) {
        let mut ticks = self.ticks();
        if let Some((from, since)) = ticks.last {
            let until = since.saturating_add(STEP_MICROS);
            if first <= from || at < until {
                return;
            }
            ticks.ends.push((first, until));
            if ticks.ends.len() > LONG {
                thin(&mut ticks.ends);
            }
        }
        ticks.last = Some((first, at));
    }

    /// When the row at a position arrived, at the latest.
    pub(super) fn of(&self, position: Lsn) -> i64 {
        let ticks = self.ticks();
        let after = ticks.ends.partition_point(|(end, _)| *end <= position);
        match (ticks.ends.get(after), ticks.last) {
            (Some((_, by)), _) => *by,
            (None, Some((_, since))) => since.saturating_add(STEP_MICROS),
            (None, None) => i64::MAX,
        }
    }

    /// Writes the list beside the segments. Durable on return.
    pub(in crate::stream) fn save(&self, dir: &Path) -> Result<()> {
        const ACTION: &str = "write the log's times";
        let mut bytes = vec![0; ENTRY];
        bytes[..8].copy_from_slice(MAGIC);
        {
            let mut ticks = self.ticks();
            thin(&mut ticks.ends);
            for (lsn, time) in ticks.ends.iter().chain(&ticks.last) {
                bytes.extend_from_slice(&lsn.0.to_le_bytes());
                bytes.extend_from_slice(&time.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(bytes.get(ENTRY..).unwrap_or_default());
        put_u64(&mut bytes, 8, u64::from(crc));
        let staged = dir.join(format!("{FILE}.new"));
        let mut file = File::create(&staged).map_err(Error::io(ACTION))?;
        file.write_all(&bytes).map_err(Error::io(ACTION))?;
        file.sync_all().map_err(Error::io(ACTION))?;
        crash_point("arrivals-before-rename");
        std::fs::rename(&staged, dir.join(FILE)).map_err(Error::io(ACTION))?;
        sync_dir(dir).map_err(Error::io(ACTION))?;
        crash_point("arrivals-after-rename");
        Ok(())
    }

    /// Reads the list that was saved; nothing where there is none.
    pub(in crate::stream) fn load(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("read the log's times")(e)),
        };
        let entries = bytes.get(ENTRY..).unwrap_or_default();
        let crc = u64::from(crc32fast::hash(entries));
        if bytes.get(..8) != Some(MAGIC) || u64_at(&bytes, 8) != crc {
            return Err(Error::refused(
                SqlState::DATA_CORRUPTED,
                format!("the file \"{}\" is damaged", path.display()),
            )
            .with_hint("restore it from a copy, or remove it: rows then count as just arrived"));
        }
        let entry = |bytes: &[u8]| {
            let (lsn, time) = (u64_at(bytes, 0), u64_at(bytes, 8));
            (Lsn(lsn.cast_signed()), time.cast_signed())
        };
        let mut ends: Vec<(Lsn, i64)> = entries.chunks_exact(ENTRY).map(entry).collect();
        let last = ends.pop();
        *self.ticks() = Ticks { ends, last };
        Ok(())
    }

    // A panic elsewhere leaves the list whole: every change of it is one step.
    fn ticks(&self) -> MutexGuard<'_, Ticks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops what lies closer to the next than its age asks for: its rows then count as the next's.
fn thin(ends: &mut Vec<(Lsn, i64)>) {
    let Some(newest) = ends.pop() else {
        return;
    };
    let mut kept = vec![newest];
    let mut next = newest.1;
    for end in ends.iter().rev() {
        let gap = (newest.1.saturating_sub(end.1) / AGE_PART).max(STEP_MICROS);
        if next.saturating_sub(end.1) >= gap {
            kept.push(*end);
            next = end.1;
        }
    }
    kept.reverse();
    *ends = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_never_taken_for_older_than_it_is_and_little_younger() {
        let clock = Clock::default();
        assert_eq!(clock.of(Lsn(5)), i64::MAX);
        // ten rows every 10 ms for two hours
        let time = |lsn: i64| 1_000_000_000 + lsn / 10 * 10_000;
        let rows = 10 * 100 * 7200;
        for lsn in (0..rows).step_by(10) {
            clock.note(Lsn(lsn + 1), time(lsn));
        }
        let dir = tempfile::tempdir().unwrap();
        clock.save(dir.path()).unwrap();
        let again = Clock::default();
        again.load(dir.path()).unwrap();
        assert!(
            again.ticks().ends.len() < 4_000,
            "{}",
            again.ticks().ends.len()
        );
        let end = time(rows);
        for lsn in (0..rows).step_by(997) {
            let (true_time, known) = (time(lsn), again.of(Lsn(lsn + 1)));
            let error = known - true_time;
            let age = end - true_time;
            assert!(error >= 0, "{lsn}: {error}");
            assert!(
                error <= age / 100 + 2 * STEP_MICROS,
                "{lsn}: {error} of {age}"
            );
        }
        // a pause does not make what came before it younger
        again.note(Lsn(rows + 1), end + 3_600_000_000);
        assert!(again.of(Lsn(rows)) <= end + STEP_MICROS);
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::default();
        clock.load(dir.path()).unwrap();
        clock.note(Lsn(1), 5);
        clock.save(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let e = clock.load(dir.path()).unwrap_err();
        assert_eq!(e.state(), SqlState::DATA_CORRUPTED);
    }
}
