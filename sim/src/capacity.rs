//! How much load do these pods carry, and how many pods does this load need: bisection, several seeds at each step.
//!
//! A load is carried if an objective (`p95<1s`) is kept in nearly all trials. The answer comes with what was measured
//! at it and just above it, and with a check that nothing below fails and nothing above passes: where that is not so
//! (a cache that warms up, an autoscaler that is slow at little load), one number is not the answer.

use pilotlight_core::Time;
use serde::Serialize;

use crate::assert::Expression;
use crate::compare::{Interval, Trials};
use crate::engine::{Run, simulate};
use crate::outcome::Outcome;
use crate::parallel::Workers;
use crate::scenario::{Load, Scenario, Settings, UserStep, Users};

/// The objective, the trials and the precision of a search for capacity.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The objective to keep: `p95<1s && errors==0`.
    pub slo: Expression,
    /// How often it is tried at each step.
    pub trials: Trials,
    /// The share of trials in which the objective must be kept.
    pub sure_fraction: f64,
    /// How close to the border the answer must be, as a share of it. Users and pods are whole anyway.
    pub precision_fraction: f64,
    /// The most that is tried: users, requests a second, or pods.
    pub most: f64,
}

/// The load carried, or the pods needed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The unit of the load.
    pub unit: LoadUnit,
    /// The most load that is carried, or the fewest pods that carry it; `None`: even the least load is too much, or
    /// the most pods too few.
    pub value: Option<f64>,
    /// The trial at the answer.
    pub at: Option<LoadTrial>,
    /// The trial just beyond, where the objective is not kept any more; `None` if the answer is the most, or
    /// the least, that was tried: the border lies beyond.
    pub beyond: Option<LoadTrial>,
    /// Whether everything that was tried on the one side kept the objective, and nothing on the other.
    pub is_monotonic: bool,
    /// Every trial, in rising order of load.
    pub steps: Vec<LoadTrial>,
}

/// The unit of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadUnit {
    /// Users of a closed loop.
    Users,
    /// Requests a second, on average, of an open loop.
    RequestsPerSecond,
    /// Pods.
    Pods,
}

/// One load, or one number of pods, that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadTrial {
    /// How much of it.
    pub value: f64,
    /// In how many of the trials the objective was kept.
    pub kept: u32,
    /// Whether that is often enough.
    pub passes: bool,
    /// The outcome of each seed.
    #[serde(skip)]
    pub outcomes: Vec<Outcome>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CapacityError {
    /// A load of nothing cannot be made more or less.
    #[error("the load has no requests")]
    NoLoad,
    /// A number that makes no sense.
    #[error("{field} is {value}, and not {rule}")]
    Range {
        /// The field of the question.
        field: &'static str,
        /// The value as it was given.
        value: f64,
        /// The legal values.
        rule: &'static str,
    },
}

/// How many users, or requests a second, `settings` carry. A closed loop is tried with another number of users, all
/// there from the beginning; an open load with more or fewer requests at every time.
///
/// ```
/// use std::time::Duration;
/// use pilotlight_sim::assert::Expression;
/// use pilotlight_sim::capacity::{Question, load_carried};
/// use pilotlight_sim::compare::Trials;
/// use pilotlight_sim::parallel::Workers;
/// use pilotlight_sim::scenario::{Load, Scenario, Settings};
/// use pilotlight_sim::traffic::{Process, Traffic};
///
/// // One pod, one request of 100 ms at a time, evenly spaced: 10 a second, and not one more.
/// let minute = Duration::from_secs(60);
/// let load = Load::Open(Traffic::constant(1.0, minute, Process::Uniform)?);
/// let scenario = Scenario::new(load, minute, Duration::from_millis(100));
/// let question = Question { trials: Trials::seeds(1, 2), ..Question::new(Expression::parse("max<150ms")?, 100.0) };
/// let answer = load_carried(&scenario, &Settings::fixed("one pod", 1, 1), &question, &mut Workers::all())?;
/// let carried = answer.value.ok_or("nothing is carried")?;
/// assert!((9.8..10.1).contains(&carried), "{carried}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load_carried(
    scenario: &Scenario,
    settings: &Settings,
    question: &Question,
    workers: &mut Workers<'_>,
) -> Result<Answer, CapacityError> {
    question.check()?;
    let (unit, mean) = match &scenario.load {
        Load::Closed(_) => (LoadUnit::Users, 1.0),
        Load::Open(_) => (LoadUnit::RequestsPerSecond, mean_rate(scenario, question.trials.first_seed)?),
    };
    let mut search = BorderSearch { unit, question, steps: Vec::new() };
    search.border(true, |load| {
        let scenario = with_load(scenario, load, mean);
        question.step(load, &scenario, settings, workers)
    });
    Ok(search.answer(true))
}

