//! The log of a process: lines on standard error, for people or for machines.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use pilotlight_telemetry::lines::Lines;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "flags", derive(clap::ValueEnum))]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// Lines for machines: each a JSON object.
    Json,
}

/// Form and filter of log lines.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// Form of the lines.
    pub format: LogFormat,
    /// Filter of the lines; `None`: that of `RUST_LOG`.
    pub filter: Option<LogFilter>,
    /// No colours, even on a terminal.
    pub no_color: bool,
}

/// A filter of log lines: a level, and levels of single targets, as in `info,app=off`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter(Targets);

/// A part of a [`LogFilter`] that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct NoLogFilter(String);

impl fmt::Display for NoLogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is neither a level ({LEVELS}) nor TARGET=LEVEL", self.0)
    }
}

impl std::error::Error for NoLogFilter {}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is neither text nor json")),
        }
    }
}

impl FromStr for LogFilter {
    type Err = NoLogFilter;

    fn from_str(text: &str) -> Result<Self, NoLogFilter> {
        let items: Vec<_> = text.split(',').map(item).collect::<Result<_, _>>()?;
        Ok(LogFilter(items.into_iter().collect()))
    }
}

impl LogFilter {
    /// The filter of `RUST_LOG`, or `level` if there is none in it; and the parts of it that are malformed.
    fn from_env(text: Option<&str>, level: Level) -> (Self, Vec<NoLogFilter>) {
        let items = text.unwrap_or_default().split(',').filter(|item| !item.trim().is_empty());
        let (mut targets, mut ignored) = (Vec::new(), Vec::new());
        for item in items.map(item) {
            match item {
                Ok(target) => targets.push(target),
                Err(error) => ignored.push(error),
            }
        }
        if targets.is_empty() {
            targets.push((String::new(), LevelFilter::from_level(level)));
        }
        (LogFilter(targets.into_iter().collect()), ignored)
    }
}

/// `LEVEL`, which is for every target, or `TARGET=LEVEL`.
fn item(text: &str) -> Result<(String, LevelFilter), NoLogFilter> {
    let (target, level) = text.trim().rsplit_once('=').unwrap_or(("", text.trim()));
    match level.parse() {
        Ok(level) if !level_is_left_out(text) => Ok((target.to_owned(), level)),
        _ => Err(NoLogFilter(text.to_owned())),
    }
}

/// To `tracing`, an empty level is a level.
fn level_is_left_out(text: &str) -> bool {
    text.trim().is_empty() || text.trim().ends_with('=')
}

/// Starts the process's log on standard error. `level` is in force where neither the settings nor `RUST_LOG` say what
/// is logged. Changes nothing if a log has been started already.
///
/// Logging never waits for a reader: while standard error is not read, lines are dropped, and their number is told as
/// soon as it is read again. So a process must [`flush_logs`] before it ends.
pub fn start_logs(settings: &LogSettings, level: Level) {
    let lost: fn(u64) -> String = match settings.format {
        LogFormat::Json => |lost| {
            format!(
                "{{\"level\":\"WARN\",\"message\":\"Dropped log lines that nobody read\",\"lines\":{lost}}}\n"
            )
        },
        LogFormat::Text => |lost| format!("WARN Dropped log lines that nobody read lines={lost}\n"),
    };
    start_logs_on(settings, level, move || {
        let started = LOGS.get_or_init(|| Lines::start("log", stderr(), lost).ok());
        LogWriter(started.as_ref())
    });
}

/// Starts the process's log, as [`start_logs`] does, on something in front of standard error.
pub fn start_logs_on<W>(settings: &LogSettings, level: Level, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let env = std::env::var("RUST_LOG").ok();
    let (filter, ignored) = match settings.filter.clone() {
        Some(filter) => (filter, Vec::new()),
        None => LogFilter::from_env(env.as_deref(), level),
    };
    let is_set = settings.filter.is_some() || env.as_deref().is_some_and(|text| !text.trim().is_empty());
    let (filter, handle) = reload::Layer::new(filter.0);
    let lines = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let started = match settings.format {
        LogFormat::Json => lines.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => {
            let inner = tracing_subscriber::fmt::format().compact().with_target(false);
            let layer = layer.with_ansi(has_colours(settings)).event_format(TextFormat(inner));
            lines.with(layer).try_init()
        }
    };
    // Err: the program that this one is a part of has started a log already.
    if started.is_ok() && !is_set {
        // Err: this was done before.
        let _ = LEVEL.set(Box::new(move |level| {
            // Libraries have much to say below `info`, and none of it is meant.
            let of_others = LevelFilter::from_level(level).min(LevelFilter::INFO);
            let targets = Targets::new().with_default(of_others).with_target(OURS, level);
            // Err: the log is gone.
            let _ = handle.reload(targets);
        }));
    }
    for error in ignored {
        warn!(%error, "Ignoring a part of RUST_LOG");
    }
}

