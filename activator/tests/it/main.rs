//! The activator between real sockets: clients, pods and an autoscaler made for the test on either side.

mod failures;
mod following;
mod forwarding;
mod harness;
mod holding;
mod ignoring;
mod owners;
mod ports;
mod probing;
mod protocols;
mod shutdown;
mod stats;
mod tcp;
mod tcp_counting;
mod telling;
