//! Logs whose format says what each field is: HAProxy, Envoy and Istio, AWS' load balancers, CloudFront.

use std::time::Duration;

use super::super::entries::Entry;
use super::super::{Stamp, stamp};
use super::LogLine;
use super::line::{Kind, split};
use crate::dist::TimeUnit;

/// `[%START_TIME%] "method path protocol" code flags received sent duration ...`; Istio has three more fields
/// behind the flags. A TCP connection has `- - -` for its request.
pub(super) fn envoy(line: &str) -> Result<LogLine, String> {
    let parts = split(line);
    let time = parts.first().filter(|part| part.kind == Kind::Bracketed);
    let time = time.ok_or("it does not begin with a [time]")?.text;
    let at_nanos = stamp::iso(time)
        .ok_or_else(|| format!("the time is {time:?}, not such as 2016-04-15T20:17:00.310Z"))?;
    if parts.get(1).is_some_and(|request| request.kind == Kind::Quoted && request.text.starts_with("- - ")) {
        return Ok(LogLine::Other(CONNECTIONS));
    }
    let is_number = |at: usize| parts.get(at).is_some_and(|part| part.text.parse::<u64>().is_ok());
    let duration_at = if is_number(4) { 6 } else { 9 };
    let text = parts.get(duration_at).map_or("", |part| part.text);
    let service = text.parse().ok().and_then(|millis| TimeUnit::Millis.time(millis));
    match service {
        Some(_) => Ok(LogLine::Request(Entry { at_nanos, stamped: Stamp::Start, service })),
        None => Err(format!("field {} is {text:?}, not the duration in milliseconds", duration_at + 1)),
    }
}

/// `... client:port [accept date] frontend backend/server TR/Tw/Tc/Tr/Ta status ...`: the date is the request's
/// first byte, `Ta` the milliseconds from there to the response's last. A TCP connection has three timers.
pub(super) fn haproxy(line: &str) -> Result<LogLine, String> {
    let parts = split(line);
    let found = parts.iter().enumerate().find_map(|(at, part)| {
        // The process id is in brackets, too, inside a word.
        let text = if part.kind == Kind::Bracketed { stamp::common_log(part.text) } else { None };
        text.map(|nanos| (at, nanos))
    });
    let (time_at, at_nanos) = found.ok_or("there is no [time] such as 06/Feb/2009:12:14:14.655 in it")?;
    let timers = parts.get(time_at + 3).map_or("", |part| part.text);
    let all: Vec<&str> = timers.split('/').collect();
    let millis = match all[..] {
        // A plus says that the log was written before the response had ended.
        [_, _, _, _, total] => total.trim_start_matches('+').parse::<i64>(),
        [_, _, _] => return Ok(LogLine::Other(CONNECTIONS)),
        _ => return Err(format!("{timers:?} is not five timers, TR/Tw/Tc/Tr/Ta")),
    };
    let millis = millis.map_err(|_| format!("{timers:?} is not five timers, TR/Tw/Tc/Tr/Ta"))?;
    let service = TimeUnit::Millis.time(millis as f64);
    Ok(LogLine::Request(Entry { at_nanos, stamped: Stamp::Start, service }))
}

/// Whether a line may be of AWS' Application Load Balancer: a kind, a date, the balancer, addresses, three times.
pub(in crate::traffic::trace) fn is_alb(line: &str) -> bool {
    let mut fields = line.split(' ');
    let (kind, time, balancer) = (fields.next(), fields.next(), fields.next());
    kind.is_some_and(|kind| ALB_KINDS.contains(&kind))
        && time.is_some_and(|time| stamp::iso(time).is_some())
        && balancer.is_some_and(|balancer| balancer.contains('/'))
}

/// `type time elb client target request_processing target_processing response_processing ...`: times in seconds, -1
/// where the request got no further. Field 22 is when it came; `time` is when it was answered.
pub(super) fn alb(line: &str) -> Result<LogLine, String> {
    let parts = split(line);
    let text = |at: usize| parts.get(at).map_or("", |part| part.text);
    let kind = text(0);
    if !ALB_KINDS.contains(&kind) {
        return Err(format!("it begins with {kind:?}, not with one of {}", ALB_KINDS.join(", ")));
    }
    let ended = stamp::iso(text(1)).ok_or_else(|| format!("the time is {:?}, not a date", text(1)))?;
    let mut service = Some(Duration::ZERO);
    for at in 5..8 {
        let took: f64 =
            text(at).parse().map_err(|_| format!("field {} is {:?}, not seconds", at + 1, text(at)))?;
        service = service.and_then(|sum| Some(sum + TimeUnit::Seconds.time(took)?));
    }
    let entry = match stamp::iso(text(21)) {
        Some(at_nanos) => Entry { at_nanos, stamped: Stamp::Start, service },
        None => Entry { at_nanos: ended, stamped: Stamp::End, service },
    };
    Ok(LogLine::Request(entry))
}

/// The places of CloudFront's fields, as its `#Fields:` line has them.
#[derive(Default)]
pub(super) struct CloudFrontFields {
    places: Option<CloudFrontPlaces>,
}

struct CloudFrontPlaces {
    date: usize,
    time: usize,
    taken: Option<usize>,
}

impl CloudFrontFields {
    /// Fields are separated by tabs. `date` and `time` are when the response had been sent; `time-taken` is in
    /// seconds with three decimals.
    pub(super) fn line(&mut self, line: &str) -> Result<LogLine, String> {
        if let Some(names) = line.strip_prefix("#Fields:") {
            let names: Vec<&str> = names.split_whitespace().collect();
            let place = |name: &str| names.iter().position(|known| *known == name);
            let (date, time) = (place("date"), place("time"));
            let both = date.zip(time).ok_or("its #Fields are without date and time")?;
            if place("x-edge-location").is_none() {
                return Err("its #Fields are not CloudFront's: there is no x-edge-location".to_owned());
            }
            self.places = Some(CloudFrontPlaces { date: both.0, time: both.1, taken: place("time-taken") });
            return Ok(LogLine::Other(""));
        }
        if line.starts_with('#') {
            return Ok(LogLine::Other(""));
        }
        let places = self.places.as_ref().ok_or("no #Fields are before it")?;
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or("");
        let date = format!("{} {}", cell(places.date), cell(places.time));
        let at_nanos =
            stamp::iso(&date).ok_or_else(|| format!("the time is {date:?}, not a date and a time"))?;
        let service = match places.taken.map(cell) {
            None | Some("-") => None,
            Some(taken) => {
                let service =
                    Some(taken).filter(|taken| taken.contains('.')).and_then(|t| TimeUnit::Seconds.parse(t));
                Some(service.ok_or_else(|| format!("time-taken is {taken:?}, not seconds with decimals"))?)
            }
        };
        Ok(LogLine::Request(Entry { at_nanos, stamped: Stamp::End, service }))
    }
}

const ALB_KINDS: &[&str] = &["http", "https", "h2", "grpcs", "ws", "wss"];
const CONNECTIONS: &str = "TCP connections, not requests";
