//! The part of a table's keys that is in memory, by time.
//!
//! Time is cut into slots as long as the window, and slots are gathered in drawers. An accepted key
//! is filed under its slot: two accepted rows with one key cannot share a slot, so a row is compared
//! with its own slot and the two beside it. A drawer is in memory whole or not at all; one that is
//! let go is read from the table again when it is asked for.

use std::collections::hash_map::{Entry as Place, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::BooleanArray;
use arrow::buffer::BooleanBuffer;

use super::keys::{Hash, Keys};
use crate::error::{Error, Result};
use crate::stream::head::TableHead;

/// A drawer is about as long, or a window: small windows must not make many.
const DRAWER_MICROS: i64 = 600_000_000;
/// A drawer not asked for is let go after this time.
const UNUSED: Duration = Duration::from_secs(300);
/// Bytes of a key in a drawer: hash, time, and the table's control byte.
const ENTRY_BYTES: usize = 25;
/// Bytes of an empty drawer.
const DRAWER_BYTES: usize = 256;
/// Odd, so that slots of one key get different keys in the map.
const SLOT_MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// A key in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key(u64, u64);

impl Key {
    fn new(hash: Hash, slot: i64) -> Self {
        let mixed = slot.cast_unsigned().wrapping_mul(SLOT_MIX);
        Self(hash.0.wrapping_add(mixed), hash.1)
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, n: u64) {
        self.0 ^= n;
    }
}

type Seen = HashMap<Key, i64, BuildHasherDefault<Plain>>;

/// Bytes that all indexes hold.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// An accepted key: where it was put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    drawer: i64,
    key: Key,
}

/// Accepted keys of a stretch of time.
#[derive(Debug)]
pub(super) struct Drawer {
    /// The earliest time of each key in a slot.
    first: Seen,
    /// The latest, where stored rows have more than one: changes of rows do not pass here.
    last: Seen,
    used: Instant,
    counted: usize,
    budget: Arc<Budget>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    window: i64,
    /// Slots of a drawer.
    slots: i64,
    /// How often rows that it may know were changed or dropped when they were read.
    epoch: (i64, i64),
    drawers: BTreeMap<i64, Drawer>,
    budget: Arc<Budget>,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    /// True when that many bytes are free.
    pub(super) fn has(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit
    }
}

impl Drawer {
    fn new(budget: &Arc<Budget>) -> Self {
        let mut drawer = Self {
            first: Seen::default(),
            last: Seen::default(),
            used: Instant::now(),
            counted: 0,
            budget: Arc::clone(budget),
        };
        drawer.count();
        drawer
    }

    /// Files a stored row.
    pub(super) fn store(&mut self, hash: Hash, slot: i64, time: i64) {
        let key = Key::new(hash, slot);
        match self.first.entry(key) {
            Place::Vacant(place) => {
                place.insert(time);
            }
            Place::Occupied(mut place) => {
                let known = *place.get();
                if time == known {
                    return;
                }
                place.insert(known.min(time));
                let last = self.last.entry(key).or_insert(known);
                *last = (*last).max(known).max(time);
            }
        }
    }

    fn earliest(&self, key: Key) -> Option<i64> {
        self.first.get(&key).copied()
    }

    fn latest(&self, key: Key) -> Option<i64> {
        let first = self.first.get(&key).copied()?;
        match self.last.is_empty() {
            true => Some(first),
            false => Some(self.last.get(&key).copied().unwrap_or(first)),
        }
    }

    /// Tells the budget what it holds now.
    pub(super) fn count(&mut self) {
        let bytes = DRAWER_BYTES + map_bytes(&self.first) + map_bytes(&self.last);
        let used = &self.budget.used;
        used.fetch_add(bytes, Ordering::Relaxed);
        used.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = bytes;
    }
}

impl Drop for Drawer {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

fn map_bytes(map: &Seen) -> usize {
    room_bytes(map.capacity())
}

/// Bytes of a map with room for that many keys: a power of two of places, an eighth kept free.
fn room_bytes(room: usize) -> usize {
    match room {
        0 => 0,
        room => (room * 8).div_ceil(7).next_power_of_two() * ENTRY_BYTES,
    }
}

impl Index {
    /// An empty index of a table whose duplicates lie at most `window` microseconds apart.
    pub(super) fn new(window: i64, budget: Arc<Budget>) -> Self {
        let window = window.max(1);
        Self {
            window,
            slots: (DRAWER_MICROS / window).max(1),
            epoch: (0, 0),
            drawers: BTreeMap::new(),
            budget,
        }
    }

    /// Forgets everything when stored rows were changed or dropped since.
    pub(super) fn follow(&mut self, table: &TableHead) {
        let epoch = (table.epoch(), table.upkeep.drops);
        if self.epoch != epoch {
            self.drawers.clear();
            self.epoch = epoch;
        }
    }

    /// The slot and the drawer of a time.
    pub(super) fn place(&self, time: i64) -> (i64, i64) {
        let slot = time.div_euclid(self.window);
        (slot, slot.div_euclid(self.slots))
    }

    /// The times of a drawer, both ends included.
    pub(super) fn span(&self, drawer: i64) -> (i64, i64) {
        let length = self.window.saturating_mul(self.slots);
        let from = drawer.saturating_mul(length);
        (from, from.saturating_add(length - 1))
    }

