//! `pilotlight kube`: the real binary against an API server in this process.

mod support;
mod watched;
mod workloads;

mod installing;
