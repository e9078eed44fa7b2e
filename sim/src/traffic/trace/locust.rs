//! Locust's history of a run, `stats_history.csv`: running totals, a row for each name and one for their sum.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use pilotlight_config::spelling::hint;

use super::counted::MOST_INTERVALS;
use super::events::TraceTable;
use super::{Content, Reading, TrafficError, stamp};

/// The requests of each second: what the running total has grown by since the row before. Of several names, those
/// of the sum, unless one is asked for. `Requests/s` is an average over ten seconds and is not read.
pub(super) fn read(source: impl Read, reading: &mut Reading<'_>) -> Result<Content, TrafficError> {
    let mut table = TraceTable::new(source, true, reading)?;
    let [time, name, total] =
        ["Timestamp", "Name", "Total Request Count"].map(|column| table.column(column, reading));
    let (time, name, total) = (time?, name?, total?);
    let wanted = reading.spec.name.clone();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut rows: Vec<(i64, u64)> = Vec::new();
    let parse = |row: &csv::StringRecord| {
        let text = row.get(name).unwrap_or("");
        if !names.contains(text) {
            names.insert(text.to_owned());
        }
        if text != wanted.as_deref().unwrap_or(SUM) {
            return Ok(None);
        }
        let at = row.get(time).unwrap_or("");
        let second = at.parse().ok().and_then(stamp::bare).or_else(|| stamp::iso(at));
        let second = second.ok_or_else(|| format!("the time is {at:?}, neither a date nor a number"))?;
        let count = row.get(total).unwrap_or("");
        let count =
            count.parse().map_err(|_| format!("Total Request Count is {count:?}, not a whole number"))?;
        Ok(Some((second.div_euclid(1_000_000_000), count)))
    };
    table.each(reading, parse, &mut rows)?;
    if rows.is_empty() {
        let wanted = reading.spec.name.as_deref().unwrap_or(SUM);
        let there: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = hint(wanted, there.iter().copied());
        return Err(reading
            .problem(format!("there is no row named {wanted:?}{hint}; there are {}", there.join(", "))));
    }
    if wanted.is_none() && names.len() > 1 {
        let note = format!("rows of the sum, {SUM}; `name=` chooses another of {}", names.len());
        reading.notes.push(note);
    }
    reading.is_dated = true;
    let values = per_second(&rows, reading)?;
    Ok(Content::Intervals { width: Duration::from_secs(1), values, services: None })
}

/// Growth between rows that lie seconds apart is spread evenly over these seconds, in whole requests.
fn per_second(rows: &[(i64, u64)], reading: &Reading<'_>) -> Result<Vec<f64>, TrafficError> {
    let (first, last) = (rows[0].0, rows[rows.len() - 1].0);
    if last < first || (last - first) as usize >= MOST_INTERVALS {
        return Err(reading.problem("its times do not rise, or span more than a year"));
    }
    let mut values = vec![0.0; (last - first + 1) as usize];
    let (mut before, mut total_before) = (first - 1, 0u64);
    for &(second, total) in rows {
        let (second, grown) = (second.clamp(before.max(first), last), total.saturating_sub(total_before));
        let seconds = (second - before).max(1) as u64;
        for at in 0..seconds {
            let share = grown * (at + 1) / seconds - grown * at / seconds;
            let place = second - first - (seconds - 1 - at) as i64;
            values[place.max(0) as usize] += share as f64;
        }
        (before, total_before) = (second, total.max(total_before));
    }
    Ok(values)
}

const SUM: &str = "Aggregated";
