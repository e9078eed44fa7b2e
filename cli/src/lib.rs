//! The command `pilotlight` as a library, for its own tests. Glue only: decisions are made in `pilotlight-core`, and
//! the components carry them out.

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
pub mod service;
pub mod sim;
pub mod stack;
pub mod summary;
