//! Work on the log's files that no writer waits for: the next segment made ahead, segments that began
//! getting their name, those that nothing needs going.
//!
//! Each of these ends in a commit of the file system's journal, which may wait until the data of other
//! files is on disk, a flush's among them. So a thread of its own does it, in the order it is told, and
//! a group of rows never waits longer than its own write takes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::super::dedup::clock::Clock;
use super::super::segment::{self, Prepared};
use crate::error::{Error, Result};
use crate::lake::crash::crash_point;
use crate::lake::sync_dir;

#[derive(Debug)]
enum Task {
    /// Make that segment.
    Prepare(u64),
    /// That segment is being written.
    Begun(u64),
    /// Nothing needs these any more.
    Retire(Vec<u64>),
}

/// The writer's side of the thread.
#[derive(Debug)]
pub(super) struct Files {
    tasks: Option<mpsc::Sender<Task>>,
    made: mpsc::Receiver<Result<Prepared>>,
    /// A segment is being made, or waits to be taken.
    asked: bool,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    pub(super) fn start(
        dir: PathBuf,
        segment_bytes: u64,
        most_spares: usize,
        spares: Vec<PathBuf>,
        clock: Arc<Clock>,
    ) -> Result<Self> {
        let (tasks, work) = mpsc::channel();
        let (answer, made) = mpsc::channel();
        let mut keeper = Keeper {
            dir,
            segment_bytes,
            most_spares,
            spares,
            clock,
            begun: VecDeque::new(),
            retired: VecDeque::new(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-wal-files".to_owned())
            .spawn(move || {
                while let Ok(task) = work.recv() {
                    keeper.perform(task, &answer);
                }
            })
            .map_err(Error::io("start the thread of the log's files"))?;
        Ok(Self {
            tasks: Some(tasks),
            made,
            asked: false,
            thread: Some(thread),
        })
    }

    /// Makes segment `id` ahead, if it is not being made.
    pub(super) fn prepare(&mut self, id: u64) {
        if !self.asked {
            self.asked = true;
            self.tell(Task::Prepare(id));
        }
    }

    /// Segment `id`, as soon as it is there.
    pub(super) fn take(&mut self, id: u64) -> Result<Prepared> {
        let ahead = self.asked;
        self.prepare(id);
        let made = self.wait();
        match made {
            // what was lacking a while ago may be there by now
            Err(_) if ahead => {
                self.prepare(id);
                self.wait()
            }
            made => made,
        }
    }

    fn wait(&mut self) -> Result<Prepared> {
        self.asked = false;
        let ended = |_| Error::Internal("the thread of the log's files has ended".to_owned());
        self.made.recv().map_err(ended)?
    }

    /// Segment `id` is being written: it may have its name.
    pub(super) fn begun(&self, id: u64) {
        self.tell(Task::Begun(id));
    }

    /// Nothing needs these segments any more; oldest first.
    pub(super) fn retire(&self, ids: Vec<u64>) {
        self.tell(Task::Retire(ids));
    }

    fn tell(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // a thread that has ended is found out when a segment is taken
            let _ = tasks.send(task);
        }
    }

    /// Does what it was told and ends.
    pub(super) fn finish(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // it does not panic
            let _ = thread.join();
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The thread's side.
struct Keeper {
    dir: PathBuf,
    segment_bytes: u64,
    most_spares: usize,
    spares: Vec<PathBuf>,
    clock: Arc<Clock>,
    /// Without their name yet.
    begun: VecDeque<u64>,
    /// Not gone yet.
    retired: VecDeque<u64>,
}

impl Keeper {
    fn perform(&mut self, task: Task, answer: &mpsc::Sender<Result<Prepared>>) {
        match task {
            Task::Prepare(id) => {
                let spare = self.spares.pop();
                let made = Prepared::make(&self.dir, id, self.segment_bytes, spare);
                // a writer that has ended needs none; the next start finds it
                let _ = answer.send(made);
            }
            Task::Begun(id) => {
                self.begun.push_back(id);
                self.name();
            }
            Task::Retire(ids) => {
                self.retired.extend(ids);
                self.name();
                self.remove();
            }
        }
    }

    /// A failure leaves the name for later; a start knows both.
    fn name(&mut self) {
        while let Some(id) = self.begun.front() {
            if let Err(e) = segment::name(&self.dir, *id) {
                tracing::warn!(segment = id, error = %e, "cannot rename a log segment");
                return;
            }
            self.begun.pop_front();
        }
    }

    /// Removes segments, oldest first. A failure only leaves files behind until the next time.
    fn remove(&mut self) {
        if !self.retired.is_empty()
            && let Err(e) = self.clock.save(&self.dir)
        {
            // the segments say when their rows arrived: they stay until something else does
            tracing::warn!(error = ?e, "cannot write the log's times");
            return;
        }
        while let Some(id) = self.retired.front() {
            let path = segment::path(&self.dir, *id, segment::WRITTEN);
            let spare = segment::path(&self.dir, *id, segment::SPARE);
            let recycle = self.spares.len() < self.most_spares;
            let gone = match recycle {
                true => std::fs::rename(&path, &spare),
                false => std::fs::remove_file(&path),
            };
            // In order and each one durable: a gap would look like a lost segment.
            if let Err(e) = gone.and_then(|()| sync_dir(&self.dir)) {
                tracing::warn!(segment = id, error = %e, "cannot remove a log segment");
                return;
            }
            if recycle {
                self.spares.push(spare);
            }
            self.retired.pop_front();
            crash_point("wal-during-removal");
        }
    }
}
