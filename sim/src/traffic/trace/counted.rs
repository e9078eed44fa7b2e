//! Tables of counts: a line a second or minute with the count in a column, and Azure's, with a line a function and
//! a column a minute.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_config::duration;
use pilotlight_core::Rng;

use super::events::TraceTable;
use super::{Content, Format, Reading, TrafficError, stamp};
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

/// What the numbers of a table are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CountMeasure {
    /// Requests in so much time, wherever the lines are.
    Rate(Duration),
    /// Requests from one line to the next.
    Count,
}

/// A line an interval. With a column of times, lines may be missing, and nothing came then; without one, each line
/// is the next interval.
pub(super) fn read_table(
    source: impl Read,
    format: Format,
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
    let mut measure = match format {
        Format::PerSecond => Some(CountMeasure::Rate(SECOND)),
        Format::PerMinute => Some(CountMeasure::Rate(MINUTE)),
        Format::PerInterval => Some(CountMeasure::Count),
        _ => unit_of(&table.header[column]).map(CountMeasure::Rate),
    };
    let minutes = times.is_some_and(|times| table.header[times].eq_ignore_ascii_case("minute"));
    let names = NAME_COLUMNS.iter().find_map(|name| table.optional_column(name));
    let wanted = reading.spec.name.clone();
    if wanted.is_some() && names.is_none() {
        return Err(reading.problem(format!("there is no column {}", NAME_COLUMNS.join(" or "))));
    }
    let mut rows: Vec<TableRow> = Vec::new();
    let parse = |row: &csv::StringRecord| {
        let text = row.get(column).unwrap_or("");
        let (value, unit) =
            measured(text).ok_or_else(|| format!("the count is {text:?}, not a number of at least zero"))?;
        measure = measure.or(unit.map(CountMeasure::Rate));
        let at_nanos = match times {
            None => None,
            Some(times) => {
                let text = row.get(times).unwrap_or("");
                let number = || text.parse::<f64>().ok();
                let number = || if minutes { stamp::bare(number()? * 60.0) } else { stamp::bare(number()?) };
                let nanos = stamp::iso(text).or_else(number);
                Some(nanos.ok_or_else(|| format!("the time is {text:?}, neither a date nor a number"))?)
            }
        };
        let name = names.and_then(|names| row.get(names)).unwrap_or("");
        let is_sum = SUMS.iter().any(|sum| sum.eq_ignore_ascii_case(name));
        let is_wanted = wanted.as_deref().is_none_or(|wanted| wanted == name);
        Ok(is_wanted.then_some(TableRow { at_nanos, value, is_sum }))
    };
    table.each(reading, parse, &mut rows)?;
    if let Some(name) = wanted.filter(|_| rows.is_empty()) {
        return Err(reading.problem(format!("there is no row named {name:?}")));
    }
    // A sum beside what it is the sum of would count everything twice.
    let is_mixed = rows.iter().any(|row| row.is_sum) && rows.iter().any(|row| !row.is_sum);
    if is_mixed {
        rows.retain(|row| row.is_sum);
        reading.notes.push("rows of the sum only; `name=` chooses others".to_owned());
    }
    let measure = measure.ok_or_else(|| {
        reading.problem(
            "nothing says what its numbers are: say `--trace-format per-second` if requests per second, `per-minute`, \
             or `per-interval` if requests from one line to the next",
        )
    })?;
    let is_said = unit_of(&table.header[column]).is_some() || format == Format::Grafana;
    let step = step(&rows, measure, is_said, reading)?;
    let (width, values) = by_interval(&rows, measure, step, reading)?;
    Ok(Content::Intervals { width, values, services: None })
}

/// A line of a table of counts.
struct TableRow {
    at_nanos: Option<i64>,
    value: f64,
    is_sum: bool,
}

/// The interval, and the requests of each from the first to the last; several lines of the same interval add up.
fn by_interval(
    rows: &[TableRow],
    measure: CountMeasure,
    step: Duration,
    reading: &Reading<'_>,
) -> Result<(Duration, Vec<f64>), TrafficError> {
    let requests = |value: f64| match measure {
        CountMeasure::Rate(per) if per != step => value * step.as_secs_f64() / per.as_secs_f64(),
        _ => value,
    };
    let Some(first) = rows.iter().filter_map(|row| row.at_nanos).min() else {
        return Ok((step, rows.iter().map(|row| requests(row.value)).collect()));
    };
    let step_nanos = step.as_nanos() as i64;
    let first = first.div_euclid(step_nanos);
    let mut values = Vec::new();
    for row in rows {
        let place = (row.at_nanos.unwrap_or(0).div_euclid(step_nanos) - first).max(0) as usize;
        if place >= MOST_INTERVALS {
            return Err(reading.problem("its times span too many intervals; is the time column in seconds?"));
        }
        if values.len() <= place {
            values.resize(place + 1, 0.0);
        }
        values[place] += requests(row.value);
    }
    Ok((step, values))
}

