//! Traffic as it is written, read field by field: all faults come at once, each with its path.

use std::str::FromStr;
use std::time::Duration;

use pilotlight_config::workload::manifest::{self, Node};
use pilotlight_config::{Fault, Faults, Findings, duration as go};
use serde_json::Value;

use super::spec::{MarkovState, Operator, RateStep, Source, TrafficSpec, rule};
use super::trace::{FORMATS, Stamp, TokenCost, TraceSpec};
use super::{Process, ProcessError};
use crate::dist::TimeUnit;
use crate::read;

impl TrafficSpec {
    /// Reads what is written at `node`; `None` only with a fault.
    pub fn read(node: &Node<'_>, findings: &mut Findings) -> Option<TrafficSpec> {
        TrafficSpec::read_beside(node, &[], findings)
    }

    /// Reads a value that stands by itself: paths start at it.
    pub fn from_value(value: Option<&Value>) -> Result<TrafficSpec, Faults> {
        let mut findings = Findings::default();
        let spec = TrafficSpec::read(&Node { value, path: String::new() }, &mut findings);
        match (Faults::all(findings.faults), spec) {
            (None, Some(spec)) => Ok(spec),
            (faults, _) => Err(faults.unwrap_or_else(|| Fault::without_value("", "is not traffic").into())),
        }
    }

    /// Reads traffic where `others` may be written in its place: one of them may be what was meant.
    pub(crate) fn read_beside(
        node: &Node<'_>,
        others: &[&str],
        findings: &mut Findings,
    ) -> Option<TrafficSpec> {
        if node.value.is_some_and(Value::is_object) {
            return source(node, others, findings).map(TrafficSpec::from);
        }
        if !node.value.is_some_and(Value::is_array) {
            let rule = "is not traffic: a pattern or trace, such as `constant: {rate: 10, for: 5m}`, or a list of it \
                        and operators";
            node.fault(rule, findings);
            return None;
        }
        let items = node.items(findings);
        let Some((first, operators)) = items.split_first() else {
            node.fault(rule::NOT_EMPTY, findings);
            return None;
        };
        let source = source(first, &[], findings);
        let then: Vec<_> = operators.iter().map(|operator| self::operator(operator, findings)).collect();
        Some(TrafficSpec { source: source?, then: then.into_iter().collect::<Option<_>>()? })
    }
}

/// Reads traffic on its own, as YAML.
impl FromStr for TrafficSpec {
    type Err = Faults;
    fn from_str(text: &str) -> Result<TrafficSpec, Faults> {
        let documents = manifest::documents(text).map_err(|rule| Fault::without_value("", rule))?;
        TrafficSpec::from_value(documents.first().and_then(|document| document.root().value))
    }
}

fn source(node: &Node<'_>, others: &[&str], findings: &mut Findings) -> Option<Source> {
    let (kind, body) = one_of(node, SOURCES, others, "several go into `merge: [..]`", findings)?;
    let parts = |findings: &mut Findings| list(&body, findings, TrafficSpec::read);
    Some(match kind {
        "trace" => Source::Trace(trace(&body, findings)?),
        "merge" => Source::Merge(parts(findings)?),
        "sequence" => Source::Sequence(parts(findings)?),
        "mmpp" => {
            let mut fields = KnownFields::of(&body, &["states", "for"], findings);
            let (states, length) = (fields.list("states", state), fields.length("for"));
            Source::Mmpp { states: states?, length: length? }
        }
        "concurrent" => {
            let mut fields = KnownFields::of(&body, &["requests", "every", "for"], findings);
            let (requests, every, length) =
                (fields.requests("requests"), fields.length("every"), fields.length("for"));
            Source::Concurrent { requests: requests?, every: every?, length: length? }
        }
        curve => return self::curve(curve, &body, findings),
    })
}

/// A pattern whose rate is known at every time.
fn curve(kind: &str, body: &Node<'_>, findings: &mut Findings) -> Option<Source> {
    let (_, names) = CURVES.iter().find(|(name, _)| *name == kind)?;
    let mut fields = KnownFields::of(body, names, findings);
    let arrivals = fields.arrivals();
    match kind {
        "constant" => {
            let (rate, length) = (fields.rate("rate"), fields.length("for"));
            Some(Source::Constant { rate: rate?, length: length?, arrivals: arrivals? })
        }
        "steps" => {
            let steps = fields.list("steps", step);
            Some(Source::Steps { steps: steps?, arrivals: arrivals? })
        }
        "ramp" => {
            let (from, to, length) = (fields.rate("from"), fields.rate("to"), fields.length("for"));
            Some(Source::Ramp { from: from?, to: to?, length: length?, arrivals: arrivals? })
        }
        "sine" => {
            let (mean, amplitude) = (fields.rate("mean"), fields.rate("amplitude"));
            let (period, length) = (fields.length("period"), fields.length("for"));
            let (mean, amplitude, period) = (mean?, amplitude?, period?);
            Some(Source::Sine { mean, amplitude, period, length: length?, arrivals: arrivals? })
        }
        "diurnal" => {
            let (trough, peak) = (fields.rate("trough"), fields.rate("peak"));
            let day = if fields.has("day") { fields.length("day") } else { Some(DAY) };
            let length = if fields.has("for") { fields.length("for").map(Some) } else { Some(None) };
            let (trough, peak, day) = (trough?, peak?, day?);
            Some(Source::Diurnal { trough, peak, day, length: length?, arrivals: arrivals? })
        }
        _ => {
            let (base, burst) = (fields.rate("base"), fields.rate("burst"));
            let (length, every) = (fields.length("length"), fields.length("every"));
            let total = fields.length("for");
            let (base, burst, length, every) = (base?, burst?, length?, every?);
            Some(Source::Bursts { base, burst, length, every, total: total?, arrivals: arrivals? })
        }
    }
}

