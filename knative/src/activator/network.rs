//! `config-network`, as far as the activator goes by it. Read once: a change needs a restart, as with Knative's.

use std::collections::BTreeMap;

use pilotlight_core::MeshMode;

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
    /// Reads the ConfigMap's data; all that is wrong with it at once. Keys of other parts of Knative are not looked at.
    pub fn from_map(data: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let word = |key: &str| data.get(key).map(|value| value.trim().to_ascii_lowercase());
        let mut refuse = |key: &str, rule: &str| {
            let value = data.get(key).map_or("", String::as_str);
            faults.push(format!("config-network: {key}: {value:?} {rule}"));
        };
        let mesh = match word(MESH).as_deref() {
            None | Some("" | "auto") => MeshMode::Auto,
            Some("enabled") => MeshMode::Enabled,
            Some("disabled") => MeshMode::Disabled,
            Some(_) => {
                refuse(MESH, "is not auto, enabled or disabled");
                MeshMode::Auto
            }
        };
        let mut truth = |key: &str| match word(key).as_deref() {
            None | Some("" | "false" | "0" | "f") => false,
            Some("true" | "1" | "t") => true,
            Some(_) => {
                refuse(key, "is not true or false");
                false
            }
        };
        let (pods_addressable_in_mesh, was_over_tls) = (truth(ADDRESSABLE), truth(FORMER_TLS));
        let over_tls = match word(TLS).as_deref() {
            None | Some("") => was_over_tls,
            Some("enabled") => true,
            Some("disabled") => false,
            Some(_) => {
                refuse(TLS, "is not enabled or disabled");
                false
            }
        };
        let settings = NetworkSettings { mesh, pods_addressable_in_mesh, over_tls };
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }
}

const MESH: &str = "mesh-compatibility-mode";
const ADDRESSABLE: &str = "enable-mesh-pod-addressability";
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
        let faults = read(&[(MESH, "maybe"), (ADDRESSABLE, "yes"), (TLS, "on")]).unwrap_err();
        assert_eq!(
            faults,
            [
                r#"config-network: mesh-compatibility-mode: "maybe" is not auto, enabled or disabled"#,
                r#"config-network: enable-mesh-pod-addressability: "yes" is not true or false"#,
                r#"config-network: system-internal-tls: "on" is not enabled or disabled"#,
            ]
        );
    }
}
