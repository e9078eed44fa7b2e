//! The search: many settings briefly, the best of them thoroughly.
//!
//! First settings spread over the whole space, each in two worlds; the better part of them in six. Then, round after
//! round, the neighbours of the best, until none of them is better. The finalists are tried in all worlds. Everything
//! is compared with the defaults in the same worlds: most of the noise is common to both.

use std::collections::BTreeMap;

use pilotlight_core::Rng;

use super::space::{GridPoint, Space};
use super::{Effort, Goal};
use crate::compare::World;
use crate::engine::{Run, simulate};
use crate::outcome::Outcome;
use crate::parallel::Workers;
use crate::scenario::Settings;

/// The points tried so far, and how they did.
pub(super) struct TuneSearch<'a> {
    space: &'a Space,
    goal: &'a Goal,
    worlds: &'a [World],
    smooth: &'a [World],
    tried: BTreeMap<GridPoint, Tried>,
    pub(super) runs: usize,
}

/// How one point went, world by world.
struct Tried {
    settings: Settings,
    trials: Vec<Trial>,
    smooth: Vec<Trial>,
}

/// One run to do.
struct Job<'a> {
    point: &'a GridPoint,
    world: &'a World,
    settings: &'a Settings,
    is_smooth: bool,
}

/// One run, as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct Trial {
    cost: f64,
    latency: f64,
    keeps_slo: bool,
    errors: f64,
    requests: f64,
}

/// How a point stands to the defaults, in the worlds it was tried in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// As shares of what the defaults have: 0.7 is 30 % less.
    pub(super) cost: f64,
    pub(super) latency: f64,
    /// Cost and latency, a standard error to the worse.
    pub(super) cautious_cost: f64,
    pub(super) cautious_latency: f64,
    /// The share of worlds in which it keeps the objective; 1 if there is none.
    pub(super) kept_fraction: f64,
    /// Whether it fails no more requests, and does no harm to a smooth load.
    pub(super) is_harmless: bool,
}

impl<'a> TuneSearch<'a> {
    pub(super) fn new(space: &'a Space, goal: &'a Goal, worlds: &'a [World], smooth: &'a [World]) -> Self {
        TuneSearch { space, goal, worlds, smooth, tried: BTreeMap::new(), runs: 0 }
    }

    /// Searches, and says which point is best; the defaults, if nothing is better.
    pub(super) fn run(&mut self, effort: Effort, seed: u64, workers: &mut Workers<'_>) -> GridPoint {
        let all = self.worlds.len();
        let (few, some) = (2.min(all), 6.min(all));
        self.evaluate("trying", vec![self.space.defaults().clone()], all, workers);
        let mut first = self.space.one_at_a_time();
        first.extend(self.space.spread(effort.points, &mut Rng::new(seed)));
        self.evaluate("trying", first, few, workers);
        self.evaluate("trying again", self.best(effort.points / 4, few), some, workers);
        for _ in 0..effort.rounds {
            let best = self.best(effort.finalists, some);
            self.evaluate("refining", self.around(&best), some, workers);
            if self.best(effort.finalists, some) == best {
                break;
            }
        }
        // The best of a few worlds are flattered: more than are wanted have to prove themselves in all.
        self.evaluate("finalists", self.best(3 * effort.finalists, some), all, workers);
        for _ in 0..effort.rounds {
            let winner = self.winner(all);
            self.evaluate("finalists", self.around(std::slice::from_ref(&winner)), all, workers);
            if self.winner(all) == winner {
                break;
            }
        }
        let winner = self.winner(all);
        let winner = self.simplify(winner, workers);
        if workers.is_stopped() { self.best_so_far() } else { winner }
    }

    /// Whether the defaults were tried in all worlds: everything is held against them.
    pub(super) fn has_begun(&self) -> bool {
        self.tried[self.space.defaults()].trials.len() == self.worlds.len()
    }

    /// How many worlds a point was tried in, and how many there are.
    pub(super) fn worlds_of(&self, point: &GridPoint) -> (usize, usize) {
        (self.tried.get(point).map_or(0, |tried| tried.trials.len()), self.worlds.len())
    }

    /// The best point of a search that was stopped: of those that were tried in most worlds, if any is better than the
    /// defaults.
    fn best_so_far(&self) -> GridPoint {
        let tried = (1..=self.worlds.len()).rev().map(|worlds| self.winner(worlds));
        tried
            .into_iter()
            .find(|winner| winner != self.space.defaults())
            .unwrap_or(self.space.defaults().clone())
    }

