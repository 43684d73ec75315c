//! The most frequent values: counters of the values that were seen most, after Misra and Gries, merged
//! as by Agarwal et al., "Mergeable summaries" (2012).
//!
//! As long as no more different values come than are tracked, every count is exact. Beyond that the least
//! counters are given up, and what they held is taken off all others: no count is too great, and none is
//! less by more than the number of rows divided by the number tracked plus one.
//!
//! State, version 1: the byte 1, then for each value, in the order of their bytes, its length, its bytes
//! and its count (varints).

use std::collections::HashMap;

use super::{put_varint, take, take_varint, unreadable};
use crate::FunctionError;

const VERSION: u8 = 1;

/// The sketch.
#[derive(Debug, Clone)]
pub(crate) struct Heavy {
    tracked: usize,
    counts: HashMap<Box<[u8]>, u64>,
    bytes: usize,
}

impl Heavy {
    /// An empty sketch that tracks so many values.
    pub(crate) fn new(tracked: usize) -> Self {
        Self {
            tracked: tracked.max(1),
            counts: HashMap::new(),
            bytes: 0,
        }
    }

    /// Takes a value in, so often.
    pub(crate) fn add(&mut self, value: &[u8], count: u64) {
        if let Some(known) = self.counts.get_mut(value) {
            *known = known.saturating_add(count);
            return;
        }
        self.bytes += value.len();
        self.counts.insert(value.into(), count);
        if self.counts.len() > self.tracked.saturating_mul(2) {
            self.fit();
        }
    }

    /// Gives up the least counters until no more are left than are tracked.
    fn fit(&mut self) {
        if self.counts.len() <= self.tracked {
            return;
        }
        let mut all: Vec<u64> = self.counts.values().copied().collect();
        let (_, cut, _) = all.select_nth_unstable_by(self.tracked, |a, b| b.cmp(a));
        let cut = *cut;
        let mut bytes = 0;
        self.counts.retain(|value, count| {
            *count = count.saturating_sub(cut);
            if *count > 0 {
                bytes += value.len();
            }
            *count > 0
        });
        self.bytes = bytes;
    }

    /// The most frequent values with their counts, equal ones in the order of their bytes.
    pub(crate) fn top(&mut self, most: usize) -> Vec<(&[u8], u64)> {
        self.fit();
        let mut all: Vec<(&[u8], u64)> = self.counts.iter().map(|(v, n)| (&**v, *n)).collect();
        all.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        all.truncate(most);
        all
    }

    /// Bytes held beside the sketch itself.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.counts.len() * 40
    }

    /// The state.
    pub(crate) fn state(&mut self) -> Vec<u8> {
        self.fit();
        let mut all: Vec<(&[u8], u64)> = self.counts.iter().map(|(v, n)| (&**v, *n)).collect();
        all.sort_unstable();
        let mut bytes = vec![VERSION];
        for (value, count) in all {
            put_varint(&mut bytes, value.len() as u64);
            bytes.extend(value);
            put_varint(&mut bytes, count);
        }
        bytes
    }

    /// Takes in what a state holds.
    pub(crate) fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), FunctionError> {
        self.parse(bytes).ok_or_else(|| unreadable("approx_top_k"))
    }

    fn parse(&mut self, mut bytes: &[u8]) -> Option<()> {
        let [VERSION] = *take(&mut bytes, 1)? else {
            return None;
        };
        while !bytes.is_empty() {
            let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
            let value = take(&mut bytes, length)?;
            let count = take_varint(&mut bytes)?;
            self.add(value, count);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str], tracked: usize) -> Heavy {
        let mut sketch = Heavy::new(tracked);
        values.iter().for_each(|v| sketch.add(v.as_bytes(), 1));
        sketch
    }

    #[test]
    fn few_values_are_exact() {
        let mut sketch = of(&["a", "b", "a", "c", "b", "a", ""], 10);
        let top = sketch.top(3);
        assert_eq!(top, [(&b"a"[..], 3), (b"b", 2), (b"", 1)]);
        assert!(Heavy::new(3).top(5).is_empty());
    }

    #[test]
    fn frequent_values_are_found_among_many() {
        let (rows, tracked) = (20_000_u64, 100);
        let mut parts: Vec<Heavy> = (0..7).map(|_| Heavy::new(tracked)).collect();
        let mut exact: HashMap<Vec<u8>, u64> = HashMap::new();
        for i in 0..rows {
            // every third row is one of four values
            let value = if i % 3 == 0 { i / 3 % 4 } else { i };
            let value = value.to_le_bytes();
            *exact.entry(value.to_vec()).or_default() += 1;
            parts[usize::try_from(i % 7).unwrap()].add(&value, 1);
        }
        let mut merged = Heavy::new(tracked);
        for part in &mut parts {
            merged.merge_bytes(&part.state()).unwrap();
        }
        let error = rows / (tracked as u64 + 1);
        let top = merged.top(4);
        assert_eq!(top.len(), 4);
        for (value, count) in top {
            let exact = exact[value];
            assert!(exact > 1000, "{exact}");
            assert!(
                count <= exact && exact - count <= error,
                "{count} of {exact}"
            );
        }
    }

    #[test]
    fn the_format_stays() {
        let mut sketch = of(&["b", "ab", "b"], 10);
        assert_eq!(sketch.state(), b"\x01\x02ab\x01\x01b\x02");
        for wrong in [&b""[..], b"\x02", b"\x01\x05a", b"\x01\x01a"] {
            assert!(Heavy::new(1).merge_bytes(wrong).is_err());
        }
    }
}
