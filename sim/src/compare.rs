//! Several settings under the same load, and which differences are more than chance.
//!
//! Every trial has a seed, and under the same seed all settings meet the same requests with the same work. What is
//! compared is therefore the difference within a trial: most of the noise is common to both sides and cancels.
//!
//! A seed varies everything random. A trace is not: its arrivals are what they were, and trials differ in start-up
//! times and drawn service times only, so that intervals say nothing of another day's load ([`Comparison::noise`]
//! tells). [`Trials::blocks`] lets the arrivals vary too: each trial's load is put together from pieces of the
//! trace, drawn at random.

mod estimate;
mod resample;

use std::time::Duration;

use serde::Serialize;

use crate::engine::{Run, simulate};
use crate::outcome::{Better, Metric, Outcome};
use crate::parallel::Workers;
use crate::scenario::{Load, Scenario, Settings};

pub use estimate::Interval;
pub use resample::resample;

/// How often everything is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trials {
    /// The seed of the first trial; each further one has the next.
    pub first_seed: u64,
    /// How many there are. One says nothing about noise.
    pub count: u32,
    /// The length of the pieces that loads are put together from; `None`: the load stays as it is. Pieces are to be
    /// longer than what is remembered of the load (windows, retention), and there are to be many of them.
    pub blocks: Option<Duration>,
}

/// The source of differences between trials, and so what an interval speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Unknown noise: there is one trial only.
    None,
    /// Arrivals, work and start-up times: another load of the same kind.
    Everything,
    /// Work and start-up times, as far as they are drawn; the arrivals are those of a trace.
    AllButArrivals,
    /// All randomness; arrivals by putting pieces of a trace together anew.
    Blocks,
}

/// Several settings, and what came of them in the same trials. The first are the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The trials.
    pub trials: Trials,
    /// The source of differences between the trials.
    pub noise: Noise,
    /// The settings, in the order they were given.
    pub contenders: Vec<Contender>,
}

/// Settings, and what came of them in each trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contender {
    /// The name of the settings.
    pub name: String,
    /// One outcome for each trial.
    pub outcomes: Vec<Outcome>,
}

/// A metric of a contender beside the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The baseline's.
    pub baseline: Interval,
    /// The contender's.
    pub contender: Interval,
    /// Contender less baseline, trial by trial.
    pub change: Interval,
    /// The change as a share of the baseline: -0.3 is 30 % less. `None` where the baseline is 0.
    pub relative: Option<Interval>,
    /// The meaning of the difference.
    pub verdict: Verdict,
}

/// The meaning of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The contender is better, beyond noise.
    Better,
    /// The contender is worse, beyond noise.
    Worse,
    /// The contender is different, beyond noise, in a metric of which neither more nor less is better.
    Different,
    /// Chance may have done it, or there was one trial only.
    Noise,
}

/// Simulates each of `settings` in each of `trials`.
///
/// ```
/// use std::time::Duration;
/// use pilotlight_sim::compare::{Trials, Verdict, compare};
/// use pilotlight_sim::parallel::Workers;
/// use pilotlight_sim::scenario::{Load, Scenario, Settings};
/// use pilotlight_sim::traffic::{Process, Traffic};
///
/// let minute = Duration::from_secs(60);
/// let load = Load::Open(Traffic::constant(20.0, minute, Process::Poisson)?);
/// let scenario = Scenario::new(load, minute, Duration::from_millis(100));
/// let settings = [Settings::fixed("two pods", 2, 1), Settings::fixed("four pods", 4, 1)];
/// let trials = Trials { first_seed: 1, count: 5, blocks: None };
/// let comparison = compare(&scenario, &settings, trials, &mut Workers::all());
/// let wait = comparison.difference(1, "wait-p95").unwrap();
/// assert_eq!(wait.verdict, Verdict::Better);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compare(
    scenario: &Scenario,
    settings: &[Settings],
    trials: Trials,
    workers: &mut Workers<'_>,
) -> Comparison {
    let noise = trials.noise(scenario);
    let worlds = trials.worlds(scenario);
    let mut contenders: Vec<Contender> = settings
        .iter()
        .map(|settings| Contender { name: settings.name.clone(), outcomes: Vec::with_capacity(worlds.len()) })
        .collect();
    workers.for_each(
        "comparing",
        settings.len() * worlds.len(),
        |index| {
            let world = index % worlds.len();
            let World { scenario, seed } = &worlds[world];
            // A timeline of one trial is worth a look; of all of them it would be a library.
            let run = Run { seed: *seed, timeline: world == 0 };
            simulate(scenario, &settings[index / worlds.len()], run)
        },
        |index, outcome| contenders[index / worlds.len()].outcomes.push(outcome),
    );
    Comparison { trials, noise, contenders }
}

