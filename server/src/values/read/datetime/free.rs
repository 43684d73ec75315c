//! Dates and times as people write them: names of months, fields in other orders, `AM` and `PM`, days of the
//! year, Julian days. Asked only for what is in none of the plain forms.

use super::{SECOND, Zone, days_in, days_of, micros_of, number, offset};
use crate::values::write::datetime::DAY;

/// What a text says.
#[derive(Default)]
pub(super) struct Moment {
    pub(super) days: Option<i64>,
    pub(super) micros: Option<i64>,
    pub(super) zone: Option<Zone>,
}

/// Why a text says nothing.
pub(super) enum Wrong {
    Malformed,
    NoSuchDay,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// The hours east of UTC that short names of zones stand for.
const SHORT: [(&str, i64); 14] = [
    ("gmt", 0),
    ("z", 0),
    ("zulu", 0),
    ("pst", -8),
    ("pdt", -7),
    ("mst", -7),
    ("mdt", -6),
    ("cst", -6),
    ("cdt", -5),
    ("est", -5),
    ("edt", -4),
    ("cet", 1),
    ("cest", 2),
    ("msk", 3),
];

/// A year of two digits is the one nearest to 2020.
pub(super) fn full_year(year: i64, digits: usize, bc: bool) -> i64 {
    match (digits, year) {
        (0..=2, 0..70) if !bc => year + 2000,
        (0..=2, 70..100) if !bc => year + 1900,
        _ => year,
    }
}

#[derive(Default)]
struct Found {
    /// Numbers of the date in their order, with how many digits they have.
    numbers: Vec<(i64, usize)>,
    /// The month by name, and how many numbers stand before it.
    month: Option<i64>,
    julian: Option<i64>,
    micros: Option<i64>,
    zone: Option<Zone>,
    bc: bool,
    afternoon: Option<bool>,
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Moment, Wrong> {
    let mut found = Found::default();
    let lower = text.to_ascii_lowercase();
    let mut rest = lower.as_str();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', ',', '@']);
        let Some(first) = rest.chars().next() else {
            break;
        };
        let word = rest.find([' ', '\t', '\n', ',']).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(word);
        rest = after;
        let taken = match first {
            'a'..='z' => found.word(piece),
            '0'..='9' => found.digits(piece),
            '+' | '-' if found.micros.is_some() => found.zone(piece),
            _ => None,
        };
        taken.ok_or(Wrong::Malformed)?;
    }
    found.moment()
}

impl Found {
    fn zone(&mut self, piece: &str) -> Option<()> {
        if self.zone.is_some() {
            return None;
        }
        let short = SHORT.iter().find(|(name, _)| *name == piece);
        self.zone = Some(match short {
            // Moscow's has been other hours at other times
            Some(("msk", _)) => Zone::Named(chrono_tz::Europe::Moscow),
            Some((_, hours)) => Zone::Fixed(hours * 3_600),
            None => offset(piece).or_else(|| named(piece))?,
        });
        Some(())
    }

    fn name(&mut self, word: &str) -> Option<()> {
        let is =
            |full: &&str| full.starts_with(word) && (word.len() == 3 || word.len() == full.len());
        let word = if word == "sept" { "sep" } else { word };
        if let Some(at) = MONTHS
            .iter()
            .position(|m| m.starts_with(word) && (word.len() == 3 || word.len() == m.len()))
        {
            return match self.month {
                None => {
                    self.month = Some(i64::try_from(at).ok()? + 1);
                    Some(())
                }
                Some(_) => None,
            };
        }
        (DAYS.iter().any(is) || matches!(word, "tues" | "wednes" | "thur" | "thurs" | "at" | "on"))
            .then_some(())
    }

    fn word(&mut self, piece: &str) -> Option<()> {
        match piece {
            "bc" => {
                self.bc = true;
                return Some(());
            }
            "ad" => return Some(()),
            "am" => {
                self.afternoon = Some(false);
                return Some(());
            }
            "pm" => {
                self.afternoon = Some(true);
                return Some(());
            }
            _ => {}
        }
        if let Some(days) = piece.strip_prefix('j')
            && days.starts_with(|c: char| c.is_ascii_digit())
        {
            let (days, fraction) = days.split_once('.').unwrap_or((days, ""));
            if !fraction.is_empty() {
                return None;
            }
            self.julian = Some(number(days)?);
            return Some(());
        }
        if let Some(clock) = piece.strip_prefix('t')
            && clock.starts_with(|c: char| c.is_ascii_digit())
        {
            return self.clock(clock, true);
        }
        let letters = piece
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(piece.len());
        let (word, rest) = piece.split_at(letters);
        if self.name(word).is_some() {
            return match rest.strip_prefix(['-', '/', '.']) {
                Some(more) => self.fields(more),
                None => rest.is_empty().then_some(()),
            };
        }
        self.zone(piece)
    }

    fn digits(&mut self, piece: &str) -> Option<()> {
        if piece.contains(':') {
            // a date may stand right before it, as in 1999-01-08T04:05
            return match piece.find(['t']) {
                Some(at) if !piece[..at].contains(':') => {
                    self.fields(&piece[..at])?;
                    self.clock(&piece[at + 1..], false)
                }
                _ => self.clock(piece, false),
            };
        }
        if let Some(at) = piece.find('t')
            && piece[at + 1..].starts_with(|c: char| c.is_ascii_digit())
        {
            self.fields(&piece[..at])?;
            return self.clock(&piece[at + 1..], true);
        }
        let has_date = !self.numbers.is_empty() && self.month.is_none();
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        if has_date && self.micros.is_none() && (digits == 6 || digits == 4) && self.is_complete() {
            return self.clock(piece, true);
        }
        self.fields(piece)
    }

