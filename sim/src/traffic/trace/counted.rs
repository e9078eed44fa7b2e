//! Tables of counts: a line a second or minute with the count in a column, and Azure's, with a line a function and
//! a column a minute.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::Rng;

use super::events::TraceTable;
use super::{Content, Reading, TrafficError, stamp};
use crate::dist::{Distribution, TimeUnit};

/// Service times of several functions, drawn as often as each is called.
#[derive(Clone, Debug)]
pub(in crate::traffic) struct Services {
    /// Calls of all functions up to this one, and its service times. At least one.
    functions: Arc<[(f64, Distribution)]>,
}

impl Services {
    fn new(functions: impl IntoIterator<Item = (f64, Distribution)>) -> Option<Self> {
        let mut calls = 0.0;
        let up_to = |(weight, service)| {
            calls += weight;
            (calls, service)
        };
        let functions: Arc<[_]> = functions.into_iter().map(up_to).collect();
        (!functions.is_empty()).then_some(Services { functions })
    }

    pub(in crate::traffic) fn sample(&self, rng: &mut Rng) -> Duration {
        let last = self.functions.len() - 1;
        let at = if last == 0 {
            0
        } else {
            let call = rng.unit() * self.functions[last].0;
            self.functions.partition_point(|(calls, _)| *calls <= call).min(last)
        };
        self.functions[at].1.sample(rng)
    }
}

/// A line an interval. With a column of times, lines may be missing, and nothing came then; without one, each line
/// is the next interval.
pub(super) fn read_table(
    source: impl Read,
    width: Duration,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    let mut table = TraceTable::new(source, true, reading)?;
    let times = TIME_COLUMNS.iter().find_map(|name| table.optional_column(name));
    let column = match reading.spec.column.clone() {
        Some(name) => table.column(&name, reading)?,
        None => {
            let mut others = (0..table.header.len()).filter(|at| Some(*at) != times);
            match (others.next(), others.next()) {
                (Some(only), None) => only,
                _ => {
                    return Err(reading
                        .problem("there are several columns; name the one with the counts by `column:`"));
                }
            }
        }
    };
    let unit_nanos = times.map_or(0.0, |times| match &table.header[times].to_ascii_lowercase()[..] {
        "minute" => 60e9,
        _ => 1e9,
    });
    let mut rows = Vec::new();
    let parse = |row: &csv::StringRecord| {
        let text = row.get(column).unwrap_or("");
        let value = if text.is_empty() { Some(0.0) } else { text.parse().ok() };
        let value = value.filter(|value: &f64| (0.0..1e15).contains(value));
        let value = value.ok_or_else(|| format!("the count is {text:?}, not a number of at least zero"))?;
        let at = match times {
            None => None,
            Some(times) => {
                let text = row.get(times).unwrap_or("");
                let number = || text.parse().ok().filter(|number: &f64| (0.0..1e10).contains(number));
                let nanos = stamp::iso(text).or_else(|| Some((number()? * unit_nanos) as i64));
                Some(nanos.ok_or_else(|| format!("the time is {text:?}, neither a date nor a number"))?)
            }
        };
        Ok(Some((at, value)))
    };
    table.each(reading, parse, &mut rows)?;
    let values = by_interval(&rows, width, reading)?;
    Ok(Content::Intervals { width, values, services: None })
}

/// The value of each interval from the first to the last; several of the same interval add up.
fn by_interval(
    rows: &[(Option<i64>, f64)],
    width: Duration,
    reading: &Reading<'_>,
) -> Result<Vec<f64>, TrafficError> {
    let width_nanos = width.as_nanos() as i64;
    let index = |at: i64| at.div_euclid(width_nanos);
    let Some(first) = rows.iter().filter_map(|(at, _)| at.map(index)).min() else {
        return Ok(rows.iter().map(|(_, value)| *value).collect());
    };
    let mut values = Vec::new();
    for &(at, value) in rows {
        let place = (index(at.unwrap_or(0)) - first).max(0) as usize;
        if place >= MOST_INTERVALS {
            return Err(reading.problem("its times span too many intervals; is the time column in seconds?"));
        }
        if values.len() <= place {
            values.resize(place + 1, 0.0);
        }
        values[place] += value;
    }
    Ok(values)
}

