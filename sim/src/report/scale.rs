//! Axes: where a value lies between two ends, and the round numbers to write beside it.

use crate::report::number;

/// The quantity on an axis, and so how its ticks are chosen and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// A count or an amount.
    Number,
    /// A duration in seconds: a latency.
    Seconds,
    /// The time since the start, in seconds.
    Clock,
}

/// An axis with its ends and its ticks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
    is_log: bool,
    /// Ticks, ascending.
    pub(crate) ticks: Vec<f64>,
    step: f64,
}

impl Scale {
    /// From 0 to a round number above `max`, with about `ticks` ticks.
    pub(crate) fn from_zero(axis: Axis, max: f64, ticks: usize) -> Scale {
        Scale::between(axis, 0.0, max, ticks)
    }

    /// From a round number below `min` to one above `max`.
    pub(crate) fn between(axis: Axis, min: f64, max: f64, ticks: usize) -> Scale {
        let floor = if axis == Axis::Number { 1e-9 } else { 1e-6 };
        let span = if (max - min).is_finite() && max - min > floor { max - min } else { 1.0 };
        let step = nice_step(axis, span / ticks.max(1) as f64);
        // A hair less than the span: a maximum of exactly four steps needs no fifth.
        let first = (min / step + 1e-9).floor();
        let last = ((min + span) / step - 1e-9).ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as usize).map(|at| (first + at as f64) * step).collect();
        Scale { axis, low: first * step, high: last * step, is_log: false, ticks, step }
    }

    /// The axis that suits these values: from 0, or by powers of ten for times so different that the short ones
    /// would lie on the floor. Values of 0 mean that there was nothing.
    pub(crate) fn of(axis: Axis, values: impl Iterator<Item = f64>, ticks: usize) -> Scale {
        let is_value = |value: &f64| value.is_finite() && *value > 0.0;
        let (min, max) =
            values.filter(is_value).fold((f64::INFINITY, 0.0), |(min, max), v| (v.min(min), v.max(max)));
        if axis == Axis::Seconds && max > min * WIDE_FACTOR {
            Scale::log(axis, min, max)
        } else {
            Scale::from_zero(axis, max, ticks)
        }
    }

    /// The same with some room above the last tick, if `max` would lie on the frame's edge.
    pub(crate) fn with_headroom(mut self, max: f64) -> Scale {
        if self.at(max) > 0.97 {
            self.high = if self.is_log {
                self.high * (self.high / self.low).powf(HEADROOM)
            } else {
                self.high + (self.high - self.low) * HEADROOM
            };
        }
        self
    }

    /// Powers of ten around `min` and `max`, both of them above zero.
    pub(crate) fn log(axis: Axis, min: f64, max: f64) -> Scale {
        let first = (min.log10() + 1e-9).floor() as i32;
        let last = ((max.log10() - 1e-9).ceil() as i32).max(first + 1);
        let ticks: Vec<f64> = (first..=last).map(power_of_ten).collect();
        Scale { axis, low: power_of_ten(first), high: power_of_ten(last), is_log: true, ticks, step: 0.0 }
    }

    /// The time axis of something so long: it ends where the time ends, not at a tick.
    pub(crate) fn clock(length_s: f64, ticks: usize) -> Scale {
        let length_s = if length_s.is_finite() && length_s > 0.0 { length_s } else { 1.0 };
        let step = nice_step(Axis::Clock, length_s / ticks.max(1) as f64);
        let last = (length_s / step + 1e-9).floor() as usize;
        let ticks = (0..=last).map(|at| at as f64 * step).collect();
        Scale { axis: Axis::Clock, low: 0.0, high: length_s, is_log: false, ticks, step }
    }

    /// The place of `value`: 0 at the low end, 1 at the high one. A value beyond an end is put there.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The high end: a tick, but for a clock, or with headroom.
    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// Whether equal distances are equal factors.
    pub(crate) fn is_log(&self) -> bool {
        self.is_log
    }

    /// The text beside a tick.
    pub(crate) fn label(&self, tick: f64) -> String {
        match self.axis {
            Axis::Number if tick.abs() >= 1e6 => format!("{} M", number::amount(tick / 1e6)),
            Axis::Number => number::amount(tick),
            Axis::Seconds if tick == 0.0 => "0".to_owned(),
            Axis::Seconds => number::seconds(tick),
            Axis::Clock => clock(tick, self.step),
        }
    }
}

