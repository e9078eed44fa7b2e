//! The one command people type, as a library for its own tests. Glue only: what is decided is decided in
//! `pilotlight-core`, what is done is done by the components.

pub mod demo;
pub mod explain;
pub mod exposition;
pub mod latency;
pub mod lint;
pub mod live;
pub mod load;
pub mod logging;
pub mod output;
pub mod run;
pub mod sample;
pub mod screen;
pub mod sim;
pub mod stack;
pub mod summary;
