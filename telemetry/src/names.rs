//! The revision that requests belong to, as metrics, traces and the request log name it.

/// The names of a request's revision, as far as they are known. An unknown one is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RevisionNames {
    /// The revision.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// The service it belongs to.
    pub service: String,
    /// The configuration it belongs to.
    pub configuration: String,
    /// The pod.
    pub pod_name: String,
    /// The pod's address.
    pub pod_ip: String,
}
