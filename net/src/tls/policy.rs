//! Limits of negotiation: versions, cipher suites and curves, by the names that operators of Knative write.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion, version};
use tracing::warn;

/// The versions, cipher suites and curves that a server negotiates. By default TLS 1.3 only, with all suites and curves.
#[derive(Clone, Debug)]
pub struct TlsPolicy {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    // None if clients need no certificates.
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// An operator's settings of TLS. An empty one leaves the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsWords<'a> {
    /// `1.2` or `1.3`.
    pub min_version: &'a str,
    /// `1.2` or `1.3`.
    pub max_version: &'a str,
    /// Go's names of suites of TLS 1.2, with commas between them. The suites of TLS 1.3 are always allowed.
    pub cipher_suites: &'a str,
    /// Go's names of curves, with commas between them.
    pub curve_preferences: &'a str,
}

/// A fault in one of the [`TlsWords`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {value:?} {rule}")]
pub struct PolicyError {
    /// The environment variable, without the prefix that says which process it is for.
    pub setting: &'static str,
    /// The value.
    pub value: String,
    /// The rule that it breaks: a sentence whose subject is the value.
    pub rule: &'static str,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        TlsPolicy {
            provider: Arc::new(ring::default_provider()),
            versions: vec![&version::TLS13],
            clients: None,
        }
    }
}

impl TlsPolicy {
    /// Parses an operator's settings, or reports their first fault.
    ///
    /// A name that Go knows and that is not offered here (CBC, P-521, ML-KEM) is left out with a warning: both lists are
    /// limits, and offering less keeps them. A list that leaves nothing to agree on is an error.
    pub fn parse(words: TlsWords<'_>) -> Result<TlsPolicy, PolicyError> {
        let min = TlsVersion::parse(MIN_VERSION, words.min_version)?.unwrap_or(TlsVersion::V1_3);
        let max = TlsVersion::parse(MAX_VERSION, words.max_version)?.unwrap_or(TlsVersion::V1_3);
        if min > max {
            let rule = "is less than the lowest version, which is 1.3 unless set";
            return Err(PolicyError { setting: MAX_VERSION, value: words.max_version.to_owned(), rule });
        }
        let mut provider = ring::default_provider();
        if let Some(allowed) = cipher_suites(words.cipher_suites)? {
            provider.cipher_suites.retain(|suite| is_of_tls13(suite) || allowed.contains(&suite.suite()));
        }
        if min == TlsVersion::V1_2
            && max == TlsVersion::V1_2
            && !provider.cipher_suites.iter().any(is_of_tls12)
        {
            return Err(PolicyError {
                setting: CIPHER_SUITES,
                value: words.cipher_suites.to_owned(),
                rule: "leaves no cipher suite that is offered here for TLS 1.2",
            });
        }
        if let Some(preferred) = curves(words.curve_preferences)? {
            let offered = std::mem::take(&mut provider.kx_groups);
            let find = |name: &NamedGroup| offered.iter().copied().find(|group| group.name() == *name);
            provider.kx_groups = preferred.iter().filter_map(find).collect::<Vec<&dyn SupportedKxGroup>>();
            if provider.kx_groups.is_empty() {
                return Err(PolicyError {
                    setting: CURVE_PREFERENCES,
                    value: words.curve_preferences.to_owned(),
                    rule: "leaves no curve that is offered here: X25519, P-256 and P-384 are",
                });
            }
        }
        let versions = [(TlsVersion::V1_2, &version::TLS12), (TlsVersion::V1_3, &version::TLS13)]
            .into_iter()
            .filter(|(version, _)| (min..=max).contains(version))
            .map(|(_, version)| version);
        Ok(TlsPolicy { provider: Arc::new(provider), versions: versions.collect(), clients: None })
    }
}

impl fmt::Display for TlsPolicy {
    /// The versions, as a log line shows them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, version) in self.versions.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{:?}", version.version)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TlsVersion {
    V1_2,
    V1_3,
}

impl TlsVersion {
    fn parse(setting: &'static str, word: &str) -> Result<Option<TlsVersion>, PolicyError> {
        match word {
            "" => Ok(None),
            "1.2" => Ok(Some(TlsVersion::V1_2)),
            "1.3" => Ok(Some(TlsVersion::V1_3)),
            _ => Err(PolicyError { setting, value: word.to_owned(), rule: "is neither 1.2 nor 1.3" }),
        }
    }
}

fn is_of_tls12(suite: &SupportedCipherSuite) -> bool {
    !is_of_tls13(suite)
}

fn is_of_tls13(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// The suites on a list that are offered here; `None`: the list is empty.
fn cipher_suites(list: &str) -> Result<Option<Vec<CipherSuite>>, PolicyError> {
    named(CIPHER_SUITES, list, "is no cipher suite that Go considers secure", |name| {
        let suite = match name {
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
                CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            }
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
                CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            }
            _ if TLS13_SUITES.contains(&name) => return Some(Known::Elsewhere),
            _ if CBC_SUITES.contains(&name) => return Some(Known::NotOffered),
            _ => return None,
        };
        Some(Known::Offered(suite))
    })
}

