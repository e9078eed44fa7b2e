//! Open-loop load: when requests arrive, whether anybody answers or not.
//!
//! A [`TrafficSpec`] is what someone wrote into a scenario: a pattern or a trace, and what is done to it. Loaded, it
//! is a [`Traffic`]: everything read and checked, shared by as many runs as one likes. Each run asks it for its
//! [`Arrivals`], which come one by one; a pattern is never held in memory.
//!
//! The parts: `curve` is a rate over time, `process` how arrivals follow it; `stream` turns leaves and operators
//! into arrivals; `trace` reads what was recorded.

mod counts;
mod curve;
mod description;
mod error;
mod markov;
mod process;
mod read;
mod scaled;
mod spec;
mod stream;
pub(crate) mod text;
mod trace;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::Time;

pub use description::{Description, Dispersion, Gap, ServiceQuantiles, Silence};
pub use error::TrafficError;
pub use process::{Process, ProcessError};
pub use spec::{MarkovState, Operator, RateStep, Source, TrafficSpec};
pub use stream::Arrivals;
pub use trace::{Format, Loaded, Stamp, TokenCost, TraceSpec};

use counts::Counts;
use curve::Curve;
use markov::Markov;
use trace::Services;

/// A request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The time from the start of the traffic, which is [`Time::EPOCH`].
    pub at: Time,
    /// How long serving it takes, where a trace knows that.
    pub service: Option<Duration>,
}

/// Load that is ready to arrive, as often as one asks. Cheap to clone and to share between threads.
///
/// ```
/// use pilotlight_core::Time;
/// use pilotlight_sim::traffic::{Process, Source, TrafficSpec};
/// use std::time::Duration;
/// let source = Source::Constant { rate: 2.0, length: Duration::from_secs(2), arrivals: Process::Uniform };
/// let traffic = TrafficSpec::from(source).load(".".as_ref())?;
/// let at: Vec<_> = traffic.arrivals(1).map(|arrival| arrival.at).collect();
/// assert_eq!(at, [0, 500, 1_000, 1_500].map(Time::from_millis));
/// # Ok::<(), pilotlight_sim::traffic::TrafficError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Traffic {
    tree: Arc<Tree>,
    duration: Duration,
    loaded: Arc<[Loaded]>,
}

/// The parts of a traffic. Scaling and speed are pushed down to the leaves as it is built.
#[derive(Debug)]
enum Tree {
    Leaf(Leaf),
    /// One after the other.
    Sequence(Vec<Traffic>),
    /// All at the same time.
    Merge(Vec<Traffic>),
}

/// A part of one origin of arrivals, from `from` up to `to` in its own time.
#[derive(Clone, Debug)]
struct Leaf {
    origin: Arc<Origin>,
    from: Time,
    to: Time,
    /// The origin's rate is multiplied by this.
    scale: f64,
    /// The origin's time passes this many times faster.
    speed: f64,
}

/// The origin of arrivals.
#[derive(Debug)]
enum Origin {
    Silence,
    Curve {
        curve: Curve,
        arrivals: Process,
        services: Option<Services>,
    },
    Counts {
        counts: Counts,
        services: Option<Services>,
    },
    Markov(Markov),
    /// `requests` at the same instant, every so often.
    Together {
        requests: u32,
        every: Duration,
    },
    Recorded(Box<[Arrival]>),
}

impl Traffic {
    /// The arrivals in order of time. The same seed yields the same arrivals.
    pub fn arrivals(&self, seed: u64) -> Arrivals {
        Arrivals::new(self, seed)
    }

    /// How long it is: all arrivals are before this.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Only what arrives from `from` up to, not including, `to`, as if it had begun at `from`; for training on
    /// one part and judging on another. The end is the end, even if `to` lies beyond.
    ///
    /// A part of a trace is exactly that part. A part of a random pattern has its rates and its process, but
    /// random arrivals of its own.
    #[must_use]
    pub fn cut(&self, from: Duration, to: Duration) -> Traffic {
        let to = to.min(self.duration);
        let from = from.min(to);
        if from.is_zero() && to == self.duration {
            return self.clone();
        }
        let tree = match &*self.tree {
            Tree::Leaf(leaf) => Tree::Leaf(leaf.cut(from, to)),
            Tree::Merge(parts) => Tree::Merge(parts.iter().map(|part| part.cut(from, to)).collect()),
            Tree::Sequence(parts) => {
                let (mut begin, mut kept) = (Duration::ZERO, Vec::new());
                for part in parts {
                    let end = begin + part.duration;
                    if begin < to && from < end {
                        kept.push(part.cut(from.saturating_sub(begin), to - begin));
                    }
                    begin = end;
                }
                Tree::Sequence(kept)
            }
        };
        Traffic { tree: Arc::new(tree), duration: to - from, loaded: self.loaded.clone() }
    }

    /// The rate times `by`. Patterns follow the new rate. Of recorded arrivals a random share is kept; beyond 1
    /// they are repeated, each copy up to a second after its original.
    #[must_use]
    pub fn scale(&self, by: f64) -> Traffic {
        self.map_leaves(&|leaf| Leaf { scale: leaf.scale * by, ..leaf.clone() })
    }

    /// Time passes `by` times faster: more requests a second for a shorter time. Service times stay.
    #[must_use]
    pub fn speed(&self, by: f64) -> Traffic {
        self.map_leaves(&|leaf| Leaf { speed: leaf.speed * by, ..leaf.clone() })
    }

