//! How the scrapes of a revision's pods go, as a Metric's status tells it.

/// The outcome of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ScrapeOutcome {
    /// The pods were asked, or there were none to ask.
    #[default]
    Done,
    /// The pods are not known. Knative: `failed to get endpoints`.
    NoEndpoints,
    /// Behind a Service the same pods answered again and again.
    DidNotReceiveStat,
    /// Anything else, in a sentence.
    Failed(String),
}
