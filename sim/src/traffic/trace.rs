//! Recorded traffic: what is in the file, in which of the known formats, and what became of its lines.
//!
//! `events` reads tables with a line a request, `logs` access logs, `counted` tables of counts, `rates` what
//! monitoring and our own journal know. Each answers with a [`Content`].

mod counted;
mod events;
mod logs;
mod rates;
mod recognise;
mod stamp;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use pilotlight_core::{Rng, Time};
use serde::{Serialize, Serializer};

use super::counts::Counts;
use super::curve::Curve;
use super::{Arrival, Origin, Process, Traffic, TrafficError};
use crate::dist::TimeUnit;

pub(super) use counted::Services;
pub(super) use recognise::{FORMATS, format_names};

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
    /// The column with the counts: in tables with a line per second or minute.
    pub column: Option<String>,
    /// Only the functions whose hash begins so: in traces of Azure Functions. All of them if left out.
    pub function: Option<String>,
    /// The file with the percentiles of durations: beside Azure's counts per minute.
    pub durations: Option<String>,
    /// The service time by tokens: in traces of language models.
    pub tokens: Option<TokenCost>,
    /// The field with the time: in JSON lines. Dots lead into objects.
    pub time: Option<String>,
    /// The field with the duration: in JSON lines.
    pub duration: Option<String>,
    /// The unit of a duration that is a number: in JSON lines. Seconds if left out.
    pub duration_unit: Option<TimeUnit>,
    /// Whether the time is a request's start or end: in JSON lines. Its start if left out.
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
    /// CSV with a line a second, counts in a column.
    PerSecond,
    /// CSV with a line a minute, counts in a column.
    PerMinute,
    /// Azure Functions 2019: counts in columns 1 to 1440, a line a function.
    AzureFunctions2019,
    /// Azure Functions 2021: `app,func,end_timestamp,duration`.
    AzureFunctions2021,
    /// Azure language models 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureLlm,
    /// Alibaba GenTD26: `gmt_create` and `exec_time_seconds`.
    Gentd26,
    /// Access log of nginx in the combined format, with `$request_time` behind it if known.
    Nginx,
    /// Access log of Envoy or Istio in the default format.
    Envoy,
    /// An object a line, with fields as named.
    JsonLines,
    /// Output of `vegeta encode --to csv`.
    Vegeta,
    /// Output of `hey -o csv`.
    Hey,
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
    /// Notes on how it was read.
    pub notes: Vec<String>,
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
}

pub(super) fn load(spec: &TraceSpec, base_dir: &Path) -> Result<Traffic, TrafficError> {
    let mut reading = Reading { spec, base_dir, bad_lines: 0, first_bad_line: None, notes: Vec::new() };
    let mut source = reading.open(&spec.file)?;
    let format = match spec.format {
        Some(format) => format,
        // The buffer holds the first lines; looking at it takes nothing away.
        None => {
            let start = source.fill_buf().map_err(|error| reading.unreadable(error))?;
            recognise::recognise(&String::from_utf8_lossy(start))
                .ok_or_else(|| TrafficError::Unrecognised { file: spec.file.clone() })?
        }
    };
    recognise::refuse_meaningless_options(spec, format)?;
    let content = match format {
        Format::Plain
        | Format::AzureFunctions2021
        | Format::AzureLlm
        | Format::Gentd26
        | Format::Vegeta
        | Format::Hey => events::read(source, format, &mut reading)?,
        Format::Nginx | Format::Envoy | Format::JsonLines => logs::read(source, format, &mut reading)?,
        Format::PerSecond => counted::read_table(source, Duration::from_secs(1), &mut reading)?,
        Format::PerMinute => counted::read_table(source, Duration::from_secs(60), &mut reading)?,
        Format::AzureFunctions2019 => counted::read_azure(source, &mut reading)?,
        Format::Prometheus => rates::read_prometheus(source, &mut reading)?,
        Format::Journal => rates::read_journal(source, &mut reading)?,
    };
    let (origin, duration, requests) = match content {
        Content::Events(events) => reading.recorded(events)?,
        Content::Intervals { width, values, services } => reading.counted(width, &values, services)?,
    };
    let loaded = Loaded {
        file: spec.file.clone(),
        format,
        is_recognised: spec.format.is_none(),
        requests,
        bad_lines: reading.bad_lines,
        first_bad_line: reading.first_bad_line,
        notes: reading.notes,
    };
    Ok(Traffic { loaded: [loaded].into(), ..Traffic::of(origin, duration) })
}

impl Reading<'_> {
    /// Requests in order, from the start of the trace.
    fn recorded(&mut self, mut events: Vec<TraceEvent>) -> Result<(Origin, Duration, u64), TrafficError> {
        // Stable: what a file says happened at the same time stays in its order.
        events.sort_by_key(|event| event.start_nanos);
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(self.problem("it holds no requests"));
        };
        // Times since 1970 are moved to the start of the trace, by whole seconds: requests stay where they were
        // within the autoscaler's one-second buckets. Other times are since the trace began.
        let start = if first.start_nanos >= SINCE_1970 { first.start_nanos / SECOND * SECOND } else { 0 };
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

/// Times in a log are often whole seconds. Requests of the same second are spread over it at random, the same way
/// for the same file: otherwise they would arrive as a batch that never was.
fn spread_whole_seconds(events: &mut [TraceEvent], reading: &mut Reading<'_>) {
    let are_whole = events.iter().all(|event| event.start_nanos % SECOND == 0);
    if !are_whole || events.is_empty() {
        return;
    }
    let mut rng = Rng::new(0);
    for event in events.iter_mut() {
        event.start_nanos += rng.below(SECOND as usize) as i64;
    }
    reading.notes.push("times are whole seconds; requests were spread over theirs at random".to_owned());
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
        write!(f, "{}: {how}{}, {} requests", self.file, self.format, self.requests)?;
        if let Some((line, problem)) = &self.first_bad_line {
            let lines = if self.bad_lines == 1 { "line was" } else { "lines were" };
            write!(f, "; {} bad {lines} passed over, the first is line {line}: {problem}", self.bad_lines)?;
        }
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

const SECOND: i64 = 1_000_000_000;

/// Times from here on, in September 2001, are since 1970: no trace is 31 years long.
const SINCE_1970: i64 = 1_000_000_000 * SECOND;
