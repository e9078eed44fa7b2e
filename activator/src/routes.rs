//! Which revision a request is for.
//!
//! In order: the revision headers an ingress sets, a cluster-local host name, the host names the table lists,
//! and, in local mode, the one revision there is.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use pilotlight_core::RevisionId;
use pilotlight_net::{Request, Timeouts, headers};

use crate::revision::Revision;

/// One state of the table, made for looking up.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    cluster_domain: String,
    /// By namespace, then by name.
    revisions: HashMap<String, HashMap<String, Arc<Route>>>,
    hosts: HashMap<String, Arc<Route>>,
    /// The one that answers whatever was not asked for by name.
    default: Option<Arc<Route>>,
}

/// One revision and what holds for requests to it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) revision: Arc<Revision>,
    pub(crate) timeouts: Timeouts,
}

/// What was asked for is not there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// A revision was asked for by name.
    Revision(String),
    /// A host was asked for.
    Host(String),
}

impl Routes {
    /// Makes the lookup. `single_default`: if there is exactly one revision, unknown hosts lead to it.
    pub(crate) fn new(
        cluster_domain: &str,
        single_default: bool,
        routes: impl IntoIterator<Item = (Route, Vec<String>)>,
    ) -> Self {
        let mut this = Routes { cluster_domain: cluster_domain.to_ascii_lowercase(), ..Routes::default() };
        let mut all = Vec::new();
        for (route, hosts) in routes {
            let route = Arc::new(route);
            let id = route.revision.id();
            let namespace = this.revisions.entry(id.namespace.clone()).or_default();
            namespace.insert(id.name.clone(), Arc::clone(&route));
            this.hosts.extend(hosts.into_iter().map(|host| (host, Arc::clone(&route))));
            all.push(route);
        }
        if let ([only], true) = (all.as_slice(), single_default) {
            this.default = Some(Arc::clone(only));
        }
        this
    }

    /// The route for a request.
    pub(crate) fn find(&self, request: &Request) -> Result<&Arc<Route>, NotFound> {
        let text = |name: &HeaderName| text(request.headers(), name);
        let (namespace, name) = (text(&headers::NAMESPACE), text(&headers::REVISION));
        if !namespace.is_empty() && !name.is_empty() {
            return self.revision(namespace, name).ok_or_else(|| NotFound::Revision(name.to_owned()));
        }
        let host = match request.uri().authority() {
            Some(authority) => authority.as_str(),
            None => text(&header::HOST),
        };
        let host = normal_host(host);
        let named = self.cluster_local(&host);
        let by_name = named.and_then(|(namespace, name)| self.revision(namespace, name));
        by_name
            .or_else(|| self.hosts.get(host.as_str()))
            .or(match named {
                Some(_) => None,
                None => self.default.as_ref(),
            })
            .ok_or_else(|| match named {
                Some((_, name)) => NotFound::Revision(name.to_owned()),
                None => NotFound::Host(host.clone()),
            })
    }

    /// Every host that leads somewhere, sorted.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = self.hosts.keys().map(String::as_str).collect();
        hosts.sort_unstable();
        hosts
    }

    /// Whether the table has this revision.
    pub(crate) fn contains(&self, id: &RevisionId) -> bool {
        self.revision(&id.namespace, &id.name).is_some()
    }

    fn revision(&self, namespace: &str, name: &str) -> Option<&Arc<Route>> {
        self.revisions.get(namespace)?.get(name)
    }

    /// Namespace and name, from `name.namespace.svc.<cluster domain>`.
    fn cluster_local<'h>(&self, host: &'h str) -> Option<(&'h str, &'h str)> {
        let mut parts = host.splitn(4, '.');
        let (name, namespace) = (parts.next()?, parts.next()?);
        let is_local = parts.next()? == "svc" && parts.next()? == self.cluster_domain;
        is_local.then_some((namespace, name))
    }
}

