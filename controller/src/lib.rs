//! Plain Kubernetes: any Deployment and its Service, scaled by their requests, down to zero and back.
//!
//! Two programs of one image. The *controller* decides, and is the only one that writes: slices of endpoints that lead a
//! Service's traffic to activators, scales, statuses, the table of ports. The *activators* hold, count and forward; they
//! follow Kubernetes themselves, so that they serve on while the controller is away. Both read the same objects into the
//! same [`index`].
//!
//! ```text
//!            RequestAutoscalers, Services, pods
//!                 │                       │
//!                 ▼                       ▼
//!   controller: index ─► decisions   activator: index ─► endpoints, listeners
//!                 │                       ▲
//!                 └── slices, ports, ─────┘
//!                     scales, statuses
//! ```

pub mod crd;
pub mod data;
pub mod facts;
pub mod index;
pub mod leader;
pub mod manifest;
pub mod path;
pub mod peers;
pub mod ports;
pub mod refusal;
pub mod selector;
mod sets;
pub mod settings;
pub mod slices;
pub mod survey;
mod workload;

pub use workload::{Workload, WorkloadPort};