    /// Leaves alone again what makes no difference: every setting that is changed has to be understood by somebody.
    fn simplify(&mut self, mut point: GridPoint, workers: &mut Workers<'_>) -> GridPoint {
        for at in 0..point.len() {
            let mut simpler = point.clone();
            simpler[at] = self.space.defaults()[at];
            if simpler == point {
                continue;
            }
            self.evaluate("simplifying", vec![simpler.clone()], self.worlds.len(), workers);
            let (Some(with), Some(without)) = (self.standing(&point), self.standing(&simpler)) else {
                continue;
            };
            let is_as_good = without.cost <= with.cost + TELLING && without.latency <= with.latency + TELLING;
            if without.is_harmless
                && without.kept_fraction >= with.kept_fraction.min(KEPT_FRACTION)
                && is_as_good
            {
                point = simpler;
            }
        }
        // The point without each of the changes that are left shows what the change is good for.
        let without = (0..point.len()).map(|at| {
            let mut simpler = point.clone();
            simpler[at] = self.space.defaults()[at];
            simpler
        });
        self.evaluate("simplifying", without.collect(), self.worlds.len(), workers);
        point
    }

    fn around(&self, points: &[GridPoint]) -> Vec<GridPoint> {
        points.iter().flat_map(|point| self.space.neighbours(point)).collect()
    }

    /// Runs what has not run yet of `points` in the first `worlds`, and in its share of the smooth ones.
    fn evaluate(
        &mut self,
        stage: &'static str,
        mut points: Vec<GridPoint>,
        worlds: usize,
        workers: &mut Workers<'_>,
    ) {
        points.sort_unstable();
        points.dedup();
        for point in &points {
            if !self.tried.contains_key(point)
                && let Some(settings) = self.space.settings(point)
            {
                self.tried.insert(point.clone(), Tried { settings, trials: Vec::new(), smooth: Vec::new() });
            }
        }
        points.retain(|point| self.tried.contains_key(point));
        // The smooth loads are as many in proportion, and at least one.
        let smooth = (worlds * self.smooth.len()).div_ceil(self.worlds.len());
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for point in &points {
            let Tried { settings, trials, smooth: done } = &self.tried[point];
            let job = |is_smooth| move |world| Job { point, world, settings, is_smooth };
            jobs.extend(self.smooth[..smooth].iter().skip(done.len()).map(job(true)));
            jobs.extend(self.worlds[..worlds].iter().skip(trials.len()).map(job(false)));
        }
        let trials = workers.map_until_stopped(stage, &jobs, |_, job| {
            let run = Run { seed: job.world.seed, timeline: false };
            let latency = if job.is_smooth { self.goal.felt_latency() } else { &self.goal.latency };
            Trial::of(&simulate(&job.world.scenario, job.settings, run), self.goal, latency)
        });
        let places: Vec<(GridPoint, bool)> =
            jobs.iter().map(|job| (job.point.clone(), job.is_smooth)).collect();
        self.runs += trials.len();
        for ((point, is_smooth), trial) in places.into_iter().zip(trials) {
            let tried = self.tried.get_mut(&point).expect("it was put there");
            if is_smooth { tried.smooth.push(trial) } else { tried.trials.push(trial) }
        }
        // A search that is stopped leaves some without a trial: nothing is known of them.
        let defaults = self.space.defaults();
        self.tried.retain(|point, tried| !tried.trials.is_empty() || point == defaults);
    }

    /// How a point stands to the defaults; `None` if it was not tried.
    pub(super) fn standing(&self, point: &GridPoint) -> Option<Standing> {
        let tried = self.tried.get(point)?;
        let defaults = &self.tried[self.space.defaults()];
        let (trials, same) = (&tried.trials, defaults.trials.get(..tried.trials.len())?);
        let (cost, cautious_cost) = ratio(trials, same, |trial| trial.cost);
        let (latency, cautious_latency) = ratio(trials, same, |trial| trial.latency);
        let sum = |trials: &[Trial], value: fn(&Trial) -> f64| trials.iter().map(value).sum::<f64>();
        let failed_more = sum(trials, |trial| trial.errors) - sum(same, |trial| trial.errors);
        let keeps = trials.iter().filter(|trial| trial.keeps_slo).count();
        let is_harmless = failed_more <= FEW_FRACTION * sum(trials, |trial| trial.requests)
            && self.does_no_harm(&tried.smooth, defaults.smooth.get(..tried.smooth.len())?);
        let kept_fraction = keeps as f64 / trials.len() as f64;
        Some(Standing { cost, latency, cautious_cost, cautious_latency, kept_fraction, is_harmless })
    }

