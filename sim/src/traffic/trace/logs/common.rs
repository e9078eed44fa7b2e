//! The common and combined log formats, and what servers put behind them.
//!
//! `host ident user [10/Oct/2000:13:55:36 -0700] "request" status size "referrer" "user agent" ...`. A number behind
//! that is a duration only if its form says so: nginx writes `$request_time` in seconds with three decimals, always,
//! gunicorn `%(L)s` with six; some write a unit behind it. A whole number may be Apache's `%D`, `%T`, a size or
//! anything else, and is asked for.

use std::time::Duration;

use pilotlight_config::duration;

use super::super::entries::Entry;
use super::super::{Format, Reading, Stamp, TrafficError, stamp, unit};
use super::line::{Kind, Part, split};
use crate::dist::TimeUnit;

/// What the lines of a file have behind the user agent.
pub(super) struct Layout {
    /// The program whose lines they are.
    pub(super) format: Format,
    stamped: Stamp,
    duration: Option<DurationField>,
}

/// The field with the duration.
struct DurationField {
    place: DurationPlace,
    unit: WrittenUnit,
}

#[derive(Clone, Debug, PartialEq)]
enum DurationPlace {
    /// So many fields behind the time, but for the request, its status and its size.
    BehindTime(usize),
    /// So many fields from the beginning of the line.
    FromStart(usize),
    /// Behind a name and an equals sign.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum WrittenUnit {
    /// Seconds with so many decimals, always.
    Decimals(usize),
    /// As it was asked for, or as a name or the next field has it.
    Known(TimeUnit),
    /// Behind the number, in the same field.
    InField,
    /// Microseconds behind a slash.
    BehindSlash,
}

/// A field of a line that may be a duration.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// A dash or nothing.
    Absent,
    /// Three decimals, as nginx writes them, or six, as gunicorn does.
    Decimals(usize),
    Whole,
    /// Any other number.
    Number,
    /// A duration with its unit.
    WithUnit,
    /// Apache's `%T/%D`: seconds, and the same in microseconds.
    Twice,
    Other,
}

/// A field at the same place of all lines.
struct Column<'a> {
    /// Its place among those that may be durations, and in the line.
    at: usize,
    field: usize,
    name: Option<&'a str>,
    form: Form,
    example: &'a str,
    /// The unit that its name or the field behind it has.
    unit: Option<TimeUnit>,
}

impl Layout {
    /// Looks at the first lines of a file.
    pub(super) fn of(
        lines: &[String],
        format: Format,
        reading: &mut Reading<'_>,
    ) -> Result<Self, TrafficError> {
        let spec = reading.spec;
        let rows: Vec<Vec<LogField<'_>>> = lines.iter().filter_map(|line| others(&split(line))).collect();
        let columns = columns(&rows);
        let without = |format| Layout { format, stamped: stamped(format), duration: None };
        if spec.duration.as_deref() == Some("none") || format == Format::Traefik && rows.is_empty() {
            return Ok(without(format));
        }
        if let Some(wanted) = spec.duration.as_deref() {
            return Layout::as_asked(wanted, &rows, lines, format, reading);
        }
        let is_number = |column: &&Column<'_>| !matches!(column.form, Form::Absent | Form::Other);
        let numbers: Vec<&Column<'_>> = columns.iter().filter(is_number).collect();
        let format = if is_traefik(&columns) && spec.format.is_none() { Format::Traefik } else { format };
        let sure = surely(&columns, &rows, format);
        let chosen = match (sure.as_slice(), spec.duration_unit) {
            ([], None) => {
                // nginx knows no whole numbers of time: they are sizes, ports, statuses.
                let is_open =
                    |column: &&&Column<'_>| column.form == Form::Number || column.form == Form::Whole;
                let open: Vec<&Column<'_>> = numbers.iter().filter(is_open).copied().collect();
                if open.is_empty() || spec.format == Some(Format::Nginx) {
                    return Ok(without(format));
                }
                return Err(reading.problem(question(&open)));
            }
            ([], Some(unit)) => match numbers.as_slice() {
                [] => {
                    return Err(reading.problem("there is no number behind the user agent to be a duration"));
                }
                [only] => (*only, WrittenUnit::Known(unit)),
                several => return Err(reading.problem(question(several))),
            },
            ([(column, written)], asked) => (*column, asked.map_or(*written, WrittenUnit::Known)),
            (several, _) => {
                let several: Vec<&Column<'_>> = several.iter().map(|(column, _)| *column).collect();
                return Err(reading.problem(question(&several)));
            }
        };
        let (column, written) = chosen;
        let format = told_by(column, spec.format, format);
        let layout = Layout {
            format,
            stamped: stamped(format),
            duration: Some(DurationField { place: DurationPlace::BehindTime(column.at), unit: written }),
        };
        layout.note(reading);
        Ok(layout)
    }

