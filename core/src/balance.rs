//! How a request finds its pod: policies, and which activator has which pods.
