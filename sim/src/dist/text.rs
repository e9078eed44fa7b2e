//! Distributions as text: what people write into flags and scenarios, and the file an empirical one is read from.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use pilotlight_config::duration::{self, DurationError};
use pilotlight_config::spelling::hint;

use super::Distribution;

/// A distribution as it was written. In a scenario it is a string:
///
/// | text | distribution |
/// |---|---|
/// | `100ms` | always that |
/// | `exponential:100ms` | exponential with that mean |
/// | `lognormal:p50=100ms,p99=1s` | lognormal with that median and 99th percentile |
/// | `gamma:mean=100ms,cv=0.5` | gamma by mean and coefficient of variation; or `shape=4` |
/// | `uniform:10ms..20ms` | evenly spread |
/// | `percentiles:p50=80ms,p90=200ms,p99=1s` | straight lines between known percentiles |
/// | `empirical:FILE:COLUMN[:UNIT]` | a column of a CSV file with a header, in `s` (the default), `ms` or `us` |
#[derive(Clone, Debug, PartialEq)]
pub enum DistributionSpec {
    /// Known without reading anything.
    Known(Distribution),
    /// In a file.
    Empirical {
        /// Path of the CSV file, from wherever the scenario lies.
        file: String,
        /// Name of the column.
        column: String,
        /// Unit of the column's numbers.
        unit: TimeUnit,
    },
}

/// The unit of a column of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    #[default]
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// Why a text is not a distribution, or its file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DistError {
    /// The word before the colon is none that is known.
    #[error("{name:?} is not a distribution{}: use a time such as 100ms, or one of {}", hint(name, KINDS.iter().copied()), KINDS.join(", "))]
    UnknownKind {
        /// The word.
        name: String,
    },
    /// A time that is none.
    #[error("{text:?}: {source}")]
    Time {
        /// The text as it was written.
        text: String,
        /// Why it is none.
        source: DurationError,
    },
    /// A number that is none.
    #[error("{name}: {text:?} is not a number above zero")]
    Number {
        /// The parameter.
        name: String,
        /// The text as it was written.
        text: String,
    },
    /// The arguments are not those of the distribution.
    #[error("{kind} is written {form}")]
    Form {
        /// The distribution.
        kind: &'static str,
        /// How it is written.
        form: &'static str,
    },
    /// A time that must be above zero.
    #[error("{name} must be above zero")]
    Zero {
        /// The parameter.
        name: &'static str,
    },
    /// A shape out of range.
    #[error("a shape of {shape} is out of range: 0.001 to 1e9, that is a cv from 0.00004 to 31")]
    Shape {
        /// The shape.
        shape: f64,
    },
    /// Two times in the wrong order.
    #[error("{high} is below {low}")]
    Order {
        /// The parameter that should be lower.
        low: &'static str,
        /// The parameter that should be higher.
        high: &'static str,
    },
    /// A percentile that is none.
    #[error("percentiles lie between p0 and p100")]
    Share,
    /// A unit that is none.
    #[error("{unit:?} is not a unit here: use s, ms, us or ns")]
    Unit {
        /// The text as it was written.
        unit: String,
    },
    /// The distribution lies in a file where none can be read.
    #[error("an empirical distribution lies in a file, which must be loaded first")]
    NotLoaded,
    /// No samples to draw from.
    #[error("no values are given")]
    NoSamples,
    /// The file cannot be opened.
    #[error("{file}: {source}")]
    Open {
        /// The file.
        file: String,
        /// The reason.
        source: io::Error,
    },
    /// The file is no CSV, or cannot be read to its end.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The reason.
        source: csv::Error,
    },
    /// The file has no such column.
    #[error("{file}: there is no column {column:?}{}; there are {}", hint(column, columns.iter().map(String::as_str)), columns.join(", "))]
    NoColumn {
        /// The file.
        file: String,
        /// The column asked for.
        column: String,
        /// The columns of the file.
        columns: Vec<String>,
    },
    /// A value of the column is no time.
    #[error("{file}, line {line}: {column} is {value:?}, not a number of at least zero")]
    Value {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// The value in the file.
        value: String,
    },
    /// Every line of the column is empty.
    #[error("{file}: column {column:?} holds no values")]
    EmptyColumn {
        /// The file.
        file: String,
        /// The column.
        column: String,
    },
}

