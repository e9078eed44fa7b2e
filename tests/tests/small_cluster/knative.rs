//! Revisions and ServerlessServices, without an autoscaler.
