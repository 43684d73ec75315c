//! Which JSON numbers a double holds as they were written.

/// True for a JSON number that a double gives back as it was written, up to the way of writing.
pub(crate) fn is_exact_double(json: &str) -> bool {
    // what has no more digits than this always comes back
    const SURE: usize = 15;
    let mantissa = json.split(['e', 'E']).next().unwrap_or(json);
    let Ok(value) = json.parse::<f64>() else {
        return false;
    };
    if !value.is_finite() {
        return false;
    }
    let digits = significant(mantissa);
    if digits.is_empty() {
        return true;
    }
    if value == 0.0 || value.is_subnormal() {
        return false;
    }
    // shortest digits that give this double: the number itself, unless it said more than that
    digits.len() <= SURE || significant(&format!("{value:e}")) == digits
}

/// The digits that count: without sign, point, and zeros at either end.
fn significant(number: &str) -> String {
    let mantissa = number.split('e').next().unwrap_or(number);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}
