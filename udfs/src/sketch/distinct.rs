//! How many different values: HyperLogLog of 2¹⁴ registers, with the estimator of Ertl, "New cardinality
//! estimation algorithms for HyperLogLog sketches" (2017).
//!
//! State, version 1: the byte 1, then either the byte 0 and, for each register that is not zero, in
//! order, its number (two bytes, low first) and its value; or the byte 1 and all registers. The shorter
//! of the two. A value's hash is XXH64, seed 0, of its bytes: the first 14 bits are its register.

use std::collections::BTreeMap;

use twox_hash::XxHash64;

use super::{take, unreadable};
use crate::FunctionError;

const BITS: u32 = 14;
const REGISTERS: usize = 1 << BITS;
/// Bits of a hash behind the register's number.
const REST: u8 = 50;
/// So many registers are kept one by one.
const FEW: usize = 1024;
/// 1 / (2 ln 2)
const ALPHA: f64 = 0.721_347_520_444_481_7;

const VERSION: u8 = 1;
const SPARSE: u8 = 0;
const DENSE: u8 = 1;

/// The sketch.
#[derive(Debug, Clone)]
pub(crate) enum Distinct {
    /// Few registers.
    Few(BTreeMap<u16, u8>),
    /// All of them.
    All(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Few(BTreeMap::new())
    }
}

impl Distinct {
    /// Takes a value in.
    pub(crate) fn add(&mut self, value: &[u8]) {
        let hash = XxHash64::oneshot(0, value);
        let register = (hash >> (64 - BITS)) as u16;
        let rest = (hash << BITS) | (1 << (BITS - 1));
        self.raise(register, rest.leading_zeros() as u8 + 1);
    }

    fn raise(&mut self, register: u16, rank: u8) {
        match self {
            Self::Few(few) => {
                let value = few.entry(register).or_default();
                *value = (*value).max(rank);
                if few.len() > FEW {
                    let mut all = vec![0; REGISTERS];
                    for (register, rank) in few {
                        all[usize::from(*register)] = *rank;
                    }
                    *self = Self::All(all.into_boxed_slice());
                }
            }
            Self::All(all) => {
                if let Some(value) = all.get_mut(usize::from(register)) {
                    *value = (*value).max(rank);
                }
            }
        }
    }

    fn each(&self, mut take: impl FnMut(u16, u8)) {
        match self {
            Self::Few(few) => few
                .iter()
                .for_each(|(register, rank)| take(*register, *rank)),
            Self::All(all) => {
                let numbered = (0_u16..).zip(all.iter());
                numbered
                    .filter(|(_, rank)| **rank > 0)
                    .for_each(|(register, rank)| take(register, *rank));
            }
        }
    }

    /// Takes in what another has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.each(|register, rank| self.raise(register, rank));
    }

    /// The number of different values, about.
    pub(crate) fn estimate(&self) -> u64 {
        let mut counts = [0_u32; REST as usize + 2];
        counts[0] = REGISTERS as u32;
        self.each(|_, rank| {
            counts[0] -= 1;
            counts[usize::from(rank.min(REST + 1))] += 1;
        });
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - f64::from(counts[usize::from(REST) + 1]) / m);
        for count in counts[1..=usize::from(REST)].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(f64::from(counts[0]) / m);
        (ALPHA * m * m / z).round() as u64
    }

    /// Bytes held beside the sketch itself.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Few(few) => few.len() * 8,
            Self::All(all) => all.len(),
        }
    }

    /// The state.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut sparse = vec![VERSION, SPARSE];
        let mut dense = vec![VERSION, DENSE];
        dense.resize(2 + REGISTERS, 0);
        self.each(|register, rank| {
            sparse.extend(register.to_le_bytes());
            sparse.push(rank);
            dense[2 + usize::from(register)] = rank;
        });
        match sparse.len() < dense.len() {
            true => sparse,
            false => dense,
        }
    }

    /// Reads a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, FunctionError> {
        Self::parse(bytes).ok_or_else(|| unreadable("approx_distinct"))
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut sketch = Self::default();
        let fits = |rank: u8| (1..=REST + 1).contains(&rank);
        match take(&mut bytes, 2)? {
            [VERSION, SPARSE] => {
                for entry in bytes.chunks(3) {
                    let [low, high, rank] = *entry else {
                        return None;
                    };
                    let register = u16::from_le_bytes([low, high]);
                    if usize::from(register) >= REGISTERS || !fits(rank) {
                        return None;
                    }
                    sketch.raise(register, rank);
                }
            }
            [VERSION, DENSE] if bytes.len() == REGISTERS => {
                if !bytes.iter().all(|rank| *rank == 0 || fits(*rank)) {
                    return None;
                }
                sketch = Self::All(bytes.into());
            }
            _ => return None,
        }
        Some(sketch)
    }
}

fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: std::ops::Range<u64>) -> Distinct {
        let mut sketch = Distinct::default();
        range.for_each(|n| sketch.add(&n.to_le_bytes()));
        sketch
    }

    #[test]
    fn estimates_are_close() {
        assert_eq!(Distinct::default().estimate(), 0);
        for n in [1, 2, 3, 10, 100] {
            assert_eq!(of(0..n).estimate(), n, "{n}");
        }
        for n in [1_000, 5_000, 20_000, 50_000, 100_000, 1_000_000] {
            let off = of(0..n).estimate().abs_diff(n) as f64 / n as f64;
            assert!(off < 0.03, "{n}: {off}");
        }
    }

    #[test]
    fn states_merge_in_any_order_and_come_back() {
        let parts = [of(0..700), of(500..3_000), of(10..11), of(2_000..90_000)];
        let whole = of(0..90_000).to_bytes();
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut merged = Distinct::default();
            for at in order {
                merged.merge(&Distinct::from_bytes(&parts[at].to_bytes()).unwrap());
            }
            assert_eq!(merged.to_bytes(), whole);
        }
        assert!(of(0..3).to_bytes().len() < 16);
        assert!(whole.len() <= REGISTERS + 2);
    }

    #[test]
    fn the_format_stays() {
        let mut sketch = Distinct::default();
        sketch.add(b"a");
        // XXH64("a") = d24ec4f1a98c6e5b
        assert_eq!(sketch.to_bytes(), [1, 0, 0x93, 0x34, 1]);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for bytes in [
            &b""[..],
            &[1],
            &[2, 0],
            &[1, 0, 1],
            &[1, 0, 255, 255, 1],
            &[1, 0, 1, 0, 52],
            &[1, 0, 1, 0, 0],
            &[1, 1, 0],
        ] {
            assert!(Distinct::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }
}
