//! Result of a load test: how many requests, how they ended, how long they took.
//!
//! Text and JSON use the fields of the load tool vegeta, so that reports read, and parse, like the ones people
//! know. Two things differ: latencies count from the moment a request was *due*, so a server that stalls cannot
//! hide the requests it kept from being sent; and only a 2xx status is a success.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pilotlight_histogram::{Durations, NANOSECOND};
use serde::{Serialize, Serializer};

/// Latencies to the nanosecond, good for percentiles to a tenth of a percent.
pub type Latencies = Durations<NANOSECOND, 3>;

/// Percentiles of latency; all zero if nothing was measured. In JSON: nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencySummary {
    /// The sum of all latencies.
    #[serde(serialize_with = "nanos")]
    pub total: Duration,
    /// The arithmetic mean.
    #[serde(serialize_with = "nanos")]
    pub mean: Duration,
    /// The median.
    #[serde(rename = "50th", serialize_with = "nanos")]
    pub p50: Duration,
    /// 90 % took at most this long.
    #[serde(rename = "90th", serialize_with = "nanos")]
    pub p90: Duration,
    /// 95 % took at most this long.
    #[serde(rename = "95th", serialize_with = "nanos")]
    pub p95: Duration,
    /// 99 % took at most this long.
    #[serde(rename = "99th", serialize_with = "nanos")]
    pub p99: Duration,
    /// The longest.
    #[serde(serialize_with = "nanos")]
    pub max: Duration,
    /// The shortest.
    #[serde(serialize_with = "nanos")]
    pub min: Duration,
}

impl From<&Latencies> for LatencySummary {
    fn from(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.quantile(quantile).unwrap_or_default();
        LatencySummary {
            total: latencies.sum(),
            mean: latencies.mean().unwrap_or_default(),
            p50: at(0.50),
            p90: at(0.90),
            p95: at(0.95),
            p99: at(0.99),
            max: latencies.max().unwrap_or_default(),
            min: latencies.min().unwrap_or_default(),
        }
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [self.min, self.mean, self.p50, self.p90, self.p95, self.p99, self.max];
        f.write_str(&figures.map(for_people).join(", "))
    }
}

/// Outcome of all requests of a load test.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestSummary {
    /// How long the requests that have ended took, from when they were due to the end of the response or failure.
    #[serde(rename = "latencies")]
    pub latency: LatencySummary,
    /// Bytes of the response bodies.
    pub bytes_in: u64,
    /// From the start to the last request sent.
    #[serde(serialize_with = "nanos")]
    pub duration: Duration,
    /// From the last request sent to the last response.
    #[serde(serialize_with = "nanos")]
    pub wait: Duration,
    /// Requests that have ended, well or not.
    pub requests: u64,
    /// Requests sent a second.
    pub rate: f64,
    /// Successful responses a second.
    pub throughput: f64,
    /// The share of requests answered with a 2xx status, between 0 and 1.
    #[serde(rename = "success")]
    pub success_fraction: f64,
    /// Requests by status; 0: no whole response was received.
    pub status_codes: BTreeMap<u16, u64>,
    /// Requests without a whole response, by the kind of failure.
    pub errors: BTreeMap<String, u64>,
}

impl RequestSummary {
    /// Requests answered with a 2xx status.
    pub fn succeeded(&self) -> u64 {
        self.status_codes.range(200..300).map(|(_, count)| count).sum()
    }

    /// Requests answered with another status, or not at all.
    pub fn failed(&self) -> u64 {
        self.requests - self.succeeded()
    }
}

impl fmt::Display for RequestSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.duration + self.wait;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, fields: &str, values: &str| {
            writeln!(f, "{name:<13} {:<33} {values}", format!("[{fields}]"))
        };
        let requests = format!("{}, {:.2}, {:.2}", self.requests, self.rate, self.throughput);
        row(f, "Requests", "total, rate, throughput", &requests)?;
        let durations = [whole, self.duration, self.wait].map(for_people).join(", ");
        row(f, "Duration", "total, attack, wait", &durations)?;
        row(f, "Latencies", "min, mean, 50, 90, 95, 99, max", &self.latency.to_string())?;
        let mean_bytes = self.bytes_in as f64 / self.requests.max(1) as f64;
        row(f, "Bytes In", "total, mean", &format!("{}, {mean_bytes:.2}", self.bytes_in))?;
        row(f, "Success", "ratio", &as_percent(self.success_fraction))?;
        let codes: Vec<String> =
            self.status_codes.iter().map(|(code, count)| format!("{code}:{count}")).collect();
        row(f, "Status Codes", "code:count", &codes.join("  "))?;
        writeln!(f, "Error Set:")?;
        self.errors.iter().try_for_each(|(error, count)| writeln!(f, "{count} x {error}"))
    }
}