    fn is_complete(&self) -> bool {
        self.numbers.len() == 3 || self.numbers.first().is_some_and(|(_, digits)| *digits > 4)
    }

    /// Fields between `-`, `/` or `.`; one may be a name.
    fn fields(&mut self, piece: &str) -> Option<()> {
        for field in piece.split(['-', '/', '.']) {
            if field.starts_with(|c: char| c.is_ascii_alphabetic()) {
                self.name(field)?;
                continue;
            }
            self.numbers.push((number(field)?, field.len()));
        }
        (self.numbers.len() <= 3).then_some(())
    }

    /// A time, perhaps with `am`, `pm` or a zone right behind it.
    fn clock(&mut self, piece: &str, compact: bool) -> Option<()> {
        if self.micros.is_some() {
            return None;
        }
        let end = piece
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.')))
            .unwrap_or(piece.len());
        let (clock, rest) = piece.split_at(end);
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let spaced;
        let whole = match (compact && !whole.contains(':'), whole.len()) {
            (false, _) => whole,
            (true, 6) => {
                spaced = format!("{}:{}:{}", &whole[..2], &whole[2..4], &whole[4..]);
                &spaced
            }
            (true, 4) => {
                spaced = format!("{}:{}", &whole[..2], &whole[2..]);
                &spaced
            }
            (true, 2) => {
                spaced = format!("{whole}:00");
                &spaced
            }
            _ => return None,
        };
        let fields: Option<Vec<i64>> = whole.split(':').map(number).collect();
        let fields = fields?;
        let (hours, minutes, seconds) = match fields.as_slice() {
            [hours, minutes] => (*hours, *minutes, 0),
            [hours, minutes, seconds] => (*hours, *minutes, *seconds),
            _ => return None,
        };
        if hours > 24 || minutes > 59 || seconds > 60 {
            return None;
        }
        let micros = (hours * 3_600 + minutes * 60 + seconds) * SECOND + micros_of(fraction)?;
        if micros > DAY {
            return None;
        }
        self.micros = Some(micros);
        match rest {
            "" => Some(()),
            "am" => {
                self.afternoon = Some(false);
                Some(())
            }
            "pm" => {
                self.afternoon = Some(true);
                Some(())
            }
            zone => self.zone(zone),
        }
    }

    fn moment(self) -> Result<Moment, Wrong> {
        let mut micros = self.micros;
        if let Some(afternoon) = self.afternoon {
            let at = micros.ok_or(Wrong::Malformed)?;
            let half = DAY / 2;
            if at >= half + 3_600 * SECOND {
                return Err(Wrong::NoSuchDay);
            }
            micros = Some(at % half + if afternoon { half } else { 0 });
        }
        Ok(Moment {
            days: self.days()?,
            micros,
            zone: self.zone,
        })
    }

    fn days(&self) -> Result<Option<i64>, Wrong> {
        if let Some(julian) = self.julian {
            return match self.numbers.is_empty() && self.month.is_none() {
                true => Ok(Some(julian - 2_440_588)),
                false => Err(Wrong::Malformed),
            };
        }
        let (year, month, day) = match (self.month, self.numbers.as_slice()) {
            (None, []) => return Ok(None),
            (Some(month), [year, day]) if year.1 > 2 => (*year, month, day.0),
            (Some(month), [day, year]) => (*year, month, day.0),
            (None, [year, month, day]) if year.1 > 2 => (*year, month.0, day.0),
            (None, [month, day, year]) => (*year, month.0, day.0),
            (None, [year, day]) if year.1 > 2 && day.1 == 3 => return self.of_year(*year, day.0),
            (None, [(all, 8)]) => ((all / 10_000, 4), all / 100 % 100, all % 100),
            (None, [(all, 6)]) => ((all / 10_000, 2), all / 100 % 100, all % 100),
            (None, [(all, 7)]) => return self.of_year((all / 1_000, 4), all % 1_000),
            (None, [(all, 5)]) => return self.of_year((all / 1_000, 2), all % 1_000),
            _ => return Err(Wrong::Malformed),
        };
        let year = self.year(year)?;
        match (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day) {
            true => Ok(Some(days_of(year, month, day))),
            false => Err(Wrong::NoSuchDay),
        }
    }

    fn of_year(&self, year: (i64, usize), day: i64) -> Result<Option<i64>, Wrong> {
        let year = self.year(year)?;
        let length = days_of(year + 1, 1, 1) - days_of(year, 1, 1);
        match (1..=length).contains(&day) {
            true => Ok(Some(days_of(year, 1, 1) + day - 1)),
            false => Err(Wrong::NoSuchDay),
        }
    }

    fn year(&self, (year, digits): (i64, usize)) -> Result<i64, Wrong> {
        let year = full_year(year, digits, self.bc);
        match (year, self.bc) {
            (0, _) => Err(Wrong::NoSuchDay),
            (year, true) => Ok(1 - year),
            (year, false) => Ok(year),
        }
    }
}

/// A zone by its full name, whatever its letters' case.
fn named(name: &str) -> Option<Zone> {
    if !name.contains('/') && name.len() > 6 {
        return None;
    }
    chrono_tz::TZ_VARIANTS
        .iter()
        .find(|tz| tz.name().eq_ignore_ascii_case(name))
        .map(|tz| Zone::Named(*tz))
}
