//! A search for settings: over what Knative's algorithm can be told, honest about what it found.
//!
//! Settings are chosen on one part of the load and judged on another that the search has not seen. They are recommended
//! only if they beat the defaults there beyond noise, and do no harm to a load without bursts; otherwise the answer is
//! to keep the defaults.
//!
//! | file | what it does |
//! |---|---|
//! | `space.rs` | which settings may change, and to what |
//! | `load.rs` | the part to learn from, the part to judge on, the smooth load |
//! | `search.rs` | the search itself |
//! | `judge.rs` | the verdict on the held-out part |
//! | `explain.rs` | the reason, the patch, and which settings mattered |

mod explain;
mod judge;
mod load;
mod search;
mod space;

use pilotlight_config::Faults;
use serde::Serialize;

use crate::assert::Expression;
use crate::outcome::{Better, Metric};
use crate::parallel::Workers;
use crate::report;
use crate::scenario::Scenario;
use crate::sweep::GridError;
use search::{KEPT_FRACTION, Standing, TuneSearch};

pub use judge::{Judgement, Smooth};
pub use space::Space;

/// The goal of a search. The default is both: less `pod-seconds` and less `wait-p95`.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The metric that is the cost. Less is better.
    pub cost: String,
    /// The metric that is paid for. Less is better.
    pub latency: String,
    /// The objective that must hold; then the cost is to be as low as it can be. `None`: neither axis may get worse, and
    /// what counts is the gain on both together.
    pub slo: Option<Expression>,
}

/// How hard to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Settings tried at first, spread over the space.
    pub points: usize,
    /// Settings whose neighbours are tried, and that reach the final.
    pub finalists: usize,
    /// Rounds of trying neighbours.
    pub rounds: usize,
    /// Worlds the finalists are tried in: the load as it is and others like it.
    pub worlds: u32,
    /// Trials on the held-out part.
    pub trials: u32,
}

/// How to tune.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The goal.
    pub goal: Goal,
    /// The share of the load, from its beginning, that settings are chosen on.
    pub training_fraction: f64,
    /// How hard to search.
    pub effort: Effort,
    /// The seed of all randomness.
    pub seed: u64,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tuned {
    /// Whether to use [`Tuned::settings`], or to keep the defaults.
    pub is_recommended: bool,
    /// The choice: settings by name and value that differ from the base's. Empty if nothing is better than that.
    pub settings: Vec<(String, String)>,
    /// How the choice did on the part of the load it was not chosen on; `None` if there is none.
    pub judgement: Option<Judgement>,
    /// The contents of the report: the front, the reason, the patch, which settings mattered.
    pub report: report::Tuning,
    /// Runs that were simulated.
    pub runs: usize,
    /// The seed of all randomness.
    pub seed: u64,
}

/// Why there was no search.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TuneError {
    /// A metric that is not to be made small.
    #[error("{0:?} is not a metric of which less is better, such as pod-seconds or wait-p95")]
    Goal(String),
    /// Parts that are none.
    #[error("the training part is {0} of the load; it must be between 0.1 and 0.9")]
    Parts(f64),
    /// A search that was stopped before there was anything to say.
    #[error("stopped before anything was tried")]
    Stopped,
    /// Settings that are refused.
    #[error(transparent)]
    Settings(#[from] GridError),
}

impl From<Faults> for TuneError {
    fn from(faults: Faults) -> Self {
        TuneError::Settings(faults.into())
    }
}

impl Default for Goal {
    fn default() -> Self {
        Goal { cost: "pod-seconds".to_owned(), latency: "wait-p95".to_owned(), slo: None }
    }
}

impl Default for Effort {
    fn default() -> Self {
        Effort { points: 600, finalists: 16, rounds: 8, worlds: 12, trials: 40 }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Plan { goal: Goal::default(), training_fraction: 0.5, effort: Effort::default(), seed: 1 }
    }
}

/// Searches `space` for settings that serve the plan's goal better than the base's under the load of `scenario`. If the
/// workers are stopped, the best so far is told, and recommended by nobody.
pub fn tune(
    scenario: &Scenario,
    space: &Space,
    plan: &Plan,
    workers: &mut Workers<'_>,
) -> Result<Tuned, TuneError> {
    plan.check()?;
    let Plan { goal, effort, seed, .. } = plan;
    let parts = load::Parts::of(scenario, plan.training_fraction, *seed);
    let worlds = load::worlds(&parts.training, *seed, effort.worlds.max(1));
    let mut search = TuneSearch::new(space, goal, &worlds, &parts.smooth);
    let choice = search.run(*effort, *seed, workers);
    if !search.has_begun() {
        return Err(TuneError::Stopped);
    }
    let judgement = if choice == *space.defaults() || workers.is_stopped() {
        None
    } else {
        Some(judge::judge(&parts, space, &choice, plan, &search, workers))
    };
    let is_recommended = judgement.as_ref().is_some_and(|judgement| judgement.is_recommended);
    let report = explain::report(&parts, space, &choice, plan, &search, judgement.as_ref(), workers);
    let settings = space.changes(&choice).into_iter();
    Ok(Tuned {
        is_recommended,
        settings: settings.map(|(knob, value)| (knob.name().to_owned(), value.to_owned())).collect(),
        judgement,
        report,
        runs: search.runs,
        seed: *seed,
    })
}

impl Plan {
    fn check(&self) -> Result<(), TuneError> {
        for metric in [&self.goal.cost, &self.goal.latency] {
            if Metric::named(metric).is_none_or(|metric| metric.better != Better::Lower) {
                return Err(TuneError::Goal(metric.clone()));
            }
        }
        if !(0.1..=0.9).contains(&self.training_fraction) {
            return Err(TuneError::Parts(self.training_fraction));
        }
        Ok(())
    }
}

impl Goal {
    /// The latency as clients feel it, of which the goal's may be a part. On a smooth load hardly anybody waits, and
    /// a share of next to nothing says nothing.
    fn felt_latency(&self) -> &str {
        match self.latency.split_once('-') {
            Some(("wait" | "queue" | "cold", quantile)) => quantile,
            _ => &self.latency,
        }
    }

    /// How well a standing serves the goal; above 0 if better than the defaults do.
    fn merit(&self, standing: &Standing) -> f64 {
        let (cheaper, faster) = standing.gains();
        if self.slo.is_some() && standing.kept_fraction < KEPT_FRACTION {
            // Not good enough, but the way there.
            return standing.kept_fraction - 1.0;
        }
        if self.slo.is_some() {
            // Outcomes that keep the objective come before those that do not; then the cheaper.
            return 1.0 / (1.0 - cheaper).max(f64::MIN_POSITIVE);
        }
        let (worst, best) = (cheaper.min(faster), cheaper.max(faster));
        if worst > 0.0 {
            // The area between the defaults and this: no trade of one axis for the other wins twice.
            1.0 + cheaper * faster
        } else if worst > -EVEN {
            best
        } else {
            worst
        }
    }
}

/// The change that counts as no worse, as a share of the defaults: seeds differ by more.
const EVEN: f64 = 1e-9;