    /// The best points that were tried in so many worlds at least: of those that are not dominated first those that
    /// serve the goal best, then of the rest.
    fn best(&self, count: usize, worlds: usize) -> Vec<GridPoint> {
        let mut rest = self.distinct(worlds);
        rest.sort_by(|(_, a), (_, b)| self.goal.merit(b).total_cmp(&self.goal.merit(a)));
        let mut best = Vec::new();
        while best.len() < count && !rest.is_empty() {
            let all: Vec<Standing> = rest.iter().map(|(_, standing)| *standing).collect();
            let (front, others): (Vec<_>, Vec<_>) = rest
                .into_iter()
                .partition(|(_, standing)| !all.iter().any(|other| other.dominates(standing)));
            best.extend(front.into_iter().map(|(point, _)| point.clone()));
            rest = others;
        }
        best.truncate(count);
        best.sort_unstable();
        best
    }

    /// The point that serves the goal best, of those tried in so many worlds.
    fn winner(&self, worlds: usize) -> GridPoint {
        let merit = |(_, standing): &(&GridPoint, Standing)| self.goal.merit(standing);
        let candidates = self.harmless(worlds).into_iter();
        let winner = candidates.max_by(|a, b| merit(a).total_cmp(&merit(b)));
        winner
            .filter(|candidate| merit(candidate) > 0.0)
            .map_or(self.space.defaults(), |(point, _)| point)
            .clone()
    }

    /// One of all that do exactly the same, and the one that changes least: there is nothing to learn from the others.
    fn distinct(&self, worlds: usize) -> Vec<(&GridPoint, Standing)> {
        let mut seen: BTreeMap<(u64, u64), (&GridPoint, Standing)> = BTreeMap::new();
        for (point, standing) in self.harmless(worlds) {
            let key = (standing.cost.to_bits(), standing.latency.to_bits());
            let changes = |point: &GridPoint| self.space.changes(point).len();
            let entry = seen.entry(key).or_insert((point, standing));
            if changes(point) < changes(entry.0) {
                *entry = (point, standing);
            }
        }
        seen.into_values().collect()
    }

    fn harmless(&self, worlds: usize) -> Vec<(&GridPoint, Standing)> {
        let tried = self.tried.iter().filter(|(_, tried)| tried.trials.len() >= worlds);
        let standings = tried.filter_map(|(point, _)| Some((point, self.standing(point)?)));
        standings.filter(|(_, standing)| standing.is_harmless).collect()
    }

    /// Every point that was tried, and how it did.
    pub(super) fn all(&self) -> impl Iterator<Item = (&GridPoint, Standing)> {
        self.tried.keys().filter_map(|point| Some((point, self.standing(point)?)))
    }

    /// The defaults' average over all worlds: cost and latency.
    pub(super) fn defaults(&self) -> (f64, f64) {
        means(&self.tried[self.space.defaults()].trials)
    }

    /// On smooth loads, on average: cost and latency, of the defaults and of a point.
    pub(super) fn smooth(&self, point: &GridPoint) -> Option<((f64, f64), (f64, f64))> {
        let smooth = &self.tried.get(point)?.smooth;
        let defaults = &self.tried[self.space.defaults()].smooth;
        Some((means(&defaults[..smooth.len()]), means(smooth)))
    }

    /// Whether smooth loads are none the worse. Few of them say little: what looks a little harmful stays in the
    /// search until there are more.
    fn does_no_harm(&self, smooth: &[Trial], defaults: &[Trial]) -> bool {
        let tolerance = if smooth.len() == self.smooth.len() { HARM } else { SUSPECTED_HARM };
        is_harmless(means(smooth), means(defaults), tolerance)
    }
}

/// No more of either cost or latency than `tolerance` times that of the defaults, or a wait that nobody feels.
pub(super) fn is_harmless(smooth: (f64, f64), defaults: (f64, f64), tolerance: f64) -> bool {
    smooth.0 <= defaults.0 * tolerance && smooth.1 <= defaults.1 * tolerance + UNFELT_SECONDS
}

/// Mean cost and latency.
fn means(trials: &[Trial]) -> (f64, f64) {
    let mean = |value: fn(&Trial) -> f64| trials.iter().map(value).sum::<f64>() / trials.len() as f64;
    (mean(|trial| trial.cost), mean(|trial| trial.latency))
}

