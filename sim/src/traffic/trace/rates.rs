//! Rates over time: what monitoring recorded, and what our own autoscaler wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::time::Duration;

use pilotlight_config::spelling::hint;
use pilotlight_core::{Input, Record};
use serde::Deserialize;

use super::counted::MOST_INTERVALS;
use super::{Content, Reading, TrafficError};

/// The answer of Prometheus to a range query, as far as it matters here.
#[derive(Deserialize)]
struct RangeAnswer {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    #[serde(default)]
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct PrometheusSeries {
    values: Vec<(f64, String)>,
}

/// Series are added up. A value is the rate of the step that ends at its time, as `rate()` looks back; where
/// values are missing, or not a number, nothing came.
pub(super) fn read_prometheus(
    source: impl BufRead,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    let answer: RangeAnswer = serde_json::from_reader(source)
        .map_err(|error| reading.problem(format!("it is not the answer to a query: {error}")))?;
    let Some(data) = answer.data else {
        let error = answer.error.unwrap_or_else(|| "there is no data in it".to_owned());
        return Err(reading.problem(error));
    };
    if data.result_type != "matrix" {
        let kind = data.result_type;
        return Err(reading.problem(format!("it is a {kind}, not a matrix: ask query_range, not query")));
    }
    let series: Vec<PrometheusSeries> = serde_json::from_value(data.result)
        .map_err(|error| reading.problem(format!("its series are not as Prometheus writes them: {error}")))?;
    let mut rates: BTreeMap<i64, f64> = BTreeMap::new();
    for (at, text) in series.iter().flat_map(|series| &series.values) {
        let rate: f64 =
            text.parse().map_err(|_| reading.problem(format!("{text:?} at {at} is not a number")))?;
        if !(rate.is_nan() || (0.0..1e12).contains(&rate)) || !(0.0..1e12).contains(at) {
            return Err(reading.problem(format!("{text:?} at {at} is not a rate: zero or more a second")));
        }
        let rate = if rate.is_nan() { 0.0 } else { rate };
        *rates.entry((at * 1e3).round() as i64).or_default() += rate;
    }
    if series.len() > 1 {
        reading.notes.push(format!("{} series added up", series.len()));
    }
    let times: Vec<i64> = rates.keys().copied().collect();
    let Some(step) = times.windows(2).map(|pair| pair[1] - pair[0]).min() else {
        return Err(reading.problem("a range needs at least two points in time"));
    };
    let place = |at: i64| ((at - times[0]) as f64 / step as f64).round() as usize;
    let intervals = place(times[times.len() - 1]) + 1;
    if intervals > MOST_INTERVALS {
        return Err(reading.problem(format!("its times span {intervals} steps, more than can be meant")));
    }
    let mut values = vec![0.0; intervals];
    for (at, rate) in rates {
        values[place(at)] += rate * step as f64 / 1e3;
    }
    Ok(Content::Intervals { width: Duration::from_millis(step as u64), values, services: None })
}

/// Each report counts for the second it is about: the one around half a second before it was heard. A last line
/// that was cut off in the writing is passed over.
pub(super) fn read_journal(source: impl BufRead, reading: &mut Reading<'_>) -> Result<Content, TrafficError> {
    let wanted = reading.spec.revision.clone();
    let mut seconds: BTreeMap<u64, f64> = BTreeMap::new();
    let mut revisions = BTreeSet::new();
    let mut cut_off: Option<(u64, String)> = None;
    reading.lines(source, |reading, number, line| {
        if let Some((number, problem)) = cut_off.take() {
            reading.accept::<()>(number, Err(problem))?;
        }
        let record: Record = match serde_json::from_str(line) {
            Ok(record) => record,
            Err(error) if error.is_eof() => {
                cut_off = Some((number, format!("it is cut off: {error}")));
                return Ok(());
            }
            Err(error) => {
                let problem = format!("it is not a record of a decision: {error}");
                return reading.accept::<()>(number, Err(problem)).map(|_| ());
            }
        };
        let revision = record.revision.to_string();
        let is_wanted = wanted.as_ref().is_none_or(|wanted| *wanted == revision);
        revisions.insert(revision);
        if !is_wanted {
            return Ok(());
        }
        for (at, input) in record.inputs {
            if let Input::Scraped(stat) | Input::Pushed(stat) = input {
                // Requests through the activator are in its own report, as the autoscaler reckons.
                let requests = (stat.request_count - stat.proxied_request_count).max(0.0);
                let second = (at - Duration::from_millis(500)).whole_seconds();
                *seconds.entry(second).or_default() += requests;
            }
        }
        Ok(())
    })?;
    let names: Vec<&str> = revisions.iter().map(String::as_str).collect();
    match &wanted {
        Some(wanted) if !revisions.contains(wanted) => {
            let hint = hint(wanted, names.iter().copied());
            let problem = format!("there is no revision {wanted:?}{hint}; there are {}", names.join(", "));
            return Err(reading.problem(problem));
        }
        None if names.len() > 1 => reading.notes.push(format!("{} revisions together", names.len())),
        _ => {}
    }
    let first = seconds.keys().next().copied().unwrap_or(0);
    let last = seconds.keys().next_back().copied().unwrap_or(0);
    if last - first >= MOST_INTERVALS as u64 {
        return Err(reading.problem("it spans more than a year"));
    }
    let mut values = vec![0.0; (last - first + 1) as usize];
    for (second, requests) in seconds {
        values[(second - first) as usize] = requests;
    }
    Ok(Content::Intervals { width: Duration::from_secs(1), values, services: None })
}
