//! JSON lines. Of the programs in [`DIALECTS`] it is known which field is the time, of what, and in which unit
//! durations are; of others, names and texts may say it, and what is left is asked for.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::time::Duration;

use pilotlight_config::duration;
use pilotlight_config::spelling::hint;
use serde_json::{Map, Value};

use super::super::entries::Entry;
use super::super::{Reading, SINCE_1970, Stamp, TraceSpec, TrafficError, stamp, unit};
use super::LogLine;
use crate::dist::TimeUnit;

/// What is known of a program's lines.
struct Dialect {
    name: &'static str,
    /// The fields of a line that is a request's.
    has: &'static [&'static str],
    /// The field with the time: the first of these that is there.
    time: &'static [&'static str],
    stamped: Stamp,
    duration: &'static str,
    /// The unit of a duration that is a number.
    unit: TimeUnit,
}

/// How sure it is that a line is a request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sureness {
    /// It has a time.
    Timed,
    /// It has a method or a status.
    Marked,
    /// It is as a known program writes a request.
    Known,
}

/// What lines have in common.
#[derive(Default)]
struct Seen {
    dialects: BTreeSet<&'static str>,
    /// The field that durations were taken from, without anybody having said so.
    taken_from: Option<String>,
    /// A field with a number that may be a duration, and how many requests have it.
    open: Option<(String, usize)>,
    /// Requests, lines with the duration that was named, and the fields of a line without it.
    with_named: usize,
    without_named: Vec<String>,
    is_stamp_supposed: bool,
}

