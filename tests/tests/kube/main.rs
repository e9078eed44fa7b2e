//! Whole lives of plain Deployments on a small cluster with Pilotlight's controllers and activators: real processes over
//! real sockets.

mod at_zero;
mod edits;
mod endings;
mod lives;
mod selectors;
mod steps;
mod support;
mod troubles;
