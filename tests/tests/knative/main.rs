//! Whole lives of revisions on a small cluster with Knative's controller, Pilotlight's autoscalers, activators and
//! queue-proxies: real processes over real sockets.

mod chaos;
mod faults;
mod restarts;
mod scaling;
mod settings;
mod starts;
mod support;