/// A header as text; empty if it is not there or is not text.
fn text<'r>(headers: &'r HeaderMap, name: &HeaderName) -> &'r str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A host as the table lists it: without port and final dot, in lower case.
fn normal_host(host: &str) -> String {
    let without_port = match host.rsplit_once(':') {
        // `[::1]` ends in a bracket, a port never does.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.strip_suffix('.').unwrap_or(without_port).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilotlight_net::Body;
    use proptest::prelude::*;

    use super::*;
    use crate::throttler::Backlog;

    fn routes(single_default: bool, names: &[(&str, &[&str])]) -> Routes {
        let route = |name: &str| Route {
            revision: Arc::new(Revision::new(RevisionId::new("default", name), 10, Backlog::new(10), true)),
            timeouts: Timeouts { total: Duration::from_secs(300), response_start: None, idle: None },
        };
        let entries = names.iter().map(|(name, hosts)| {
            (route(name), hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
        });
        Routes::new("cluster.local", single_default, entries)
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let builder = headers
            .iter()
            .fold(http::Request::builder().uri("/"), |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    fn found(routes: &Routes, headers: &[(&str, &str)]) -> Result<String, NotFound> {
        routes.find(&request(headers)).map(|route| route.revision.id().name.clone())
    }

    #[test]
    fn headers_come_first() {
        let routes = routes(false, &[("a", &["a.example"]), ("b", &[])]);
        let headers = [
            ("host", "a.example"),
            ("knative-serving-namespace", "default"),
            ("knative-serving-revision", "b"),
        ];
        assert_eq!(found(&routes, &headers), Ok("b".to_owned()));
        assert_eq!(found(&routes, &headers[..2]), Ok("a".to_owned()), "half of a name is no name");
        let unknown = [("knative-serving-namespace", "default"), ("knative-serving-revision", "zzz")];
        assert_eq!(found(&routes, &unknown), Err(NotFound::Revision("zzz".to_owned())));
    }

    #[test]
    fn cluster_local_hosts_name_the_revision() {
        let routes = routes(true, &[("rev", &[])]);
        for host in ["rev.default.svc.cluster.local", "rev.default.svc.cluster.local:80"] {
            assert_eq!(found(&routes, &[("host", host)]), Ok("rev".to_owned()), "{host}");
        }
        let gone = [("host", "gone.default.svc.cluster.local")];
        assert_eq!(found(&routes, &gone), Err(NotFound::Revision("gone".to_owned())), "not the default's");
    }

    #[test]
    fn listed_hosts_are_found_whatever_their_case_and_port() {
        let routes = routes(false, &[("hello", &["hello.default.localhost", "hello", "[::1]"]), ("b", &[])]);
        for host in
            ["hello", "HELLO:8080", "hello.default.localhost", "hello.default.localhost.:80", "[::1]:80"]
        {
            assert_eq!(found(&routes, &[("host", host)]), Ok("hello".to_owned()), "{host}");
        }
        assert_eq!(found(&routes, &[("host", "x.hello")]), Err(NotFound::Host("x.hello".to_owned())));
        assert_eq!(routes.hosts(), ["[::1]", "hello", "hello.default.localhost"]);
    }

    #[test]
    fn the_only_revision_answers_unknown_hosts_where_that_is_wanted() {
        let host = [("host", "localhost:8080")];
        assert_eq!(found(&routes(true, &[("a", &[])]), &host), Ok("a".to_owned()));
        assert!(found(&routes(false, &[("a", &[])]), &host).is_err());
        assert!(found(&routes(true, &[("a", &[]), ("b", &[])]), &host).is_err());
    }

    #[test]
    fn a_target_in_absolute_form_names_the_host() {
        let routes = routes(false, &[("a", &["a.example"]), ("b", &["b.example"])]);
        let mut request = request(&[("host", "b.example")]);
        *request.uri_mut() = "http://a.example:80/path".parse().unwrap();
        assert_eq!(routes.find(&request).unwrap().revision.id().name, "a");
    }

    proptest! {
        #[test]
        fn a_host_leads_where_it_is_listed_and_nowhere_else(
            listed in "[a-z0-9-]{1,10}(\\.[a-z0-9-]{1,10}){0,5}",
            other in "[a-zA-Z0-9.:\\[\\]-]{0,20}",
            capitals in any::<bool>(),
            decoration in prop::sample::select(vec!["", ":80", ".", ".:8012"]),
        ) {
            let routes = routes(false, &[("a", &[&listed]), ("b", &[])]);
            let spelled = if capitals { listed.to_ascii_uppercase() } else { listed.clone() } + decoration;
            prop_assert_eq!(found(&routes, &[("host", &spelled)]), Ok("a".to_owned()), "{}", spelled);
            let same = normal_host(&other) == listed;
            prop_assert_eq!(found(&routes, &[("host", &other)]).is_ok(), same, "{}", other);
        }

        #[test]
        fn no_host_makes_the_lookup_panic(host in prop::collection::vec(any::<u8>(), 0..40)) {
            let routes = routes(true, &[("a", &["a.example"])]);
            if let Ok(host) = http::HeaderValue::from_bytes(&host) {
                let mut request = request(&[]);
                request.headers_mut().insert(header::HOST, host);
                let _ = routes.find(&request);
            }
        }
    }
}
