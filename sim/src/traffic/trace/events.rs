//! Tables with a line a request. Columns are found by their names, in any order; others are ignored.

use std::io::Read;
use std::time::Duration;

use csv::{Position, Reader, ReaderBuilder, StringRecord, Trim};
use pilotlight_config::spelling::hint;

use super::entries::{Entry, settle};
use super::{Content, Format, Reading, Stamp, TokenCost, TraceEvent, TrafficError, stamp};
use crate::dist::TimeUnit;

pub(super) fn read(
    source: impl Read,
    format: Format,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    let mut table = TraceTable::new(source, format != Format::Vegeta, reading)?;
    if matches!(format, Format::Gentd26 | Format::Jmeter | Format::K6) {
        return stamped(&mut table, format, reading);
    }
    let mut events = Vec::new();
    match format {
        Format::Plain => {
            let at = table.column("t_start_s", reading)?;
            let took = table.optional_column("duration_s");
            let revision = reading.spec.revision.clone();
            let of = if revision.is_some() { Some(table.column("revision", reading)?) } else { None };
            table.each(
                reading,
                |row| {
                    if of.is_some_and(|of| row.get(of) != revision.as_deref()) {
                        return Ok(None);
                    }
                    let start_nanos = positive(row, "t_start_s", at, TimeUnit::Seconds)?;
                    let service = match took.and_then(|took| row.get(took)) {
                        None | Some("") => None,
                        Some(_) => {
                            took.map(|took| time(row, "duration_s", took, TimeUnit::Seconds)).transpose()?
                        }
                    };
                    Ok(Some(TraceEvent { start_nanos, service }))
                },
                &mut events,
            )?;
        }
        Format::AzureFunctions2021 => {
            let end = table.column("end_timestamp", reading)?;
            let took = table.column("duration", reading)?;
            let func = table.column("func", reading)?;
            let wanted = reading.spec.function.clone();
            table.each(
                reading,
                |row| {
                    let is_wanted =
                        |prefix: &String| row.get(func).is_some_and(|name| name.starts_with(prefix));
                    if !wanted.as_ref().is_none_or(is_wanted) {
                        return Ok(None);
                    }
                    let end_nanos = positive(row, "end_timestamp", end, TimeUnit::Seconds)?;
                    let service = time(row, "duration", took, TimeUnit::Seconds)?;
                    // Requests under way as the trace began are taken to begin with it.
                    let start_nanos = end_nanos.saturating_sub(service.as_nanos() as i64).max(0);
                    Ok(Some(TraceEvent { start_nanos, service: Some(service) }))
                },
                &mut events,
            )?;
        }
        Format::AzureLlm => {
            let at = table.column("TIMESTAMP", reading)?;
            let context = table.column("ContextTokens", reading)?;
            let generated = table.column("GeneratedTokens", reading)?;
            let cost = reading.spec.tokens;
            if cost.is_none() {
                reading.notes.push("give `tokens:` to say how long requests take".to_owned());
            }
            table.each(
                reading,
                |row| {
                    let start_nanos = date(row, "TIMESTAMP", at)?;
                    let context = count(row, "ContextTokens", context)?;
                    let generated = count(row, "GeneratedTokens", generated)?;
                    let service = cost.map(|cost| cost.of(context, generated));
                    Ok(Some(TraceEvent { start_nanos, service }))
                },
                &mut events,
            )?;
        }
        // Both are in seconds since the run began.
        Format::Hey | Format::Oha => {
            let (started, taken) = match format {
                Format::Hey => ("offset", "response-time"),
                _ => ("request-start", "request-duration"),
            };
            let (at, took) = (table.column(started, reading)?, table.column(taken, reading)?);
            table.each(
                reading,
                |row| {
                    let start_nanos = positive(row, started, at, TimeUnit::Seconds)?;
                    let service = Some(time(row, taken, took, TimeUnit::Seconds)?);
                    Ok(Some(TraceEvent { start_nanos, service }))
                },
                &mut events,
            )?;
        }
        // Vegeta writes no header: when it was sent, the status, how long it took, and more.
        _ => {
            reading.is_dated = true;
            let parse = |row: &StringRecord| {
                let at = row.get(0).unwrap_or_default();
                let start_nanos = at.parse().ok().filter(|at| *at >= 0);
                let start_nanos =
                    start_nanos.ok_or_else(|| format!("the time {at:?} is not in nanoseconds"))?;
                let service = Some(time(row, "the latency", 2, TimeUnit::Nanos)?);
                Ok(Some(TraceEvent { start_nanos, service }))
            };
            table.each(reading, parse, &mut events)?;
        }
    }
    Ok(Content::Events(events))
}

