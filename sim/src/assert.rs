//! Expectations of a run, in a small language: `p99<300ms && lost==0`.
//!
//! A comparison has the name of a metric on its left (see [`METRICS`](crate::METRICS)) and a number with its unit on
//! its right: `wait-p95 <= 0.5s`, `success >= 99.9%`, `requests > 10k`, `503 == 0`. Comparisons are joined by `&&`,
//! `||`, `!` and parentheses. The objective a latency is held to ([`Slo`]) is a comparison, too.

mod parse;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::outcome::{Metric, Outcome, Unit};

/// An expectation, parsed: every name in it exists, and every number has a unit that suits its metric.
///
/// ```
/// use pilotlight_sim::{Outcome, assert::Expression};
/// let expected = Expression::parse("p99 < 300ms && lost == 0")?;
/// let mut outcome = Outcome::default();
/// assert!(expected.evaluate(&outcome).holds);
/// outcome.latency.p99 = 0.412;
/// let verdict = expected.evaluate(&outcome);
/// assert_eq!(verdict.failures(), ["p99 is 412 ms, not below 300 ms"]);
/// # Ok::<(), pilotlight_sim::assert::ExpressionError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: String,
    root: Clause,
}

/// The values an expression found in an outcome, and whether they are as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// Whether it is as expected. It is not, if that hangs on something that was not measured.
    pub holds: bool,
    /// Every comparison, in the order they were written, with what was found.
    pub terms: Vec<Term>,
}

/// One comparison of an expression and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The comparison.
    pub comparison: Condition,
    /// The metric's value in the outcome; `None` if it was not measured.
    pub measured: Option<f64>,
    /// Whether the comparison holds.
    pub holds: bool,
}

/// A metric against a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The metric's name.
    pub metric: String,
    /// How it should stand to the number.
    pub relation: Relation,
    /// The number, in the unit the metric is in: seconds, a share of 1, or a count.
    pub value: f64,
    /// As it was written, for telling where it was.
    column: usize,
}

/// How a value may stand to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Clause {
    Compare(Condition),
    Not(Box<Clause>),
    All(Vec<Clause>),
    Any(Vec<Clause>),
}

/// Why a text is not an expression: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct ExpressionError {
    /// The character it is about, from 1.
    pub column: usize,
    /// The reason, and what to write instead.
    pub reason: String,
}

impl Expression {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        Ok(Expression { text: text.trim().to_owned(), root: parse::expression(text)? })
    }

    /// Compares an outcome with it.
    pub fn evaluate(&self, outcome: &Outcome) -> Evaluated {
        let mut terms = Vec::new();
        let holds = self.root.evaluate(outcome, &mut terms) == Some(true);
        Evaluated { holds, terms }
    }
}

impl Clause {
    /// `None`: it hangs on something that was not measured. That is not the same as false, or a `!` before it would
    /// make it true.
    fn evaluate(&self, outcome: &Outcome, terms: &mut Vec<Term>) -> Option<bool> {
        match self {
            Clause::Compare(comparison) => {
                let measured = outcome.metric(&comparison.metric);
                let holds = measured.map(|value| comparison.relation.holds(value, comparison.value));
                terms.push(Term { comparison: comparison.clone(), measured, holds: holds == Some(true) });
                holds
            }
            Clause::Not(node) => node.evaluate(outcome, terms).map(|holds| !holds),
            Clause::All(nodes) => joined(nodes, false, outcome, terms),
            Clause::Any(nodes) => joined(nodes, true, outcome, terms),
        }
    }
}

/// `decisive` if one of them is; unknown if one of the others is; otherwise its opposite. All are evaluated: a
/// reader wants to know of every comparison that failed.
fn joined(nodes: &[Clause], decisive: bool, outcome: &Outcome, terms: &mut Vec<Term>) -> Option<bool> {
    let values: Vec<Option<bool>> = nodes.iter().map(|node| node.evaluate(outcome, terms)).collect();
    if values.contains(&Some(decisive)) {
        Some(decisive)
    } else if values.contains(&None) {
        None
    } else {
        Some(!decisive)
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;
    fn from_str(text: &str) -> Result<Expression, ExpressionError> {
        Expression::parse(text)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Evaluated {
    /// The comparisons that do not hold, in words; none if the whole holds.
    pub fn failures(&self) -> Vec<String> {
        if self.holds {
            return Vec::new();
        }
        let failed: Vec<String> =
            self.terms.iter().filter(|term| !term.holds).map(ToString::to_string).collect();
        // Every comparison holds and the whole does not: a `!` was before one of them.
        if failed.is_empty() { self.terms.iter().map(ToString::to_string).collect() } else { failed }
    }
}

impl fmt::Display for Term {
    /// `p99 is 412 ms, not below 300 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Condition { metric, relation, value, .. } = &self.comparison;
        let unit = Metric::named(metric).map_or(Unit::Ratio, |metric| metric.unit);
        let Some(measured) = self.measured else {
            return write!(f, "{metric} was not measured");
        };
        // Two values that differ may look the same when they are rounded for reading.
        let (mut found, mut limit) = (unit.show(measured), unit.show(*value));
        if found == limit && measured != *value {
            (found, limit) = (measured.to_string(), value.to_string());
        }
        let not = if self.holds { "" } else { "not " };
        write!(f, "{metric} is {found}, {not}{} {limit}", relation.words())
    }
}

impl Condition {
    /// The column in the text, from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl Relation {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Relation::Below => left < right,
            Relation::AtMost => left <= right,
            Relation::Above => left > right,
            Relation::AtLeast => left >= right,
            Relation::Equal => left == right,
            Relation::NotEqual => left != right,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Relation::Below => "below",
            Relation::AtMost => "at most",
            Relation::Above => "above",
            Relation::AtLeast => "at least",
            Relation::Equal => "equal to",
            Relation::NotEqual => "other than",
        }
    }
}

/// A latency that a share of the requests must keep: `p95<500ms`.
///
/// ```
/// use pilotlight_sim::assert::Slo;
/// use std::time::Duration;
/// let slo: Slo = "p95<500ms".parse()?;
/// assert_eq!((slo.quantile, slo.threshold), (0.95, Duration::from_millis(500)));
/// # Ok::<(), pilotlight_sim::assert::ExpressionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// The share of requests that must be within the threshold.
    pub quantile: f64,
    /// How long a request may take.
    pub threshold: Duration,
    /// Whether a request that takes exactly so long is within (`<=`).
    pub includes_threshold: bool,
}

impl Slo {
    /// Whether a run kept it; `None` if the run was not told to count.
    pub fn is_kept(&self, outcome: &Outcome) -> Option<bool> {
        outcome.slo_fraction.map(|share| share >= self.quantile)
    }
}

impl FromStr for Slo {
    type Err = ExpressionError;

    /// Any quantile is one here, `p97` too, because requests are counted against the threshold.
    fn from_str(text: &str) -> Result<Slo, ExpressionError> {
        parse::slo(text)
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In ten-thousandths of a percent: 0.999 times 100 is not 99.9 in binary.
        let percent = (self.quantile * 1e6).round() / 1e4;
        let relation = if self.includes_threshold { "<=" } else { "<" };
        write!(f, "p{percent}{relation}{}", pilotlight_config::duration::format(self.threshold))
    }
}

/// The metric that goes by `name`, or what is wrong with it.
pub fn metric(name: &str) -> Result<&'static Metric, ExpressionError> {
    parse::metric(name, 1)
}

#[cfg(test)]
mod tests;
