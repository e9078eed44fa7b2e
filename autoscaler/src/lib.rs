//! The autoscaler: turns the requests in flight into a number of pods, down to none.
//!
//! It decides nothing itself: [`pilotlight_core::Revision`] does. This crate brings in the facts (activators
//! push to [`ingest`](Autoscaler::serve_stats), pods are scraped, a [`cluster`] tells what runs) and carries the
//! plans out; it shows every decision ([`Board`]), writes it down ([`Journal`]) and counts it ([`metrics`]).

pub mod admin;
pub mod cluster;
mod ingest;
mod journal;
pub mod metrics;
#[cfg(test)]
mod pretend;
mod question;
mod report;
mod run;
mod scrape;
mod service_scrape;
mod status;

pub use cluster::Cluster;
pub use journal::{Journal, JournalError};
pub use question::ScrapeFault;
pub use report::{AcceptsHost, AcceptsPeer, Forwarded, Owner, Owners};
pub use run::{Autoscaler, AutoscalerParams, OnDemand};
pub use scrape::{OnPodStat, OnScrape, Resolve};
pub use status::{Board, Change, NotReady, RevisionStatus};