    /// The field that somebody named: by its number in the line, from 1, or by the name before its equals sign.
    fn as_asked(
        wanted: &str,
        rows: &[Vec<LogField<'_>>],
        lines: &[String],
        format: Format,
        reading: &mut Reading<'_>,
    ) -> Result<Self, TrafficError> {
        let place = match wanted.parse::<usize>() {
            Ok(0) => return Err(reading.problem("fields are counted from 1")),
            Ok(number) => DurationPlace::FromStart(number - 1),
            Err(_) => DurationPlace::Named(wanted.to_owned()),
        };
        let split_lines: Vec<Vec<Part<'_>>> = lines.iter().map(|line| split(line)).collect();
        let cells: Vec<&str> = split_lines.iter().filter_map(|parts| place.cell(parts)).collect();
        let form = common_form(cells.iter().copied());
        let Some(example) = cells.iter().find(|cell| form_of(cell) != Form::Absent).copied() else {
            return Err(reading.problem(format!("no line has a duration in the field {wanted:?}")));
        };
        let named = unit::named(wanted).1;
        let unit = match (form, reading.spec.duration_unit.or(named)) {
            (Form::WithUnit, _) => WrittenUnit::InField,
            (Form::Twice, _) => WrittenUnit::BehindSlash,
            (Form::Other | Form::Absent, _) => {
                return Err(reading.problem(format!("the field {wanted:?} is {example:?}, not a duration")));
            }
            (_, Some(unit)) => WrittenUnit::Known(unit),
            (Form::Decimals(decimals), None) => WrittenUnit::Decimals(decimals),
            (_, None) => {
                let asked = format!(
                    "the field {wanted:?} is {example:?}, a number without a unit: say `duration-unit=us` (Apache's \
                     %D), `duration-unit=ms` or `duration-unit=s` (%T){HOW_TO_SAY}"
                );
                return Err(reading.problem(asked));
            }
        };
        let column = Column { at: rows.len(), field: 0, name: None, form, example, unit: None };
        let format = told_by(&column, reading.spec.format, format);
        let layout =
            Layout { format, stamped: stamped(format), duration: Some(DurationField { place, unit }) };
        layout.note(reading);
        Ok(layout)
    }

    /// Which end of a request a line's time is decides on its start: said, where a program had to be supposed.
    fn note(&self, reading: &mut Reading<'_>) {
        if reading.spec.format.is_none() && reading.spec.stamped.is_none() && self.format == Format::Apache {
            reading.notes.push(
                "times are taken for the starts of requests, as Apache's %t is; say `stamped=end` if they are not"
                    .to_owned(),
            );
        }
    }

    pub(super) fn line(&self, line: &str) -> Result<Entry, String> {
        let parts = split(line);
        let (time_at, at_nanos) = time_of(&parts)?;
        if !parts[time_at..].iter().any(|part| part.kind == Kind::Quoted) {
            return Err("there is no \"request\" behind the time".to_owned());
        }
        let service = match &self.duration {
            None => None,
            Some(field) => field.of(&parts)?,
        };
        Ok(Entry { at_nanos, stamped: self.stamped, service })
    }
}

impl DurationField {
    fn of(&self, parts: &[Part<'_>]) -> Result<Option<Duration>, String> {
        let Some(text) = self.place.cell(parts).filter(|text| form_of(text) != Form::Absent) else {
            return Ok(None);
        };
        let (service, expected) = match self.unit {
            WrittenUnit::Known(unit) => (unit.parse(text), "a number"),
            WrittenUnit::InField => (duration::parse(text).ok(), "a duration with its unit"),
            WrittenUnit::BehindSlash => {
                let micros = text.split_once('/').map(|(_, micros)| micros);
                (micros.and_then(|micros| TimeUnit::Micros.parse(micros)), "seconds/microseconds")
            }
            WrittenUnit::Decimals(decimals) => {
                let is_so = form_of(text) == Form::Decimals(decimals);
                let service = if is_so { TimeUnit::Seconds.parse(text) } else { None };
                (
                    service,
                    if decimals == 3 { "seconds with three decimals" } else { "seconds with six decimals" },
                )
            }
        };
        let place = match &self.place {
            DurationPlace::Named(name) => format!("{name} is"),
            DurationPlace::FromStart(at) => format!("field {} is", at + 1),
            DurationPlace::BehindTime(_) => "the duration is".to_owned(),
        };
        service.map(Some).ok_or_else(|| format!("{place} {text:?}, not {expected} as in the first lines"))
    }
}

impl DurationPlace {
    fn cell<'a>(&self, parts: &[Part<'a>]) -> Option<&'a str> {
        match self {
            DurationPlace::BehindTime(at) => {
                let others = others(parts)?;
                let cell = others.get(*at).map(|(_, part)| part.value().1);
                // Servers of one nginx may write different formats into one file: the form says as much as a place.
                let by_form = || {
                    others
                        .iter()
                        .map(|(_, part)| part.value().1)
                        .find(|value| form_of(value) == Form::Decimals(3))
                };
                cell.filter(|cell| form_of(cell) != Form::Absent).or_else(by_form)
            }
            DurationPlace::FromStart(at) => parts.get(*at).map(|part| part.value().1),
            DurationPlace::Named(name) => {
                parts.iter().map(Part::value).find(|(known, _)| *known == Some(name)).map(|(_, v)| v)
            }
        }
    }
}

