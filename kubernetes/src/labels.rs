//! Labels and annotations of Knative's objects.

/// On pods and Metrics: the revision's name.
pub const REVISION: &str = "serving.knative.dev/revision";
/// On a revision's pods, its Deployment and its Services' endpoints: the revision's UID.
pub const REVISION_UID: &str = "serving.knative.dev/revisionUID";
/// On revisions and all they own: the configuration's name.
pub const CONFIGURATION: &str = "serving.knative.dev/configuration";
/// On revisions and all they own, if there is one: the Knative Service's name.
pub const SERVICE: &str = "serving.knative.dev/service";
/// On Services of a ServerlessService and their endpoints: [`PUBLIC`] or [`PRIVATE`].
pub const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
/// A value of [`SERVICE_TYPE`]: leads to pods or to activators.
pub const PUBLIC: &str = "Public";
/// A value of [`SERVICE_TYPE`]: leads to pods only.
pub const PRIVATE: &str = "Private";