/// The scenario and the seed of a trial.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
}

impl Trials {
    /// A number of trials, from the first seed on, with the load as it is.
    pub fn seeds(first_seed: u64, count: u32) -> Self {
        Trials { first_seed, count, blocks: None }
    }

    /// The source of differences between these trials of `scenario`.
    pub fn noise(self, scenario: &Scenario) -> Noise {
        match &scenario.load {
            _ if self.count < 2 => Noise::None,
            Load::Closed(_) => Noise::Everything,
            Load::Open(_) if self.blocks.is_some() => Noise::Blocks,
            Load::Open(traffic) => {
                let arrivals = |seed| traffic.arrivals(seed).map(|arrival| arrival.at);
                let is_trace = arrivals(self.first_seed).eq(arrivals(self.first_seed.wrapping_add(1)));
                if is_trace { Noise::AllButArrivals } else { Noise::Everything }
            }
        }
    }

    pub(crate) fn worlds(self, scenario: &Scenario) -> Vec<World> {
        let seeds = (0..self.count).map(|trial| self.first_seed.wrapping_add(u64::from(trial)));
        let world = |seed| {
            let mut scenario = scenario.clone();
            if let (Load::Open(traffic), Some(block)) = (&mut scenario.load, self.blocks) {
                *traffic = resample(traffic, block, seed);
            }
            World { scenario, seed }
        };
        seeds.map(world).collect()
    }
}

impl Comparison {
    /// The metric in the trials of one contender; `None` if it was not measured.
    pub fn estimate(&self, contender: usize, metric: &str) -> Option<Interval> {
        Some(self.interval(&self.contenders[contender].values(metric)?))
    }

    /// The metric of a contender beside the baseline's; `None` if it was not measured.
    pub fn difference(&self, contender: usize, metric: &str) -> Option<Difference> {
        let baseline = self.contenders[0].values(metric)?;
        let values = self.contenders[contender].values(metric)?;
        let changes: Vec<f64> = values.iter().zip(&baseline).map(|(value, base)| value - base).collect();
        let change = self.interval(&changes);
        let better = Metric::named(metric).map_or(Better::Neither, |metric| metric.better);
        let verdict = match (better, change.sign()) {
            (_, None) => Verdict::Noise,
            (Better::Neither, Some(_)) => Verdict::Different,
            (Better::Lower, Some(sign)) if sign < 0.0 => Verdict::Better,
            (Better::Higher, Some(sign)) if sign > 0.0 => Verdict::Better,
            (Better::Lower | Better::Higher, Some(_)) => Verdict::Worse,
        };
        let relative = self.relative(&values, &baseline);
        let (baseline, contender) = (self.interval(&baseline), self.interval(&values));
        Some(Difference { baseline, contender, change, relative, verdict })
    }

    fn relative(&self, values: &[f64], baseline: &[f64]) -> Option<Interval> {
        let base = estimate::mean(baseline);
        let changes: Vec<f64> = values.iter().zip(baseline).map(|(value, base)| value - base).collect();
        let in_all = (base != 0.0).then(|| self.interval(&changes).scaled(1.0 / base.abs()))?;
        // Resampled loads differ a lot: a great saving on a busy one is no share of what a quiet one costs.
        if self.noise != Noise::Blocks || baseline.iter().any(|&base| base <= 0.0) {
            return Some(in_all);
        }
        let shares: Vec<f64> = changes.iter().zip(baseline).map(|(change, base)| change / base).collect();
        Some(Interval { range: self.interval(&shares).range, ..in_all })
    }

    fn interval(&self, values: &[f64]) -> Interval {
        match self.noise {
            Noise::None => Interval::point(values[0]),
            Noise::Everything | Noise::AllButArrivals => Interval::of_mean(values),
            Noise::Blocks => Interval::of_resamples(values),
        }
    }
}

impl Contender {
    /// The metric in each trial; `None` if it was not measured, or there was no trial.
    pub fn values(&self, metric: &str) -> Option<Vec<f64>> {
        let values: Option<Vec<f64>> = self.outcomes.iter().map(|outcome| outcome.metric(metric)).collect();
        values.filter(|values| !values.is_empty())
    }
}