/// The place and the time of the stamp.
fn time_of(parts: &[Part<'_>]) -> Result<(usize, i64), String> {
    let mut bracketed = parts.iter().enumerate().filter(|(_, part)| part.kind == Kind::Bracketed).peekable();
    let first = bracketed.peek().ok_or("there is no [time] in it")?.1.text;
    let found = bracketed.find_map(|(at, part)| Some((at, common_time(part.text)?)));
    found.ok_or_else(|| format!("the time is {first:?}, not such as 10/Oct/2000:13:55:36 -0700"))
}

/// A time as `$time_local` or `%t` has it, or `$time_iso8601`.
pub(in crate::traffic::trace) fn common_time(text: &str) -> Option<i64> {
    stamp::common_log(text).or_else(|| stamp::iso(text))
}

/// A field that may be a duration, and its place in the line.
type LogField<'a> = (usize, Part<'a>);

/// What stands behind the time but for the request, its status and its size.
fn others<'a>(parts: &[Part<'a>]) -> Option<Vec<LogField<'a>>> {
    let (time_at, _) = time_of(parts).ok()?;
    let request_at = (time_at + 1..parts.len()).find(|at| parts[*at].kind == Kind::Quoted)?;
    let places = (time_at + 1..request_at).chain(request_at + 3..parts.len());
    Some(places.map(|at| (at, parts[at])).collect())
}

/// The fields of the lines, by their place; those that most lines do not have are accidents.
fn columns<'a>(rows: &[Vec<LogField<'a>>]) -> Vec<Column<'a>> {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let is_usual = |at: &usize| rows.iter().filter(|row| row.len() > *at).count() * 2 >= rows.len();
    let column = |at: usize| {
        let longer = || rows.iter().filter(move |row| row.len() > at);
        let cells = || longer().map(move |row| row[at].1.value());
        let name = cells().next().and_then(|(name, _)| name);
        let next = |row: &Vec<LogField<'a>>| {
            row.get(at + 1).map(|(_, part)| part).filter(|part| part.kind == Kind::Bare).map(|part| part.text)
        };
        let unit_behind = same(longer().map(next)).flatten().and_then(|text| text.parse::<TimeUnit>().ok());
        Column {
            at,
            field: longer().next().map_or(0, |row| row[at].0),
            name,
            form: usual_form(cells().map(|(_, value)| value)),
            example: cells()
                .map(|(_, value)| value)
                .find(|cell| form_of(cell) != Form::Absent)
                .unwrap_or("-"),
            unit: name.and_then(|name| unit::named(name).1).or(unit_behind),
        }
    };
    (0..width).filter(is_usual).map(column).collect()
}

/// The value, if all are the same.
fn same<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// The columns that are durations by their form. Several times of one request, such as nginx's and its upstream's,
/// are one in another: the longest is the request's.
fn surely<'c, 'a>(
    columns: &'c [Column<'a>],
    rows: &[Vec<LogField<'a>>],
    format: Format,
) -> Vec<(&'c Column<'a>, WrittenUnit)> {
    let written = |column: &Column<'_>| match (column.form, column.unit) {
        (Form::WithUnit, _) => Some(WrittenUnit::InField),
        (Form::Twice, _) => Some(WrittenUnit::BehindSlash),
        (Form::Decimals(_) | Form::Whole | Form::Number, Some(unit)) => Some(WrittenUnit::Known(unit)),
        // Apache has no decimals.
        (Form::Decimals(decimals), None) if format != Format::Apache => Some(WrittenUnit::Decimals(decimals)),
        _ => None,
    };
    let sure: Vec<_> = columns.iter().filter_map(|column| Some((column, written(column)?))).collect();
    let by_name = |(column, _): &&(&Column<'_>, WrittenUnit)| column.name.is_some_and(is_request_time);
    if let Some(named) = sure.iter().find(by_name) {
        return vec![*named];
    }
    let is_longest = |&(column, _): &(&Column<'_>, WrittenUnit)| {
        sure.iter().all(|(other, _)| {
            rows.iter().all(|row| {
                let cell = |at: usize| row.get(at).map_or("", |(_, part)| part.value().1);
                let seconds = |at: usize| cell(at).parse::<f64>().unwrap_or(0.0);
                // Each is rounded for itself.
                seconds(column.at) + ROUNDING >= seconds(other.at)
            })
        })
    };
    let is_ingress = |(column, _): &&(&Column<'_>, WrittenUnit)| {
        let next = |at: usize| {
            rows.iter()
                .all(|row| row.get(column.at + at).is_some_and(|(_, part)| part.kind == Kind::Bracketed))
        };
        next(1) && next(2)
    };
    let longest = sure.iter().find(is_ingress).or_else(|| sure.iter().find(|column| is_longest(column)));
    longest.map_or(sure.clone(), |longest| vec![*longest])
}

