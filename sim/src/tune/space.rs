//! The space of a search: settings, and for each an ordered list of values.

use pilotlight_core::{Aggregation, ConcurrencyLimit, RevisionSpec, Rng, ScalingMetric};

use super::TuneError;
use crate::scenario::{Path, Scaler, Scenario, Settings};
use crate::sweep::{Knob, Written, shown};

/// Settings around a base, and the values they may take. The base's own value of each is among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    base: Written,
    knobs: Vec<Knob>,
    /// For each knob, which of its values is the base's.
    defaults: GridPoint,
}

/// For each knob, which of its values.
pub(super) type GridPoint = Vec<u16>;

impl Space {
    /// The settings given, with the values given; the base's own values come first where they are not among them.
    pub fn new(base: Written, knobs: Vec<Knob>) -> Result<Self, TuneError> {
        // A grid of one value each refuses what a grid refuses.
        crate::sweep::Grid::new(base.clone(), knobs.clone()).or_else(|error| match error {
            crate::sweep::GridError::TooLarge(_) => Ok(crate::sweep::Grid::new(base.clone(), Vec::new())?),
            error => Err(error),
        })?;
        let with_default = |knob: Knob| {
            if knob.values().contains(&None) {
                return knob;
            }
            let values = [&[None], knob.values()].concat();
            Knob::new(knob.name(), values).expect("its name is known and no value comes twice")
        };
        let knobs: Vec<Knob> = knobs.into_iter().map(with_default).collect();
        let place = |knob: &Knob| knob.values().iter().position(Option::is_none);
        let defaults = knobs.iter().map(|knob| place(knob).expect("it was put there") as u16).collect();
        Ok(Space { base, knobs, defaults })
    }

    /// The annotations that make a difference in `scenario`, with values from one end of what is sensible to the
    /// other. Keys of the ConfigMap are not among them, because they would change other services too; nor is
    /// `max-scale`, because a search cannot know what load is still to come.
    pub fn annotations(base: Written, scenario: &Scenario) -> Result<Self, TuneError> {
        let settings = base.resolve("")?;
        let Scaler::Requests(spec) = &settings.scaler else {
            unreachable!("written settings are Knative's");
        };
        let mut knobs = Vec::new();
        for (name, values, current) in DIMENSIONS {
            let applies = match *name {
                "target" => {
                    settings.container_concurrency == ConcurrencyLimit::UNLIMITED
                        || spec.scaling_metric == ScalingMetric::Rps
                }
                "target-burst-capacity" => scenario.platform.path == Path::ByPlan,
                _ => true,
            };
            if applies {
                knobs.push(ordered(name, values, current(spec)));
            }
        }
        Space::new(base, knobs)
    }

    /// The settings as they are written where nothing is changed.
    pub fn base(&self) -> &Written {
        &self.base
    }

    /// The settings that may change.
    pub fn knobs(&self) -> &[Knob] {
        &self.knobs
    }

    /// The settings of a point that are not the base's, by name and value.
    pub(super) fn changes(&self, point: &GridPoint) -> Vec<(&Knob, &str)> {
        let chosen = self.knobs.iter().zip(point).map(|(knob, &at)| (knob, &knob.values()[usize::from(at)]));
        chosen.filter(|(_, value)| value.is_some()).map(|(knob, value)| (knob, shown(value))).collect()
    }

    pub(super) fn written(&self, point: &GridPoint) -> Written {
        let changes = self.changes(point).into_iter();
        changes.fold(self.base.clone(), |written, (knob, value)| written.with(knob.place(), value))
    }

    /// `None`: the parsers refuse the combination.
    pub(super) fn settings(&self, point: &GridPoint) -> Option<Settings> {
        self.written(point).resolve(&self.name(point)).ok()
    }

    /// `window=30s min-scale=2`, or `defaults`.
    pub(super) fn name(&self, point: &GridPoint) -> String {
        let changes: Vec<String> =
            self.changes(point).iter().map(|(knob, value)| format!("{}={value}", knob.name())).collect();
        if changes.is_empty() { "defaults".to_owned() } else { changes.join(" ") }
    }

    pub(super) fn defaults(&self) -> &GridPoint {
        &self.defaults
    }

    /// `count` points spread over the space: each value of a knob as often as another (a Latin hypercube), except
    /// that every knob is left alone in half of them. Most good settings change few things.
    pub(super) fn spread(&self, count: usize, rng: &mut Rng) -> Vec<GridPoint> {
        let mut points = vec![self.defaults.clone(); count];
        let mut order: Vec<usize> = (0..count).collect();
        for (at, knob) in self.knobs.iter().enumerate() {
            rng.shuffle(&mut order);
            let values = knob.values().len();
            for (rank, &point) in order[..count / 2].iter().enumerate() {
                points[point][at] = (rank * values / (count / 2).max(1)) as u16;
            }
        }
        points
    }

    /// All points that differ from this in one knob by one step.
    pub(super) fn neighbours(&self, point: &GridPoint) -> Vec<GridPoint> {
        let moved = |at: usize, value: u16| {
            let mut neighbour = point.clone();
            neighbour[at] = value;
            neighbour
        };
        let mut neighbours = Vec::new();
        for (at, (knob, &value)) in self.knobs.iter().zip(point).enumerate() {
            if value > 0 {
                neighbours.push(moved(at, value - 1));
            }
            if usize::from(value) + 1 < knob.values().len() {
                neighbours.push(moved(at, value + 1));
            }
        }
        neighbours
    }

