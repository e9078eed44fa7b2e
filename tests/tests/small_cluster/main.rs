//! The small cluster itself, which other tests stand on: Deployments, pods, Services and endpoints, as on a real one.

mod deployments;
mod endpoints;
mod knative;
mod pods;
mod services;
mod support;
