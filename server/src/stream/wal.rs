//! The writer of the log: one thread, group commit without timers.
//!
//! It takes whatever waits in its queue, writes it, syncs once, publishes, answers; what arrives
//! meanwhile is the next group. After a failed write or sync nothing can be said about what is on
//! disk, so the log takes no more rows until a restart has read it again.

mod files;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use catalog::Oid;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::core::{Arrived, Core};
use super::dedup::clock::Clock;
use super::head::Lsn;
use super::position::Positions;
use super::record::{Encoded, Part};
use super::segment::{self, Closed, Open, Prepared, SEGMENT_HEADER};
use crate::error::{Error, Result, SqlState};
use crate::lake::crash::crash_point;
use files::Files;

/// Requests that may wait.
const QUEUE: usize = 1024;
/// A group is closed at this many bytes.
const GROUP_BYTES: usize = 32 * 1024 * 1024;
/// Small pieces are gathered into writes of about this size.
const WRITE_BYTES: usize = 1024 * 1024;
/// A piece of this size is written from where it is.
const WRITE_DIRECT: usize = 128 * 1024;

/// The next segment is made when this share of one is written.
const PREPARE_AFTER: u64 = 4;

/// One accepted append on its way.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) encoded: Encoded,
    pub(super) parts: Vec<(Part, Option<OwnedSemaphorePermit>)>,
    /// Where its source stands afterwards.
    pub(super) source: Option<Positions>,
    pub(super) reply: oneshot::Sender<Result<Lsn>>,
}

#[derive(Debug)]
pub(super) enum Request {
    Append(Box<Append>),
    /// Answer when what was queued before is durable and visible; with the last position then.
    Barrier(oneshot::Sender<Result<Lsn>>),
    /// Remove segments that nothing needs.
    Prune,
    /// Finish; the sender is dropped when the thread has ended.
    Stop(oneshot::Sender<()>),
}

/// What the thread starts from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) clock: Arc<Clock>,
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    /// Segments kept to be written again.
    pub(super) most_spares: usize,
    pub(super) closed: Vec<Closed>,
    pub(super) spares: Vec<PathBuf>,
    pub(super) next_id: u64,
    /// Where the log on disk ends.
    pub(super) end: Lsn,
    /// Position of the next row.
    pub(super) next: Lsn,
}

