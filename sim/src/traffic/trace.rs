//! Recorded traffic: what is in the file, in which of the known formats, and what became of its lines.
//!
//! `events` reads tables with a line a request, `logs` access logs, `counted` tables of counts, `locust` Locust's
//! history, `rates` what monitoring and our own journal know. Each answers with a [`Content`]. `entries` turns lines
//! that say when a request began or ended into requests, and doubts what cannot be right.

mod counted;
mod entries;
mod events;
mod locust;
mod logs;
mod rates;
mod recognise;
mod stamp;
mod unit;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::time::Duration;

use pilotlight_core::Time;
use serde::{Serialize, Serializer};

use super::counts::Counts;
use super::curve::Curve;
use super::{Arrival, Origin, Process, Traffic, TrafficError};
use crate::dist::TimeUnit;

pub(super) use counted::Services;
pub(super) use recognise::FORMATS;

/// A recorded trace as it is written into a scenario: a file, and what must be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceSpec {
    /// Path of the file, from wherever the scenario lies.
    pub file: String,
    /// The format; recognised by the first line if left out.
    pub format: Option<Format>,
    /// Whether to pass over lines that are not of the format, and count them.
    pub skip_bad_lines: bool,
    /// Only this revision's requests: in plain traces and journals.
    pub revision: Option<String>,
    /// The column with the counts: in tables with a line per second, minute or interval.
    pub column: Option<String>,
    /// From one line to the next: in the same tables. What their times say if left out.
    pub step: Option<Duration>,
    /// Only lines of this name: in tables whose lines have one. Those of the sum, if there are, if left out.
    pub name: Option<String>,
    /// Only the functions whose hash begins so: in traces of Azure Functions. All of them if left out.
    pub function: Option<String>,
    /// The file with the percentiles of durations: beside Azure's counts per minute.
    pub durations: Option<String>,
    /// The service time by tokens: in traces of language models.
    pub tokens: Option<TokenCost>,
    /// The field with the time: in JSON lines. Dots lead into objects.
    pub time: Option<String>,
    /// The field with the duration: in JSON lines by its name, in access logs by its number from 1, or the name
    /// before its equals sign; `none` where there is none.
    pub duration: Option<String>,
    /// The unit of a duration that is a number: in logs whose format does not say it.
    pub duration_unit: Option<TimeUnit>,
    /// Whether the time is a request's start or end. What the format says if left out.
    pub stamped: Option<Stamp>,
    /// How requests arrive, where only their rate or count is known. Counts are kept: `poisson` places the requests
    /// of an interval at random in it, `uniform` evenly; `gamma` follows the rates only.
    pub arrivals: Option<Process>,
}

/// How long a request to a language model takes: `base + prompt * context tokens + generated * generated tokens`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenCost {
    /// The time of any request.
    pub base: Duration,
    /// For each token of its context.
    pub prompt: Duration,
    /// For each token generated.
    pub generated: Duration,
}

/// The event that a log's time belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The request's arrival.
    Start,
    /// The request's end.
    End,
}

/// The formats of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// CSV with `t_start_s`, and `duration_s` and `revision` if known. What is written by an import.
    Plain,
    /// CSV whose numbers are requests per second.
    PerSecond,
    /// CSV whose numbers are requests per minute.
    PerMinute,
    /// CSV whose numbers are the requests from one line to the next.
    PerInterval,
    /// CSV as Grafana exports a panel, with a unit in its names or numbers.
    Grafana,
    /// Azure Functions 2019: counts in columns 1 to 1440, a line a function.
    AzureFunctions2019,
    /// Azure Functions 2021: `app,func,end_timestamp,duration`.
    AzureFunctions2021,
    /// Azure language models 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureLlm,
    /// Alibaba GenTD26: `gmt_create` and `exec_time_seconds`.
    Gentd26,
    /// Access log of nginx or ingress-nginx: the common or combined format, with `$request_time` behind it if known.
    Nginx,
    /// Access log of Apache: the common or combined format, with `%D`, `%T` or `%{ms}T` behind it if known.
    Apache,
    /// Access log of gunicorn: the combined format, with `%(L)s`, `%(D)s`, `%(M)s` or `%(T)s` behind it if known.
    Gunicorn,
    /// Access log of Traefik in the common format, which ends with milliseconds.
    Traefik,
    /// HTTP log of HAProxy.
    Haproxy,
    /// Access log of Envoy or Istio in the default format.
    Envoy,
    /// Access log of AWS' Application Load Balancer.
    AwsAlb,
    /// Access log of CloudFront, with tabs and `#Fields`.
    CloudFront,
    /// An object a line, with fields as named.
    JsonLines,
    /// Results of k6: `--out json` or `--out csv`.
    K6,
    /// Results of JMeter as CSV.
    Jmeter,
    /// History of Locust: `stats_history.csv`.
    Locust,
    /// Output of `vegeta encode --to csv`.
    Vegeta,
    /// Output of `hey -o csv`.
    Hey,
    /// Output of `oha --output-format csv`.
    Oha,
    /// The answer to a range query of Prometheus: requests per second over time.
    Prometheus,
    /// The decision journal of the autoscaler.
    Journal,
}