/// Collects the outcomes of requests as they end.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    latency: Latencies,
    bytes_in: u64,
    requests: u64,
    status_codes: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    last_sent: Duration,
    last_ended: Duration,
}

impl Tally {
    /// Adds one request that has ended. `sent` and `ended` count from the start of the test.
    pub fn record(&mut self, sent: Duration, ended: Duration, latency: Duration, outcome: Outcome) {
        self.requests += 1;
        self.latency.record(latency);
        self.last_sent = self.last_sent.max(sent);
        self.last_ended = self.last_ended.max(ended);
        let code = match outcome {
            Outcome::Answered { status, bytes } => {
                self.bytes_in += bytes;
                status
            }
            Outcome::Failed { error } => {
                *self.errors.entry(error).or_default() += 1;
                0
            }
        };
        *self.status_codes.entry(code).or_default() += 1;
    }

    /// Outcome of the requests so far.
    pub fn summary(&self) -> RequestSummary {
        let mut summary = RequestSummary {
            latency: LatencySummary::from(&self.latency),
            bytes_in: self.bytes_in,
            duration: self.last_sent,
            wait: self.last_ended.saturating_sub(self.last_sent),
            requests: self.requests,
            status_codes: self.status_codes.clone(),
            errors: self.errors.clone(),
            ..RequestSummary::default()
        };
        let succeeded = summary.succeeded();
        summary.rate = per_second(self.requests, self.last_sent);
        summary.throughput = per_second(succeeded, self.last_ended.max(self.last_sent));
        summary.success_fraction = succeeded as f64 / self.requests.max(1) as f64;
        summary
    }
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole response arrived.
    Answered {
        /// Status of the response.
        status: u16,
        /// Length of the response's body.
        bytes: u64,
    },
    /// No whole response arrived.
    Failed {
        /// The failure, in the same words for the same kind.
        error: String,
    },
}

/// A duration with as many digits as matter: `13.37ms`, `2.001s`, `1m30.5s`.
pub fn for_people(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_nanos() {
        0 => "0s".to_owned(),
        1..1_000_000 => format!("{}µs", significant(seconds * 1e6)),
        1_000_000..1_000_000_000 => format!("{}ms", significant(seconds * 1e3)),
        1_000_000_000..60_000_000_000 => format!("{}s", significant(seconds)),
        _ => {
            // Rounded before it is split, so that 119.99 s is 2m0s and not 1m60s.
            let tenths = (seconds * 10.0).round() as u64;
            let (minutes, rest) = (tenths / 600, tenths % 600);
            format!("{minutes}m{}s", rest as f64 / 10.0)
        }
    }
}