    /// Silence of this length, then the traffic.
    #[must_use]
    pub fn shift(&self, by: Duration) -> Traffic {
        Traffic::sequence(vec![Traffic::of(Origin::Silence, by), self.clone()])
    }

    /// The traffic so many times, one after the other; a random pattern is random anew each time.
    #[must_use]
    pub fn repeat(&self, times: u32) -> Traffic {
        Traffic::sequence(vec![self.clone(); times as usize])
    }

    /// All of these at the same time. As long as the longest.
    pub fn merge(parts: Vec<Traffic>) -> Traffic {
        let duration = parts.iter().map(Traffic::duration).max().unwrap_or_default();
        Traffic { duration, loaded: all_loaded(&parts), tree: Arc::new(Tree::Merge(parts)) }
    }

    /// Several traffics, one after the other.
    pub fn sequence(parts: Vec<Traffic>) -> Traffic {
        let duration = parts.iter().map(Traffic::duration).fold(Duration::ZERO, Duration::saturating_add);
        Traffic { duration, loaded: all_loaded(&parts), tree: Arc::new(Tree::Sequence(parts)) }
    }

    /// The files it was read from, and what was found in them.
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    /// A description in numbers and words, of the arrivals of this seed.
    pub fn describe(&self, seed: u64) -> Description {
        Description::of(self, seed)
    }

    /// Writes the arrivals as plain CSV, `t_start_s,duration_s`, and says how many there were. A duration that is
    /// not known is left empty.
    pub fn write_plain(&self, seed: u64, mut out: impl io::Write) -> io::Result<u64> {
        writeln!(out, "t_start_s,duration_s")?;
        let mut requests = 0;
        for arrival in self.arrivals(seed) {
            let at = text::Seconds(arrival.at - Time::EPOCH);
            match arrival.service {
                Some(service) => writeln!(out, "{at},{}", text::Seconds(service))?,
                None => writeln!(out, "{at},")?,
            }
            requests += 1;
        }
        Ok(requests)
    }

    /// A constant rate, in requests a second.
    pub fn constant(rate: f64, duration: Duration, arrivals: Process) -> Result<Traffic, TrafficError> {
        let source = Source::Constant { rate, length: duration, arrivals };
        // A constant rate names no file.
        TrafficSpec::from(source).load(Path::new(""))
    }

    /// Exactly these arrivals, in order of time; those at `duration` and later are left out.
    pub fn recorded(mut arrivals: Vec<Arrival>, duration: Duration) -> Traffic {
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals.retain(|arrival| arrival.at < Time::EPOCH + duration);
        Traffic::of(Origin::Recorded(arrivals.into()), duration)
    }

    fn of(origin: Origin, duration: Duration) -> Traffic {
        let leaf = Leaf {
            origin: Arc::new(origin),
            from: Time::EPOCH,
            to: Time::EPOCH + duration,
            scale: 1.0,
            speed: 1.0,
        };
        Traffic { tree: Arc::new(Tree::Leaf(leaf)), duration, loaded: Arc::default() }
    }

    fn map_leaves(&self, change: &impl Fn(&Leaf) -> Leaf) -> Traffic {
        let all = |parts: &[Traffic]| parts.iter().map(|part| part.map_leaves(change)).collect();
        match &*self.tree {
            Tree::Merge(parts) => Traffic::merge(all(parts)),
            Tree::Sequence(parts) => Traffic::sequence(all(parts)),
            Tree::Leaf(leaf) => {
                let leaf = change(leaf);
                let duration = leaf.duration();
                Traffic { tree: Arc::new(Tree::Leaf(leaf)), duration, loaded: self.loaded.clone() }
            }
        }
    }
}

impl TrafficSpec {
    /// Reads the files it names and checks every number. Relative paths start at `base_dir`: the folder of the
    /// scenario it was written in.
    pub fn load(&self, base_dir: &Path) -> Result<Traffic, TrafficError> {
        spec::load(self, base_dir)
    }
}

impl Leaf {
    /// `from` and `to` are in the leaf's outer time.
    fn cut(&self, from: Duration, to: Duration) -> Leaf {
        let inner = |outer| self.from + scaled_duration(outer, self.speed);
        // At the very end, rounding must not cut off what is there.
        let end = if to >= self.duration() { self.to } else { inner(to).min(self.to) };
        Leaf { from: inner(from).min(end), to: end, ..self.clone() }
    }

    fn duration(&self) -> Duration {
        // Rounded up, and arrivals down: all of them are before the end.
        let nanos = (self.to - self.from).as_nanos();
        if self.speed == 1.0 {
            return self.to - self.from;
        }
        Duration::from_nanos((nanos as f64 / self.speed).ceil() as u64)
    }
}

/// `duration * by`, rounded down to the nanosecond; unchanged, to the last digit, by 1.
fn scaled_duration(duration: Duration, by: f64) -> Duration {
    if by == 1.0 { duration } else { Duration::from_nanos((duration.as_nanos() as f64 * by) as u64) }
}

fn all_loaded(parts: &[Traffic]) -> Arc<[Loaded]> {
    let mut all: Vec<Loaded> = Vec::new();
    for loaded in parts.iter().flat_map(|part| part.loaded.iter()) {
        // A trace that is repeated was read once.
        if !all.contains(loaded) {
            all.push(loaded.clone());
        }
    }
    all.into()
}