/// A file that was read, and what was found in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loaded {
    /// The file, as it was named.
    pub file: String,
    /// The format.
    pub format: Format,
    /// Whether the format was recognised rather than named.
    pub is_recognised: bool,
    /// Requests in it, rounded where only rates are known.
    pub requests: u64,
    /// Lines that were passed over because they are not of the format.
    pub bad_lines: u64,
    /// The first of them and what is wrong with it.
    pub first_bad_line: Option<(u64, String)>,
    /// Whether only rates are known: how many requests come of them differs with the seed.
    pub has_rates: bool,
    /// Notes on how it was read.
    pub notes: Vec<String>,
    /// Lines that are no requests: how many, and why.
    pub left_out: Vec<String>,
    /// What can hardly be right, and what to look at.
    pub warnings: Vec<String>,
}

/// The contents of a file.
enum Content {
    /// Requests, in any order.
    Events(Vec<TraceEvent>),
    /// Requests per interval. Whole numbers are counts, others are rates.
    Intervals { width: Duration, values: Vec<f64>, services: Option<Services> },
}

/// A request in a file: start in nanoseconds, since 1970 or since the trace began.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TraceEvent {
    start_nanos: i64,
    service: Option<Duration>,
}

/// A file while it is being read.
struct Reading<'a> {
    spec: &'a TraceSpec,
    base_dir: &'a Path,
    bad_lines: u64,
    first_bad_line: Option<(u64, String)>,
    notes: Vec<String>,
    warnings: Vec<String>,
    /// Lines that are of the format and no requests, by why.
    left_out: BTreeMap<&'static str, u64>,
    /// Whether times are dates, or since 1970 by the format. Otherwise their size tells.
    is_dated: bool,
    has_rates: bool,
}

pub(super) fn load(spec: &TraceSpec, base_dir: &Path) -> Result<Traffic, TrafficError> {
    let mut reading = Reading::new(spec, base_dir);
    let mut file = reading.open(&spec.file)?;
    // The first lines decide on the format, and are read again with the rest.
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head).map_err(|error| reading.unreadable(error))?;
    let start = String::from_utf8_lossy(&head).into_owned();
    let source = Cursor::new(head).chain(file);
    let mut format = match spec.format {
        Some(format) => format,
        None => recognise::recognise(&start)
            .map_err(|advice| TrafficError::Unrecognised { file: spec.file.clone(), advice })?,
    };
    recognise::refuse_meaningless_options(spec, format)?;
    let content = match format {
        Format::Plain
        | Format::AzureFunctions2021
        | Format::AzureLlm
        | Format::Gentd26
        | Format::Jmeter
        | Format::Vegeta
        | Format::Hey
        | Format::Oha => events::read(source, format, &mut reading)?,
        Format::K6 if !recognise::is_json(&start) => events::read(source, format, &mut reading)?,
        Format::Nginx
        | Format::Apache
        | Format::Gunicorn
        | Format::Traefik
        | Format::Haproxy
        | Format::Envoy
        | Format::AwsAlb
        | Format::CloudFront
        | Format::JsonLines
        | Format::K6 => logs::read(&start, source, &mut format, &mut reading)?,
        Format::PerSecond | Format::PerMinute | Format::PerInterval | Format::Grafana => {
            counted::read_table(source, format, &mut reading)?
        }
        Format::Locust => locust::read(source, &mut reading)?,
        Format::AzureFunctions2019 => counted::read_azure(source, &mut reading)?,
        Format::Prometheus => rates::read_prometheus(source, &mut reading)?,
        Format::Journal => rates::read_journal(source, &mut reading)?,
    };
    let (origin, duration, requests) = match content {
        Content::Events(events) => reading.recorded(events)?,
        Content::Intervals { width, values, services } => reading.counted(width, &values, services)?,
    };
    let left_out = reading
        .left_out
        .into_iter()
        .map(|(why, lines)| format!("{lines} {} left out: {why}", if lines == 1 { "line" } else { "lines" }));
    let loaded = Loaded {
        file: spec.file.clone(),
        format,
        is_recognised: spec.format.is_none(),
        requests,
        bad_lines: reading.bad_lines,
        first_bad_line: reading.first_bad_line,
        has_rates: reading.has_rates,
        notes: reading.notes,
        left_out: left_out.collect(),
        warnings: reading.warnings,
    };
    Ok(Traffic { loaded: [loaded].into(), ..Traffic::of(origin, duration) })
}

impl<'a> Reading<'a> {
    fn new(spec: &'a TraceSpec, base_dir: &'a Path) -> Self {
        Reading {
            spec,
            base_dir,
            bad_lines: 0,
            first_bad_line: None,
            notes: Vec::new(),
            warnings: Vec::new(),
            left_out: BTreeMap::new(),
            is_dated: false,
            has_rates: false,
        }
    }

