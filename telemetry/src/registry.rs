//! The series of a process, and their text for Prometheus.
//!
//! A series (one name with one set of labels) lives as long as somebody holds a handle to it. A revision holds the
//! handles to its own, so its series end with it, and one that merely does not change stays. Recorders made for a fixed
//! set of series cannot say that: `metrics-exporter-prometheus` keeps every series for ever, or drops one that has not
//! changed for a while although its handle is still in use, and whatever that handle records afterwards is lost.
//!
//! Handles are those of the `metrics` crate, so its macros work once a registry is [installed](Registry::install). The
//! handle they return must be kept: a temporary one takes its series with it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder,
    SetRecorderError, SharedString, Unit,
};
use parking_lot::Mutex;

/// A set of series. All clones are the same set.
#[derive(Clone, Default)]
pub struct Registry {
    families: Arc<Mutex<Families>>,
}

#[derive(Default)]
struct Families {
    help: BTreeMap<String, SharedString>,
    counters: Kind<AtomicU64>,
    gauges: Kind<AtomicU64>,
    histograms: Kind<Buckets>,
}

/// Families of one kind, by name.
type Kind<V> = BTreeMap<String, Family<V>>;

/// Series that have a handle, with their labels.
type LivingSeries<V> = Vec<(Arc<str>, Arc<V>)>;

/// Series of one name, by their labels as they are written.
struct Family<V> {
    series: BTreeMap<Arc<str>, Weak<V>>,
    /// The number of series at which those without a handle are looked for.
    pruned_at: usize,
}

impl<V> Default for Family<V> {
    fn default() -> Self {
        Family { series: BTreeMap::new(), pruned_at: MIN_PRUNED_AT }
    }
}

impl Registry {
    /// A set without series.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Makes this the recorder behind the macros of `metrics`, once a process.
    pub fn install(&self) -> Result<(), SetRecorderError<Registry>> {
        metrics::set_global_recorder(self.clone())
    }

    /// The help text of a name.
    pub fn describe(&self, name: &str, help: impl Into<SharedString>) {
        self.families.lock().help.entry(name.to_owned()).or_insert(help.into());
    }

    /// A counter, which begins with zero unless there is one already.
    pub fn counter(&self, name: &str, labels: &[Label]) -> Counter {
        Counter::from_arc(handle(&mut self.families.lock().counters, name, labels, AtomicU64::default))
    }

    /// A gauge, which begins with zero unless there is one already.
    pub fn gauge(&self, name: &str, labels: &[Label]) -> Gauge {
        Gauge::from_arc(handle(&mut self.families.lock().gauges, name, labels, AtomicU64::default))
    }

    /// A histogram with [`SIZE_BUCKETS`] if its name ends in `_bytes`, otherwise with [`SECONDS_BUCKETS`]. It begins
    /// empty unless there is one already.
    pub fn histogram(&self, name: &str, labels: &[Label]) -> Histogram {
        let new = || Buckets::new(if name.ends_with("_bytes") { &SIZE_BUCKETS } else { &SECONDS_BUCKETS });
        Histogram::from_arc(handle(&mut self.families.lock().histograms, name, labels, new))
    }

