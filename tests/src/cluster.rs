//! A Kubernetes cluster in this process, for tests of what runs on one.

pub mod api;