    /// Requests in order, from the start of the trace.
    fn recorded(&mut self, mut events: Vec<TraceEvent>) -> Result<(Origin, Duration, u64), TrafficError> {
        // Stable: what a file says happened at the same time stays in its order.
        events.sort_by_key(|event| event.start_nanos);
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(self.problem("it holds no requests"));
        };
        // Times since 1970 are moved to the start of the trace, by whole seconds: requests stay where they were
        // within the autoscaler's one-second buckets. Other times are since the trace began. A date is since 1970,
        // whatever its year; of bare numbers, the size tells.
        let is_since_1970 = self.is_dated || first.start_nanos >= SINCE_1970;
        let start = if is_since_1970 { first.start_nanos.div_euclid(SECOND) * SECOND } else { 0 };
        let nanos = |event: &TraceEvent| event.start_nanos.saturating_sub(start).max(0) as u64;
        // The second of the last request belongs to the trace.
        let duration = Duration::from_secs(nanos(last) / SECOND as u64 + 1);
        let arrival =
            |event: &TraceEvent| Arrival { at: Time::from_nanos(nanos(event)), service: event.service };
        let recorded: Box<[Arrival]> = events.iter().map(arrival).collect();
        let requests = recorded.len() as u64;
        Ok((Origin::Recorded(recorded), duration, requests))
    }

    /// Requests by their number in each interval.
    fn counted(
        &mut self,
        width: Duration,
        values: &[f64],
        services: Option<Services>,
    ) -> Result<(Origin, Duration, u64), TrafficError> {
        let total: f64 = values.iter().sum();
        if total <= 0.0 {
            return Err(self.problem("it holds no requests"));
        }
        let duration = width.saturating_mul(u32::try_from(values.len()).unwrap_or(u32::MAX));
        let arrivals = self.spec.arrivals.unwrap_or_default();
        let are_counts = values.iter().all(|value| value.fract() == 0.0 && *value <= f64::from(u32::MAX));
        let origin = if are_counts && !matches!(arrivals, Process::Gamma { .. }) {
            let counts = values.iter().map(|&value| value as u32).collect();
            Origin::Counts { counts: Counts::new(counts, width, arrivals), services }
        } else {
            self.has_rates = true;
            let rate = |value: f64| value / width.as_secs_f64();
            let curve = Curve::new(values.iter().map(|&value| (width, rate(value), rate(value))));
            Origin::Curve { curve, arrivals, services }
        };
        Ok((origin, duration, total.round() as u64))
    }

    fn open(&self, file: &str) -> Result<BufReader<File>, TrafficError> {
        let opened = File::open(self.base_dir.join(file));
        let opened = opened.map_err(|source| TrafficError::Read { file: file.to_owned(), source })?;
        Ok(BufReader::with_capacity(1 << 16, opened))
    }

    /// The value of a line; `None` if the line is to be passed over.
    fn accept<T>(&mut self, line: u64, parsed: Result<T, String>) -> Result<Option<T>, TrafficError> {
        match parsed {
            Ok(value) => Ok(Some(value)),
            Err(problem) if self.spec.skip_bad_lines => {
                self.bad_lines += 1;
                self.first_bad_line.get_or_insert((line, problem));
                Ok(None)
            }
            Err(problem) => Err(TrafficError::Line { file: self.spec.file.clone(), line, problem }),
        }
    }

    /// Calls `each` with every line that is not empty, and its number.
    fn lines(
        &mut self,
        mut source: impl BufRead,
        mut each: impl FnMut(&mut Self, u64, &str) -> Result<(), TrafficError>,
    ) -> Result<(), TrafficError> {
        let (mut bytes, mut number) = (Vec::new(), 0);
        loop {
            bytes.clear();
            if source.read_until(b'\n', &mut bytes).map_err(|error| self.unreadable(error))? == 0 {
                return Ok(());
            }
            number += 1;
            let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8".to_owned());
            let Some(text) = self.accept(number, text)? else { continue };
            let text = text.trim();
            if !text.is_empty() {
                each(self, number, text)?;
            }
        }
    }

    fn problem(&self, problem: impl Into<String>) -> TrafficError {
        TrafficError::File { file: self.spec.file.clone(), problem: problem.into() }
    }

    fn unreadable(&self, source: std::io::Error) -> TrafficError {
        TrafficError::Read { file: self.spec.file.clone(), source }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(recognise::name(*self))
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_recognised { "recognised as " } else { "" };
        write!(f, "{}: {how}{}", self.file, self.format)?;
        if !self.has_rates {
            write!(f, ", {} {}", self.requests, if self.requests == 1 { "request" } else { "requests" })?;
        }
        if let Some((line, problem)) = &self.first_bad_line {
            let lines = if self.bad_lines == 1 { "line was" } else { "lines were" };
            write!(f, "; {} bad {lines} passed over, the first is line {line}: {problem}", self.bad_lines)?;
        }
        for note in self.notes.iter().chain(&self.left_out) {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

const SECOND: i64 = 1_000_000_000;

/// How much of a file is looked at to tell its format.
const HEAD: u64 = 1 << 16;

/// Times from here on, in September 2001, are since 1970: no trace is 31 years long.
const SINCE_1970: i64 = 1_000_000_000 * SECOND;
