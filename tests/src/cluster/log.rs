//! Sayings of a cluster's parts and of its pods' processes, for whoever looks for the reason of a failure.

use std::fmt::{self, Display};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

/// Lines with their times. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Debug)]
struct Line {
    at: Timestamp,
    who: String,
    text: String,
}

impl Log {
    /// Adds a line.
    pub fn say(&self, who: impl Into<String>, text: impl Into<String>) {
        self.0.lock().push(Line { at: Timestamp::now(), who: who.into(), text: text.into() });
    }

    /// All that was said by those whose name contains `who`, in order.
    pub fn said_by(&self, who: &str) -> Vec<String> {
        self.0.lock().iter().filter(|line| line.who.contains(who)).map(|line| line.text.clone()).collect()
    }
}

impl Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock();
        lines.iter().try_for_each(|Line { at, who, text }| writeln!(f, "{at:.3} {who}: {text}"))
    }
}