/// From one line to the next: what somebody said, or what most times are apart. A rate holds until the next line;
/// whole numbers may be counts, and lines may be missing because nothing came, so that somebody must say, unless a
/// unit says that they are rates.
fn step(
    rows: &[TableRow],
    measure: CountMeasure,
    is_said: bool,
    reading: &mut Reading<'_>,
) -> Result<Duration, TrafficError> {
    if let Some(step) = reading.spec.step {
        return Ok(step);
    }
    let mut times: Vec<i64> = rows.iter().filter_map(|row| row.at_nanos).collect();
    times.sort_unstable();
    times.dedup();
    let mut apart: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    apart.sort_unstable();
    let (least, usual) = match apart.as_slice() {
        [] => (None, None),
        apart => (Some(apart[0]), Some(apart[apart.len() / 2])),
    };
    let is_near = |nanos: i64, of: i64| (nanos - of).abs() as f64 <= TOLERANCE * of as f64;
    let span = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs());
    let shown = |nanos: i64| duration::format(span((nanos + 500_000) / 1_000_000 * 1_000_000));
    match (measure, least, usual) {
        (CountMeasure::Rate(per), None, _) => Ok(per),
        (CountMeasure::Count, None, _) => {
            Err(reading.problem("its lines have no times: say how far apart they are by `step=`"))
        }
        (CountMeasure::Rate(per), Some(least), Some(usual))
            if is_near(least, per.as_nanos() as i64) || is_near(usual, per.as_nanos() as i64) =>
        {
            Ok(per)
        }
        (_, Some(least), _) => {
            let on_grid = |apart: &i64| {
                let steps = (*apart as f64 / least as f64).round();
                (*apart as f64 - steps * least as f64).abs() <= TOLERANCE * least as f64
            };
            let are_most = apart.iter().filter(|apart| is_near(**apart, least)).count() * 2 > apart.len();
            let is_regular = apart.iter().all(on_grid) && are_most;
            let are_rates = is_said || rows.iter().any(|row| row.value.fract() != 0.0);
            match measure {
                CountMeasure::Rate(per) if is_regular && are_rates => {
                    reading.notes.push(format!(
                        "its lines are {} apart; each is a rate per {} until the next",
                        shown(least),
                        if per == SECOND { "second" } else { "minute" }
                    ));
                    Ok(span(least))
                }
                CountMeasure::Count if is_regular => Ok(span(least)),
                _ => Err(reading.problem(format!(
                    "its lines are {} apart: if each number is a rate until the next line, say `step={}`; if it is \
                     the requests until then, say `--trace-format per-interval`; if lines are missing because nothing \
                     came, say `step=` with the time that a line is for",
                    shown(least),
                    shown(least)
                ))),
            }
        }
    }
}

/// A number, as it is or as Grafana shows it: `12.3`, `1.2 K req/s`; and the time its unit is per.
fn measured(text: &str) -> Option<(f64, Option<Duration>)> {
    let text = text.trim();
    let end = text.find(|c: char| c != '.' && c != '-' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let legal = |value: &f64| (0.0..1e15).contains(value);
    if text.is_empty() || ["null", "nan", "undefined"].iter().any(|none| text.eq_ignore_ascii_case(none)) {
        return Some((0.0, None));
    }
    // Exponents are the parser's.
    if let Some(value) = text.parse().ok().filter(legal) {
        return Some((value, None));
    }
    let unit = rest.trim();
    let (factor, unit) = match unit.split_once(' ').unwrap_or(("", unit)) {
        ("K" | "k", unit) => (1e3, unit),
        ("M" | "Mil", unit) => (1e6, unit),
        ("", unit) => (1.0, unit),
        _ => return None,
    };
    let value = number.parse::<f64>().ok().map(|value| value * factor).filter(legal)?;
    Some((value, Some(unit_of(unit)?)))
}

/// The time that a rate is per, by what stands in a unit or a column's name.
fn unit_of(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let has = |units: &[&str]| units.iter().any(|unit| text.contains(unit));
    match () {
        () if has(&["/s", "rps", "reqps", "qps", "per second", "per_second"]) => Some(SECOND),
        () if has(&["/m", "rpm", "reqpm", "per minute", "per_minute"]) => Some(MINUTE),
        () => None,
    }
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
    let mut beside = Reading { bad_lines: reading.bad_lines, ..Reading::new(&spec, reading.base_dir) };
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

const TIME_COLUMNS: &[&str] =
    &["time", "timestamp", "t", "t_s", "second", "minute", "datetime", "date", "ts"];

/// Columns with names of rows, and names of rows that are the sum of the others.
const NAME_COLUMNS: &[&str] = &["name", "label"];
const SUMS: &[&str] = &["aggregated", "total", "sum"];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// How far, in parts of it, a step may be off.
const TOLERANCE: f64 = 0.2;

/// A second each for a year.
pub(super) const MOST_INTERVALS: usize = 366 * 86_400;
