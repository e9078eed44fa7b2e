//! Requests that are no demand: health checks of the cluster, of load balancers, and what a user names besides.

use http::header::USER_AGENT;
use pilotlight_net::Request;

/// Rules that tell which requests wake no pods and are not counted. The default knows the health checks of kubelets, of
/// Google's and Amazon's load balancers, and of Envoy.
///
/// ```
/// use pilotlight_activator::{IgnoreRule, IgnoreRules};
/// let status_page = IgnoreRule { path: Some("/status/*".to_owned()), user_agent: None };
/// let rules = IgnoreRules::new([status_page]);
/// assert!(rules.matches("/status/db", "curl/8.0"));
/// assert!(rules.matches("/", "kube-probe/1.36"));
/// assert!(!rules.matches("/status", "curl/8.0"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreRules {
    rules: Box<[IgnoreRule]>,
}

/// One rule. Whatever it names has to match; a rule that names nothing matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreRule {
    /// The path, without the query: the whole of it, or its beginning if this ends in `*`.
    pub path: Option<String>,
    /// A part of the user agent, letter by letter.
    pub user_agent: Option<String>,
}

impl IgnoreRules {
    /// These rules, beside those of the default.
    pub fn new(rules: impl IntoIterator<Item = IgnoreRule>) -> Self {
        IgnoreRules { rules: rules.into_iter().collect() }
    }

    /// Whether a request for this path, by this user agent (empty if it names none), is no demand.
    pub fn matches(&self, path: &str, user_agent: &str) -> bool {
        HEALTH_CHECKS.iter().any(|agent| user_agent.starts_with(agent))
            || self.rules.iter().any(|rule| rule.matches(path, user_agent))
    }

    pub(crate) fn match_request(&self, request: &Request) -> bool {
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        self.matches(request.uri().path(), user_agent.unwrap_or_default())
    }
}

impl IgnoreRule {
    fn matches(&self, path: &str, user_agent: &str) -> bool {
        let has_path = |wanted: &String| match wanted.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == wanted,
        };
        let has_agent = |wanted: &String| user_agent.contains(wanted.as_str());
        let names_something = self.path.is_some() || self.user_agent.is_some();
        names_something
            && self.path.as_ref().is_none_or(has_path)
            && self.user_agent.as_ref().is_none_or(has_agent)
    }
}

/// Beginnings of the user agents of health checks.
const HEALTH_CHECKS: [&str; 4] = ["kube-probe/", "GoogleHC/", "ELB-HealthChecker/", "Envoy/HC"];

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, user_agent: &str) -> IgnoreRule {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        IgnoreRule { path: text(path), user_agent: text(user_agent) }
    }

    #[test]
    fn health_checks_are_known_by_the_beginning_of_their_user_agents() {
        let rules = IgnoreRules::default();
        for agent in ["kube-probe/1.36", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Envoy/HC"] {
            assert!(rules.matches("/", agent), "{agent}");
        }
        for agent in ["", "curl/8.0", "like kube-probe/1.36", "Kube-Probe/1.36", "Envoy"] {
            assert!(!rules.matches("/", agent), "{agent}");
        }
    }

    #[test]
    fn a_rule_matches_if_all_that_it_names_does() {
        let cases = [
            (rule("/healthz", ""), "/healthz", "x", true),
            (rule("/healthz", ""), "/healthz/", "x", false),
            (rule("/health*", ""), "/healthz/db", "x", true),
            (rule("*", ""), "/anything", "x", true),
            (rule("", "Pingdom"), "/", "Mozilla (Pingdom.com_bot)", true),
            (rule("", "Pingdom"), "/", "pingdom", false),
            (rule("/up", "Uptime"), "/up", "Uptime/1.0", true),
            (rule("/up", "Uptime"), "/up", "curl", false),
            (rule("/up", "Uptime"), "/", "Uptime/1.0", false),
            (rule("", ""), "/", "", false),
        ];
        for (rule, path, agent, expected) in cases {
            let rules = IgnoreRules::new([rule.clone()]);
            assert_eq!(rules.matches(path, agent), expected, "{rule:?} {path} {agent:?}");
        }
    }
}