impl DistributionSpec {
    /// The distribution itself. A relative path starts at `base_dir`: the folder of the scenario it was written
    /// in. Empty values of the column are passed over.
    pub fn load(&self, base_dir: &Path) -> Result<Distribution, DistError> {
        let (file, column, unit) = match self {
            DistributionSpec::Known(distribution) => return Ok(distribution.clone()),
            DistributionSpec::Empirical { file, column, unit } => (file, column, *unit),
        };
        let source = File::open(base_dir.join(file))
            .map_err(|source| DistError::Open { file: file.clone(), source })?;
        let samples = read_column(source, file, column, unit)?;
        Distribution::empirical(&self.to_string(), &samples)
    }
}

fn read_column(
    source: impl io::Read,
    file: &str,
    column: &str,
    unit: TimeUnit,
) -> Result<Vec<Duration>, DistError> {
    let unreadable = |source| DistError::Read { file: file.to_owned(), source };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
    let header = reader.headers().map_err(unreadable)?;
    let Some(index) = header.iter().position(|name| name == column) else {
        let columns = header.iter().map(str::to_owned).collect();
        return Err(DistError::NoColumn { file: file.to_owned(), column: column.to_owned(), columns });
    };
    let mut samples = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(unreadable)? {
        let value = record.get(index).unwrap_or_default();
        if value.is_empty() {
            continue;
        }
        let time = unit.parse(value);
        samples.push(time.ok_or_else(|| DistError::Value {
            file: file.to_owned(),
            line: record.position().map_or(0, csv::Position::line),
            column: column.to_owned(),
            value: value.to_owned(),
        })?);
    }
    if samples.is_empty() {
        return Err(DistError::EmptyColumn { file: file.to_owned(), column: column.to_owned() });
    }
    Ok(samples)
}

impl TimeUnit {
    /// `number` of it, to the nearest nanosecond; `None` if negative, not finite, or beyond 584 years.
    pub fn time(self, number: f64) -> Option<Duration> {
        let nanos = number * self.nanos();
        ((0.0..18_446_744_073_709_549_568.0).contains(&nanos)).then(|| super::rounded(nanos))
    }