/// The curves on a list that are offered here, the preferred first; `None`: the list is empty.
fn curves(list: &str) -> Result<Option<Vec<NamedGroup>>, PolicyError> {
    let rule = "is no curve: X25519, X25519MLKEM768, P-256, P-384 and P-521 are";
    named(CURVE_PREFERENCES, list, rule, |name| match name {
        "X25519" => Some(Known::Offered(NamedGroup::X25519)),
        "CurveP256" | "P-256" => Some(Known::Offered(NamedGroup::secp256r1)),
        "CurveP384" | "P-384" => Some(Known::Offered(NamedGroup::secp384r1)),
        "CurveP521" | "P-521" | "X25519MLKEM768" => Some(Known::NotOffered),
        _ => None,
    })
}

enum Known<T> {
    Offered(T),
    NotOffered,
    /// The name is legal, and this list does not decide about it.
    Elsewhere,
}

fn named<T>(
    setting: &'static str,
    list: &str,
    rule: &'static str,
    find: impl Fn(&str) -> Option<Known<T>>,
) -> Result<Option<Vec<T>>, PolicyError> {
    let mut found = Vec::new();
    let mut is_empty = true;
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        is_empty = false;
        match find(name) {
            Some(Known::Offered(item)) => found.push(item),
            Some(Known::NotOffered) => warn!(setting, name, "Skipping a name that is not offered here"),
            Some(Known::Elsewhere) => {}
            None => return Err(PolicyError { setting, value: name.to_owned(), rule }),
        }
    }
    Ok((!is_empty).then_some(found))
}

const MIN_VERSION: &str = "TLS_MIN_VERSION";
const MAX_VERSION: &str = "TLS_MAX_VERSION";
const CIPHER_SUITES: &str = "TLS_CIPHER_SUITES";
const CURVE_PREFERENCES: &str = "TLS_CURVE_PREFERENCES";

const TLS13_SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const CBC_SUITES: [&str; 4] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(words: TlsWords<'_>) -> String {
        TlsPolicy::parse(words).unwrap_err().to_string()
    }

    #[test]
    fn nothing_written_means_tls_1_3_only() {
        assert_eq!(TlsPolicy::parse(TlsWords::default()).unwrap().to_string(), "TLSv1_3");
    }

    #[test]
    fn the_lowest_and_the_highest_version_bound_what_is_spoken() {
        for (min_version, max_version, spoken) in [
            ("1.2", "", "TLSv1_2, TLSv1_3"),
            ("1.2", "1.2", "TLSv1_2"),
            ("1.3", "", "TLSv1_3"),
            ("", "1.3", "TLSv1_3"),
        ] {
            let policy = TlsPolicy::parse(TlsWords { min_version, max_version, ..TlsWords::default() });
            assert_eq!(policy.unwrap().to_string(), spoken);
        }
    }

    #[test]
    fn any_other_version_is_named() {
        let words = TlsWords { min_version: "1.1", ..TlsWords::default() };
        assert_eq!(fault(words), r#"TLS_MIN_VERSION: "1.1" is neither 1.2 nor 1.3"#);
        let words = TlsWords { max_version: "TLS1.3", ..TlsWords::default() };
        assert_eq!(fault(words), r#"TLS_MAX_VERSION: "TLS1.3" is neither 1.2 nor 1.3"#);
    }

    #[test]
    fn a_highest_version_below_the_lowest_is_an_error_even_if_the_lowest_is_a_default() {
        let words = TlsWords { max_version: "1.2", ..TlsWords::default() };
        assert!(fault(words).starts_with(r#"TLS_MAX_VERSION: "1.2" is less than"#));
    }

    #[test]
    fn a_list_of_suites_is_about_tls_1_2_alone() {
        let policy = TlsPolicy::parse(TlsWords {
            min_version: "1.2",
            cipher_suites: " TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,",
            ..TlsWords::default()
        });
        let suites: Vec<_> = policy.unwrap().provider.cipher_suites.clone();
        let of_tls12: Vec<_> =
            suites.iter().filter(|suite| is_of_tls12(suite)).map(SupportedCipherSuite::suite).collect();
        assert_eq!(of_tls12, [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(suites.len() - of_tls12.len(), TLS13_SUITES.len());
    }

    #[test]
    fn an_unknown_suite_is_named_and_so_is_a_list_that_leaves_nothing() {
        let words = TlsWords { cipher_suites: "TLS_AES_128_GCM_SHA256,TLS_NOPE", ..TlsWords::default() };
        assert!(fault(words).starts_with(r#"TLS_CIPHER_SUITES: "TLS_NOPE" is no cipher suite"#));
        let words = TlsWords {
            min_version: "1.2",
            max_version: "1.2",
            cipher_suites: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
            ..TlsWords::default()
        };
        assert!(fault(words).contains("leaves no cipher suite"));
    }

    #[test]
    fn curves_are_preferred_in_the_order_written() {
        let curve_preferences = "P-384,X25519MLKEM768,CurveP256";
        let policy = TlsPolicy::parse(TlsWords { curve_preferences, ..TlsWords::default() }).unwrap();
        let names: Vec<_> = policy.provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [NamedGroup::secp384r1, NamedGroup::secp256r1]);
    }

    #[test]
    fn an_unknown_curve_is_named_and_so_is_a_list_that_leaves_nothing() {
        let words = TlsWords { curve_preferences: "X25519,P-224", ..TlsWords::default() };
        assert!(fault(words).starts_with(r#"TLS_CURVE_PREFERENCES: "P-224" is no curve"#));
        let words = TlsWords { curve_preferences: "X25519MLKEM768", ..TlsWords::default() };
        assert!(fault(words).contains("leaves no curve"));
    }
}