    /// Adds the drawers that the rows are to be compared with, and how many rows each may get.
    pub(super) fn needs(&self, keys: &Keys, now: Option<i64>, needed: &mut BTreeMap<i64, usize>) {
        let mut run: Option<(i64, i64, usize)> = None;
        let mut close = |run: Option<(i64, i64, usize)>| {
            let Some((slot, drawer, rows)) = run else {
                return;
            };
            *needed.entry(drawer).or_default() += rows;
            for beside in [slot.saturating_sub(1), slot.saturating_add(1)] {
                needed.entry(beside.div_euclid(self.slots)).or_default();
            }
        };
        for row in 0..keys.hashes.len() {
            let Some(time) = keys.time(row, now) else {
                continue;
            };
            let (slot, drawer) = self.place(time);
            run = match run {
                Some((s, d, rows)) if s == slot => Some((s, d, rows + 1)),
                other => {
                    close(other);
                    Some((slot, drawer, 1))
                }
            };
        }
        close(run);
    }

    /// Those of the drawers that are not in memory.
    pub(super) fn lacks(&self, needed: &BTreeMap<i64, usize>) -> BTreeSet<i64> {
        let drawers = needed.keys().copied();
        drawers.filter(|d| !self.drawers.contains_key(d)).collect()
    }

    /// A new drawer, to be filled from the table.
    pub(super) fn drawer(&self) -> Drawer {
        Drawer::new(&self.budget)
    }

    /// Puts a drawer in that was read from the table.
    pub(super) fn put(&mut self, number: i64, drawer: Drawer) {
        self.drawers.insert(number, drawer);
    }

    /// Bytes that it may grow by when it gets so many rows per drawer.
    pub(super) fn growth(&self, needed: &BTreeMap<i64, usize>) -> usize {
        let growth = |(number, rows): (&i64, &usize)| {
            let drawer = self.drawers.get(number)?;
            let room = drawer.first.len() + rows;
            (room > drawer.first.capacity())
                .then(|| room_bytes(room).saturating_sub(map_bytes(&drawer.first)))
        };
        needed.iter().filter_map(growth).sum()
    }

    /// Lets go of the drawer unused for longest that is not needed; false when there is none.
    pub(super) fn evict(&mut self, needed: &BTreeMap<i64, usize>) -> bool {
        let free = self.drawers.iter().filter(|(n, _)| !needed.contains_key(n));
        let oldest = free.min_by_key(|(_, d)| d.used).map(|(n, _)| *n);
        oldest.is_some_and(|n| self.drawers.remove(&n).is_some())
    }

    /// Lets go of what has not been asked for in a while.
    pub(super) fn forget_unused(&mut self) {
        self.drawers.retain(|_, d| d.used.elapsed() < UNUSED);
    }

    /// Which rows are new. Their keys are filed, and noted in `entries`. All drawers that
    /// [`Self::needs`] names are in memory.
    pub(super) fn take(
        &mut self,
        keys: &Keys,
        now: Option<i64>,
        entries: &mut Vec<Entry>,
    ) -> Result<BooleanArray> {
        let mut stay = Vec::with_capacity(keys.hashes.len());
        for (row, hash) in keys.hashes.iter().enumerate() {
            let new = match keys.time(row, now) {
                Some(time) => self.take_one(*hash, time, entries)?,
                None => true,
            };
            stay.push(new);
        }
        Ok(BooleanArray::new(BooleanBuffer::from(stay), None))
    }

    fn take_one(&mut self, hash: Hash, time: i64, entries: &mut Vec<Entry>) -> Result<bool> {
        let (slot, number) = self.place(time);
        let near = |other: i64| other.abs_diff(time) <= self.window.unsigned_abs();
        let before = slot.saturating_sub(1);
        let after = slot.saturating_add(1);
        let earlier = self.beside(before)?.latest(Key::new(hash, before));
        if earlier.is_some_and(near) {
            return Ok(false);
        }
        let later = self.beside(after)?.earliest(Key::new(hash, after));
        if later.is_some_and(near) {
            return Ok(false);
        }
        let drawer = self.drawers.get_mut(&number).ok_or_else(not_there)?;
        let key = Key::new(hash, slot);
        match drawer.first.entry(key) {
            Place::Occupied(_) => Ok(false),
            Place::Vacant(place) => {
                place.insert(time);
                entries.push(Entry {
                    drawer: number,
                    key,
                });
                Ok(true)
            }
        }
    }

    fn beside(&self, slot: i64) -> Result<&Drawer> {
        let number = slot.div_euclid(self.slots);
        self.drawers.get(&number).ok_or_else(not_there)
    }

    /// Counts what the drawers hold after rows were taken, and notes their use.
    pub(super) fn settle(&mut self, needed: &BTreeMap<i64, usize>) {
        let now = Instant::now();
        for number in needed.keys() {
            if let Some(drawer) = self.drawers.get_mut(number) {
                drawer.used = now;
                drawer.count();
            }
        }
    }

    /// Takes keys out again whose rows did not get into the log.
    pub(super) fn withdraw(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(drawer) = self.drawers.get_mut(&entry.drawer) {
                drawer.first.remove(&entry.key);
            }
        }
    }
}

/// A drawer that was to be in memory is not: to answer without it could be untrue.
fn not_there() -> Error {
    Error::Internal("keys of a time were not read before they were asked for".to_owned())
}
