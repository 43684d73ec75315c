//! Quantiles of floats: how many values lie in each of at most so many buckets. While there are few
//! different values each has a bucket of its own; when there are too many, buckets are joined two by two.
//!
//! A float's bits, put in order, are a whole number that rises with it; a bucket is that number without
//! its lowest `level` bits, so buckets grow with their values, as floats do. The level is the lowest at
//! which all values fit, whatever order they and their parts came in: the same values have one sketch
//! (after UDDSketch, Epicoco et al. 2020).
//!
//! State, version 1: the byte 1, the level (a byte), the capacity and the number of buckets (varints),
//! the least and the greatest value (eight bytes each, low first), and for each bucket, in order, how
//! much its number is greater than the one before, and its count (varints).

use std::collections::BTreeMap;

use super::values::same_float;
use super::{put_varint, take, take_varint, unreadable};
use crate::FunctionError;

/// Buckets of a sketch that asks for nothing else.
pub(crate) const CAPACITY: usize = 4096;

const VERSION: u8 = 1;
const SIGN: u64 = 1 << 63;

/// The sketch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quantiles {
    capacity: usize,
    level: u32,
    buckets: BTreeMap<u64, u64>,
    least: f64,
    greatest: f64,
}

impl Quantiles {
    /// An empty sketch of at most so many buckets.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            level: 0,
            buckets: BTreeMap::new(),
            least: f64::NAN,
            greatest: f64::NEG_INFINITY,
        }
    }

    /// Takes values in.
    pub(crate) fn add(&mut self, values: impl Iterator<Item = f64>) {
        let mut ranks: Vec<u64> = values.map(|v| rank(same_float(v))).collect();
        ranks.sort_unstable();
        let (Some(first), Some(last)) = (ranks.first(), ranks.last()) else {
            return;
        };
        self.reaches(value(*first), value(*last));
        for same in ranks.chunk_by(|a, b| a >> self.level == b >> self.level) {
            let bucket = same.first().map_or(0, |rank| rank >> self.level);
            *self.buckets.entry(bucket).or_default() += same.len() as u64;
        }
        self.fit();
    }

    fn reaches(&mut self, least: f64, greatest: f64) {
        if least.total_cmp(&self.least).is_lt() {
            self.least = least;
        }
        if greatest.total_cmp(&self.greatest).is_gt() {
            self.greatest = greatest;
        }
    }

    /// Joins buckets until there are not too many.
    fn fit(&mut self) {
        while self.buckets.len() > self.capacity && self.level < 63 {
            self.raise(self.level + 1);
        }
    }

    fn raise(&mut self, level: u32) {
        let by = level - self.level;
        let before = std::mem::take(&mut self.buckets);
        for (bucket, count) in before {
            *self.buckets.entry(bucket >> by).or_default() += count;
        }
        self.level = level;
    }

    /// Takes in what another has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        self.reaches(other.least, other.greatest);
        if other.level > self.level {
            self.raise(other.level);
        }
        let by = self.level - other.level;
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(bucket >> by).or_default() += count;
        }
        self.fit();
    }

    /// The value that this part of the values is not above, between its neighbours where it falls between
    /// two; nothing when there are none.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        let count: u64 = self.buckets.values().sum();
        let last = count.checked_sub(1)?;
        let place = part.clamp(0.0, 1.0) * last as f64;
        let below = (place.floor() as u64).min(last);
        let above = (place.ceil() as u64).min(last);
        let (low, high) = (self.at(below)?, self.at(above)?);
        let between = place - place.floor();
        Some(match below == above || low == high || between == 0.0 {
            true => low,
            false => low + (high - low) * between,
        })
    }

    /// The value in this place of all in order.
    fn at(&self, place: u64) -> Option<f64> {
        let mut seen = 0_u64;
        let found = self.buckets.iter().find(|(_, count)| {
            seen += **count;
            seen > place
        });
        found.map(|(bucket, _)| self.middle(*bucket))
    }

    /// What stands for the values of a bucket: its middle, as far as there are values.
    fn middle(&self, bucket: u64) -> f64 {
        let low = value((bucket << self.level).max(rank(self.least)));
        let last = (bucket << self.level) | ((1 << self.level) - 1);
        let high = value(last.min(rank(self.greatest)));
        match (low.is_finite(), high.is_finite()) {
            _ if low.to_bits() == high.to_bits() => low,
            (true, true) => low / 2.0 + high / 2.0,
            (false, true) => high,
            (_, false) => low,
        }
    }

    /// Bytes held beside the sketch itself.
    pub(crate) fn size(&self) -> usize {
        self.buckets.len() * 24
    }

    /// The state.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.level as u8];
        put_varint(&mut bytes, self.capacity as u64);
        put_varint(&mut bytes, self.buckets.len() as u64);
        bytes.extend(self.least.to_le_bytes());
        bytes.extend(self.greatest.to_le_bytes());
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            put_varint(&mut bytes, bucket - before);
            put_varint(&mut bytes, *count);
            before = *bucket;
        }
        bytes
    }

    /// Reads a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, FunctionError> {
        Self::parse(bytes).ok_or_else(|| unreadable("approx_percentile_cont"))
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let [VERSION, level @ 0..=63] = *take(&mut bytes, 2)? else {
            return None;
        };
        let capacity = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let buckets = take_varint(&mut bytes)?;
        let float = |bytes: &mut &[u8]| {
            let eight = <[u8; 8]>::try_from(take(bytes, 8)?).ok()?;
            Some(f64::from_le_bytes(eight))
        };
        let mut sketch = Self {
            level: u32::from(level),
            least: float(&mut bytes)?,
            greatest: float(&mut bytes)?,
            ..Self::new(capacity)
        };
        let mut bucket = 0_u64;
        for _ in 0..buckets {
            bucket = bucket.checked_add(take_varint(&mut bytes)?)?;
            let count = take_varint(&mut bytes)?;
            if bucket > u64::MAX >> level || sketch.buckets.insert(bucket, count).is_some() {
                return None;
            }
        }
        bytes.is_empty().then_some(sketch)
    }
}