    /// All points that differ from the base in one knob.
    pub(super) fn one_at_a_time(&self) -> Vec<GridPoint> {
        let all = |(at, knob): (usize, &Knob)| {
            let values = 0..knob.values().len() as u16;
            let changed = values.filter(move |&value| value != self.defaults[at]);
            changed
                .map(move |value| {
                    let mut point = self.defaults.clone();
                    point[at] = value;
                    point
                })
                .collect::<Vec<_>>()
        };
        self.knobs.iter().enumerate().flat_map(all).collect()
    }
}

/// The base's value takes its place in the order, so that a step from it leads to what is next to it.
fn ordered(name: &str, values: &[(f64, &str)], current: f64) -> Knob {
    let below = values.iter().take_while(|(value, _)| *value < current);
    let above = values.iter().skip_while(|(value, _)| *value <= current);
    let text = |(_, text): &(f64, &str)| Some((*text).to_owned());
    let values = below.map(text).chain([None]).chain(above.map(text)).collect();
    Knob::new(name, values).expect("the table knows its settings")
}

/// A setting, its values in rising order, and which of them is in force.
type Dimension = (&'static str, &'static [(f64, &'static str)], fn(&RevisionSpec) -> f64);

/// The default space of [`Space::annotations`]. Durations in seconds.
const DIMENSIONS: &[Dimension] = &[
    ("window", WINDOWS, |spec| spec.stable_window.as_secs_f64()),
    ("target", TARGETS, |spec| spec.total),
    ("target-utilization-percentage", UTILIZATIONS, |spec| 100.0 * spec.target / spec.total),
    ("panic-window-percentage", PANIC_WINDOWS, |spec| {
        100.0 * spec.panic_window.as_secs_f64() / spec.stable_window.as_secs_f64()
    }),
    ("panic-threshold-percentage", PANIC_THRESHOLDS, |spec| 100.0 * spec.panic_threshold),
    ("scale-down-delay", DELAYS, |spec| spec.scale_down_delay.as_secs_f64()),
    ("scale-to-zero-pod-retention-period", DELAYS, |spec| spec.pod_retention.as_secs_f64()),
    ("min-scale", MIN_SCALES, |spec| f64::from(spec.min_scale)),
    ("activation-scale", ACTIVATION_SCALES, |spec| f64::from(spec.activation_scale.unwrap_or(1))),
    ("metric-aggregation-algorithm", AGGREGATIONS, |spec| match spec.aggregation {
        Aggregation::Linear => 0.0,
        Aggregation::WeightedExponential => 1.0,
    }),
    ("target-burst-capacity", BURST_CAPACITIES, |_| 0.5),
];

const WINDOWS: &[(f64, &str)] = &[
    (6.0, "6s"),
    (10.0, "10s"),
    (15.0, "15s"),
    (20.0, "20s"),
    (30.0, "30s"),
    (45.0, "45s"),
    (60.0, "60s"),
    (90.0, "90s"),
    (120.0, "2m"),
    (180.0, "3m"),
    (300.0, "5m"),
    (600.0, "10m"),
];
const TARGETS: &[(f64, &str)] = &[
    (1.0, "1"),
    (2.0, "2"),
    (3.0, "3"),
    (4.0, "4"),
    (5.0, "5"),
    (7.0, "7"),
    (10.0, "10"),
    (15.0, "15"),
    (20.0, "20"),
    (30.0, "30"),
    (50.0, "50"),
    (70.0, "70"),
    (100.0, "100"),
    (150.0, "150"),
    (200.0, "200"),
];
const UTILIZATIONS: &[(f64, &str)] = &[
    (20.0, "20"),
    (30.0, "30"),
    (40.0, "40"),
    (50.0, "50"),
    (60.0, "60"),
    (70.0, "70"),
    (80.0, "80"),
    (90.0, "90"),
    (100.0, "100"),
];
const PANIC_WINDOWS: &[(f64, &str)] =
    &[(5.0, "5"), (10.0, "10"), (20.0, "20"), (30.0, "30"), (50.0, "50"), (100.0, "100")];
const PANIC_THRESHOLDS: &[(f64, &str)] = &[
    (110.0, "110"),
    (130.0, "130"),
    (150.0, "150"),
    (200.0, "200"),
    (300.0, "300"),
    (500.0, "500"),
    (1_000.0, "1000"),
];
const DELAYS: &[(f64, &str)] = &[
    (0.0, "0s"),
    (15.0, "15s"),
    (30.0, "30s"),
    (60.0, "1m"),
    (120.0, "2m"),
    (240.0, "4m"),
    (480.0, "8m"),
    (900.0, "15m"),
];
const MIN_SCALES: &[(f64, &str)] = &[(0.0, "0"), (1.0, "1"), (2.0, "2"), (3.0, "3"), (5.0, "5"), (8.0, "8")];
const ACTIVATION_SCALES: &[(f64, &str)] = &[(2.0, "2"), (3.0, "3"), (5.0, "5"), (8.0, "8")];
const AGGREGATIONS: &[(f64, &str)] = &[(0.0, "linear"), (1.0, "weighted-exponential")];
/// Always in the path, or never; what is written stands between them.
const BURST_CAPACITIES: &[(f64, &str)] = &[(0.0, "-1"), (1.0, "0")];
