//! The oldest API server that a program in Knative's place works with: `KUBERNETES_MIN_VERSION`.
//!
//! Source: `version/version.go` of knative/pkg. The versions are semantic ones, with or without a `v` in front. A
//! pre-release of the server counts as its release, unless the variable names a pre-release itself.

use std::fmt;
use std::str::FromStr;

use super::{EnvError, EnvReader};

/// A version of Kubernetes, such as `v1.33.2-gke.100`. What follows a `+` is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesVersion {
    numbers: [u64; 3],
    pre_release: Vec<Identifier>,
}

/// A part of a pre-release; numbers come before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl KubernetesVersion {
    /// Whether this version is no older than `minimum`.
    ///
    /// ```
    /// use pilotlight_config::process::KubernetesVersion;
    /// let version = |text: &str| text.parse::<KubernetesVersion>().unwrap();
    /// assert!(version("v1.33.0-rc.1").is_at_least(&version("1.33.0")));
    /// assert!(!version("v1.33.0-rc.1").is_at_least(&version("1.33.0-rc.2")));
    /// ```
    pub fn is_at_least(&self, minimum: &KubernetesVersion) -> bool {
        if minimum.pre_release.is_empty() {
            return self.numbers >= minimum.numbers;
        }
        // A release is newer than each of its pre-releases (Semantic Versioning, section 11).
        let order = |version: &KubernetesVersion| {
            (version.numbers, version.pre_release.is_empty(), version.pre_release.clone())
        };
        order(self) >= order(minimum)
    }
}

impl FromStr for KubernetesVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let version = text.strip_prefix('v').unwrap_or(text);
            let version = version.split_once('+').map_or(version, |(version, _)| version);
            let (release, pre_release) = match version.split_once('-') {
                Some((release, pre_release)) => (release, Some(pre_release)),
                None => (version, None),
            };
            let numbers: Option<Vec<u64>> = release.split('.').map(number).collect();
            let pre_release: Option<Vec<Identifier>> =
                pre_release.into_iter().flat_map(|parts| parts.split('.')).map(identifier).collect();
            Some(KubernetesVersion { numbers: numbers?.try_into().ok()?, pre_release: pre_release? })
        };
        read().ok_or_else(|| "is not a version such as v1.33.0".to_owned())
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(out, "{major}.{minor}.{patch}")?;
        for (place, part) in self.pre_release.iter().enumerate() {
            out.write_str(if place == 0 { "-" } else { "." })?;
            match part {
                Identifier::Number(number) => write!(out, "{number}")?,
                Identifier::Text(text) => out.write_str(text)?,
            }
        }
        Ok(())
    }
}

/// A number without a zero in front.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_number { text.parse().ok() } else { None }
}

fn identifier(text: &str) -> Option<Identifier> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text).map(Identifier::Number);
    }
    let is_legal = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_legal.then(|| Identifier::Text(text.to_owned()))
}

/// The oldest API server that a program works with. The default: the oldest whose objects are compiled in, without
/// insisting on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinimumKubernetes {
    version: KubernetesVersion,
    /// Whether an older one is refused, or only warned of.
    pub is_demanded: bool,
}

/// The API server is too old, or does not tell its version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server is Kubernetes {server:?}, and {minimum} or newer is needed{}", origin(*.is_demanded))]
pub struct OldKubernetes {
    server: String,
    minimum: KubernetesVersion,
    is_demanded: bool,
}

/// Where the minimum comes from.
fn origin(is_demanded: bool) -> &'static str {
    if is_demanded { " (KUBERNETES_MIN_VERSION)" } else { "" }
}

impl Default for MinimumKubernetes {
    fn default() -> Self {
        let version = KubernetesVersion { numbers: [1, 33, 0], pre_release: Vec::new() };
        MinimumKubernetes { version, is_demanded: false }
    }
}