fn step(node: &Node<'_>, findings: &mut Findings) -> Option<RateStep> {
    let mut fields = KnownFields::of(node, &["rate", "for"], findings);
    let (rate, length) = (fields.rate("rate"), fields.length("for"));
    Some(RateStep { rate: rate?, length: length? })
}

fn state(node: &Node<'_>, findings: &mut Findings) -> Option<MarkovState> {
    let mut fields = KnownFields::of(node, &["rate", "mean"], findings);
    let (rate, mean) = (fields.rate("rate"), fields.length("mean"));
    Some(MarkovState { rate: rate?, mean: mean? })
}

fn operator(node: &Node<'_>, findings: &mut Findings) -> Option<Operator> {
    let (kind, body) = one_of(node, OPERATORS, &[], "each is an entry of the list by itself", findings)?;
    match kind {
        "scale" => legal(&body, rule::factor, findings).map(Operator::Scale),
        "speed" => legal(&body, rule::factor, findings).map(Operator::Speed),
        "stretch" => legal(&body, rule::factor, findings).map(Operator::Stretch),
        "shift" => needed(&body, findings).and_then(|()| read::time(&body, findings)).map(Operator::Shift),
        "cut" => {
            let fields = KnownFields::of(&body, &["from", "to"], findings);
            let (from, to) = (fields.node.child("from"), fields.node.child("to"));
            let optional = |node: &Node<'_>, findings: &mut Findings| match node.is_present() {
                true => read::time(node, findings).map(Some),
                false => Some(None),
            };
            let (from, to) = (optional(&from, findings), optional(&to, findings));
            Some(Operator::Cut { from: from?.unwrap_or_default(), to: to? })
        }
        _ => legal(&body, rule::times, findings).map(Operator::Repeat),
    }
}

fn trace(node: &Node<'_>, findings: &mut Findings) -> Option<TraceSpec> {
    let mut fields = KnownFields::of(node, TRACE, findings);
    let file = fields.text("file");
    if !fields.has("file") {
        fields.missing("file");
    }
    let tokens = node.child("tokens");
    let spec = TraceSpec {
        file: file.unwrap_or_default(),
        format: fields.word("format", &FORMATS),
        skip_bad_lines: read::flag(&node.child("skip-bad-lines"), fields.findings).unwrap_or_default(),
        revision: fields.text("revision"),
        column: fields.text("column"),
        step: if fields.has("step") { fields.length("step") } else { None },
        name: fields.text("name"),
        function: fields.text("function"),
        durations: fields.text("durations"),
        tokens: tokens.is_present().then(|| token_cost(&tokens, fields.findings)),
        time: fields.text("time"),
        duration: fields.text("duration"),
        duration_unit: fields.word("duration-unit", &TimeUnit::NAMES),
        stamped: fields.word("stamped", STAMPS),
        arrivals: if fields.has("arrivals") { fields.arrivals() } else { None },
    };
    Some(spec).filter(|spec| !spec.file.is_empty())
}

fn token_cost(node: &Node<'_>, findings: &mut Findings) -> TokenCost {
    let fields = KnownFields::of(node, &["base", "prompt", "generated"], findings);
    let mut time = |name| read::time(&fields.node.child(name), fields.findings).unwrap_or_default();
    TokenCost { base: time("base"), prompt: time("prompt"), generated: time("generated") }
}

/// A map that has been found to hold known fields only.
struct KnownFields<'a, 'f> {
    node: Node<'a>,
    findings: &'f mut Findings,
}

impl<'a, 'f> KnownFields<'a, 'f> {
    fn of(node: &Node<'a>, names: &[&str], findings: &'f mut Findings) -> Self {
        if node.value.is_some_and(|value| !value.is_object()) {
            node.fault(format!("is not a map of {}", names.join(", ")), findings);
        }
        node.only(names, findings);
        KnownFields { node: node.clone(), findings }
    }

    fn has(&self, name: &str) -> bool {
        self.node.child(name).is_present()
    }

    fn missing(&mut self, name: &str) {
        self.node.child(name).fault(rule::MISSING, self.findings);
    }

    fn rate(&mut self, name: &str) -> Option<f64> {
        legal(&self.node.child(name), rule::rate, self.findings)
    }

    fn requests(&mut self, name: &str) -> Option<u32> {
        legal(&self.node.child(name), rule::requests, self.findings)
    }