    /// A number written in it, to the nearest nanosecond. Plain decimals are read exactly: as a float, a Unix time
    /// would be off by a hundred nanoseconds.
    pub(crate) fn parse(self, text: &str) -> Option<Duration> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = !whole.is_empty() && is_digits(whole) && is_digits(fraction);
        if !is_plain || whole.len() > 18 || fraction.len() > 18 {
            return text.parse().ok().and_then(|number| self.time(number));
        }
        let (unit, scale) = (self.nanos() as u128, 10_u128.pow(fraction.len() as u32));
        let parts = format!("{whole}{fraction}").parse::<u128>().ok()? * unit;
        u64::try_from((parts + scale / 2) / scale).ok().map(Duration::from_nanos)
    }

    /// The unit's length in nanoseconds.
    pub(crate) fn nanos(self) -> f64 {
        match self {
            TimeUnit::Seconds => 1e9,
            TimeUnit::Millis => 1e6,
            TimeUnit::Micros => 1e3,
            TimeUnit::Nanos => 1.0,
        }
    }

    /// Every unit by its name.
    pub(crate) const NAMES: [(&str, TimeUnit); 4] = [
        ("s", TimeUnit::Seconds),
        ("ms", TimeUnit::Millis),
        ("us", TimeUnit::Micros),
        ("ns", TimeUnit::Nanos),
    ];

    fn name(self) -> &'static str {
        TimeUnit::NAMES.iter().find(|(_, unit)| *unit == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for TimeUnit {
    type Err = DistError;
    fn from_str(text: &str) -> Result<Self, DistError> {
        let known = TimeUnit::NAMES.iter().find(|(name, _)| *name == text);
        known.map(|&(_, unit)| unit).ok_or_else(|| DistError::Unit { unit: text.to_owned() })
    }
}

impl FromStr for Distribution {
    type Err = DistError;
    fn from_str(text: &str) -> Result<Self, DistError> {
        match text.parse()? {
            DistributionSpec::Known(distribution) => Ok(distribution),
            DistributionSpec::Empirical { .. } => Err(DistError::NotLoaded),
        }
    }
}

impl FromStr for DistributionSpec {
    type Err = DistError;
    fn from_str(text: &str) -> Result<Self, DistError> {
        let Some((kind, arguments)) = text.split_once(':') else {
            let looks_like_a_time = text.is_empty() || text.starts_with(|c: char| !c.is_ascii_alphabetic());
            return if looks_like_a_time {
                Ok(DistributionSpec::Known(Distribution::Constant(time(text)?)))
            } else {
                Err(form_of(text))
            };
        };
        let wrong = || form_of(kind);
        let known = match kind {
            "constant" => Distribution::Constant(time(arguments)?),
            "exponential" => Distribution::exponential(time(arguments)?)?,
            "uniform" => {
                let (low, high) = arguments.split_once("..").ok_or_else(wrong)?;
                Distribution::uniform(time(low)?, time(high)?)?
            }
            "lognormal" => {
                let [p50, p99] = named(arguments, ["p50", "p99"]).ok_or_else(wrong)?;
                Distribution::lognormal(time(p50)?, time(p99)?)?
            }
            "gamma" => {
                if let Some([mean, cv]) = named(arguments, ["mean", "cv"]) {
                    Distribution::gamma(time(mean)?, number("cv", cv)?.powi(-2))?
                } else {
                    let [mean, shape] = named(arguments, ["mean", "shape"]).ok_or_else(wrong)?;
                    Distribution::gamma(time(mean)?, number("shape", shape)?)?
                }
            }
            "percentiles" => Distribution::percentiles(percentiles(arguments)?)?,
            "empirical" => return empirical(arguments).and_then(|found| found.ok_or_else(wrong)),
            _ => return Err(wrong()),
        };
        Ok(DistributionSpec::Known(known))
    }
}

/// `FILE:COLUMN[:UNIT]`. The file comes first and may hold a colon itself, as on Windows; so it is read from the
/// back.
fn empirical(arguments: &str) -> Result<Option<DistributionSpec>, DistError> {
    let Some((before, last)) = arguments.rsplit_once(':') else { return Ok(None) };
    let is_path_only = before.is_empty() || (before.len() == 1 && last.starts_with(['\\', '/']));
    if is_path_only || last.is_empty() {
        return Ok(None);
    }
    let (file, column, unit) = match before.rsplit_once(':') {
        Some((file, column))
            if !file.is_empty() && !column.is_empty() && !column.starts_with(['\\', '/']) =>
        {
            (file, column, last.parse()?)
        }
        _ => (before, last, TimeUnit::default()),
    };
    Ok(Some(DistributionSpec::Empirical { file: file.to_owned(), column: column.to_owned(), unit }))
}

fn percentiles(arguments: &str) -> Result<Vec<(f64, Duration)>, DistError> {
    let pair = |argument: &str| {
        let (name, value) = argument.split_once('=').ok_or_else(|| form_of("percentiles"))?;
        let percent = name.strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok());
        let percent = percent.ok_or_else(|| form_of("percentiles"))?;
        Ok((percent / 100.0, time(value)?))
    };
    arguments.split(',').map(pair).collect()
}

