//! One object as it is known: as the watch has shown it, or as our own last write returned it, whichever is newer. So no
//! write is repeated only because the watch has not shown it yet.

use std::sync::Arc;

/// A fact about one object, in the version that it was seen in.
pub trait Versioned {
    /// The object's `resourceVersion`.
    fn resource_version(&self) -> &str;

    /// The same as a number: of two versions of an object the higher one is the newer. 0 where it is none, which no
    /// API server of today gives out.
    fn version(&self) -> u64 {
        self.resource_version().parse().unwrap_or(0)
    }
}

/// An object as it is known. The default: not at all.
#[derive(Debug)]
pub struct Known<T> {
    watched: Option<Arc<T>>,
    written: Option<Arc<T>>,
}

impl<T: Versioned> Known<T> {
    /// The newest there is.
    pub fn current(&self) -> Option<&Arc<T>> {
        self.written.as_ref().or(self.watched.as_ref())
    }

    /// Takes in what the watch shows; `None`: the object is gone.
    pub fn watched(&mut self, fact: Option<Arc<T>>) {
        let is_newer =
            |written: &Arc<T>| fact.as_ref().is_some_and(|fact| written.version() > fact.version());
        self.written = self.written.take().filter(is_newer);
        self.watched = fact;
    }

    /// Takes in what a write, or a read without a watch, returned.
    pub fn written(&mut self, fact: T) {
        let is_newer = |watched: &Arc<T>| fact.version() > watched.version();
        let is_no_older = |written: &Arc<T>| fact.version() >= written.version();
        if self.watched.as_ref().is_none_or(is_newer) && self.written.as_ref().is_none_or(is_no_older) {
            self.written = Some(Arc::new(fact));
        }
    }

    /// Whether a watch shows the object.
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Forgets what was written: the API server says that there is no such object.
    pub fn missing(&mut self) {
        self.written = None;
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known { watched: None, written: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::ScaleFact;

    fn fact(version: &str, replicas: u32) -> ScaleFact {
        ScaleFact { resource_version: version.to_owned(), replicas }
    }

    fn replicas(known: &Known<ScaleFact>) -> Option<u32> {
        known.current().map(|fact| fact.replicas)
    }

    #[test]
    fn a_write_counts_until_the_watch_has_caught_up() {
        let mut known = Known::default();
        known.watched(Some(fact("5", 1).into()));
        known.written(fact("8", 3));
        assert_eq!(replicas(&known), Some(3));
        known.watched(Some(fact("7", 2).into()));
        assert_eq!(replicas(&known), Some(3), "version 7 was there before the write");
        known.watched(Some(fact("9", 4).into()));
        assert_eq!(replicas(&known), Some(4));
        known.written(fact("8", 3));
        assert_eq!(replicas(&known), Some(4), "the watch was faster than the answer");
    }

    #[test]
    fn what_is_gone_or_missing_is_not_known() {
        let mut known = Known::default();
        known.written(fact("3", 1));
        known.missing();
        assert_eq!(replicas(&known), None);
        known.written(fact("4", 1));
        known.watched(None);
        assert_eq!(replicas(&known), None);
    }

    #[test]
    fn an_answer_that_is_late_is_no_news() {
        let mut known = Known::default();
        known.written(fact("6", 3));
        known.written(fact("5", 1));
        assert_eq!(replicas(&known), Some(3));
        assert!(!known.is_watched());
    }

    #[test]
    fn a_version_that_is_no_number_leaves_it_to_the_watch() {
        let mut known = Known::default();
        known.watched(Some(fact("abc", 1).into()));
        known.written(fact("abd", 3));
        assert_eq!(replicas(&known), Some(1));
    }
}