    /// A time above zero.
    fn length(&mut self, name: &str) -> Option<Duration> {
        let node = self.node.child(name);
        needed(&node, self.findings)?;
        let length = read::time(&node, self.findings)?;
        match rule::length(length) {
            Ok(length) => Some(length),
            Err(rule) => {
                self.findings.fault(&node.path, &go::format(length), rule);
                None
            }
        }
    }

    /// How arrivals follow the rate: at random where nothing else is written.
    fn arrivals(&mut self) -> Option<Process> {
        let node = self.node.child("arrivals");
        if !node.is_present() {
            return Some(Process::default());
        }
        let text = read::scalar(&node, self.findings)?;
        // The error quotes the text by itself.
        text.parse().inspect_err(|error: &ProcessError| node.fault(error.to_string(), self.findings)).ok()
    }

    fn list<T>(
        &mut self,
        name: &str,
        item: impl Fn(&Node<'_>, &mut Findings) -> Option<T>,
    ) -> Option<Vec<T>> {
        list(&self.node.child(name), self.findings, item)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        read::scalar(&self.node.child(name), self.findings)
    }

    fn word<T: Copy>(&mut self, name: &str, known: &[(&str, T)]) -> Option<T> {
        read::word(&self.node.child(name), known, self.findings)
    }
}

/// A list with something in it.
fn list<T>(
    node: &Node<'_>,
    findings: &mut Findings,
    item: impl Fn(&Node<'_>, &mut Findings) -> Option<T>,
) -> Option<Vec<T>> {
    needed(node, findings)?;
    let items = node.items(findings);
    if items.is_empty() && node.value.is_some_and(Value::is_array) {
        node.fault(rule::NOT_EMPTY, findings);
    }
    let read: Vec<Option<T>> = items.iter().map(|node| item(node, findings)).collect();
    read.into_iter().collect::<Option<Vec<T>>>().filter(|all| !all.is_empty())
}

/// A number that obeys a rule.
fn legal<T: Copy + FromStr>(
    node: &Node<'_>,
    rule: fn(T) -> Result<T, &'static str>,
    findings: &mut Findings,
) -> Option<T> {
    needed(node, findings)?;
    let text = read::scalar(node, findings)?;
    let checked = text.parse().map_err(|_| rule::NUMBER).and_then(rule);
    checked.inspect_err(|rule| findings.fault(&node.path, &text, *rule)).ok()
}

/// Records that a field is missing, if it is.
fn needed(node: &Node<'_>, findings: &mut Findings) -> Option<()> {
    if !node.is_present() {
        node.fault(rule::MISSING, findings);
    }
    node.is_present().then_some(())
}

/// The one field of a map that says of which kind it is, and what is below it.
fn one_of<'a>(
    node: &Node<'a>,
    kinds: &'static [&'static str],
    others: &[&str],
    advice: &str,
    findings: &mut Findings,
) -> Option<(&'static str, Node<'a>)> {
    let Some(fields) = node.value.and_then(Value::as_object) else {
        node.fault(format!("is not a map with one of {}", kinds.join(", ")), findings);
        return None;
    };
    let known: Vec<&str> = kinds.iter().chain(others).copied().collect();
    let before = findings.faults.len();
    node.only(&known, findings);
    let mut given = kinds.iter().copied().filter(|kind| fields.contains_key(*kind));
    match (given.next(), given.next()) {
        (Some(kind), None) => Some((kind, node.child(kind))),
        (Some(kind), Some(other)) => {
            node.fault(format!("has both `{kind}` and `{other}`; {advice}"), findings);
            None
        }
        (None, _) => {
            if findings.faults.len() == before {
                node.fault(format!("is empty; write one of {}", kinds.join(", ")), findings);
            }
            None
        }
    }
}

const SOURCES: &[&str] = &[
    "constant",
    "steps",
    "ramp",
    "sine",
    "diurnal",
    "bursts",
    "mmpp",
    "concurrent",
    "trace",
    "merge",
    "sequence",
];

/// The patterns whose rate is known at every time, and their fields.
const CURVES: &[(&str, &[&str])] = &[
    ("constant", &["rate", "for", "arrivals"]),
    ("steps", &["steps", "arrivals"]),
    ("ramp", &["from", "to", "for", "arrivals"]),
    ("sine", &["mean", "amplitude", "period", "for", "arrivals"]),
    ("diurnal", &["trough", "peak", "day", "for", "arrivals"]),
    ("bursts", &["base", "burst", "length", "every", "for", "arrivals"]),
];

const OPERATORS: &[&str] = &["scale", "speed", "stretch", "shift", "cut", "repeat"];

const TRACE: &[&str] = &[
    "file",
    "format",
    "skip-bad-lines",
    "revision",
    "column",
    "step",
    "name",
    "function",
    "durations",
    "tokens",
    "time",
    "duration",
    "duration-unit",
    "stamped",
    "arrivals",
];

const STAMPS: &[(&str, Stamp)] = &[("start", Stamp::Start), ("end", Stamp::End)];
const DAY: Duration = Duration::from_secs(86_400);