    /// All series in Prometheus's text format (version 0.0.4), in the order of their names and labels.
    pub fn render(&self) -> String {
        let (counters, gauges, histograms, help) = {
            let mut families = self.families.lock();
            let counters = living(&mut families.counters);
            let gauges = living(&mut families.gauges);
            (counters, gauges, living(&mut families.histograms), families.help.clone())
        };
        let mut page = Page { text: String::new(), help };
        for (name, series) in counters {
            page.begin(&name, "counter");
            for (labels, value) in series {
                page.sample(&name, "", &labels, None, value.load(Ordering::Relaxed));
            }
        }
        for (name, series) in gauges {
            page.begin(&name, "gauge");
            for (labels, value) in series {
                // Plus zero: what went up and down again may be -0.
                page.sample(&name, "", &labels, None, f64::from_bits(value.load(Ordering::Relaxed)) + 0.0);
            }
        }
        for (name, series) in histograms {
            page.begin(&name, "histogram");
            for (labels, buckets) in series {
                let mut count = 0;
                for (bound, counted) in buckets.bounds.iter().zip(&buckets.counts) {
                    count += counted.load(Ordering::Relaxed);
                    page.sample(&name, "_bucket", &labels, Some(bound), count);
                }
                count += buckets.beyond.load(Ordering::Relaxed);
                page.sample(&name, "_bucket", &labels, Some(&"+Inf"), count);
                let sum = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
                page.sample(&name, "_sum", &labels, None, sum);
                page.sample(&name, "_count", &labels, None, count);
            }
        }
        page.text
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(name.as_str(), help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(name.as_str(), help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(name.as_str(), help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.counter(key.name(), &labels_of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.gauge(key.name(), &labels_of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.histogram(key.name(), &labels_of(key))
    }
}

fn labels_of(key: &Key) -> Vec<Label> {
    key.labels().cloned().collect()
}

/// The handle to a series: the one that others hold already, or a new one.
fn handle<V>(kind: &mut Kind<V>, name: &str, labels: &[Label], new: impl FnOnce() -> V) -> Arc<V> {
    let family = kind.entry(name.to_owned()).or_default();
    let labels = written(labels);
    if let Some(value) = family.series.get(labels.as_str()).and_then(Weak::upgrade) {
        return value;
    }
    // Half of them at least are new since the last time, so a series costs the same however many there are.
    if family.series.len() >= family.pruned_at {
        family.series.retain(|_, value| value.strong_count() > 0);
        family.pruned_at = MIN_PRUNED_AT.max(2 * family.series.len());
    }
    let value = Arc::new(new());
    family.series.insert(labels.into(), Arc::downgrade(&value));
    value
}

/// Every family with a living series, and its living series; forgets the others.
fn living<V>(kind: &mut Kind<V>) -> Vec<(String, LivingSeries<V>)> {
    kind.retain(|_, family| {
        family.series.retain(|_, value| value.strong_count() > 0);
        !family.series.is_empty()
    });
    kind.iter()
        .map(|(name, family)| {
            let series = family.series.iter();
            (
                name.clone(),
                series.filter_map(|(labels, value)| Some((Arc::clone(labels), value.upgrade()?))).collect(),
            )
        })
        .collect()
}

/// Labels as they are written: `a="1",b="2"`.
fn written(labels: &[Label]) -> String {
    let mut text = String::new();
    for label in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}=\"{}\"", label.key(), escaped(label.value()));
    }
    text
}

/// The value of a label between its quotes.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page {
    text: String,
    help: BTreeMap<String, SharedString>,
}

impl Page {
    // Writing to a string cannot fail.
    fn begin(&mut self, name: &str, kind: &str) {
        if let Some(help) = self.help.get(name) {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(self.text, "# HELP {name} {help}");
        }
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn sample(
        &mut self,
        name: &str,
        part: &str,
        labels: &str,
        bound: Option<&dyn fmt::Display>,
        value: impl fmt::Display,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = match bound {
            Some(bound) => writeln!(self.text, "{name}{part}{{{labels}{comma}le=\"{bound}\"}} {value}"),
            None if labels.is_empty() => writeln!(self.text, "{name}{part} {value}"),
            None => writeln!(self.text, "{name}{part}{{{labels}}} {value}"),
        };
    }
}

/// A histogram: how many values were at most each bound and above the one before.
struct Buckets {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// Values above all bounds.
    beyond: AtomicU64,
    /// The bits of the sum of all values.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = bounds.iter().map(|_| AtomicU64::default()).collect();
        Buckets { bounds, counts, beyond: AtomicU64::default(), sum: AtomicU64::default() }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(bucket).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        GaugeFn::increment(&self.sum, value);
    }
}

/// The bounds Knative gives its histograms of durations, in seconds.
pub const SECONDS_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The bounds OpenTelemetry gives histograms that have none of their own.
pub const SIZE_BUCKETS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

/// Series a family may have before those without a handle are looked for.
const MIN_PRUNED_AT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: impl fmt::Display) -> [Label; 1] {
        [Label::new("revision", name.to_string())]
    }

    #[test]
    fn a_series_ends_with_its_last_handle_and_not_because_it_does_not_change() {
        let registry = Registry::new();
        let handles = [registry.gauge("a", &revision(1)), registry.gauge("a", &revision(1))];
        handles[0].set(3.0);
        let [one, other] = handles;
        for _ in 0..1000 {
            assert_eq!(registry.render(), "# TYPE a gauge\na{revision=\"1\"} 3\n");
        }
        drop(one);
        assert!(registry.render().contains(" 3\n"), "the other handle is still there");
        drop(other);
        assert_eq!(registry.render(), "");
        let again = registry.gauge("a", &revision(1));
        again.increment(1.0);
        assert!(registry.render().ends_with(" 1\n"), "a new one begins with zero");
    }

    #[test]
    fn of_two_thousand_revisions_that_came_and_went_the_hundred_that_live_are_told() {
        let registry = Registry::new();
        let mut alive = std::collections::VecDeque::new();
        for number in 0..2000 {
            let labels = revision(number);
            alive.push_back((
                registry.counter("c_total", &labels),
                registry.gauge("g", &labels),
                registry.histogram("h_seconds", &labels),
            ));
            if alive.len() > 100 {
                alive.pop_front();
            }
            // Bounded even if no page is ever asked for.
            let families = registry.families.lock();
            let kept = families.gauges.get("g").map_or(0, |family| family.series.len());
            assert!(kept <= 2 * 101, "{kept}");
        }
        let page = registry.render();
        assert_eq!(page.matches("\nc_total{").count(), 100);
        assert_eq!(page.matches("\ng{").count(), 100);
        assert_eq!(page.matches("\nh_seconds_count{").count(), 100);
        assert!(page.contains("g{revision=\"1999\"} 0\n") && !page.contains("revision=\"1899\""));
    }

    #[test]
    fn a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let registry = Registry::new();
        registry.describe("took_seconds", "How long\nit took");
        let took = registry.histogram("took_seconds", &[]);
        for value in [0.005, 0.006, 11.0] {
            took.record(value);
        }
        let page = registry.render();
        assert!(page.starts_with("# HELP took_seconds How long\\nit took\n# TYPE took_seconds histogram\n"));
        for line in [
            "took_seconds_bucket{le=\"0.005\"} 1",
            "took_seconds_bucket{le=\"0.01\"} 2",
            "took_seconds_bucket{le=\"10\"} 2",
            "took_seconds_bucket{le=\"+Inf\"} 3",
            "took_seconds_sum 11.011",
            "took_seconds_count 3",
        ] {
            assert!(page.lines().any(|told| told == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn labels_are_escaped_and_no_gauge_is_minus_zero() {
        let registry = Registry::new();
        let gauge = registry.gauge("a", &[Label::new("host", "\"x\"\\\n"), Label::new("b", "2")]);
        gauge.set(-0.0);
        assert_eq!(registry.render(), "# TYPE a gauge\na{host=\"\\\"x\\\"\\\\\\n\",b=\"2\"} 0\n");
    }

    #[test]
    #[expect(clippy::disallowed_macros, reason = "the macros are what is tested")]
    fn the_macros_of_metrics_reach_it() {
        let registry = Registry::new();
        let counter = metrics::with_local_recorder(&registry, || {
            metrics::describe_counter!("asked_total", "Requests");
            metrics::counter!("asked_total", "by" => "me")
        });
        counter.increment(2);
        assert_eq!(
            registry.render(),
            "# HELP asked_total Requests\n# TYPE asked_total counter\nasked_total{by=\"me\"} 2\n"
        );
    }
}
