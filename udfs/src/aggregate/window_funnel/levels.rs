//! The scan over a group's events: pure, over sorted values.

use datafusion::common::ScalarValue;

use crate::FunctionError;

/// One condition met by one row; level 0 is a row that met none. Sorted by time, then level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) time: i64,
    pub(super) level: i32,
}

/// What counts as a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Default,
    Order,
    Deduplication,
    Increase,
}

impl Mode {
    /// The mode an argument names.
    pub(super) fn parse(value: Option<&ScalarValue>) -> Result<Self, FunctionError> {
        let Some(name) = value.and_then(|v| v.try_as_str().flatten()) else {
            return Err(FunctionError::invalid(
                "the mode of window_funnel must be a constant text",
            ));
        };
        match name {
            "strict_order" => Ok(Self::Order),
            "strict_deduplication" => Ok(Self::Deduplication),
            "strict_increase" => Ok(Self::Increase),
            other => Err(FunctionError::unsupported(format!(
                "mode \"{other}\" of window_funnel is not supported"
            ))
            .with_hint("use strict_order, strict_deduplication or strict_increase")),
        }
    }
}

/// The deepest level that a chain within the window reaches. `events` is sorted.
pub(super) fn deepest(events: &[Event], window: i64, mode: Mode, steps: usize) -> i32 {
    let reached = match mode {
        Mode::Increase => scan_increasing(events, window, steps),
        Mode::Default | Mode::Order | Mode::Deduplication => scan(events, window, mode, steps),
    };
    i32::try_from(reached).unwrap_or(i32::MAX)
}

/// One pass; `starts[k]` is the latest start of a chain of `k + 1` steps. A later start is never worse,
/// so keeping one per level is enough.
fn scan(events: &[Event], window: i64, mode: Mode, steps: usize) -> usize {
    let mut starts: Vec<Option<i64>> = vec![None; steps];
    for event in events {
        let Some(step) = step_of(event) else {
            if mode == Mode::Order && starts.first().is_some_and(Option::is_some) {
                break;
            }
            continue;
        };
        if step == 0 {
            starts[0] = Some(event.time);
            continue;
        }
        if mode == Mode::Deduplication && starts[step].is_some() {
            break;
        }
        match starts[step - 1] {
            Some(start) if in_window(start, event.time, window) => {
                starts[step] = Some(start);
                if step + 1 == steps {
                    return steps;
                }
            }
            Some(_) => {}
            None if mode == Mode::Order && starts[0].is_some() => break,
            None => {}
        }
    }
    depth(&starts)
}

/// Steps strictly later than the one before: events of one time all build on what was before it.
fn scan_increasing(events: &[Event], window: i64, steps: usize) -> usize {
    let mut starts: Vec<Option<i64>> = vec![None; steps];
    for moment in events.chunk_by(|a, b| a.time == b.time) {
        let before = starts.clone();
        for event in moment {
            match step_of(event) {
                Some(0) => starts[0] = Some(event.time),
                Some(step) => {
                    if let Some(start) = before[step - 1]
                        && in_window(start, event.time, window)
                    {
                        starts[step] = Some(start);
                    }
                }
                None => {}
            }
        }
    }
    depth(&starts)
}

fn step_of(event: &Event) -> Option<usize> {
    usize::try_from(event.level).ok()?.checked_sub(1)
}

fn in_window(start: i64, time: i64, window: i64) -> bool {
    time.abs_diff(start) <= window.unsigned_abs()
}

fn depth(starts: &[Option<i64>]) -> usize {
    starts
        .iter()
        .rposition(Option::is_some)
        .map_or(0, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODES: [Mode; 4] = [
        Mode::Default,
        Mode::Deduplication,
        Mode::Order,
        Mode::Increase,
    ];

    fn level(events: &mut [Event], window: i64, mode: Mode, steps: usize) -> i32 {
        events.sort_unstable();
        deepest(events, window, mode, steps)
    }

    /// One event per tick; `X` meets no condition.
    fn word(text: &str) -> Vec<Event> {
        let level = |c: u8| match c {
            b'A'..=b'D' => i32::from(c - b'A') + 1,
            _ => 0,
        };
        (0..)
            .zip(text.bytes())
            .map(|(time, c)| Event {
                time,
                level: level(c),
            })
            .collect()
    }

    #[test]
    fn words_give_the_levels_of_clickhouse() {
        for (text, want) in [
            ("ABCD", [4, 4, 4, 4]),
            ("ABDC", [3, 3, 2, 3]),
            ("ABCBD", [4, 3, 4, 4]),
            ("AXBC", [3, 3, 1, 3]),
            ("ABXCD", [4, 4, 2, 4]),
            ("AABBCD", [4, 2, 4, 4]),
            ("BACD", [1, 1, 1, 1]),
            ("ACBCD", [4, 4, 1, 4]),
            ("AAABCD", [4, 4, 4, 4]),
        ] {
            let got = MODES.map(|mode| level(&mut word(text), 100, mode, 4));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn the_window_is_inclusive_and_counts_from_step_one() {
        let mut events = [Event { time: 0, level: 1 }, Event { time: 10, level: 2 }];
        assert_eq!(level(&mut events, 10, Mode::Default, 2), 2);
        assert_eq!(level(&mut events, 9, Mode::Default, 2), 1);
    }

    #[test]
    fn steps_at_one_time() {
        let mut events = [1, 2, 3].map(|level| Event { time: 7, level });
        assert_eq!(level(&mut events, 0, Mode::Default, 3), 3);
        assert_eq!(level(&mut events, 0, Mode::Increase, 3), 1);
    }

    #[test]
    fn increase_finds_the_chain_that_greed_misses() {
        let mut events = [(1, 1), (2, 1), (2, 2)].map(|(time, level)| Event { time, level });
        assert_eq!(level(&mut events, 10, Mode::Increase, 2), 2);
    }

    /// Tries every chain.
    fn brute(events: &[Event], window: i64, strict: bool, steps: i32) -> i32 {
        fn extend(
            events: &[Event],
            (start, last, level): (i64, i64, i32),
            rule: (i64, bool, i32),
        ) -> i32 {
            let (window, strict, steps) = rule;
            if level == steps {
                return level;
            }
            let follows = |e: &&Event| {
                e.level == level + 1
                    && e.time - start <= window
                    && (e.time > last || (!strict && e.time == last))
            };
            events
                .iter()
                .filter(follows)
                .map(|e| extend(events, (start, e.time, level + 1), rule))
                .max()
                .unwrap_or(level)
        }
        events
            .iter()
            .filter(|e| e.level == 1)
            .map(|e| extend(events, (e.time, e.time, 1), (window, strict, steps)))
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn equals_brute_force(
            raw in prop::collection::vec((0_i64..12, 0_i32..5), 0..14),
            window in 0_i64..12,
            steps in 1_usize..5,
        ) {
            let limit = i32::try_from(steps).unwrap();
            let mut events: Vec<Event> = raw
                .into_iter()
                .map(|(time, level)| Event { time, level: level.min(limit) })
                .collect();
            prop_assert_eq!(
                level(&mut events, window, Mode::Default, steps),
                brute(&events, window, false, limit)
            );
            prop_assert_eq!(
                level(&mut events, window, Mode::Increase, steps),
                brute(&events, window, true, limit)
            );
        }
    }
}