/// The values of `a=1,b=2` in the order of the names; `None` unless just these are there, in any order.
fn named<'a, const N: usize>(arguments: &'a str, names: [&str; N]) -> Option<[&'a str; N]> {
    let given: Vec<_> =
        arguments.split(',').map(|argument| argument.split_once('=')).collect::<Option<_>>()?;
    let mut values = [""; N];
    for (slot, name) in values.iter_mut().zip(names) {
        *slot = given.iter().find(|(given, _)| *given == name)?.1;
    }
    (given.len() == N).then_some(values)
}

fn time(text: &str) -> Result<Duration, DistError> {
    duration::parse(text).map_err(|source| DistError::Time { text: text.to_owned(), source })
}

fn number(name: &str, text: &str) -> Result<f64, DistError> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| DistError::Number { name: name.to_owned(), text: text.to_owned() })
}

fn form_of(kind: &str) -> DistError {
    match FORMS.iter().find(|(name, _)| *name == kind) {
        Some((kind, form)) => DistError::Form { kind, form },
        None => DistError::UnknownKind { name: kind.to_owned() },
    }
}

const KINDS: &[&str] =
    &["constant", "exponential", "lognormal", "gamma", "uniform", "percentiles", "empirical"];

const FORMS: &[(&str, &str)] = &[
    ("constant", "100ms"),
    ("exponential", "exponential:100ms"),
    ("lognormal", "lognormal:p50=100ms,p99=1s"),
    ("gamma", "gamma:mean=100ms,cv=0.5 or gamma:mean=100ms,shape=4"),
    ("uniform", "uniform:10ms..20ms"),
    ("percentiles", "percentiles:p50=80ms,p90=200ms,p99=1s"),
    ("empirical", "empirical:FILE:COLUMN or empirical:FILE:COLUMN:UNIT"),
];

pub(super) fn write(distribution: &Distribution, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = duration::format;
    match distribution {
        Distribution::Constant(time) => f.write_str(&text(*time)),
        Distribution::Exponential(e) => write!(f, "exponential:{}", text(e.mean)),
        Distribution::Lognormal(l) => write!(f, "lognormal:p50={},p99={}", text(l.p50), text(l.p99)),
        Distribution::Gamma(g) => write!(f, "gamma:mean={},shape={}", text(g.mean), g.shape),
        Distribution::Uniform(u) => write!(f, "uniform:{}..{}", text(u.low), text(u.high)),
        Distribution::Percentiles(p) => {
            for (at, (share, nanos)) in p.knots.iter().enumerate() {
                let separator = if at == 0 { "percentiles:" } else { "," };
                // Rounded: 0.29 * 100 is 28.999999999999996.
                let percent = (share * 1e11).round() / 1e9;
                write!(f, "{separator}p{percent}={}", text(super::rounded(*nanos)))?;
            }
            Ok(())
        }
        Distribution::Empirical(e) => f.write_str(&e.name),
    }
}

