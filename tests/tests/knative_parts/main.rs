//! Our parts in the place of Knative's, each by itself, with an API server of this process.

mod activator;
mod adopt;
mod certificates;
