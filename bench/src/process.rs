//! CPU and memory of a process, read from `/proc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};

/// The kernel counts CPU time in these; the same on all of Linux's platforms that we run on.
const TICKS_PER_SECOND: f64 = 100.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// CPU seconds of a process so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    /// Of process `pid`, its threads together.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // the name in parentheses may hold spaces
        let after = text.rsplit_once(')').map_or("", |(_, after)| after);
        let mut fields = after.split_whitespace().skip(11);
        let mut next = || -> Option<f64> { fields.next()?.parse().ok() };
        match (next(), next()) {
            (Some(user), Some(system)) => Ok(Self {
                user: user / TICKS_PER_SECOND,
                system: system / TICKS_PER_SECOND,
            }),
            _ => Err(Error::Answer(format!("/proc/{pid}/stat: {text}"))),
        }
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }

    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Bytes that a process has read from files so far, wherever they came from.
pub(crate) fn read_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("rchar:"))
        .and_then(|rest| rest.trim().parse().ok())
        .ok_or_else(|| Error::Answer(format!("/proc/{pid}/io: {text}")))
}

fn status_bytes(pid: u32, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| Error::Answer(format!("/proc/{pid}/status has no {key}")))
}

/// Watches a process's resident memory, 50 times a second, until it is told to stop.
#[derive(Debug)]
pub(crate) struct Watch {
    highest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(pid: u32) -> Result<Self> {
        let highest = Arc::new(AtomicU64::new(resident(pid)?));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, over) = (Arc::clone(&highest), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(now) = resident(pid) {
                        seen.fetch_max(now, Ordering::Relaxed);
                    }
                    std::thread::sleep(SAMPLE_EVERY);
                }
            })?;
        Ok(Self {
            highest,
            stop,
            thread: Some(thread),
        })
    }

    /// The highest value seen.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // it cannot panic, and a value was read before it began
            let _ = thread.join();
        }
        self.highest.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let watch = Watch::start(pid).unwrap();
        let now = resident(pid).unwrap();
        assert!(now > 0);
        assert!(watch.stop() > 0);
        assert!(read_bytes(pid).unwrap() > 0);
        assert!(Cpu::of(pid).unwrap().total() >= 0.0);
    }
}