impl fmt::Display for DistributionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DistributionSpec::Known(distribution) => write(distribution, f),
            DistributionSpec::Empirical { file, column, unit } => {
                write!(f, "empirical:{file}:{column}:{}", unit.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<DistributionSpec>().expect_err(text).to_string()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in [
            "100ms",
            "exponential:100ms",
            "lognormal:p50=100ms,p99=1s",
            "gamma:mean=100ms,shape=4",
            "uniform:10ms..20ms",
            "percentiles:p0=1ms,p29=2ms,p99.9=1s,p100=1s",
            "empirical:loads.csv:value:ms",
            "empirical:C:\\loads.csv:value:s",
        ] {
            let spec: DistributionSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(spec.to_string().parse::<DistributionSpec>().unwrap(), spec);
        }
        let same = |a: &str, b: &str| assert_eq!(a.parse::<Distribution>().unwrap().to_string(), b);
        same("gamma:cv=0.5,mean=100ms", "gamma:mean=100ms,shape=4");
        same("constant:0", "0s");
        same("percentiles:p50=2ms", "percentiles:p0=2ms,p50=2ms,p100=2ms");
        let unit_left_out: DistributionSpec = "empirical:a/loads.csv:value".parse().unwrap();
        assert_eq!(unit_left_out.to_string(), "empirical:a/loads.csv:value:s");
    }

    #[test]
    fn an_error_says_what_to_write_instead() {
        assert_eq!(error("100"), "\"100\": a number needs a unit, such as 100s");
        assert!(error("lognromal:p50=1s,p99=2s").contains("did you mean \"lognormal\"?"));
        assert_eq!(error("lognormal:p50=1s"), "lognormal is written lognormal:p50=100ms,p99=1s");
        assert_eq!(error("lognormal:p50=2s,p99=1s"), "p99 is below p50");
        assert_eq!(error("exponential"), "exponential is written exponential:100ms");
        assert_eq!(error("exponential:0s"), "mean must be above zero");
        assert_eq!(error("gamma:mean=1s,cv=-1"), "cv: \"-1\" is not a number above zero");
        assert!(error("gamma:mean=1s,cv=100").contains("out of range"));
        assert_eq!(error("empirical:x.csv:v:min"), "\"min\" is not a unit here: use s, ms, us or ns");
        assert!(error("empirical:x.csv").starts_with("empirical is written"));
        assert_eq!(error("percentiles:p50=1s,p120=2s"), "percentiles lie between p0 and p100");
        assert!("empirical:x.csv:v".parse::<Distribution>().is_err());
    }

    #[test]
    fn a_column_is_read_by_its_name_and_unit() {
        let text = "at,took\r\n1, 2.5\r\n2,\r\n3,\"1\"\r\n";
        let samples = read_column(text.as_bytes(), "f", "took", TimeUnit::Millis).unwrap();
        assert_eq!(samples, [Duration::from_micros(2_500), Duration::from_millis(1)]);
    }

    #[test]
    fn decimals_are_read_to_the_nanosecond() {
        let nanos = |unit: TimeUnit, text| unit.parse(text).map(|time| time.as_nanos());
        assert_eq!(nanos(TimeUnit::Seconds, "1700000010.123456789"), Some(1_700_000_010_123_456_789));
        assert_eq!(nanos(TimeUnit::Millis, "0.0000015"), Some(2));
        assert_eq!(nanos(TimeUnit::Seconds, "1e-3"), Some(1_000_000));
        assert_eq!(nanos(TimeUnit::Seconds, ".5"), Some(500_000_000));
        for text in ["", ".", "-1", "inf", "NaN", "1 s", "20000000000"] {
            assert_eq!(nanos(TimeUnit::Seconds, text), None, "{text:?}");
        }
    }

    #[test]
    fn a_bad_column_or_value_is_named() {
        let error = |text: &str, column| {
            read_column(text.as_bytes(), "f", column, TimeUnit::Seconds).unwrap_err().to_string()
        };
        assert_eq!(
            error("at,took\n1,2\n", "tok"),
            "f: there is no column \"tok\" (did you mean \"took\"?); there are at, took"
        );
        assert_eq!(
            error("at,took\n1,2\n2,-3\n", "took"),
            "f, line 3: took is \"-3\", not a number of at least zero"
        );
        assert_eq!(error("at,took\n1,\n", "took"), "f: column \"took\" holds no values");
    }

    #[test]
    fn an_empirical_distribution_is_read_beside_its_scenario() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("loads.csv"), "value\n2000\n1000\n").unwrap();
        let spec: DistributionSpec = "empirical:loads.csv:value:ms".parse().unwrap();
        let loaded = spec.load(folder.path()).unwrap();
        assert_eq!(loaded.mean(), Duration::from_millis(1_500));
        assert_eq!(loaded.to_string(), "empirical:loads.csv:value:ms");
        let missing: DistributionSpec = "empirical:none.csv:value".parse().unwrap();
        assert!(missing.load(folder.path()).unwrap_err().to_string().starts_with("none.csv: "));
    }
}
