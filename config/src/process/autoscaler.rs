//! The environment of the autoscaler in the place of Knative's: what Knative's Deployment sets.

use std::net::{IpAddr, Ipv4Addr};

use super::{EnvError, EnvReader, address, text};

/// The autoscaler's settings that come from its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalerEnv {
    /// The pod's name.
    pub pod_name: String,
    /// The pod's address.
    pub pod_ip: IpAddr,
    /// The namespace of Knative's own parts.
    pub system_namespace: String,
    /// The domain of the cluster's Services; `None`: not set.
    pub cluster_domain: Option<String>,
    /// The ConfigMap of the log; `None`: the usual one.
    pub logging: Option<String>,
    /// The ConfigMap of metrics; `None`: the usual one.
    pub observability: Option<String>,
    /// The ConfigMap of leases; `None`: the usual one.
    pub leader_election: Option<String>,
    /// The pod's place in a StatefulSet; `None`: leases decide.
    pub stateful: Option<StatefulEnv>,
    /// The address that all servers bind to.
    pub bind_address: IpAddr,
}

/// A pod's place in a StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulEnv {
    /// The pod's name, which ends with its ordinal.
    pub pod: String,
    /// The Service that governs the StatefulSet.
    pub service: String,
    /// The protocol of the pods' URLs.
    pub protocol: String,
    /// The port of the pods' URLs.
    pub port: String,
}

impl AutoscalerEnv {
    /// Reads the variables; all that is wrong with them at once.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<EnvError>> {
        let mut env = EnvReader { lookup, errors: Vec::new() };
        let pod = env.optional("STATEFUL_CONTROLLER_ORDINAL", text);
        let service = env.optional("STATEFUL_SERVICE_NAME", text);
        let protocol = env.optional("STATEFUL_SERVICE_PROTOCOL", text);
        let port = env.optional("STATEFUL_SERVICE_PORT", text);
        let parsed = AutoscalerEnv {
            pod_name: env.required("POD_NAME", name),
            pod_ip: env.required("POD_IP", |text| address(text).map(Some)).unwrap_or(ANYWHERE),
            system_namespace: env.required("SYSTEM_NAMESPACE", name),
            cluster_domain: env.optional("CLUSTER_DOMAIN", text),
            logging: env.optional("CONFIG_LOGGING_NAME", text),
            observability: env.optional("CONFIG_OBSERVABILITY_NAME", text),
            leader_election: env.optional("CONFIG_LEADERELECTION_NAME", text),
            stateful: pod.zip(service).map(|(pod, service)| StatefulEnv {
                pod,
                service,
                protocol: protocol.unwrap_or_else(|| "http".to_owned()),
                port: port.unwrap_or_else(|| "80".to_owned()),
            }),
            bind_address: env.optional("PILOTLIGHT_BIND_ADDRESS", address).unwrap_or(ANYWHERE),
        };
        if env.errors.is_empty() { Ok(parsed) } else { Err(env.errors) }
    }
}

/// The domain of the cluster's Services, by the text of `/etc/resolv.conf`: the first to search that begins with `svc.`.
///
/// ```
/// use pilotlight_config::process::cluster_domain;
/// let text = "search shop.svc.example.org svc.example.org example.org\nnameserver 10.96.0.10\n";
/// assert_eq!(cluster_domain(text), Some("example.org"));
/// ```
pub fn cluster_domain(resolv_conf: &str) -> Option<&str> {
    let searched = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("search"));
    let domains = searched.flat_map(str::split_whitespace);
    domains.filter_map(|domain| domain.strip_prefix("svc.")).map(|domain| domain.trim_end_matches('.')).next()
}

fn name(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("is empty".to_owned()) } else { text(value) }
}

const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<AutoscalerEnv, Vec<String>> {
        let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, it)| (*it).to_owned());
        AutoscalerEnv::from_env(lookup).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const KNATIVE: [(&str, &str); 5] = [
        ("POD_NAME", "autoscaler-x"),
        ("POD_IP", "10.0.0.1"),
        ("SYSTEM_NAMESPACE", "knative-serving"),
        ("CONFIG_LOGGING_NAME", "config-logging"),
        ("CONFIG_OBSERVABILITY_NAME", "config-observability"),
    ];

    #[test]
    fn what_knatives_deployment_sets_is_enough() {
        let env = read(&KNATIVE).unwrap();
        assert_eq!((env.pod_name.as_str(), env.pod_ip), ("autoscaler-x", [10, 0, 0, 1].into()));
        assert_eq!((env.stateful, env.cluster_domain, env.leader_election), (None, None, None));
        assert!(env.bind_address.is_unspecified());
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_at_once() {
        let wrong = read(&[("POD_IP", "here"), ("SYSTEM_NAMESPACE", "")]).unwrap_err();
        assert_eq!(
            wrong,
            [
                "required key POD_NAME missing value",
                r#"POD_IP: "here" is not an IP address"#,
                r#"SYSTEM_NAMESPACE: "" is empty"#,
            ]
        );
    }

    #[test]
    fn a_place_in_a_stateful_set_needs_pod_and_service() {
        let with = |more: &[(&str, &str)]| read(&[&KNATIVE[..], more].concat()).unwrap().stateful;
        assert_eq!(with(&[("STATEFUL_CONTROLLER_ORDINAL", "as-1")]), None);
        let set = with(&[("STATEFUL_CONTROLLER_ORDINAL", "as-1"), ("STATEFUL_SERVICE_NAME", "autoscaler")])
            .unwrap();
        // Knative's defaults.
        assert_eq!((set.protocol.as_str(), set.port.as_str()), ("http", "80"));
    }

    #[test]
    fn the_domain_is_the_first_after_svc() {
        assert_eq!(cluster_domain("nameserver 1.1.1.1\nsearch lan\n"), None);
        assert_eq!(cluster_domain("search a.svc.x b.svc svc.cluster.local. x"), Some("cluster.local"));
    }
}