pub(super) fn read(source: impl BufRead, reading: &mut Reading<'_>) -> Result<Vec<Entry>, TrafficError> {
    let mut found: Vec<(Sureness, Entry)> = Vec::new();
    let mut seen = Seen::default();
    let mut timeless: Option<(u64, String)> = None;
    super::unwrapped_lines(source, reading, |reading, number, line| {
        if !line.starts_with('{') {
            *reading.left_out.entry(NO_OBJECT).or_default() += 1;
            return Ok(());
        }
        let object = serde_json::from_str(line).map_err(|error| format!("it is not JSON: {error}"));
        let Some(object) = reading.accept::<Map<String, Value>>(number, object)? else { return Ok(()) };
        let parsed = match parse(&object, reading, &mut seen) {
            Ok(None) => {
                timeless.get_or_insert_with(|| (number, no_time(reading.spec, &object)));
                *reading.left_out.entry(NO_TIME).or_default() += 1;
                return Ok(());
            }
            Ok(Some(parsed)) => Ok(parsed),
            Err(Refusal::Line(problem)) => Err(problem),
            Err(Refusal::File(problem)) => return Err(reading.problem(problem)),
        };
        found.extend(reading.accept(number, parsed)?);
        Ok(())
    })?;
    if found.is_empty()
        && let Some((line, problem)) = timeless
    {
        return Err(TrafficError::Line { file: reading.spec.file.clone(), line, problem });
    }
    if let Some(name) =
        reading.spec.duration.as_deref().filter(|name| *name != "none" && seen.with_named == 0)
    {
        let hint = hint(name, seen.without_named.iter().map(String::as_str));
        let there = seen.without_named.join(", ");
        return Err(reading.problem(format!("no line has a field {name:?}{hint}; there are {there}")));
    }
    let surest = found.iter().map(|(sureness, _)| *sureness).max();
    let all = found.len();
    found.retain(|(sureness, _)| Some(*sureness) == surest);
    if found.len() < all {
        *reading.left_out.entry(NO_REQUEST).or_default() += (all - found.len()) as u64;
    }
    seen.tell(found.len(), reading);
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

/// A line of k6's results: of each request, its duration in milliseconds at the time it ended. Other metrics are
/// passed over.
pub(super) fn k6(line: &str) -> Result<LogLine, String> {
    let object: Value = serde_json::from_str(line).map_err(|error| format!("it is not JSON: {error}"))?;
    let is = |name: &str, value: &str| object.get(name).and_then(Value::as_str) == Some(value);
    if !is("type", "Point") || !K6_DURATIONS.iter().any(|metric| is("metric", metric)) {
        return Ok(LogLine::Other(""));
    }
    let (time, value) = (field(&object, "data.time"), field(&object, "data.value"));
    let at_nanos = time.and_then(Value::as_str).and_then(stamp::iso).ok_or("data.time is not a date")?;
    let service = value.and_then(Value::as_f64).and_then(|millis| TimeUnit::Millis.time(millis));
    let service = Some(service.ok_or("data.value is not a duration in milliseconds")?);
    Ok(LogLine::Request(Entry { at_nanos, stamped: Stamp::End, service }))
}

/// The reason a line, or the file with it, cannot be read.
enum Refusal {
    Line(String),
    File(String),
}

/// A line with a time; `None` if it has none.
fn parse(
    object: &Map<String, Value>,
    reading: &mut Reading<'_>,
    seen: &mut Seen,
) -> Result<Option<(Sureness, Entry)>, Refusal> {
    let spec = reading.spec;
    let dialect = DIALECTS.iter().find(|dialect| dialect.is_of(object));
    let times = match (&spec.time, dialect) {
        (Some(name), _) => vec![name.as_str()],
        (None, Some(dialect)) => dialect.time.to_vec(),
        (None, None) => TIME_NAMES.to_vec(),
    };
    let at = times.iter().find_map(|name| Some((*name, field_of(object, name)?)));
    let Some((name, at)) = at else { return Ok(None) };
    let (at_nanos, is_date) =
        point(at).ok_or_else(|| Refusal::Line(format!("{name} is {at}, not a time")))?;
    reading.is_dated |= is_date;
    let mut sureness = match dialect {
        Some(_) => Sureness::Known,
        None if MARKS.iter().any(|mark| field_of(object, mark).is_some()) => Sureness::Marked,
        None => Sureness::Timed,
    };
    let service = match spec.duration.as_deref() {
        Some("none") => None,
        Some(name) => match field_of(object, name) {
            Some(value) => {
                seen.with_named += 1;
                sureness = Sureness::Known;
                let by_dialect =
                    dialect.filter(|dialect| dialect.duration == name).map(|dialect| dialect.unit);
                let unit = spec.duration_unit.or(by_dialect).or(unit::named(name).1);
                Some(span(name, value, unit)?)
            }
            None => {
                if seen.without_named.is_empty() {
                    seen.without_named = object.keys().cloned().collect();
                }
                None
            }
        },
        None => match dialect {
            Some(dialect) => {
                let value = field_of(object, dialect.duration);
                let unit = spec.duration_unit.unwrap_or(dialect.unit);
                value.map(|value| span(dialect.duration, value, Some(unit))).transpose()?
            }
            None => seen.likely(object, spec),
        },
    };
    if let Some(dialect) = dialect {
        seen.dialects.insert(dialect.name);
    } else {
        seen.is_stamp_supposed |= service.is_some();
    }
    let stamped = dialect.map_or(Stamp::Start, |dialect| dialect.stamped);
    Ok(Some((sureness, Entry { at_nanos, stamped, service })))
}

impl Dialect {
    fn is_of(&self, object: &Map<String, Value>) -> bool {
        let has = self.has.iter().all(|name| field_of(object, name).is_some());
        // nginx's $request_time always has decimals; another's field of that name may be anything.
        has && (self.duration != NGINX_DURATION || field_of(object, NGINX_DURATION).is_some_and(is_decimal))
    }
}

impl Seen {
    /// The duration in a line of a program that is not known: where its name or its text has the unit, or somebody
    /// gave one.
    fn likely(&mut self, object: &Map<String, Value>, spec: &TraceSpec) -> Option<Duration> {
        let nested = DURATION_NAMES
            .iter()
            .filter(|name| name.contains('.'))
            .map(|name| (*name, field_of(object, name)));
        let flat = object.iter().map(|(name, value)| (name.as_str(), Some(value)));
        let all = flat.chain(nested).filter_map(|(name, value)| Some((name, value?)));
        let named = all.filter(|(name, _)| {
            let base = unit::named(name).0;
            DURATION_NAMES.iter().any(|known| *known == base || *known == *name)
        });
        for (name, value) in named {
            let unit = spec.duration_unit.or(unit::named(name).1);
            if let Ok(service) = span(name, value, unit) {
                self.taken_from.get_or_insert_with(|| name.to_owned());
                return Some(service);
            }
            if value.is_number() || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok()) {
                match &mut self.open {
                    Some((open, times)) if open == name => *times += 1,
                    Some(_) => {}
                    None => self.open = Some((name.to_owned(), 1)),
                }
            }
        }
        None
    }

    /// Notes on what was taken for what, and what is still to be said.
    fn tell(&self, requests: usize, reading: &mut Reading<'_>) {
        for dialect in &self.dialects {
            reading.notes.push(format!("lines are {dialect}"));
        }
        if let Some(name) = &self.taken_from {
            reading.notes.push(format!("durations are taken from {name}"));
        }
        if self.is_stamp_supposed && reading.spec.stamped.is_none() {
            reading.notes.push(
                "times are taken for the starts of requests; say `stamped=end` if they are not".to_owned(),
            );
        }
        match &self.open {
            Some((name, times)) if *times >= requests && self.taken_from.is_none() && requests > 0 => {
                reading.warnings.push(format!(
                    "each request has a number {name:?} without a unit: if that is how long it took, say \
                     `duration={name}` and `duration-unit=s`, `ms`, `us` or `ns`"
                ));
            }
            _ => {}
        }
    }
}

