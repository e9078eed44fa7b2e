//! Tables with a line a request. Columns are found by their names, in any order; others are ignored.

use std::io::Read;
use std::time::Duration;

use csv::{Position, Reader, ReaderBuilder, StringRecord, Trim};
use pilotlight_config::spelling::hint;

use super::{Content, Format, Reading, TokenCost, TraceEvent, TrafficError, spread_whole_seconds, stamp};
use crate::dist::TimeUnit;

pub(super) fn read(
    source: impl Read,
    format: Format,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    let mut table = TraceTable::new(source, format != Format::Vegeta, reading)?;
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
        Format::Gentd26 => {
            let at = table.column("gmt_create", reading)?;
            let took = table.column("exec_time_seconds", reading)?;
            table.each(
                reading,
                |row| {
                    let start_nanos = date(row, "gmt_create", at)?;
                    let service = Some(time(row, "exec_time_seconds", took, TimeUnit::Seconds)?);
                    Ok(Some(TraceEvent { start_nanos, service }))
                },
                &mut events,
            )?;
            spread_whole_seconds(&mut events, reading);
        }
        Format::Hey => {
            let at = table.column("offset", reading)?;
            let took = table.column("response-time", reading)?;
            table.each(
                reading,
                |row| {
                    let start_nanos = positive(row, "offset", at, TimeUnit::Seconds)?;
                    let service = Some(time(row, "response-time", took, TimeUnit::Seconds)?);
                    Ok(Some(TraceEvent { start_nanos, service }))
                },
                &mut events,
            )?;
        }
        // Vegeta writes no header: when it was sent, the status, how long it took, and more.
        _ => table.each(
            reading,
            |row| {
                let at = row.get(0).unwrap_or_default();
                let start_nanos = at.parse().ok().filter(|at| *at >= 0);
                let start_nanos =
                    start_nanos.ok_or_else(|| format!("the time {at:?} is not in nanoseconds"))?;
                let service = Some(time(row, "the latency", 2, TimeUnit::Nanos)?);
                Ok(Some(TraceEvent { start_nanos, service }))
            },
            &mut events,
        )?,
    }
    Ok(Content::Events(events))
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