/// A point in time after the start, as exactly as steps of this length need.
pub(crate) fn clock(at_s: f64, step_s: f64) -> String {
    if step_s < 1.0 {
        return if at_s == 0.0 { "0:00".to_owned() } else { number::seconds(at_s) };
    }
    let total = at_s.round() as u64;
    let (days, hours, minutes, seconds) = (total / 86_400, total / 3_600 % 24, total / 60 % 60, total % 60);
    match (total, step_s < 60.0, days, hours, minutes) {
        (0, ..) => "0:00".to_owned(),
        (.., true, 0, 0, minutes) => format!("{minutes}:{seconds:02}"),
        (.., true, _, _, _) => format!("{}:{minutes:02}:{seconds:02}", total / 3_600),
        (_, _, 0, 0, minutes) => format!("{minutes} min"),
        (_, _, 0, hours, 0) => format!("{hours} h"),
        (_, _, 0, hours, minutes) => format!("{hours} h {minutes:02}"),
        (_, _, days, 0, 0) => format!("{days} d"),
        (_, _, days, hours, 0) => format!("{days} d {hours} h"),
        (_, _, days, hours, minutes) => format!("{days} d {hours}:{minutes:02}"),
    }
}

/// The smallest round step that is not below `rough`.
fn nice_step(axis: Axis, rough: f64) -> f64 {
    let decade = power_of_ten((rough.log10() + 1e-9).floor() as i32);
    let decimal = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
    let candidates = match axis {
        Axis::Number => &decimal[..],
        _ if rough < 1.0 => &decimal[..],
        _ if rough <= CLOCK_STEPS_S[CLOCK_STEPS_S.len() - 1] => &CLOCK_STEPS_S[..],
        _ => {
            let days = rough / 86_400.0;
            return nice_step(Axis::Number, days) * 86_400.0;
        }
    };
    let at_least = rough * (1.0 - 1e-9);
    candidates.iter().copied().find(|&step| step >= at_least).unwrap_or(decade * 10.0)
}

/// `powi` rounds for negative exponents; a division by an exact power does not show in labels.
fn power_of_ten(exponent: i32) -> f64 {
    let power = 10f64.powi(exponent.abs());
    if exponent >= 0 { power } else { 1.0 / power }
}

/// Room above the last tick, as a share of what is below it.
const HEADROOM: f64 = 0.06;

/// Times further apart than this are drawn on a logarithmic axis.
const WIDE_FACTOR: f64 = 20.0;

/// Steps that clocks are read in.
const CLOCK_STEPS_S: [f64; 20] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0,
    21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks.iter().map(|&tick| scale.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_that_cover_the_values() {
        let of = |max| labels(&Scale::from_zero(Axis::Number, max, 4));
        assert_eq!(of(100.0), ["0", "50", "100"]);
        assert_eq!(of(7.0), ["0", "2", "4", "6", "8"]);
        assert_eq!(of(0.0), ["0", "0.5", "1"]);
        assert_eq!(of(f64::NAN), of(0.0));
        assert_eq!(of(2_300_000.0)[1..], ["1 M", "2 M", "3 M"]);
        assert_eq!(of(13_000.0), ["0", "5,000", "10,000", "15,000"]);
    }

    #[test]
    fn a_clock_ends_with_the_run_and_has_ticks_people_read() {
        let of = |length| labels(&Scale::clock(length, 6));
        assert_eq!(of(90.0), ["0:00", "0:15", "0:30", "0:45", "1:00", "1:15", "1:30"]);
        assert_eq!(of(3_600.0), ["0:00", "10 min", "20 min", "30 min", "40 min", "50 min", "1 h"]);
        assert_eq!(of(86_400.0)[..3], ["0:00", "6 h", "12 h"]);
        assert_eq!(of(7.0 * 86_400.0)[..3], ["0:00", "2 d", "4 d"]);
        assert_eq!(Scale::clock(90.0, 6).at(90.0), 1.0);
    }

    #[test]
    fn latencies_on_a_log_axis_stand_at_powers_of_ten() {
        let scale = Scale::log(Axis::Seconds, 0.02, 7.0);
        assert_eq!(labels(&scale), ["10 ms", "100 ms", "1 s", "10 s"]);
        assert!((scale.at(0.1) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(scale.at(0.0), 0.0);
    }

    #[test]
    fn a_highest_value_does_not_lie_on_the_edge() {
        let of = |max| Scale::from_zero(Axis::Number, max, 3).with_headroom(max);
        assert!(of(6.0).at(6.0) < 0.95);
        assert_eq!(labels(&of(6.0)), ["0", "2", "4", "6"]);
        assert_eq!(of(5.0).high(), 6.0, "it has room");
        assert!(Scale::log(Axis::Seconds, 0.01, 1.0).with_headroom(1.0).at(1.0) < 0.95);
    }

    #[test]
    fn a_value_beyond_the_ends_stays_on_the_paper() {
        let scale = Scale::from_zero(Axis::Number, 10.0, 5);
        assert_eq!([-5.0, 0.0, 5.0, 99.0, f64::NAN].map(|value| scale.at(value)), [0.0, 0.0, 0.5, 1.0, 0.0]);
    }
}