/// A duration: a number or its text in the unit, or a duration as Go writes it, with its unit.
fn span(name: &str, value: &Value, unit: Option<TimeUnit>) -> Result<Duration, Refusal> {
    let wrong = || Refusal::Line(format!("{name} is {value}, not a duration"));
    let text = value.as_str();
    let number = value.as_f64().or_else(|| text?.parse().ok());
    match (number, unit) {
        (Some(number), Some(unit)) => unit.time(number).ok_or_else(wrong),
        (Some(_), None) => Err(Refusal::File(format!(
            "{name} is {value}, a number without a unit: say `duration-unit=s`, `ms`, `us` or `ns`"
        ))),
        (None, _) => duration::parse(text.ok_or_else(wrong)?).map_err(|_| wrong()),
    }
}

fn no_time(spec: &TraceSpec, object: &Map<String, Value>) -> String {
    let name = spec.time.as_deref().unwrap_or("time");
    let hint = hint(name, object.keys().map(String::as_str));
    format!("there is no field {name:?}{hint}; name the one with the time by `time=`")
}

fn is_decimal(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::String(text) => text.split_once('.').is_some_and(|(_, decimals)| decimals.len() == 3),
        _ => false,
    }
}

/// A field, by a name whose dots lead into objects; a name that is there with its dots comes first.
fn field<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    field_of(object.as_object()?, name)
}

fn field_of<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    if let Some(value) = object.get(name) {
        return Some(value).filter(|value| !value.is_null());
    }
    let (outer, inner) = name.split_once('.')?;
    field(object.get(outer)?, inner)
}

/// A date, or a bare number; and whether it is a date.
fn point(value: &Value) -> Option<(i64, bool)> {
    let number = match value {
        Value::String(text) => match stamp::iso(text).or_else(|| stamp::common_log(text)) {
            Some(nanos) => return Some((nanos, true)),
            None => text.parse().ok()?,
        },
        Value::Number(number) => {
            // Whole nanoseconds are read as such: floats would lose their last digits.
            if let Some(nanos) = number.as_i64().filter(|nanos| *nanos >= SINCE_1970) {
                return Some((nanos, false));
            }
            number.as_f64()?
        }
        _ => return None,
    };
    Some((stamp::bare(number)?, false))
}

const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "Google Cloud's",
        has: &["httpRequest", "timestamp"],
        time: &["timestamp"],
        stamped: Stamp::Start,
        duration: "httpRequest.latency",
        unit: TimeUnit::Seconds,
    },
    Dialect {
        name: "Caddy's",
        has: &["ts", "request.method", "status", "duration"],
        time: &["ts"],
        stamped: Stamp::End,
        duration: "duration",
        unit: TimeUnit::Seconds,
    },
    Dialect {
        name: "Traefik's",
        has: &["StartUTC", "Duration"],
        time: &["StartUTC"],
        stamped: Stamp::Start,
        duration: "Duration",
        unit: TimeUnit::Nanos,
    },
    Dialect {
        name: "Envoy's",
        has: &["start_time", "duration", "response_code"],
        time: &["start_time"],
        stamped: Stamp::Start,
        duration: "duration",
        unit: TimeUnit::Millis,
    },
    Dialect {
        name: "vegeta's",
        has: &["attack", "seq", "timestamp", "latency"],
        time: &["timestamp"],
        stamped: Stamp::Start,
        duration: "latency",
        unit: TimeUnit::Nanos,
    },
    Dialect {
        name: "pino's",
        has: &["pid", "time", "responseTime"],
        time: &["time"],
        stamped: Stamp::End,
        duration: "responseTime",
        unit: TimeUnit::Millis,
    },
    Dialect {
        name: "nginx's",
        has: &[NGINX_DURATION],
        time: &["time_iso8601", "msec", "time_local", "@timestamp", "timestamp", "time", "ts", "date"],
        stamped: Stamp::End,
        duration: NGINX_DURATION,
        unit: TimeUnit::Seconds,
    },
];

const NGINX_DURATION: &str = "request_time";

const TIME_NAMES: &[&str] = &[
    "time",
    "timestamp",
    "@timestamp",
    "ts",
    "start_time",
    "time_iso8601",
    "time_local",
    "msec",
    "datetime",
    "date",
];

/// Fields that only a request has.
const MARKS: &[&str] = &[
    "status",
    "status_code",
    "statusCode",
    "response_code",
    "responseCode",
    "res.statusCode",
    "http.status_code",
    "http.response.status_code",
    "method",
    "request_method",
    "req.method",
    "request.method",
    "http.method",
    "http.request.method",
];

/// Names of how long a request took, without their unit and in small letters.
const DURATION_NAMES: &[&str] = &[
    "duration",
    "latency",
    "requesttime",
    "responsetime",
    "elapsed",
    "elapsedtime",
    "took",
    "requestduration",
    "requestlatency",
    "responselatency",
    "timetaken",
    "processingtime",
    "durationtime",
    "http.duration",
    "http.latency",
    "http.request.duration",
    "request.duration",
    "response.duration",
    "req.duration",
    "res.responseTime",
];

const K6_DURATIONS: &[&str] = &["http_req_duration", "grpc_req_duration"];

const NO_OBJECT: &str = "no JSON";
const NO_TIME: &str = "without a time";
const NO_REQUEST: &str = "no requests, without what the others have of one";
