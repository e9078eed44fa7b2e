//! The revision that requests belong to, as metrics, traces and the request log name it; and the program that tells of them.

use pilotlight_config::process::TelemetryEnv;

/// Attributes that all spans and series of a program have in common, by OpenTelemetry's names. The program's own name
/// counts unless the environment gives it another; what is empty is left out.
pub fn program_resource(
    env: &TelemetryEnv,
    program: &str,
    pod_name: &str,
    namespace: &str,
) -> Vec<(&'static str, String)> {
    let resource = [
        ("service.name", env.service_name.clone().unwrap_or_else(|| program.to_owned())),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", pod_name.to_owned()),
        ("k8s.namespace.name", namespace.to_owned()),
        ("k8s.pod.name", pod_name.to_owned()),
    ];
    resource.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

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