/// The place of a float among all floats.
fn rank(value: f64) -> u64 {
    let bits = value.to_bits();
    match bits & SIGN {
        0 => bits | SIGN,
        _ => !bits,
    }
}

/// The float in a place.
fn value(rank: u64) -> f64 {
    f64::from_bits(match rank & SIGN {
        0 => !rank,
        _ => rank & !SIGN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Quantiles {
        let mut sketch = Quantiles::new(CAPACITY);
        sketch.add(values.iter().copied());
        sketch
    }

    #[test]
    fn few_values_are_exact() {
        assert_eq!(of(&[]).quantile(0.5), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]).quantile(0.5), Some(2.0));
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0]).quantile(0.5), Some(2.5));
        assert_eq!(of(&[-0.0, 0.0, -5.5]).quantile(0.0), Some(-5.5));
        let odd = of(&[f64::INFINITY, 1.0, f64::NEG_INFINITY, f64::NAN]);
        assert_eq!(odd.quantile(0.0), Some(f64::NEG_INFINITY));
        assert!(odd.quantile(1.0).unwrap().is_nan());
        assert_eq!(odd.quantile(2.0 / 3.0), Some(f64::INFINITY));
    }

    #[test]
    fn many_values_are_close() {
        for span in [16.0_f64, 1e6] {
            let n = 200_000;
            let values: Vec<f64> = (0..n)
                .map(|i| span.powf(f64::from(i) / f64::from(n)))
                .collect();
            let sketch = of(&values);
            assert!(sketch.buckets.len() <= CAPACITY);
            for part in [0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0] {
                let exact = span.powf(part);
                let off = (sketch.quantile(part).unwrap() - exact).abs() / exact;
                assert!(off < 0.005, "{span} {part}: {off}");
            }
        }
    }

    #[test]
    fn the_same_values_have_one_sketch() {
        let value = |i: u64| {
            let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            mixed as f64 / 1000.0 - 4000.0
        };
        let values: Vec<f64> = (0..30_000).map(value).collect();
        let whole = of(&values);
        assert!(whole.level > 0);
        let parts: Vec<Quantiles> = values.chunks(777).map(of).collect();
        let mut forth = Quantiles::new(CAPACITY);
        parts.iter().for_each(|p| forth.merge(p));
        let mut back = Quantiles::new(CAPACITY);
        for part in parts.iter().rev() {
            back.merge(&Quantiles::from_bytes(&part.to_bytes()).unwrap());
        }
        assert_eq!(forth.to_bytes(), whole.to_bytes());
        assert_eq!(back.to_bytes(), whole.to_bytes());
        assert!(whole.to_bytes().len() < 40 << 10);
    }

    #[test]
    fn the_format_stays() {
        let bytes = of(&[1.0, 1.0]).to_bytes();
        let one = 1.0_f64.to_le_bytes();
        let rank = [128, 128, 128, 128, 128, 128, 128, 248, 191, 1];
        let expected = [&[1, 0, 128, 32, 1][..], &one, &one, &rank, &[2]].concat();
        assert_eq!(bytes, expected);
        assert_eq!(Quantiles::from_bytes(&bytes).unwrap(), of(&[1.0, 1.0]));
        for wrong in [&b""[..], &[2, 0], &[1, 64], &bytes[..bytes.len() - 1]] {
            assert!(Quantiles::from_bytes(wrong).is_err());
        }
    }
}