/// Four significant digits without trailing zeros.
fn significant(value: f64) -> String {
    let decimals = if value < 10.0 {
        3
    } else if value < 100.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Two decimals, rounded down: nothing but all is 100 %.
fn as_percent(fraction: f64) -> String {
    // The tiny addition undoes what dividing and multiplying took away from 0.29 and its like.
    format!("{:.2}%", ((fraction * 1e4 + 1e-7).floor() / 100.0).min(100.0))
}

fn per_second(count: u64, within: Duration) -> f64 {
    // One request has no duration to speak of; its rate is then the count itself.
    if within.is_zero() { count as f64 } else { count as f64 / within.as_secs_f64() }
}

fn nanos<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, bytes: 10 }
    }

    /// 100 requests, one each 10 ms, that took 1 ms to 100 ms; the last two went wrong.
    fn hundred() -> RequestSummary {
        let mut tally = Tally::default();
        for n in 1..=98 {
            tally.record(ms(10 * n), ms(11 * n), ms(n), answered(200));
        }
        tally.record(ms(990), ms(1089), ms(99), answered(503));
        let error = "connect: connection refused".to_owned();
        tally.record(ms(1000), ms(1100), ms(100), Outcome::Failed { error });
        tally.summary()
    }

    #[test]
    fn percentiles_are_right_to_a_tenth_of_a_percent() {
        let latency = hundred().latency;
        assert_eq!((latency.min, latency.max), (ms(1), ms(100)));
        for (got, want) in [
            (latency.mean, Duration::from_micros(50_500)),
            (latency.p50, ms(50)),
            (latency.p90, ms(90)),
            (latency.p95, ms(95)),
            (latency.p99, ms(99)),
        ] {
            let off = got.abs_diff(want).as_secs_f64() / want.as_secs_f64();
            assert!(off <= 0.001, "got {got:?}, want {want:?}");
        }
        assert_eq!(latency.total, ms(5050));
    }

    #[test]
    fn every_request_is_counted_once_and_only_2xx_succeeds() {
        let summary = hundred();
        assert_eq!(summary.requests, 100);
        assert_eq!((summary.succeeded(), summary.failed()), (98, 2));
        assert_eq!(summary.status_codes, BTreeMap::from([(0, 1), (200, 98), (503, 1)]));
        assert_eq!(summary.rate, 100.0);
        assert!((summary.throughput - 98.0 / 1.1).abs() < 1e-9);
    }

    #[test]
    fn text_reads_like_vegeta() {
        let text = hundred().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Requests      [total, rate, throughput]         100, 100.00, 89.09");
        assert_eq!(lines[1], "Duration      [total, attack, wait]             1.1s, 1s, 100ms");
        assert!(lines[2].starts_with("Latencies     [min, mean, 50, 90, 95, 99, max]  1ms, 50.5ms, "));
        assert_eq!(lines[3], "Bytes In      [total, mean]                     990, 9.90");
        assert_eq!(lines[4], "Success       [ratio]                           98.00%");
        assert_eq!(lines[5], "Status Codes  [code:count]                      0:1  200:98  503:1");
        assert_eq!(lines[6..], ["Error Set:", "1 x connect: connection refused"]);
    }

    #[test]
    fn json_has_vegetas_names_and_nanoseconds() {
        let json = serde_json::to_value(hundred()).expect("serializes");
        assert_eq!(json["requests"], 100);
        assert_eq!(json["status_codes"]["503"], 1);
        assert_eq!(json["success"], 0.98);
        assert_eq!(json["duration"], 1_000_000_000u64);
        assert_eq!(json["latencies"]["total"], 5_050_000_000u64);
        assert!(json["latencies"]["99th"].as_u64().is_some_and(|nanos| nanos >= 98_900_000));
        assert_eq!(json["errors"]["connect: connection refused"], 1);
    }

    #[test]
    fn nothing_measured_is_all_zero() {
        let summary = Tally::default().summary();
        assert_eq!(summary, RequestSummary::default());
        assert!(summary.to_string().contains("Success       [ratio]                           0.00%"));
    }

    #[test]
    fn one_lost_request_in_a_million_is_not_a_hundred_percent() {
        assert_eq!(as_percent(0.999_999), "99.99%");
        assert_eq!(as_percent(1.0), "100.00%");
        assert_eq!(as_percent(0.29), "29.00%");
    }

    #[test]
    fn durations_are_short_and_exact_enough() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(999), "999µs"),
            (Duration::from_nanos(13_374_000), "13.37ms"),
            (ms(1000), "1s"),
            (Duration::from_nanos(2_001_400_000), "2.001s"),
            (ms(90_500), "1m30.5s"),
            (ms(119_990), "2m0s"),
        ] {
            assert_eq!(for_people(duration), text);
        }
    }

    #[test]
    fn what_takes_longer_than_an_hour_is_still_counted() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(7200));
        let summary = LatencySummary::from(&latencies);
        assert_eq!((summary.total, summary.max), (Duration::from_secs(7200), Duration::from_secs(7200)));
        assert!(summary.p50 >= Duration::from_secs(7190));
    }
}