/// Azure Functions 2019: a line a function, a column a minute.
pub(super) fn read_azure(source: impl Read, reading: &mut Reading<'_>) -> Result<Content, TrafficError> {
    let mut table = TraceTable::new(source, true, reading)?;
    let function = table.column("HashFunction", reading)?;
    let owner = table.optional_column("HashOwner");
    let app = table.optional_column("HashApp");
    let first = table.column("1", reading)?;
    let minutes = table.header.iter().skip(first).take_while(|name| name.parse::<u32>().is_ok()).count();
    let wanted = reading.spec.function.clone();
    let mut values = vec![0.0; minutes];
    let mut calls: BTreeMap<FunctionId, f64> = BTreeMap::new();
    let id = |row: &csv::StringRecord, columns: [Option<usize>; 3]| {
        columns.map(|column| column.and_then(|column| row.get(column)).unwrap_or("").to_owned())
    };
    let parse = |row: &csv::StringRecord| {
        let name = row.get(function).unwrap_or("");
        if name.is_empty() {
            return Err("there is no HashFunction".to_owned());
        }
        if !wanted.as_ref().is_none_or(|prefix| name.starts_with(prefix)) {
            return Ok(None);
        }
        let count = |minute| {
            let text = row.get(first + minute).unwrap_or("");
            let count =
                text.parse::<u32>().map_err(|_| format!("minute {}: {text:?} is not a count", minute + 1));
            count.map(f64::from)
        };
        // All of a line or nothing of it.
        let counts = (0..minutes).map(count).collect::<Result<Vec<f64>, String>>()?;
        let total: f64 = counts.iter().sum();
        values.iter_mut().zip(counts).for_each(|(value, count)| *value += count);
        *calls.entry(id(row, [owner, app, Some(function)])).or_default() += total;
        Ok(None)
    };
    table.each::<()>(reading, parse, &mut Vec::new())?;
    if calls.is_empty() {
        let prefix = wanted.unwrap_or_default();
        return Err(reading.problem(format!("there is no function whose hash begins with {prefix:?}")));
    }
    if calls.len() > 1 {
        reading.notes.push(format!("{} functions together", calls.len()));
    }
    let services = match reading.spec.durations.clone() {
        None => None,
        Some(file) => read_percentiles(&file, &calls, reading)?,
    };
    Ok(Content::Intervals { width: Duration::from_secs(60), values, services })
}

/// Owner, app and function.
type FunctionId = [String; 3];

/// The service times of the functions that are called, from Azure's file of percentiles.
fn read_percentiles(
    file: &str,
    calls: &BTreeMap<FunctionId, f64>,
    reading: &mut Reading<'_>,
) -> Result<Option<Services>, TrafficError> {
    let source = reading.open(file)?;
    // Lines of this file are told apart from those of the counts by its name.
    let spec = super::TraceSpec { file: file.to_owned(), ..reading.spec.clone() };
    let mut beside = Reading { spec: &spec, notes: Vec::new(), first_bad_line: None, ..*reading };
    let mut table = TraceTable::new(source, true, &beside)?;
    let ids = ["HashOwner", "HashApp", "HashFunction"].map(|name| table.optional_column(name));
    table.column("HashFunction", &beside)?;
    let mut columns = Vec::new();
    for percent in [0.0, 1.0, 25.0, 50.0, 75.0, 99.0, 100.0] {
        columns.push((percent / 100.0, table.column(&format!("percentile_Average_{percent}"), &beside)?));
    }
    let mut found: BTreeMap<FunctionId, (f64, Distribution)> = BTreeMap::new();
    let parse = |row: &csv::StringRecord| {
        let id = ids.map(|column| column.and_then(|column| row.get(column)).unwrap_or("").to_owned());
        let Some(&weight) = calls.get(&id) else { return Ok(None) };
        let mut known = Vec::new();
        let mut highest = Duration::ZERO;
        for &(share, column) in &columns {
            let text = row.get(column).unwrap_or("");
            let time = TimeUnit::Millis.parse(text);
            let time = time.ok_or_else(|| format!("a percentile is {text:?}, not milliseconds"))?;
            // Averages of percentiles are sometimes out of order by a little.
            highest = highest.max(time);
            known.push((share, highest));
        }
        let service = Distribution::percentiles(known).map_err(|error| error.to_string())?;
        found.insert(id, (weight, service));
        Ok(None)
    };
    table.each::<()>(&mut beside, parse, &mut Vec::new())?;
    let (bad_lines, first_bad_line) = (beside.bad_lines, beside.first_bad_line);
    if bad_lines > reading.bad_lines {
        reading.bad_lines = bad_lines;
        let named = first_bad_line.map(|(line, problem)| (line, format!("{file}: {problem}")));
        reading.first_bad_line = reading.first_bad_line.take().or(named);
    }
    let missing = calls.len() - found.len();
    if missing > 0 {
        reading.notes.push(format!("{missing} of them without durations, which take those of the others"));
    }
    Ok(Services::new(found.into_values().filter(|(weight, _)| *weight > 0.0)))
}

const TIME_COLUMNS: &[&str] = &["time", "timestamp", "t", "t_s", "second", "minute"];

/// A second each for a year.
pub(super) const MOST_INTERVALS: usize = 366 * 86_400;
