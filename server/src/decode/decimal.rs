//! Decimal texts → scaled integers, exact, rounding half away from zero as PostgreSQL does.

/// More digits than any decimal type has; an exponent beyond is out of range or zero anyway.
const MAX_EXPONENT: i64 = 400;

/// Why a text is no value of a decimal type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalError {
    /// It is no number.
    Malformed,
    /// It has too many digits before the point.
    OutOfRange,
}

/// `text` as a value of `numeric(precision, scale)`: the number times `10^scale`.
pub(super) fn parse(text: &str, precision: u8, scale: i8) -> Result<i128, DecimalError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return Err(DecimalError::Malformed);
    }
    // how many of the digits stand before the place the result is cut at
    let kept = i64::try_from(whole.len()).unwrap_or(i64::MAX) + exponent + i64::from(scale);
    let mut value: i128 = 0;
    let mut place = 0i64;
    let mut round_up = false;
    for digit in whole.bytes().chain(fraction.bytes()).map(|b| b - b'0') {
        if place < kept {
            value = times_ten_plus(value, digit)?;
        } else if place == kept {
            round_up = digit >= 5;
        }
        place += 1;
    }
    if value != 0 {
        for _ in place..kept {
            value = times_ten_plus(value, 0)?;
        }
    }
    value += i128::from(round_up);
    if value
        >= 10i128
            .checked_pow(u32::from(precision))
            .unwrap_or(i128::MAX)
    {
        return Err(DecimalError::OutOfRange);
    }
    Ok(if negative { -value } else { value })
}

fn times_ten_plus(value: i128, digit: u8) -> Result<i128, DecimalError> {
    value
        .checked_mul(10)
        .and_then(|v| v.checked_add(i128::from(digit)))
        .ok_or(DecimalError::OutOfRange)
}

fn parse_exponent(text: &str) -> Result<i64, DecimalError> {
    let exponent: i64 = text.parse().map_err(|_| DecimalError::Malformed)?;
    Ok(exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_scaled_integers() {
        let cases = [
            ("12.34", 1234),
            ("-12.345", -1235),
            ("12.344", 1234),
            ("1e2", 10000),
            ("1.5E-1", 15),
            ("0.005", 1),
            ("0.004", 0),
            (".5", 50),
            ("5.", 500),
            ("+7", 700),
            ("0e999999999999", 0),
            ("1e-999", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, 10, 2), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in ["100000000", "99999999.995", "1e400", "1e20"] {
            assert_eq!(parse(text, 10, 2), Err(DecimalError::OutOfRange), "{text}");
        }
        assert_eq!(parse("99999999.99", 10, 2), Ok(9_999_999_999));
        for text in ["", "-", ".", "1.2.3", "1e", "0x1", "NaN", "1 ", "e5"] {
            assert_eq!(parse(text, 10, 2), Err(DecimalError::Malformed), "{text}");
        }
        let long = "9".repeat(300);
        assert_eq!(parse(&long, 38, 0), Err(DecimalError::OutOfRange));
    }

    #[test]
    fn negative_scales_round_to_powers_of_ten() {
        assert_eq!(parse("1251", 5, -2), Ok(13));
        assert_eq!(parse("49", 5, -2), Ok(0));
        assert_eq!(parse("50", 5, -2), Ok(1));
        assert_eq!(parse("5", 5, -2), Ok(0));
    }
}