/// Tables whose rows have the time of a start or an end, which may be whole seconds.
fn stamped<R: Read>(
    table: &mut TraceTable<R>,
    format: Format,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    // The time, how long it took and in which unit, the name, and what the time is of.
    let (at, took, unit, name, stamped) = match format {
        Format::Jmeter => ("timeStamp", "elapsed", TimeUnit::Millis, "label", Stamp::Start),
        Format::K6 => ("timestamp", "metric_value", TimeUnit::Millis, "name", Stamp::End),
        _ => ("gmt_create", "exec_time_seconds", TimeUnit::Seconds, "", Stamp::Start),
    };
    let (at_column, took_column) = (table.column(at, reading)?, table.column(took, reading)?);
    let (named, wanted) = (table.optional_column(name), reading.spec.name.clone());
    let metric = table.optional_column("metric_name");
    let message = table.optional_column("responseMessage");
    let (mut entries, mut sums) = (Vec::new(), 0);
    let parse = |row: &StringRecord| {
        let is = |column: Option<usize>, text: &str| column.and_then(|at| row.get(at)) == Some(text);
        if metric.is_some_and(|_| !K6_DURATIONS.iter().any(|duration| is(metric, duration)))
            || wanted.as_ref().is_some_and(|name| !is(named, name))
        {
            return Ok(None);
        }
        if message.and_then(|at| row.get(at)).is_some_and(|message| message.starts_with(TRANSACTION)) {
            sums += 1;
            return Ok(None);
        }
        let text = cell(row, at, at_column)?;
        let number =
            || if format == Format::Gentd26 { None } else { text.parse().ok().and_then(stamp::bare) };
        let at_nanos = stamp::iso(text).or_else(number);
        let at_nanos =
            at_nanos.ok_or_else(|| format!("{at} is {text:?}, not a date such as 2023-11-16 18:17:03.97"))?;
        let service = Some(time(row, took, took_column, unit)?);
        Ok(Some(Entry { at_nanos, stamped, service }))
    };
    table.each(reading, parse, &mut entries)?;
    if sums > 0 {
        reading.left_out.insert("sums of a transaction's requests", sums);
    }
    if let Some(name) = wanted.filter(|_| entries.is_empty()) {
        return Err(reading.problem(format!("it holds no request named {name:?}")));
    }
    reading.is_dated = true;
    Ok(Content::Events(settle(entries, reading)))
}

impl TokenCost {
    /// How long a request takes.
    pub fn of(&self, context_tokens: u64, generated_tokens: u64) -> Duration {
        let tokens = |each: Duration, number: u64| {
            let nanos = each.as_nanos().saturating_mul(u128::from(number));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        self.base
            .saturating_add(tokens(self.prompt, context_tokens))
            .saturating_add(tokens(self.generated, generated_tokens))
    }
}

/// A CSV file and the names of its columns.
pub(super) struct TraceTable<R> {
    reader: Reader<R>,
    pub(super) header: StringRecord,
}

impl<R: Read> TraceTable<R> {
    pub(super) fn new(source: R, has_header: bool, reading: &Reading<'_>) -> Result<Self, TrafficError> {
        let mut reader =
            ReaderBuilder::new().has_headers(has_header).flexible(true).trim(Trim::All).from_reader(source);
        let header = if has_header {
            reader.headers().map_err(|error| reading.problem(error.to_string()))?.clone()
        } else {
            StringRecord::new()
        };
        Ok(TraceTable { reader, header })
    }

    /// The column with this name, whatever its case.
    pub(super) fn optional_column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column.eq_ignore_ascii_case(name))
    }

    pub(super) fn column(&self, name: &str, reading: &Reading<'_>) -> Result<usize, TrafficError> {
        self.optional_column(name).ok_or_else(|| {
            let columns: Vec<&str> = self.header.iter().collect();
            let shown = if columns.len() > 20 {
                format!("{} and {} more", columns[..20].join(", "), columns.len() - 20)
            } else {
                columns.join(", ")
            };
            let hint = hint(name, columns.iter().copied());
            reading.problem(format!("there is no column {name:?}{hint}; there are {shown}"))
        })
    }

    /// Adds what `parse` makes of every row to `all`.
    pub(super) fn each<T>(
        &mut self,
        reading: &mut Reading<'_>,
        mut parse: impl FnMut(&StringRecord) -> Result<Option<T>, String>,
        all: &mut Vec<T>,
    ) -> Result<(), TrafficError> {
        let mut row = StringRecord::new();
        loop {
            let position = self.reader.position().line();
            let parsed = match self.reader.read_record(&mut row) {
                Ok(false) => return Ok(()),
                Ok(true) => parse(&row),
                Err(error) => match error.into_kind() {
                    csv::ErrorKind::Io(error) => return Err(reading.unreadable(error)),
                    csv::ErrorKind::Utf8 { .. } => Err("it is not UTF-8".to_owned()),
                    other => return Err(reading.problem(format!("{other:?}"))),
                },
            };
            let line = row.position().map_or(position, Position::line);
            all.extend(reading.accept(line, parsed)?.flatten());
        }
    }
}

const K6_DURATIONS: &[&str] = &["http_req_duration", "grpc_req_duration"];

/// The beginning of what JMeter says of a transaction controller, whose row is the sum of those before it.
const TRANSACTION: &str = "Number of samples in transaction";

fn cell<'r>(row: &'r StringRecord, name: &str, column: usize) -> Result<&'r str, String> {
    row.get(column).ok_or_else(|| format!("it ends before {name}, with {} columns", row.len()))
}

/// A time that is not negative, in nanoseconds.
fn positive(row: &StringRecord, name: &str, column: usize, unit: TimeUnit) -> Result<i64, String> {
    let time = time(row, name, column, unit)?;
    i64::try_from(time.as_nanos()).map_err(|_| format!("{name} lies too far in the future"))
}

fn time(row: &StringRecord, name: &str, column: usize, unit: TimeUnit) -> Result<Duration, String> {
    let value = cell(row, name, column)?;
    let time = unit.parse(value);
    time.ok_or_else(|| format!("{name} is {value:?}, not a number of at least zero"))
}

fn count(row: &StringRecord, name: &str, column: usize) -> Result<u64, String> {
    let value = cell(row, name, column)?;
    value.parse().map_err(|_| format!("{name} is {value:?}, not a whole number"))
}

fn date(row: &StringRecord, name: &str, column: usize) -> Result<i64, String> {
    let value = cell(row, name, column)?;
    stamp::iso(value).ok_or_else(|| format!("{name} is {value:?}, not a date such as 2023-11-16 18:17:03.97"))
}
