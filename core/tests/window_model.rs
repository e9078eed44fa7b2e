//! Windows against a model that is slow and obvious: a map from second to sum, added up at every reading.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::{Aggregation, Time, Window};
use proptest::prelude::*;

/// The reference. It forgets what a window forgets, but knows no ring, no running total and no slots.
struct Model {
    length: i64,
    aggregation: Aggregation,
    sums: BTreeMap<i64, f64>,
    first: Option<i64>,
    last: Option<i64>,
}

impl Model {
    fn new(length: i64, aggregation: Aggregation) -> Self {
        Model { length, aggregation, sums: BTreeMap::new(), first: None, last: None }
    }

    fn record(&mut self, second: i64, value: f64) {
        match self.last {
            // Not even a window that a resize emptied learns of a beginning here.
            Some(last) if second == last => {}
            Some(last) if second <= last - self.length => return,
            Some(last) if second < last + self.length => {
                self.first = Some(self.first.map_or(second, |first| first.min(second)));
                self.last = Some(last.max(second));
            }
            _ => {
                self.sums.clear();
                self.first = Some(second);
                self.last = Some(second);
            }
        }
        *self.sums.entry(second).or_default() += value;
        let oldest = self.last.unwrap_or(second) - self.length + 1;
        self.sums.retain(|&second, _| second >= oldest);
    }

    fn average(&self, now: i64) -> f64 {
        let Some(last) = self.last.filter(|last| now < last + self.length) else { return 0.0 };
        let now = now.max(last);
        let in_window = self.sums.range(now - self.length + 1..).map(|(&second, &sum)| (now - second, sum));
        match self.aggregation {
            Aggregation::Linear => {
                let written = self.first.map_or(self.length, |first| last - first + 1);
                let seconds = written.min(self.length - (now - last));
                let mean = in_window.map(|(_, sum)| sum).sum::<f64>() / seconds as f64;
                (mean * 1e6).round() / 1e6
            }
            Aggregation::WeightedExponential => {
                let newest = (1.0 - 0.0001f64.powf(1.0 / self.length as f64)).max(0.2);
                in_window.map(|(age, sum)| sum * newest * (1.0 - newest).powf(age as f64)).sum()
            }
        }
    }

    fn is_empty(&self, now: i64) -> bool {
        self.last.is_none_or(|last| now - last > self.length)
    }

    fn resize(&mut self, now: i64, length: i64) {
        if length == self.length {
            return;
        }
        match self.last.filter(|_| !self.is_empty(now)) {
            Some(last) => {
                self.sums.retain(|&second, _| second > last - length.min(self.length));
                self.first = Some(last - self.length + 1);
            }
            None => {
                self.sums.clear();
                self.first = None;
            }
        }
        self.length = length;
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A value arrives, this many milliseconds late.
    Record {
        late_ms: u64,
        eighths: u32,
    },
    Read,
    Resize(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let late = prop_oneof![4 => Just(0u64), 1 => 0u64..20_000];
    prop_oneof![
        // Eighths add up without rounding, in whatever order.
        6 => (late, 0u32..8_000).prop_map(|(late_ms, eighths)| Event::Record { late_ms, eighths }),
        3 => Just(Event::Read),
        1 => (1u64..80).prop_map(Event::Resize),
    ]
}

fn any_pause_ms() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..1_500, 2 => 1_500u64..10_000, 1 => 10_000u64..150_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_window_averages_like_its_model(
        length in 1u64..80,
        aggregation in prop_oneof![Just(Aggregation::Linear), Just(Aggregation::WeightedExponential)],
        start_s in prop_oneof![Just(0u64), Just(1_700_000_000)],
        events in prop::collection::vec((any_pause_ms(), any_event()), 1..150),
    ) {
        let mut window = Window::new(Duration::from_secs(length), aggregation);
        let mut model = Model::new(length as i64, aggregation);
        let second = |at: Time| at.whole_seconds() as i64;
        let mut now = Time::from_secs(start_s);
        for (pause_ms, event) in events {
            now += Duration::from_millis(pause_ms);
            match event {
                Event::Record { late_ms, eighths } => {
                    let at = now - Duration::from_millis(late_ms);
                    window.record(at, f64::from(eighths) / 8.0);
                    model.record(second(at), f64::from(eighths) / 8.0);
                }
                Event::Read => {}
                Event::Resize(length) => {
                    window.resize(now, Duration::from_secs(length));
                    model.resize(second(now), length as i64);
                }
            }
            let (got, want) = (window.average(now), model.average(second(now)));
            match aggregation {
                Aggregation::Linear => prop_assert_eq!(got, want),
                Aggregation::WeightedExponential => prop_assert!((got - want).abs() <= 1e-9 * want.abs(), "{} {}", got, want),
            }
            prop_assert_eq!(window.is_empty(now), model.is_empty(second(now)));
        }
    }
}
