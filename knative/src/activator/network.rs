//! `config-network`, as far as the activator goes by it. Read once: a change needs a restart, as with Knative's.

use std::collections::BTreeMap;

use pilotlight_config::Parsed;
use pilotlight_config::cluster::NetworkConfig;
use pilotlight_core::MeshMode;
use tracing::warn;

/// The settings of the network that are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `mesh-compatibility-mode`.
    pub mesh: MeshMode,
    /// `enable-mesh-pod-addressability`.
    pub pods_addressable_in_mesh: bool,
    /// `system-internal-tls`, or its former name `internal-encryption`.
    pub over_tls: bool,
}

impl NetworkSettings {
    /// Reads the ConfigMap's data; all that is wrong with it at once. What may be a slip is a warning in the log.
    pub fn from_map(data: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let Parsed { value, warnings } = NetworkConfig::from_map(data);
        for warning in warnings {
            warn!(%warning, "Config-network has a word that is none");
        }
        let mut faults = Vec::new();
        let mut note = |fault: &str| faults.push(format!("config-network: {fault}"));
        let config = value.map_err(|wrong| wrong.to_string().lines().for_each(&mut note));
        let over_tls = over_tls(data).map_err(|fault| note(&fault));
        let (Ok(NetworkConfig { mesh, pods_addressable_in_mesh }), Ok(over_tls)) = (config, over_tls) else {
            return Err(faults);
        };
        Ok(NetworkSettings { mesh, pods_addressable_in_mesh, over_tls })
    }
}

/// `system-internal-tls`; where that is not set, its former name.
fn over_tls(data: &BTreeMap<String, String>) -> Result<bool, String> {
    let word = |key: &str| data.get(key).map(|value| value.trim().to_ascii_lowercase());
    match word(TLS).as_deref() {
        None | Some("") => Ok(word(FORMER_TLS).is_some_and(|value| value == "true")),
        Some("enabled") => Ok(true),
        Some("disabled") => Ok(false),
        Some(other) => Err(format!("{TLS}: {other:?} is not enabled or disabled")),
    }
}

const TLS: &str = "system-internal-tls";
const FORMER_TLS: &str = "internal-encryption";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<NetworkSettings, Vec<String>> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NetworkSettings::from_map(&data)
    }

    #[test]
    fn without_a_word_the_activator_finds_out_and_speaks_in_the_clear() {
        let auto = NetworkSettings { mesh: MeshMode::Auto, pods_addressable_in_mesh: false, over_tls: false };
        assert_eq!(read(&[]), Ok(auto));
        assert_eq!(read(&[("_example", "mesh-compatibility-mode: enabled")]), Ok(auto));
    }

    #[test]
    fn words_may_be_written_in_any_case_and_the_former_name_of_tls_counts_where_the_new_is_not_set() {
        let all = [(MESH, "Enabled"), (ADDRESSABLE, "true"), (TLS, "ENABLED")];
        let on = NetworkSettings { mesh: MeshMode::Enabled, pods_addressable_in_mesh: true, over_tls: true };
        assert_eq!(read(&all), Ok(on));
        assert!(read(&[(FORMER_TLS, "true")]).unwrap().over_tls);
        assert!(!read(&[(FORMER_TLS, "true"), (TLS, "disabled")]).unwrap().over_tls);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let faults = read(&[(ADDRESSABLE, "yes"), (TLS, "on")]).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("config-network: ") && faults[0].contains(ADDRESSABLE), "{faults:?}");
        assert_eq!(faults[1], r#"config-network: system-internal-tls: "on" is not enabled or disabled"#);
    }

    const MESH: &str = "mesh-compatibility-mode";
    const ADDRESSABLE: &str = "enable-mesh-pod-addressability";
}
