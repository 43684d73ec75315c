//! Numbers as PostgreSQL prints and packs them.

use std::io::Write as _;

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Writes the digits of `value` to the end of `buffer` and says where they start.
fn digits_of(mut value: u64, buffer: &mut [u8]) -> usize {
    let mut at = buffer.len();
    while value >= 100 {
        let pair = usize::try_from(value % 100).unwrap_or_default() * 2;
        value /= 100;
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if value >= 10 {
        let pair = usize::try_from(value).unwrap_or_default() * 2;
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(value).unwrap_or_default();
    }
    at
}

/// An integer in decimal.
#[inline]
pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = [0; 20];
    let at = digits_of(value.unsigned_abs(), &mut buffer);
    out.extend_from_slice(&buffer[at..]);
}

/// Sign and decimal digits of an unscaled decimal, without leading zeros.
pub(super) struct Digits {
    negative: bool,
    buffer: [u8; 80],
    start: usize,
}

impl Digits {
    pub(super) fn of_i128(value: i128) -> Self {
        const CHUNK: u128 = 10_000_000_000_000_000_000; // 10^19, the most that fits 64 bits
        let mut digits = Self {
            negative: value < 0,
            buffer: [b'0'; 80],
            start: 80,
        };
        let mut rest = value.unsigned_abs();
        let mut end = 80;
        while rest >= CHUNK {
            let low = u64::try_from(rest % CHUNK).unwrap_or_default();
            digits_of(low, &mut digits.buffer[..end]); // zeros stand before it already
            end -= 19;
            rest /= CHUNK;
        }
        let high = u64::try_from(rest).unwrap_or_default();
        digits.start = digits_of(high, &mut digits.buffer[..end]);
        digits
    }

    /// From plain decimal text of at most 79 digits, as a 256-bit integer prints.
    pub(super) fn of_text(text: &str) -> Self {
        let plain = text.trim_start_matches('-').as_bytes();
        let plain = &plain[plain.len().saturating_sub(80)..];
        let mut buffer = [b'0'; 80];
        let start = 80 - plain.len();
        buffer[start..].copy_from_slice(plain);
        Self {
            negative: text.starts_with('-'),
            buffer,
            start,
        }
    }

    fn all(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn is_zero(&self) -> bool {
        self.all() == b"0"
    }
}

/// A decimal with all digits of its scale.
pub(super) fn decimal_text(digits: &Digits, scale: i8, out: &mut Vec<u8>) {
    if digits.negative {
        out.push(b'-');
    }
    let all = digits.all();
    let Ok(scale) = usize::try_from(scale) else {
        out.extend_from_slice(all);
        if !digits.is_zero() {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    };
    if scale == 0 {
        out.extend_from_slice(all);
    } else if all.len() > scale {
        let (whole, fraction) = all.split_at(all.len() - scale);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - all.len(), b'0');
        out.extend_from_slice(all);
    }
}

/// A decimal as PostgreSQL packs it: base-10000 digits around an implied point.
pub(super) fn decimal_binary(digits: &Digits, scale: i8, out: &mut Vec<u8>) {
    let all = digits.all();
    let fraction = usize::try_from(scale).unwrap_or_default();
    let zeros = usize::try_from(-i16::from(scale)).unwrap_or_default();
    // positions are counted from the point: digit `i` stands for 10^(top - 1 - i)
    let top = i32::try_from(all.len() + zeros).unwrap_or_default()
        - i32::try_from(fraction).unwrap_or_default();
    let mut weight = top.div_euclid(4) - i32::from(top.rem_euclid(4) == 0);
    let lead = usize::try_from(4 * (weight + 1) - top).unwrap_or_default();

    let mut groups = [0u16; 96];
    let mut count = 0;
    let padded = lead + all.len();
    while count * 4 < padded {
        let mut group = 0;
        for i in count * 4..count * 4 + 4 {
            let digit = i.checked_sub(lead).and_then(|i| all.get(i));
            group = group * 10 + digit.map_or(0, |d| u16::from(d - b'0'));
        }
        groups[count] = group;
        count += 1;
    }
    let mut groups = &groups[..count];
    while let [0, rest @ ..] = groups {
        groups = rest;
        weight -= 1;
    }
    while let [rest @ .., 0] = groups {
        groups = rest;
    }
    let zero = groups.is_empty();
    let put = |out: &mut Vec<u8>, v: u16| out.extend_from_slice(&v.to_be_bytes());
    put(out, u16::try_from(groups.len()).unwrap_or_default());
    let weight = if zero { 0 } else { weight };
    out.extend_from_slice(&i16::try_from(weight).unwrap_or_default().to_be_bytes());
    put(out, if digits.negative && !zero { 0x4000 } else { 0 });
    put(out, u16::try_from(fraction).unwrap_or_default());
    for group in groups {
        put(out, *group);
    }
}

/// `double precision`, with `extra_float_digits`.
pub(super) fn float8(value: f64, extra: i32, out: &mut Vec<u8>) {
    const EXACT: f64 = 1e15;
    if extra > 0 && value.trunc() == value && value.abs() < EXACT && value != 0.0 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number below 10^15"
        )]
        return integer(value as i64, out);
    }
    if special(value, out) {
        return;
    }
    let mut text = Scratch::default();
    let limit = if extra > 0 {
        let _ = write!(text, "{value:e}");
        15
    } else {
        let digits = (15 + extra).max(1);
        let after = usize::try_from(digits - 1).unwrap_or_default();
        let _ = write!(text, "{value:.after$e}");
        digits
    };
    layout(text.bytes(), limit, out);
}

