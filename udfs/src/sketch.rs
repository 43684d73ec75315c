//! Sketches: summaries of many values in few bytes that merge in any order. Each writes its state in a
//! format of its own, which begins with its version, and reads no other.
//!
//! | Sketch | Bytes at most | Error |
//! |---|---|---|
//! | [`Distinct`] | 16 KiB | of a count: 0.81 % standard |
//! | [`Quantiles`] | about 40 KiB | of a value: none up to 4096 different ones, then by its span |
//! | [`Heavy`] | the values it tracks and 10 each | of a count: rows / (tracked + 1) |
//!
//! Values are known by their own bytes, not by those of an Arrow layout: a text is the same whether it
//! comes as `Utf8` or `Utf8View`.

mod distinct;
mod heavy;
mod quantiles;
mod values;

pub(crate) use distinct::Distinct;
pub(crate) use heavy::Heavy;
pub(crate) use quantiles::{CAPACITY, Quantiles};
pub(crate) use values::{each_value, known_type, value_of};

use crate::FunctionError;

/// A state that no sketch of this version has written.
pub(crate) fn unreadable(sketch: &str) -> FunctionError {
    FunctionError::invalid(format!("not a state of {sketch}"))
}

/// Writes a number in groups of seven bits, lowest first.
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

/// Reads what [`put_varint`] wrote, and moves on.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes so many bytes off the front.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_lengths_come_back() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!(take_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_varint(&mut &[0xff; 12][..]), None);
    }
}
