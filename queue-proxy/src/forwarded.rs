//! The `Forwarded` header (RFC 7239) for apps that know no other, made of the `X-Forwarded-*` ones.

use http::{HeaderMap, HeaderName, HeaderValue};
use pilotlight_net::headers::{FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, is_set};

/// Adds `Forwarded`, unless it is there or nothing is known. The first line of each header counts, and this
/// proxy's own client is not in `X-Forwarded-For` yet.
pub fn add_forwarded(headers: &mut HeaderMap) {
    let first =
        |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (nodes, host, proto) = (first(&X_FORWARDED_FOR), first(&X_FORWARDED_HOST), first(&X_FORWARDED_PROTO));
    if is_set(headers, &FORWARDED) || (nodes.is_empty() && host.is_empty() && proto.is_empty()) {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(forwarded(nodes, host, proto)) {
        headers.insert(FORWARDED, value);
    }
}

/// The first hop with all that is known of it, then the other nodes. As in Knative, an empty node is kept unless it is
/// the last; unlike there, a comma separates the first one from the next.
fn forwarded(nodes: &str, host: &str, proto: &str) -> String {
    let nodes = nodes.strip_suffix(',').or((!nodes.is_empty()).then_some(nodes));
    let mut nodes = nodes.into_iter().flat_map(|nodes| nodes.split(',')).map(|node| for_node(node.trim()));
    let known = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}={value}"));
    let first_hop = [nodes.next(), known("host", host), known("proto", proto)];
    let first_hop = first_hop.into_iter().flatten().collect::<Vec<_>>().join(";");
    std::iter::once(first_hop).chain(nodes).collect::<Vec<_>>().join(", ")
}

/// IPv6 addresses must be quoted, in brackets.
fn for_node(node: &str) -> String {
    if node.contains(':') { format!("for=\"[{node}]\"") } else { format!("for={node}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: &[(&'static str, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        add_forwarded(&mut headers);
        headers.get(FORWARDED).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn all_that_is_known_is_told_with_ipv6_quoted() {
        let all =
            [("x-forwarded-for", "127.0.0.1, ::1"), ("x-forwarded-host", "h"), ("x-forwarded-proto", "p")];
        assert_eq!(after(&all).unwrap(), r#"for=127.0.0.1;host=h;proto=p, for="[::1]""#);
    }

    #[test]
    fn parts_that_are_missing_are_left_out() {
        assert_eq!(after(&[("x-forwarded-proto", "p")]).unwrap(), "proto=p");
        assert_eq!(after(&[("x-forwarded-host", "h")]).unwrap(), "host=h");
        assert_eq!(
            after(&[("x-forwarded-host", "h"), ("x-forwarded-proto", "p")]).unwrap(),
            "host=h;proto=p"
        );
        assert_eq!(after(&[("x-forwarded-for", "n"), ("x-forwarded-proto", "p")]).unwrap(), "for=n;proto=p");
    }

    #[test]
    fn empty_nodes_are_kept_but_not_the_last() {
        assert_eq!(after(&[("x-forwarded-for", ",,,")]).unwrap(), "for=, for=, for=");
        assert_eq!(
            after(&[("x-forwarded-for", ",n"), ("x-forwarded-host", "h")]).unwrap(),
            "for=;host=h, for=n"
        );
    }

    #[test]
    fn an_existing_forwarded_stays_and_nothing_comes_of_nothing() {
        assert_eq!(after(&[("forwarded", "for=x"), ("x-forwarded-for", "n")]).unwrap(), "for=x");
        assert_eq!(after(&[("x-real-ip", "n")]), None);
    }

    #[test]
    fn only_the_first_line_of_a_header_counts() {
        assert_eq!(after(&[("x-forwarded-for", "a"), ("x-forwarded-for", "b")]).unwrap(), "for=a");
    }
}