/// `real`, with `extra_float_digits`.
pub(super) fn float4(value: f32, extra: i32, out: &mut Vec<u8>) {
    if special(value.into(), out) {
        return;
    }
    let mut text = Scratch::default();
    let limit = if extra > 0 {
        let _ = write!(text, "{value:e}");
        6
    } else {
        let digits = (6 + extra).max(1);
        let after = usize::try_from(digits - 1).unwrap_or_default();
        let _ = write!(text, "{value:.after$e}");
        digits
    };
    layout(text.bytes(), limit, out);
}

fn special(value: f64, out: &mut Vec<u8>) -> bool {
    let text: &[u8] = if value.is_nan() {
        b"NaN"
    } else if value == f64::INFINITY {
        b"Infinity"
    } else if value == f64::NEG_INFINITY {
        b"-Infinity"
    } else {
        return false;
    };
    out.extend_from_slice(text);
    true
}

/// Lays `d.ddde±x` out as PostgreSQL does: plain where `-4 <= x < limit`, else with an exponent.
fn layout(text: &[u8], limit: i32, out: &mut Vec<u8>) {
    let split = text.iter().position(|b| *b == b'e').unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(split);
    let exponent: i32 = std::str::from_utf8(exponent.get(1..).unwrap_or_default())
        .ok()
        .and_then(|e| e.parse().ok())
        .unwrap_or_default();
    let mantissa = match mantissa {
        [b'-', rest @ ..] => {
            out.push(b'-');
            rest
        }
        all => all,
    };
    let mut buffer = [0; 40];
    let mut count = 0;
    for digit in mantissa.iter().filter(|b| **b != b'.').take(40) {
        buffer[count] = *digit;
        count += 1;
    }
    let mut digits = &buffer[..count];
    while let [rest @ .., b'0'] = digits {
        if rest.is_empty() {
            break;
        }
        digits = rest;
    }
    if exponent < -4 || exponent >= limit {
        let (first, rest) = digits.split_at(1.min(digits.len()));
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let _ = write!(
            out,
            "e{}{:02}",
            if exponent < 0 { '-' } else { '+' },
            exponent.unsigned_abs()
        );
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        let zeros = usize::try_from(-exponent - 1).unwrap_or_default();
        out.resize(out.len() + zeros, b'0');
        out.extend_from_slice(digits);
    } else {
        let whole = usize::try_from(exponent).unwrap_or_default() + 1;
        if digits.len() > whole {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        } else {
            out.extend_from_slice(digits);
            out.resize(out.len() + whole - digits.len(), b'0');
        }
    }
}

/// Room for one formatted float on the stack.
struct Scratch {
    buffer: [u8; 64],
    length: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            buffer: [0; 64],
            length: 0,
        }
    }
}

impl Scratch {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl std::io::Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.buffer.len() - self.length;
        let count = bytes.len().min(room);
        self.buffer[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        self.length += count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
