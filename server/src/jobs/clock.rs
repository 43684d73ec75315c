//! Which log position was the newest at a time: for the retention of tables without an event time.
//!
//! A few marks in a file of the data directory. Lost marks make rows stay longer, never shorter.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::stream::head::Lsn;

/// Marks kept; beyond them the older ones get sparser.
const MOST: usize = 4096;

/// Times and positions, ascending.
#[derive(Debug)]
pub(crate) struct Clock {
    file: PathBuf,
    marks: Mutex<VecDeque<(i64, i64)>>,
}

impl Clock {
    /// The marks of a file. What cannot be read is left out.
    pub(crate) fn open(file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut marks: VecDeque<(i64, i64)> = VecDeque::new();
        for line in text.lines() {
            let Some((at, lsn)) = line.split_once(' ') else {
                continue;
            };
            if let (Ok(at), Ok(lsn)) = (at.parse(), lsn.parse())
                && marks.back().is_none_or(|last| last.0 < at && last.1 <= lsn)
            {
                marks.push_back((at, lsn));
            }
        }
        Self {
            file,
            marks: Mutex::new(marks),
        }
    }

    /// `lsn` is the newest position at `at`, in microseconds since the Unix epoch.
    pub(crate) fn mark(&self, at: i64, lsn: Lsn) -> Result<()> {
        let text = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            match marks.back() {
                // nothing came, or the system's clock went back
                Some(last) if last.1 >= lsn.0 || last.0 >= at => return Ok(()),
                _ => marks.push_back((at, lsn.0)),
            }
            if marks.len() > MOST {
                let older = MOST / 2;
                let mut number = 0;
                marks.retain(|_| {
                    number += 1;
                    number > older || number % 2 == 0
                });
            }
            let line = |(at, lsn): &(i64, i64)| format!("{at} {lsn}\n");
            marks.iter().map(line).collect::<String>()
        };
        let next = self.file.with_extension("next");
        std::fs::write(&next, text)
            .and_then(|()| std::fs::rename(&next, &self.file))
            .map_err(Error::io("write the clock of the log"))
    }

    /// A position that was there at that time: rows up to it are older. The highest known.
    pub(crate) fn position_at(&self, at: i64) -> Lsn {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = marks.partition_point(|mark| mark.0 <= at);
        let last = before.checked_sub(1).and_then(|i| marks.get(i));
        last.map_or(Lsn::default(), |mark| Lsn(mark.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_by_time_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let clock = Clock::open(file.clone());
        assert_eq!(clock.position_at(i64::MAX), Lsn(0));
        clock.mark(10, Lsn(5)).unwrap();
        clock.mark(20, Lsn(5)).unwrap(); // nothing came
        clock.mark(30, Lsn(9)).unwrap();
        clock.mark(25, Lsn(12)).unwrap(); // the clock went back
        std::fs::write(
            &file,
            std::fs::read_to_string(&file).unwrap() + "rubbish\n7",
        )
        .unwrap();
        let again = Clock::open(file);
        for clock in [&clock, &again] {
            assert_eq!(clock.position_at(9), Lsn(0));
            assert_eq!(clock.position_at(10), Lsn(5));
            assert_eq!(clock.position_at(29), Lsn(5));
            assert_eq!(clock.position_at(1000), Lsn(9));
        }
    }

    #[test]
    fn marks_get_sparser_and_never_too_young() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path().join("clock"));
        {
            let mut marks = clock.marks.lock().unwrap();
            marks.extend((1..MOST as i64 * 3).map(|n| (n * 10, n)));
        }
        clock.mark(1_000_000, Lsn(1_000_000)).unwrap();
        let kept = clock.marks.lock().unwrap().len();
        assert!(kept < MOST * 3);
        for at in [10, 555, 20_000, 40_000] {
            assert!(clock.position_at(at).0 <= at / 10);
        }
    }
}