impl Trial {
    fn of(outcome: &Outcome, goal: &Goal, latency: &str) -> Self {
        let metric = |name: &str| outcome.metric(name).unwrap_or(f64::INFINITY);
        Trial {
            cost: metric(&goal.cost),
            latency: metric(latency),
            keeps_slo: goal.slo.as_ref().is_none_or(|slo| slo.evaluate(outcome).holds),
            errors: metric("errors"),
            requests: outcome.requests as f64,
        }
    }
}

impl Standing {
    /// No worse on either axis, and better on one.
    pub(super) fn dominates(&self, other: &Standing) -> bool {
        let no_worse = self.cost <= other.cost && self.latency <= other.latency;
        no_worse && (self.cost < other.cost || self.latency < other.latency)
    }

    pub(super) fn is_feasible(&self) -> bool {
        self.is_harmless && self.kept_fraction >= KEPT_FRACTION
    }

    /// How much cheaper and how much faster it is, of 1, a standard error to the worse; below 0: dearer, slower.
    pub(super) fn gains(&self) -> (f64, f64) {
        (1.0 - self.cautious_cost, 1.0 - self.cautious_latency)
    }
}

/// The sum of a value over trials as a share of that of the defaults; as it is, and a standard error higher.
fn ratio(trials: &[Trial], defaults: &[Trial], value: fn(&Trial) -> f64) -> (f64, f64) {
    let base: f64 = defaults.iter().map(value).sum();
    let differences: Vec<f64> = trials.iter().zip(defaults).map(|(a, b)| value(a) - value(b)).collect();
    let change: f64 = differences.iter().sum();
    if base == 0.0 {
        // A share of nothing: the same is the same, and anything more is worse.
        let ratio = if change > 0.0 { f64::INFINITY } else { 1.0 };
        return (ratio, ratio);
    }
    let (count, mean) = (differences.len() as f64, change / differences.len() as f64);
    let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
    let error = if count > 1.0 { (squares / (count - 1.0) * count).sqrt() } else { 0.0 };
    (1.0 + change / base, 1.0 + (change + error) / base)
}

/// The share of worlds, or of trials, in which an objective must be kept.
pub(super) const KEPT_FRACTION: f64 = 0.9;

/// Requests that may fail more than with the defaults: none, but for chance.
const FEW_FRACTION: f64 = 1e-3;

/// The loss that a smooth load may have, and the wait nobody feels.
pub(super) const HARM: f64 = 1.05;
const SUSPECTED_HARM: f64 = 1.15;
const UNFELT_SECONDS: f64 = 0.001;

/// A difference, as a share of the defaults, for which a setting is worth changing.
const TELLING: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(cost: f64, latency: f64) -> Trial {
        Trial { cost, latency, keeps_slo: true, errors: 0.0, requests: 1.0 }
    }

    #[test]
    fn a_ratio_is_of_sums_and_its_caution_of_the_differences() {
        let defaults = [trial(100.0, 1.0), trial(200.0, 1.0)];
        let same_saving = [trial(70.0, 1.0), trial(170.0, 1.0)];
        assert_eq!(
            ratio(&same_saving, &defaults, |trial| trial.cost),
            (0.8, 0.8),
            "no noise in the difference"
        );
        let unsteady = [trial(40.0, 1.0), trial(200.0, 1.0)];
        let (mean, cautious) = ratio(&unsteady, &defaults, |trial| trial.cost);
        // -60 and 0: the standard error of their sum is 60.
        assert!((mean - 0.8).abs() < 1e-12 && (cautious - 1.0).abs() < 1e-12, "{mean} {cautious}");
    }

    #[test]
    fn where_the_defaults_have_nothing_more_is_worse_and_nothing_is_the_same() {
        let nothing = [trial(1.0, 0.0)];
        assert_eq!(ratio(&[trial(1.0, 0.0)], &nothing, |trial| trial.latency), (1.0, 1.0));
        assert_eq!(ratio(&[trial(1.0, 0.1)], &nothing, |trial| trial.latency).0, f64::INFINITY);
    }

    #[test]
    fn a_twentieth_more_is_no_harm_and_a_wait_nobody_feels_is_none_either() {
        assert!(is_harmless((105.0, 0.0009), (100.0, 0.0), HARM));
        assert!(!is_harmless((105.1, 0.0), (100.0, 0.0), HARM));
        assert!(!is_harmless((100.0, 0.107), (100.0, 0.1), HARM));
    }
}
