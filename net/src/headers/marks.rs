//! The fields of a message that mean something to a proxy, as a set of bits.
//!
//! Most messages have hardly any of these fields, and looking each one up costs more than the rest of a proxy's work. So
//! one pass over the fields of a message tells which are worth a look.

use std::ops::BitOr;

use http::HeaderMap;

/// A set of field names: those to look for, or [those that a message has](Marks::of).
///
/// ```
/// use http::{HeaderMap, header};
/// use pilotlight_net::headers::Marks;
///
/// let headers = HeaderMap::from_iter([(header::USER_AGENT, "kube-probe/1.34".parse().unwrap())]);
/// let marks = Marks::of(&headers);
/// assert!(marks.any(Marks::PROBE));
/// assert!(!marks.any(Marks::FORWARDED | Marks::UPGRADE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks(u32);

impl Marks {
    /// Signs of a probe: `K-Network-Probe`, `K-Kubelet-Probe`, or the user agent of a prober.
    pub const PROBE: Marks = Marks(1 << 0);
    /// `Forwarded` and the `X-Forwarded-*` headers.
    pub const FORWARDED: Marks = Marks(1 << 1);
    /// `K-Proxy-Request`.
    pub const PROXY_REQUEST: Marks = Marks(1 << 2);
    /// `K-Original-Host`.
    pub const ORIGINAL_HOST: Marks = Marks(1 << 3);
    /// The name and the namespace of a revision.
    pub const REVISION: Marks = Marks(1 << 4);
    /// `K-Network-Hash`.
    pub const NETWORK_HASH: Marks = Marks(1 << 5);
    /// `Connection`.
    pub const CONNECTION: Marks = Marks(1 << 6);
    /// `TE`.
    pub const TE: Marks = Marks(1 << 7);
    /// `Upgrade`.
    pub const UPGRADE: Marks = Marks(1 << 8);
    /// Any other hop-by-hop field.
    pub const HOP_BY_HOP: Marks = Marks(1 << 9);

    /// One pass over a message's headers.
    pub fn of(headers: &HeaderMap) -> Marks {
        headers.iter().fold(Marks(0), |marks, (name, value)| {
            marks
                | match name.as_str() {
                    "user-agent" if is_prober(value.as_bytes()) => Marks::PROBE,
                    "k-network-probe" | "k-kubelet-probe" => Marks::PROBE,
                    "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => {
                        Marks::FORWARDED
                    }
                    "k-proxy-request" => Marks::PROXY_REQUEST,
                    "k-original-host" => Marks::ORIGINAL_HOST,
                    "knative-serving-revision" | "knative-serving-namespace" => Marks::REVISION,
                    "k-network-hash" => Marks::NETWORK_HASH,
                    "connection" => Marks::CONNECTION,
                    "te" => Marks::TE,
                    "upgrade" => Marks::UPGRADE,
                    "transfer-encoding"
                    | "keep-alive"
                    | "proxy-connection"
                    | "proxy-authenticate"
                    | "proxy-authorization" => Marks::HOP_BY_HOP,
                    _ => Marks(0),
                }
        })
    }

    /// The union of both sets, in constants.
    pub(crate) const fn and(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    /// The set without these.
    pub fn without(self, these: Marks) -> Marks {
        Marks(self.0 & !these.0)
    }

    /// Whether any of these is in the set.
    pub fn any(self, these: Marks) -> bool {
        self.0 & these.0 != 0
    }
}

impl BitOr for Marks {
    type Output = Marks;

    fn bitor(self, other: Marks) -> Marks {
        self.and(other)
    }
}

/// Whether a user agent is the kubelet's prober or one of Knative's.
fn is_prober(user_agent: &[u8]) -> bool {
    user_agent.starts_with(super::KUBELET_USER_AGENT.as_bytes()) || user_agent.starts_with(b"Knative-")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use http::header::{CONNECTION, TE, UPGRADE, USER_AGENT};

    use super::super::*;
    use super::*;
    use crate::hop::ONE_HOP;

    fn of(name: HeaderName, value: &'static str) -> Marks {
        Marks::of(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
    }

    #[test]
    fn every_name_is_marked_as_what_it_is_looked_up_for() {
        let marked = [
            (NETWORK_PROBE, Marks::PROBE),
            (KUBELET_PROBE, Marks::PROBE),
            (FORWARDED, Marks::FORWARDED),
            (X_FORWARDED_HOST, Marks::FORWARDED),
            (X_FORWARDED_PROTO, Marks::FORWARDED),
            (X_FORWARDED_FOR, Marks::FORWARDED),
            (PROXY_REQUEST, Marks::PROXY_REQUEST),
            (ORIGINAL_HOST, Marks::ORIGINAL_HOST),
            (REVISION, Marks::REVISION),
            (NAMESPACE, Marks::REVISION),
            (NETWORK_HASH, Marks::NETWORK_HASH),
            (CONNECTION, Marks::CONNECTION),
            (TE, Marks::TE),
            (UPGRADE, Marks::UPGRADE),
        ];
        for (name, marks) in marked {
            assert_eq!(of(name.clone(), "x"), marks, "{name}");
        }
        for name in HOP_BY_HOP {
            assert!(of(name.clone(), "x").any(ONE_HOP), "{name}");
        }
    }

    #[test]
    fn probers_are_known_by_their_user_agents_and_nobody_else_is() {
        for agent in
            [KUBELET_USER_AGENT, ACTIVATOR_USER_AGENT, AUTOSCALER_USER_AGENT, "Knative-Queue-Proxy-Probe"]
        {
            assert_eq!(of(USER_AGENT, agent), Marks::PROBE, "{agent}");
        }
        assert_eq!(of(USER_AGENT, "curl/8.0"), Marks(0));
    }
}