/// Changes the level of the process's log. Has no effect where a flag or `RUST_LOG` says what is logged.
pub fn set_log_level(level: Level) {
    if let Some(set) = LEVEL.get() {
        set(level);
    }
}

/// Whether standard error is a terminal that can neither move its cursor nor show colours.
pub fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

fn has_colours(settings: &LogSettings) -> bool {
    let is_wanted = !settings.no_color && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    is_wanted && stderr().is_terminal() && !is_dumb_terminal()
}

/// Lines for people: what an app wrote stands behind the name of its pod, as in `hello-1 | listening`; a pod has the same
/// colour in all its lines. Everything else is formatted by `F`.
struct TextFormat<F>(F);

impl<S, N, F> FormatEvent<S, N> for TextFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if event.metadata().target() != APP {
            return self.0.format_event(context, writer, event);
        }
        let mut line = AppLine::default();
        event.record(&mut line);
        let AppLine { pod, text } = line;
        if writer.has_ansi_escapes() {
            let sum: usize = pod.bytes().map(usize::from).sum();
            writeln!(writer, "\x1b[{}m{pod} |\x1b[0m {text}", POD_COLOURS[sum % POD_COLOURS.len()])
        } else {
            writeln!(writer, "{pod} | {text}")
        }
    }
}

/// The fields of an event that holds a line of an app.
#[derive(Default)]
struct AppLine {
    pod: String,
    text: String,
}

impl Visit for AppLine {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "pod" {
            value.clone_into(&mut self.pod);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}

/// Waits until the lines of the log are written, for up to a second. To be called before the process ends.
pub fn flush_logs() {
    if let Some(Some(lines)) = LOGS.get() {
        lines.flush(FLUSH_LIMIT);
    }
}

/// One event's way out. `None`: there is no thread to write it, so it is written here.
struct LogWriter(Option<&'static Lines>);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(lines) => lines.push(line.to_vec()),
            None => stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOGS: OnceLock<Option<Lines>> = OnceLock::new();
/// Changes the level of the log; empty: a flag or a variable says what is logged.
static LEVEL: OnceLock<Box<dyn Fn(Level) + Send + Sync>> = OnceLock::new();
/// How the targets of our own events begin.
const OURS: &str = "pilotlight";
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// The target of events that are lines of apps.
const APP: &str = "app";
/// Colours of pods (ECMA-48, SGR); red and yellow are those of errors and warnings.
const POD_COLOURS: [u8; 6] = [36, 35, 34, 96, 95, 94];
const LEVELS: &str = "off, error, warn, info, debug, trace";

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(filter: &LogFilter, target: &str) -> Option<Level> {
        let all = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        all.into_iter().find(|level| filter.0.would_enable(target, level))
    }

    #[test]
    fn a_filter_is_a_level_and_levels_of_targets() {
        let filter: LogFilter = "info,app=off, pilotlight_net=DEBUG".parse().unwrap();
        assert_eq!(enabled(&filter, "app"), None);
        assert_eq!(enabled(&filter, "pilotlight_net::h1"), Some(Level::DEBUG));
        assert_eq!(enabled(&filter, "other"), Some(Level::INFO));
        for wrong in ["", "loud", "info,", "a=", "a=loud"] {
            assert!(wrong.parse::<LogFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_of_an_app_stands_behind_the_name_of_its_pod() {
        #[derive(Clone, Default)]
        struct Kept(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = |ansi| {
            let kept = Kept::default();
            let out = kept.clone();
            let inner = tracing_subscriber::fmt::format().compact().with_target(false).without_time();
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(move || out.clone())
                .with_ansi(ansi)
                .event_format(TextFormat(inner));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                tracing::info!(target: "app", revision = %"default/hello", pod = "hello-1", "{}", "GET / 200");
                tracing::info!(pod = "hello-1", "Pod is ready");
            });
            let bytes = kept.0.lock().clone();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(written(false), "hello-1 | GET / 200\n INFO Pod is ready pod=\"hello-1\"\n");
        assert!(written(true).starts_with("\x1b["), "{}", written(true));
        assert!(written(true).contains("mhello-1 |\x1b[0m GET / 200\n"), "{}", written(true));
    }

    #[test]
    fn what_rust_log_says_nothing_about_has_the_programs_level() {
        for nothing in [None, Some(""), Some("loud")] {
            let (filter, ignored) = LogFilter::from_env(nothing, Level::WARN);
            assert_eq!(enabled(&filter, "any"), Some(Level::WARN), "{nothing:?}");
            assert_eq!(ignored.len(), usize::from(nothing == Some("loud")));
        }
        let (filter, _) = LogFilter::from_env(Some("loud,app=off,debug"), Level::WARN);
        assert_eq!((enabled(&filter, "app"), enabled(&filter, "any")), (None, Some(Level::DEBUG)));
    }
}