/// Starts the thread; it ends when all senders are gone or at [`Request::Stop`].
pub(super) fn start(core: Arc<Core>, start: Start) -> Result<mpsc::Sender<Request>> {
    let mut spares = start.spares;
    let prepared = Prepared::make(&start.dir, start.next_id, start.segment_bytes, spares.pop())?;
    let open = prepared.begin(start.end, start.next)?;
    segment::name(&start.dir, open.id).map_err(Error::io("make a log segment"))?;
    let files = Files::start(
        start.dir,
        start.segment_bytes,
        start.most_spares,
        spares,
        Arc::clone(&start.clock),
    )?;
    let mut writer = Writer {
        core,
        clock: start.clock,
        segment_bytes: start.segment_bytes,
        closed: start.closed,
        files,
        open,
        next: start.next,
        at: SEGMENT_HEADER as u64,
        synced: SEGMENT_HEADER as u64,
        gathered: Vec::new(),
        poison: None,
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("weir-wal".to_owned())
        .spawn(move || writer.run(receiver))
        .map_err(Error::io("start the log's thread"))?;
    Ok(sender)
}

struct Writer {
    core: Arc<Core>,
    clock: Arc<Clock>,
    segment_bytes: u64,
    closed: Vec<Closed>,
    files: Files,
    open: Open,
    next: Lsn,
    /// Where the next record goes, gathered bytes included.
    at: u64,
    /// Durable up to here.
    synced: u64,
    gathered: Vec<u8>,
    poison: Option<Arc<Error>>,
}

impl Writer {
    fn run(&mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut group = Vec::new();
            let mut barriers = Vec::new();
            let mut bytes = 0;
            let mut prune = false;
            let mut stop = None;
            let mut request = Some(first);
            while let Some(this) = request.take() {
                match this {
                    Request::Append(append) => {
                        bytes += append.encoded.len();
                        group.push(*append);
                    }
                    Request::Barrier(reply) => barriers.push(reply),
                    Request::Prune => prune = true,
                    Request::Stop(done) => stop = Some(done),
                }
                if bytes < GROUP_BYTES && stop.is_none() {
                    request = requests.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group);
            }
            for reply in barriers {
                // a waiter that left needs no answer
                let _ = reply.send(self.settled());
            }
            if prune {
                self.prune();
            }
            if stop.is_some() {
                // who waits for the end waits for all of it
                self.files.finish();
                return;
            }
        }
    }

    /// The last position, when all that was queued is durable.
    fn settled(&self) -> Result<Lsn> {
        match &self.poison {
            Some(poison) => Err(takes_no_more(poison)),
            None => Ok(Lsn(self.next.0 - 1)),
        }
    }

    /// Writes, syncs, publishes and answers one group, in this order.
    fn commit(&mut self, mut group: Vec<Append>) {
        if let Some(poison) = &self.poison {
            for append in group {
                // a waiter that left needs no answer
                let _ = append.reply.send(Err(takes_no_more(poison)));
            }
            return;
        }
        let published = self.write_group(&mut group).and_then(|firsts| {
            let mut ends = Vec::with_capacity(group.len());
            let mut waiters = Vec::with_capacity(group.len());
            let mut arrived = Vec::new();
            let mut positions = Vec::new();
            for (append, first) in group.drain(..).zip(firsts) {
                let mut lo = first;
                for (part, memory) in append.parts {
                    let rows = part.rows.cast_signed();
                    arrived.push(Arrived {
                        oid: part.oid,
                        lo,
                        batches: part.batches,
                        memory,
                    });
                    lo = Lsn(lo.0 + rows);
                }
                let end = Lsn(first.0 + append.encoded.rows().cast_signed() - 1);
                positions.extend(append.source.map(|source| (source, end)));
                ends.push(end);
                waiters.push(append.reply);
            }
            crash_point("wal-after-fsync-before-publish");
            self.core
                .arrived(arrived, positions, Lsn(self.next.0 - 1))?;
            crash_point("wal-after-publish-before-ack");
            for (reply, end) in waiters.into_iter().zip(ends) {
                let _ = reply.send(Ok(end));
            }
            if self.at > self.segment_bytes / PREPARE_AFTER {
                self.files.prepare(self.open.id + 1);
            }
            Ok(())
        });
        if let Err(e) = published {
            tracing::error!(error = ?e, "the log failed and takes no more rows until a restart");
            let poison = Arc::new(e);
            for append in group {
                let _ = append.reply.send(Err(Error::Shared(Arc::clone(&poison))));
            }
            self.poison = Some(poison);
        }
    }

    /// Gives the records their places and makes them durable; their first positions on return.
    fn write_group(&mut self, group: &mut [Append]) -> Result<Vec<Lsn>> {
        crash_point("wal-before-write");
        let mut firsts = Vec::with_capacity(group.len());
        let at = self.clock.now();
        self.clock.note(self.next, at);
        for append in group {
            let length = append.encoded.len() as u64;
            if self.at + length > self.segment_bytes && self.at > SEGMENT_HEADER as u64 {
                self.roll()?;
            }
            let first = self.next;
            append.encoded.place(self.open.seed, first, self.synced, at);
            for piece in append.encoded.pieces() {
                if piece.len() >= WRITE_DIRECT {
                    flush_gathered(&mut self.gathered, &self.open, self.at)?;
                    write_at(&self.open, piece, self.at)?;
                } else {
                    self.gathered.extend_from_slice(piece);
                }
                self.at += piece.len() as u64;
                if self.gathered.len() >= WRITE_BYTES {
                    flush_gathered(&mut self.gathered, &self.open, self.at)?;
                }
            }
            let mut hi = first.0 - 1;
            for (part, _) in &append.parts {
                hi += part.rows.cast_signed();
                self.open.note(part.oid, Lsn(hi));
            }
            self.next = Lsn(first.0 + append.encoded.rows().cast_signed());
            if let Some(source) = &append.source {
                self.open.note(source.table, Lsn(self.next.0 - 1));
            }
            firsts.push(first);
        }
        self.sync()?;
        Ok(firsts)
    }

    fn sync(&mut self) -> Result<()> {
        flush_gathered(&mut self.gathered, &self.open, self.at)?;
        crash_point("wal-after-write-before-fsync");
        self.open
            .file
            .sync_data()
            .map_err(Error::io("sync the log"))?;
        self.synced = self.at;
        Ok(())
    }

    /// Ends the segment and begins the next one.
    fn roll(&mut self) -> Result<()> {
        self.sync()?;
        let prepared = self.files.take(self.open.id + 1)?;
        let open = prepared.begin(self.next, self.next)?;
        self.files.begun(open.id);
        let before = std::mem::replace(&mut self.open, open);
        self.closed.push(before.close());
        self.at = SEGMENT_HEADER as u64;
        self.synced = self.at;
        Ok(())
    }

    /// Lets go of segments, oldest first, whose rows are all in their tables' storage.
    fn prune(&mut self) {
        let head = self.core.head();
        let needed = |oid: &Oid, hi: &Lsn| {
            head.tables
                .get(oid)
                .is_some_and(|table| table.streaming && table.flushed < *hi)
        };
        let keep = self
            .closed
            .iter()
            .position(|segment| segment.highest.iter().any(|(oid, hi)| needed(oid, hi)))
            .unwrap_or(self.closed.len());
        let gone: Vec<u64> = self
            .closed
            .drain(..keep)
            .map(|segment| segment.id)
            .collect();
        if !gone.is_empty() {
            self.files.retire(gone);
        }
    }
}

/// Writes what was gathered; it ends at `end`.
fn flush_gathered(gathered: &mut Vec<u8>, open: &Open, end: u64) -> Result<()> {
    if !gathered.is_empty() {
        write_at(open, gathered, end - gathered.len() as u64)?;
        gathered.clear();
    }
    Ok(())
}

fn write_at(open: &Open, bytes: &[u8], at: u64) -> Result<()> {
    open.file
        .write_all_at(bytes, at)
        .map_err(Error::io("write to the log"))
}

fn takes_no_more(poison: &Error) -> Error {
    let first = poison.report();
    Error::refused(
        first.state,
        format!("the log takes no more rows: {}", first.message),
    )
    .with_hint("reading goes on; remove the cause and restart the server")
}

/// The answer when the thread is gone.
pub(super) fn stopped() -> Error {
    Error::refused(SqlState::ADMIN_SHUTDOWN, "the server is shutting down")
}