fn is_request_time(name: &str) -> bool {
    REQUEST_TIMES.contains(&unit::named(name).0.as_str())
}

/// `... requests "router" "server" 12ms`.
fn is_traefik(columns: &[Column<'_>]) -> bool {
    matches!(columns, [_, _, count, _, _, took] if count.form == Form::Whole && took.form == Form::WithUnit)
}

/// The program that writes such a duration, unless somebody named it.
fn told_by(column: &Column<'_>, named: Option<Format>, format: Format) -> Format {
    match (named, column.form) {
        (Some(named), _) => named,
        (None, Form::Whole) if column.unit.is_none() => Format::Apache,
        (None, Form::Twice) => Format::Apache,
        (None, Form::Decimals(6)) => Format::Gunicorn,
        _ => format,
    }
}

/// Apache's `%t` is the time at which a request was received; all others write when it has ended.
fn stamped(format: Format) -> Stamp {
    match format {
        Format::Apache | Format::Traefik => Stamp::Start,
        _ => Stamp::End,
    }
}

/// Asks what a number is.
fn question(columns: &[&Column<'_>]) -> String {
    let shown: Vec<String> =
        columns.iter().map(|column| format!("field {} ({})", column.field + 1, column.example)).collect();
    let which = match columns {
        [first, _, ..] => format!("`duration={}` or another, and ", first.field + 1),
        _ => String::new(),
    };
    format!(
        "behind the time stands a number whose unit is not written: {}. If it is how long the request took, say \
         {which}`duration-unit=us` (Apache's %D), `duration-unit=ms` (%{{ms}}T) or `duration-unit=s` (%T); if not, \
         say `duration=none`{HOW_TO_SAY}",
        shown.join(", ")
    )
}

/// The form that nearly all cells have: a line may be broken.
fn usual_form<'a>(cells: impl Iterator<Item = &'a str> + Clone) -> Form {
    let all = cells.clone().count();
    let forms: Vec<Form> = cells.clone().map(form_of).filter(|form| *form != Form::Absent).collect();
    if forms.len() * 2 < all {
        return Form::Absent;
    }
    let is_usual = |form: &&Form| forms.iter().filter(|other| other == form).count() * 10 >= forms.len() * 9;
    forms.iter().find(is_usual).copied().unwrap_or_else(|| common_form(cells))
}

fn common_form<'a>(cells: impl Iterator<Item = &'a str>) -> Form {
    cells.map(form_of).fold(Form::Absent, |all, one| match (all, one) {
        (Form::Absent, form) | (form, Form::Absent) => form,
        (all, one) if all == one => all,
        (Form::Decimals(_) | Form::Whole | Form::Number, Form::Decimals(_) | Form::Whole | Form::Number) => {
            Form::Number
        }
        _ => Form::Other,
    })
}

fn form_of(text: &str) -> Form {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        _ if text.is_empty() || text == "-" => Form::Absent,
        None if is_digits(text) => Form::Whole,
        // `$msec` is a time since 1970.
        Some((whole, decimals)) if is_digits(whole) && is_digits(decimals) && whole.len() < 10 => {
            match decimals.len() {
                length @ (3 | 6) => Form::Decimals(length),
                _ => Form::Number,
            }
        }
        None if is_twice(text) => Form::Twice,
        _ if text.ends_with('s') && duration::parse(text).is_ok() => Form::WithUnit,
        _ => Form::Other,
    }
}

/// Where settings of a trace are given.
const HOW_TO_SAY: &str = " (by `--set` in `sim import`, by `--set load.trace.…` in the others)";

/// Whether a text is `%T/%D`: a number of seconds, and microseconds that are as many.
fn is_twice(text: &str) -> bool {
    let numbers =
        text.split_once('/').map(|(seconds, micros)| (seconds.parse::<u64>(), micros.parse::<u64>()));
    matches!(numbers, Some((Ok(seconds), Ok(micros))) if micros / 1_000_000 == seconds)
}

/// Names of the whole request's time, without dashes.
const REQUEST_TIMES: &[&str] = &["rt", "requesttime", "reqtime", "duration", "responsetime"];

/// Two roundings to a millisecond.
const ROUNDING: f64 = 0.002;