/// How few pods carry the load: `settings` makes the settings for a number of pods, such as [`Settings::fixed`].
pub fn pods_needed(
    scenario: &Scenario,
    settings: impl Fn(u32) -> Settings,
    question: &Question,
    workers: &mut Workers<'_>,
) -> Result<Answer, CapacityError> {
    question.check()?;
    let mut search = BorderSearch { unit: LoadUnit::Pods, question, steps: Vec::new() };
    search.border(false, |pods| question.step(pods, scenario, &settings(pods as u32), workers));
    Ok(search.answer(false))
}

impl Question {
    /// With five seeds, of which all must keep the objective, to 1 %.
    pub fn new(slo: Expression, most: f64) -> Self {
        Question { slo, trials: Trials::seeds(1, 5), sure_fraction: 1.0, precision_fraction: 0.01, most }
    }

    fn check(&self) -> Result<(), CapacityError> {
        let range = |field, value, rule| Err(CapacityError::Range { field, value, rule });
        if !(self.most >= 1.0 && self.most <= f64::from(u32::MAX)) {
            return range("most", self.most, "between 1 and 4294967295");
        }
        if !(self.sure_fraction > 0.0 && self.sure_fraction <= 1.0) {
            return range("sure_fraction", self.sure_fraction, "above 0 and up to 1");
        }
        if !(1e-6..=0.5).contains(&self.precision_fraction) {
            return range("precision_fraction", self.precision_fraction, "between 0.000001 and 0.5");
        }
        if self.trials.count == 0 {
            return range("trials", 0.0, "at least 1");
        }
        Ok(())
    }

    fn step(
        &self,
        value: f64,
        scenario: &Scenario,
        settings: &Settings,
        workers: &mut Workers<'_>,
    ) -> LoadTrial {
        let worlds = self.trials.worlds(scenario);
        let outcomes = workers.map("loading", &worlds, |_, world| {
            simulate(&world.scenario, settings, Run { seed: world.seed, timeline: false })
        });
        // A run without requests keeps nothing.
        let keeps = |outcome: &&Outcome| outcome.requests > 0 && self.slo.evaluate(outcome).holds;
        let kept = outcomes.iter().filter(keeps).count();
        let passes = kept as f64 >= self.sure_fraction * outcomes.len() as f64;
        LoadTrial { value, kept: kept as u32, passes, outcomes }
    }
}

impl LoadTrial {
    /// A metric over the trials; `None` if it was not measured.
    pub fn metric(&self, name: &str) -> Option<Interval> {
        let values: Option<Vec<f64>> = self.outcomes.iter().map(|outcome| outcome.metric(name)).collect();
        values.filter(|values| !values.is_empty()).map(|values| Interval::of_mean(&values))
    }
}

struct BorderSearch<'a> {
    unit: LoadUnit,
    question: &'a Question,
    steps: Vec<LoadTrial>,
}