impl MinimumKubernetes {
    /// Reads `KUBERNETES_MIN_VERSION`. If it is set, an older API server is to be refused.
    ///
    /// # Errors
    ///
    /// If it is not a version.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<EnvError>> {
        let mut env = EnvReader { lookup, errors: Vec::new() };
        let version = env.optional("KUBERNETES_MIN_VERSION", KubernetesVersion::from_str);
        if !env.errors.is_empty() {
            return Err(env.errors);
        }
        Ok(version.map_or_else(Self::default, |version| MinimumKubernetes { version, is_demanded: true }))
    }

    /// Looks at the `gitVersion` that an API server tells.
    ///
    /// # Errors
    ///
    /// If it is older, or not a version.
    pub fn check(&self, server: &str) -> Result<(), OldKubernetes> {
        let MinimumKubernetes { version: minimum, is_demanded } = self;
        match server.parse::<KubernetesVersion>() {
            Ok(version) if version.is_at_least(minimum) => Ok(()),
            _ => Err(OldKubernetes {
                server: server.to_owned(),
                minimum: minimum.clone(),
                is_demanded: *is_demanded,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimum(variable: &str) -> Result<MinimumKubernetes, Vec<EnvError>> {
        MinimumKubernetes::from_env(|name| (name == "KUBERNETES_MIN_VERSION").then(|| variable.to_owned()))
    }

    #[test]
    fn servers_are_taken_and_refused_as_knative_does() {
        // The cases of knative/pkg's version_test.go.
        for (minimum_version, server, is_taken) in [
            ("v1.34.0", "v1.34.1", true),
            ("v1.34.0", "1.34.1", true),
            ("v1.34.0", "1.34.1-kpn-065dce", true),
            ("v1.34.0", "1.34.1-1095+9689d22dc3121e-dirty", true),
            ("1.15.11", "1.15.11-kpn-065dce", true),
            ("1.15.11-0", "1.15.11-kpn-065dce", true),
            ("v1.34.0", "v1.35.0", true),
            ("v1.34.0", "v1.34.0", true),
            ("v1.34.0", "v1.34.0+k3s.1", true),
            ("v1.34.0", "v1.34.0-k3s.1", true),
            ("v1.34.0", "v1.14.3", false),
            ("v1.13.0", "v1.13.3", true),
            ("v1.34.0", "v1.13.foo", false),
            ("v1.34.0", "", false),
            ("1.34.0-beta.2", "1.34.0-beta.10", true),
            ("1.34.0-beta.2", "1.34.0-beta.1", false),
            ("1.34.0-beta.2", "1.34.0", true),
            ("1.34.0-beta.2", "1.34.0-beta", false),
            ("1.34.0-beta", "1.34.0-0", false),
        ] {
            let checked = minimum(minimum_version).unwrap().check(server);
            assert_eq!(checked.is_ok(), is_taken, "{server} of {minimum_version}: {checked:?}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for wrong in
            ["v1.13.foo", "1.33", "1.33.0.1", "1.033.0", "1.33.0-", "1.33.0-a_b", "1.33.0-01", "vv1.33.0"]
        {
            let told = minimum(wrong).unwrap_err()[0].to_string();
            let rule = format!("KUBERNETES_MIN_VERSION: {wrong:?} is not a version such as v1.33.0");
            assert_eq!(told, rule);
        }
    }

    #[test]
    fn without_the_variable_nothing_is_refused() {
        for minimum in [minimum("").unwrap(), MinimumKubernetes::default()] {
            let told = minimum.check("v1.32.9").unwrap_err().to_string();
            assert!(!minimum.is_demanded);
            assert_eq!(told, r#"the API server is Kubernetes "v1.32.9", and 1.33.0 or newer is needed"#);
            assert_eq!(minimum.check("v1.33.0-rc.1"), Ok(()));
        }
        let told = minimum("v1.34.0-rc.1").unwrap().check("v1.33.9").unwrap_err().to_string();
        assert!(told.ends_with("1.34.0-rc.1 or newer is needed (KUBERNETES_MIN_VERSION)"), "{told}");
    }
}
