//! Access logs: nginx, Envoy and Istio, and whatever writes an object a line.

use std::io::BufRead;
use std::time::Duration;

use serde_json::Value;

use super::{
    Content, Format, Reading, SINCE_1970, Stamp, TraceEvent, TrafficError, spread_whole_seconds, stamp,
};
use crate::dist::TimeUnit;

pub(super) fn read(
    source: impl BufRead,
    format: Format,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    let mut events = Vec::new();
    let fields = Fields::new(reading);
    reading.lines(source, |reading, number, line| {
        let event = match format {
            Format::Nginx => nginx(line),
            Format::Envoy => envoy(line),
            _ => fields.event(line),
        };
        events.extend(reading.accept(number, event)?);
        Ok(())
    })?;
    if format == Format::Nginx {
        // A line is written when its request has ended, and says so to the second.
        spread_ends(&mut events, reading);
    } else if format == Format::JsonLines {
        spread_whole_seconds(&mut events, reading);
    }
    Ok(Content::Events(events))
}

/// nginx's times are of the end: they are spread first, and then what the request took is taken off.
fn spread_ends(events: &mut [TraceEvent], reading: &mut Reading<'_>) {
    spread_whole_seconds(events, reading);
    for event in events {
        event.start_nanos -= event.service.map_or(0, |service| service.as_nanos() as i64);
    }
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer"
/// "$http_user_agent"`, and behind it, somewhere, `$request_time`: the first number in seconds, as such or behind
/// a name and an equals sign.
fn nginx(line: &str) -> Result<TraceEvent, String> {
    let parts = split(line);
    let stamp_at = parts.iter().position(|part| part.kind == Kind::Bracketed);
    let stamp_at = stamp_at.ok_or("there is no [time] in it")?;
    let text = parts[stamp_at].text;
    let start_nanos = stamp::common_log(text)
        .ok_or_else(|| format!("the time is {text:?}, not such as 10/Oct/2000:13:55:36 -0700"))?;
    let behind = parts[stamp_at + 1..].iter();
    // Behind the request come status and size, which are numbers, too.
    let mut bare = behind.filter(|part| part.kind == Kind::Bare).skip(2);
    let service = bare.find_map(|part| {
        let number = part.text.rsplit_once('=').map_or(part.text, |(_, number)| number);
        TimeUnit::Seconds.parse(number)
    });
    Ok(TraceEvent { start_nanos, service })
}

/// `[%START_TIME%] "method path protocol" code flags received sent duration ...`; Istio has three more fields
/// behind the flags.
fn envoy(line: &str) -> Result<TraceEvent, String> {
    let parts = split(line);
    let stamp = parts.first().filter(|part| part.kind == Kind::Bracketed);
    let stamp = stamp.ok_or("it does not begin with a [time]")?.text;
    let start_nanos = stamp::iso(stamp)
        .ok_or_else(|| format!("the time is {stamp:?}, not such as 2016-04-15T20:17:00.310Z"))?;
    let is_number = |at: usize| parts.get(at).is_some_and(|part| part.text.parse::<u64>().is_ok());
    let duration_at = if is_number(4) { 6 } else { 9 };
    let text = parts.get(duration_at).map_or("", |part| part.text);
    let service = text.parse().ok().and_then(|millis| TimeUnit::Millis.time(millis));
    match service {
        Some(_) => Ok(TraceEvent { start_nanos, service }),
        None => Err(format!("field {} is {text:?}, not the duration in milliseconds", duration_at + 1)),
    }
}

/// The fields of an object that say when and how long.
struct Fields {
    time: Option<String>,
    duration: Option<String>,
    unit: TimeUnit,
    stamped: Stamp,
}

impl Fields {
    fn new(reading: &Reading<'_>) -> Self {
        Fields {
            time: reading.spec.time.clone(),
            duration: reading.spec.duration.clone(),
            unit: reading.spec.duration_unit.unwrap_or_default(),
            stamped: reading.spec.stamped.unwrap_or(Stamp::Start),
        }
    }

    fn event(&self, line: &str) -> Result<TraceEvent, String> {
        let object: Value = serde_json::from_str(line).map_err(|error| format!("it is not JSON: {error}"))?;
        let (name, at) = match &self.time {
            Some(name) => (name.as_str(), field(&object, name)),
            None => TIME_NAMES
                .iter()
                .map(|name| (*name, field(&object, name)))
                .find(|(_, value)| value.is_some())
                .unwrap_or(("time", None)),
        };
        let at =
            at.ok_or_else(|| format!("there is no field {name:?}; name the one with the time by `time:`"))?;
        let mut start_nanos = point(at).ok_or_else(|| format!("{name} is {at}, not a time"))?;
        let service = match &self.duration {
            None => None,
            Some(name) => match field(&object, name) {
                None => return Err(format!("there is no field {name:?}")),
                Some(value) => {
                    Some(self.span(value).ok_or_else(|| format!("{name} is {value}, not a duration"))?)
                }
            },
        };
        if self.stamped == Stamp::End {
            start_nanos = start_nanos.saturating_sub(service.map_or(0, |service| service.as_nanos() as i64));
        }
        Ok(TraceEvent { start_nanos, service })
    }

    /// A number in the unit, the same as text, or a duration as Go writes it.
    fn span(&self, value: &Value) -> Option<Duration> {
        let text = value.as_str();
        let number = value.as_f64().or_else(|| text?.parse().ok());
        match number {
            Some(number) => self.unit.time(number),
            None => pilotlight_config::duration::parse(text?).ok(),
        }
    }
}

/// A field, by a name whose dots lead into objects; a name that is there with its dots comes first.
fn field<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    field(object.get(outer)?, inner)
}

/// A date, or a number since 1970 in seconds, milliseconds, microseconds or nanoseconds: which, its size tells.
/// Smaller numbers are seconds since the trace began.
fn point(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(text) => match stamp::iso(text).or_else(|| stamp::common_log(text)) {
            Some(nanos) => return Some(nanos),
            None => text.parse().ok()?,
        },
        Value::Number(number) => {
            // Whole nanoseconds are read as such: floats would lose their last digits.
            if let Some(nanos) = number.as_i64().filter(|nanos| *nanos >= SINCE_1970) {
                return Some(nanos);
            }
            number.as_f64()?
        }
        _ => return None,
    };
    let unit = match number {
        n if n < 0.0 || !n.is_finite() => return None,
        n if n < 1e11 => 1e9,
        n if n < 1e14 => 1e6,
        n if n < 1e17 => 1e3,
        _ => 1.0,
    };
    Some((number * unit).round() as i64)
}

const TIME_NAMES: &[&str] = &["time", "timestamp", "@timestamp", "ts", "start_time", "time_iso8601", "msec"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bare,
    Quoted,
    Bracketed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part<'a> {
    kind: Kind,
    text: &'a str,
}

/// The parts of a log line: words, "quoted" with `\"` inside, and [bracketed].
fn split(line: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let (kind, text, after) = match rest.as_bytes()[0] {
            b'"' => {
                let end = closing_quote(&rest[1..]);
                (Kind::Quoted, &rest[1..=end], rest.get(end + 2..).unwrap_or(""))
            }
            b'[' => {
                let end = rest.find(']').unwrap_or(rest.len());
                (Kind::Bracketed, &rest[1..end], rest.get(end + 1..).unwrap_or(""))
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (Kind::Bare, &rest[..end], &rest[end..])
            }
        };
        parts.push(Part { kind, text });
        rest = after.trim_start();
    }
    parts
}

/// The end of the quote, or of the text.
fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return at,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}