impl BorderSearch<'_> {
    /// Finds where `run` begins to pass, or ceases to. `passes_below`: little of it passes, much does not.
    fn border(&mut self, passes_below: bool, mut run: impl FnMut(f64) -> LoadTrial) {
        let most = self.question.most;
        let mut below = None;
        let mut value = 1.0_f64.min(most);
        // Doubled until it is on the other side; the search ends at what may be tried.
        let mut above = loop {
            if self.try_at(value, &mut run) != passes_below {
                break value;
            }
            below = Some(value);
            if value >= most {
                return;
            }
            value = (2.0 * value).min(most);
        };
        // Less than one request a second is a load too; less than one user, or pod, is none.
        while below.is_none() && self.unit == LoadUnit::RequestsPerSecond && above > LEAST_RATE {
            let less = above / 2.0;
            if self.try_at(less, &mut run) == passes_below { below = Some(less) } else { above = less }
        }
        let Some(mut below) = below else { return };
        while let Some(between) = self.between(below, above) {
            if self.try_at(between, &mut run) == passes_below { below = between } else { above = between }
        }
        // Away from the border nothing must be otherwise.
        for share in PROBES {
            let value = self.rounded(below * share);
            if value > 0.0 && value <= most && self.steps.iter().all(|step| step.value != value) {
                self.try_at(value, &mut run);
            }
        }
    }

    fn try_at(&mut self, value: f64, run: &mut impl FnMut(f64) -> LoadTrial) -> bool {
        let step = run(value);
        let passes = step.passes;
        self.steps.push(step);
        passes
    }

    /// A value to try next; `None` if the two are close enough.
    fn between(&self, below: f64, above: f64) -> Option<f64> {
        if self.unit == LoadUnit::RequestsPerSecond
            && above - below <= self.question.precision_fraction * below
        {
            return None;
        }
        let between = self.rounded(0.5 * (below + above));
        (below < between && between < above).then_some(between)
    }

    fn rounded(&self, value: f64) -> f64 {
        if self.unit == LoadUnit::RequestsPerSecond { value } else { value.floor() }
    }

    fn answer(mut self, passes_below: bool) -> Answer {
        self.steps.sort_by(|a, b| a.value.total_cmp(&b.value));
        let steps = self.steps;
        // Loads pass up to the first that fails (or from the last that fails), whatever passes beyond.
        let border = if passes_below {
            steps.iter().position(|step| !step.passes).unwrap_or(steps.len())
        } else {
            steps.iter().rposition(|step| !step.passes).map_or(0, |last| last + 1)
        };
        let (inner, outer) = if passes_below {
            (border.checked_sub(1), Some(border))
        } else {
            (Some(border), border.checked_sub(1))
        };
        let step = |at: Option<usize>| at.and_then(|at| steps.get(at)).cloned();
        let is_monotonic =
            steps.iter().enumerate().all(|(at, step)| step.passes == ((at < border) == passes_below));
        let (at, beyond) = (step(inner), step(outer));
        Answer { unit: self.unit, value: at.as_ref().map(|step| step.value), at, beyond, is_monotonic, steps }
    }
}

/// Requests a second, on average.
fn mean_rate(scenario: &Scenario, seed: u64) -> Result<f64, CapacityError> {
    let Load::Open(traffic) = &scenario.load else { return Err(CapacityError::NoLoad) };
    let end = Time::EPOCH + scenario.duration;
    let requests = traffic.arrivals(seed).take_while(|arrival| arrival.at < end).count();
    let rate = requests as f64 / scenario.duration.as_secs_f64();
    if requests == 0 { Err(CapacityError::NoLoad) } else { Ok(rate) }
}

/// A copy of the scenario with so many users, or requests a second.
fn with_load(scenario: &Scenario, load: f64, mean: f64) -> Scenario {
    let load = match &scenario.load {
        Load::Open(traffic) => Load::Open(traffic.scale(load / mean)),
        Load::Closed(users) => {
            let spawn_rate = users.steps.first().and_then(|step| step.spawn_rate);
            let step = UserStep { at: Time::EPOCH, users: load as u32, spawn_rate };
            Load::Closed(Users { steps: vec![step], think: users.think.clone() })
        }
    };
    Scenario { load, ..scenario.clone() }
}

/// A load too small to speak of, in requests a second.
const LEAST_RATE: f64 = 1e-3;

/// Shares of the answer at which the search looks again.
const PROBES: [f64; 5] = [0.25, 0.6, 0.85, 1.15, 1.5];
