//! Access logs: a line a request, of text or of JSON, as a program wrote it or as a container's log wraps it.
//!
//! | file | what it reads |
//! |---|---|
//! | `line.rs` | the parts of a line of text |
//! | `common.rs` | the common and combined formats: nginx, ingress-nginx, Apache, gunicorn, Traefik |
//! | `proxies.rs` | HAProxy, Envoy and Istio, AWS' load balancers, CloudFront |
//! | `objects.rs` | JSON lines, and what is known of the programs that write them |

mod common;
mod line;
mod objects;
mod proxies;

use std::borrow::Cow;
use std::io::BufRead;

use serde_json::Value;

use super::entries::{Entry, settle};
use super::{Content, Format, HEAD, Reading, TrafficError};

pub(super) use common::common_time;
pub(super) use proxies::is_alb;

/// A line of a log.
enum LogLine {
    /// A request.
    Request(Entry),
    /// Something else, and why it is no request.
    Other(&'static str),
}

/// Reads a log whose first lines are `start`. The common format is several programs': which, `format` says then.
pub(super) fn read(
    start: &str,
    source: impl BufRead,
    format: &mut Format,
    reading: &mut Reading<'_>,
) -> Result<Content, TrafficError> {
    let entries = match *format {
        Format::JsonLines => objects::read(source, reading)?,
        Format::K6 => read_lines(source, reading, objects::k6)?,
        Format::Envoy => read_lines(source, reading, proxies::envoy)?,
        Format::Haproxy => read_lines(source, reading, proxies::haproxy)?,
        Format::AwsAlb => read_lines(source, reading, proxies::alb)?,
        Format::CloudFront => {
            let mut fields = proxies::CloudFrontFields::default();
            read_lines(source, reading, |line| fields.line(line))?
        }
        _ => {
            let layout = common::Layout::of(&sample(start), *format, reading)?;
            *format = layout.format;
            read_lines(source, reading, |line| layout.line(line).map(LogLine::Request))?
        }
    };
    if entries.is_empty() && *format == Format::K6 {
        return Err(reading.problem("it holds no http_req_duration, by which k6 says when a request was"));
    }
    Ok(Content::Events(settle(entries, reading)))
}

fn read_lines(
    source: impl BufRead,
    reading: &mut Reading<'_>,
    mut parse: impl FnMut(&str) -> Result<LogLine, String>,
) -> Result<Vec<Entry>, TrafficError> {
    let mut entries = Vec::new();
    let mut early: Option<(u64, String)> = None;
    reading.is_dated = true;
    unwrapped_lines(source, reading, |reading, number, line| {
        let parsed = match parse(line) {
            // A program says this and that before it is ready.
            Err(problem) if entries.is_empty() && !reading.spec.skip_bad_lines => {
                early.get_or_insert((number, problem));
                *reading.left_out.entry(BEFORE).or_default() += 1;
                return Ok(());
            }
            parsed => reading.accept(number, parsed)?,
        };
        match parsed {
            Some(LogLine::Request(entry)) => entries.push(entry),
            Some(LogLine::Other(why)) if !why.is_empty() => *reading.left_out.entry(why).or_default() += 1,
            _ => {}
        }
        Ok(())
    })?;
    match early {
        Some((line, problem)) if entries.is_empty() => {
            Err(TrafficError::Line { file: reading.spec.file.clone(), line, problem })
        }
        _ => Ok(entries),
    }
}

/// Calls `each` with every line as the program wrote it.
fn unwrapped_lines(
    source: impl BufRead,
    reading: &mut Reading<'_>,
    mut each: impl FnMut(&mut Reading<'_>, u64, &str) -> Result<(), TrafficError>,
) -> Result<(), TrafficError> {
    let mut whole = WholeLines::default();
    reading.lines(source, |reading, number, line| match whole.next(line) {
        Some(line) => each(reading, number, line.trim()),
        None => Ok(()),
    })
}

/// Lines as the program wrote them. What a container's log has cut is put together again.
#[derive(Default)]
struct WholeLines {
    cut: String,
}

impl WholeLines {
    /// The line that ends with this one, if one does.
    fn next<'l>(&mut self, line: &'l str) -> Option<Cow<'l, str>> {
        match cri(line) {
            Some((part, false)) => {
                self.cut.push_str(part);
                None
            }
            Some((part, true)) if !self.cut.is_empty() => {
                let mut line = std::mem::take(&mut self.cut);
                line.push_str(part);
                Some(Cow::Owned(line))
            }
            _ => Some(unwrapped(line)),
        }
    }
}

/// A line as the program wrote it: Kubernetes' files and Docker's have their own around it.
pub(super) fn unwrapped(line: &str) -> Cow<'_, str> {
    if let Some((text, _)) = cri(line) {
        return Cow::Borrowed(text);
    }
    if line.starts_with("{\"log\":")
        && let Ok(Value::Object(mut fields)) = serde_json::from_str(line)
        && fields.contains_key("stream")
        && let Some(Value::String(text)) = fields.remove("log")
    {
        return Cow::Owned(text);
    }
    Cow::Borrowed(line)
}

/// What stands in a line of the container runtime interface's log, and whether it ends there:
/// `2023-10-06T00:17:09.669794202Z stdout F text`.
fn cri(line: &str) -> Option<(&str, bool)> {
    let (time, rest) = line.split_once(' ')?;
    let rest = rest.strip_prefix("stdout ").or_else(|| rest.strip_prefix("stderr "))?;
    let (tag, text) = rest.split_once(' ').unwrap_or((rest, ""));
    super::stamp::iso(time)?;
    match tag {
        "F" => Some((text, true)),
        "P" => Some((text, false)),
        _ => None,
    }
}

/// The first lines, without the last one where it may be cut.
fn sample(start: &str) -> Vec<String> {
    let mut lines: Vec<&str> = start.lines().collect();
    if start.len() as u64 >= HEAD && lines.len() > 1 {
        lines.pop();
    }
    let mut whole = WholeLines::default();
    lines.into_iter().filter_map(|line| whole.next(line.trim()).map(Cow::into_owned)).collect()
}

const BEFORE: &str = "before the first request";
