//! Routes: the revision that a request is for.
//!
//! In order: the revision headers that an ingress sets, a cluster-local host name, the hosts that revisions list, and, in
//! local mode, the only revision.
//!
//! One lock guards the maps. A request holds it for a few hash lookups, a change of one revision for as many, and neither
//! across an `.await`. That is less work for a request than sharing an immutable copy of all routes (a lock and two
//! reference counts), and a change costs the same however many revisions there are.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use parking_lot::RwLock;
use pilotlight_core::RevisionId;
use pilotlight_net::{ByteBudget, Error, Request, Timeouts, headers, hold_while};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::revision::RevisionTraffic;

/// All routes, changed one revision at a time.
#[derive(Debug)]
pub(crate) struct Routes {
    cluster_domain: String,
    /// If there is exactly one revision, unknown hosts lead to it.
    single_default: bool,
    maps: RwLock<RouteMaps>,
    /// Wakes requests that wait because not all revisions are known yet.
    grown: Notify,
}

#[derive(Debug, Default)]
struct RouteMaps {
    /// By namespace, then by name. No namespace is empty.
    revisions: HashMap<String, HashMap<String, Arc<Route>>>,
    /// All revisions that list a host, ordered by id: the first one gets the requests. The lowest id, not the oldest
    /// claim: all activators agree on it, whatever the order in which they heard of the revisions.
    hosts: HashMap<String, Vec<Arc<Route>>>,
    revision_count: usize,
    /// Every revision that exists has been added.
    is_complete: bool,
}

/// The route to one revision, and the time limits of its requests.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) revision: Arc<RevisionTraffic>,
    pub(crate) timeouts: Timeouts,
    /// Host names (lower case, no port) that lead here.
    pub(crate) hosts: Vec<String>,
    /// The other activators, if they and this one hand requests on to each other.
    pub(crate) peers: BTreeSet<IpAddr>,
}

/// The reason why a request has no route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unroutable {
    /// No revision has this name.
    Revision(String),
    /// No revision answers to this host.
    Host(String),
    /// The revision whose port the request came in at does not exist.
    Port(RevisionId),
    /// No known revision answers, but not all are known yet.
    NotYet,
}

impl Routes {
    /// No routes, and not complete. `single_default`: if there is exactly one revision, unknown hosts lead to it.
    pub(crate) fn new(cluster_domain: &str, single_default: bool) -> Self {
        Routes {
            cluster_domain: cluster_domain.to_ascii_lowercase(),
            single_default,
            maps: RwLock::default(),
            grown: Notify::new(),
        }
    }

    /// Adds a revision, or changes one.
    pub(crate) fn set(&self, route: Route) {
        let mut maps = self.maps.write();
        maps.set(&Arc::new(route));
        if !maps.is_complete {
            self.grown.notify_waiters();
        }
    }

    /// Removes a revision. A host that another revision lists as well leads there from now on.
    pub(crate) fn remove(&self, id: &RevisionId) {
        self.maps.write().remove(id);
    }

    /// Declares that every revision that exists has been added: what is not found does not exist.
    pub(crate) fn complete(&self) {
        self.maps.write().is_complete = true;
        self.grown.notify_waiters();
    }

    /// Whether every revision that exists has been added.
    pub(crate) fn is_complete(&self) -> bool {
        self.maps.read().is_complete
    }

    /// The route of a request: to this revision, or, without one, to the revision that its headers or its host name.
    pub(crate) fn find(
        &self,
        revision: Option<&RevisionId>,
        request: &Request,
    ) -> Result<Arc<Route>, Unroutable> {
        if let Some(id) = revision {
            return self.find_revision(id);
        }
        let text = |name: &HeaderName| text(request.headers(), name);
        let (namespace, name) = (text(&headers::NAMESPACE), text(&headers::REVISION));
        if !namespace.is_empty() && !name.is_empty() {
            let maps = self.maps.read();
            let found = maps.revision(namespace, name).map(Arc::clone);
            return found.ok_or_else(|| maps.unroutable(|| Unroutable::Revision(name.to_owned())));
        }
        let host = match request.uri().authority() {
            Some(authority) => authority.as_str(),
            None => text(&header::HOST),
        };
        let host = normal_host(host);
        let named = self.cluster_local(&host);
        let maps = self.maps.read();
        let by_name = named.and_then(|(namespace, name)| maps.revision(namespace, name));
        let by_host = || maps.hosts.get(host.as_str())?.first();
        let only = || if named.is_none() && self.single_default { maps.only_revision() } else { None };
        let found = by_name.or_else(by_host).or_else(only).map(Arc::clone);
        found.ok_or_else(|| {
            maps.unroutable(|| match named {
                Some((_, name)) => Unroutable::Revision(name.to_owned()),
                None => Unroutable::Host(host.clone()),
            })
        })
    }

    /// The route of a request, which waits for a while if not all revisions are known: the publisher of endpoints may be
    /// starting as well, and a 404 would be wrong. Meanwhile it counts against the budget like any request that waits (see
    /// [`hold_while`]); an error says that its client has left, or that there is no room for it.
    // `&mut`: a body is not `Sync`, so a future that holds a shared borrow of it is not `Send`.
    pub(crate) async fn find_or_wait(
        &self,
        revision: Option<&RevisionId>,
        request: &mut Request,
        budget: &ByteBudget,
    ) -> Result<Result<Arc<Route>, Unroutable>, Error> {
        match self.find(revision, request) {
            Err(Unroutable::NotYet) => {}
            found => return Ok(found),
        }
        let deadline = Instant::now() + COMPLETE_TIMEOUT;
        loop {
            // Subscribed before the lookup, so that no change is missed in between.
            let grown = self.grown.notified();
            match self.find(revision, request) {
                Err(Unroutable::NotYet) => {
                    if hold_while(request, budget, timeout_at(deadline, grown)).await?.is_err() {
                        return Ok(Err(Unroutable::NotYet));
                    }
                }
                found => return Ok(found),
            }
        }
    }

    /// The route to a revision, once it is known: waits for a while if not all are.
    pub(crate) async fn revision_or_wait(&self, id: &RevisionId) -> Result<Arc<Route>, Unroutable> {
        let deadline = Instant::now() + COMPLETE_TIMEOUT;
        loop {
            // Subscribed before the lookup, so that no change is missed in between.
            let grown = self.grown.notified();
            let found = self.find_revision(id);
            let is_over = match &found {
                Err(Unroutable::NotYet) => timeout_at(deadline, grown).await.is_err(),
                _ => true,
            };
            if is_over {
                return found;
            }
        }
    }

    /// Whether a connection to a port of the revision may come from another activator, and hence carry what that one has
    /// counted already.
    pub(crate) fn is_peer(&self, id: &RevisionId, client: IpAddr) -> bool {
        self.find_revision(id).is_ok_and(|route| route.peers.contains(&client.to_canonical()))
    }

    fn find_revision(&self, id: &RevisionId) -> Result<Arc<Route>, Unroutable> {
        let maps = self.maps.read();
        let found = maps.revision(&id.namespace, &id.name).map(Arc::clone);
        found.ok_or_else(|| maps.unroutable(|| Unroutable::Port(id.clone())))
    }

    /// All hosts that have a route, sorted. Walks all of them.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.maps.read().hosts.keys().cloned().collect();
        hosts.sort_unstable();
        hosts
    }

    /// Namespace and name, from `name.namespace.svc.<cluster domain>`.
    fn cluster_local<'h>(&self, host: &'h str) -> Option<(&'h str, &'h str)> {
        let mut parts = host.splitn(4, '.');
        let (name, namespace) = (parts.next()?, parts.next()?);
        let is_local = parts.next()? == "svc" && parts.next()? == self.cluster_domain;
        is_local.then_some((namespace, name))
    }
}

impl RouteMaps {
    fn set(&mut self, route: &Arc<Route>) {
        let id = route.revision.id();
        let namespace = self.revisions.entry(id.namespace.clone()).or_default();
        let before = namespace.insert(id.name.clone(), Arc::clone(route));
        let hosts_before = before.as_ref().map_or(&[][..], |before| &before.hosts);
        for host in hosts_before.iter().filter(|host| !route.hosts.contains(host)) {
            self.withdraw(host, id);
        }
        for host in &route.hosts {
            self.claim(host, route);
        }
        self.revision_count += usize::from(before.is_none());
    }

    fn remove(&mut self, id: &RevisionId) {
        let Some(namespace) = self.revisions.get_mut(&id.namespace) else { return };
        let Some(route) = namespace.remove(&id.name) else { return };
        if namespace.is_empty() {
            self.revisions.remove(&id.namespace);
        }
        for host in &route.hosts {
            self.withdraw(host, id);
        }
        self.revision_count -= 1;
    }

    fn claim(&mut self, host: &str, route: &Arc<Route>) {
        let claimants = self.hosts.entry(host.to_owned()).or_default();
        let id = route.revision.id();
        match claimants.binary_search_by_key(&id, |claimant| claimant.revision.id()) {
            Ok(own) => claimants[own] = Arc::clone(route),
            Err(place) => {
                claimants.insert(place, Arc::clone(route));
                if let [served, _, ..] = claimants.as_slice() {
                    let served = served.revision.id();
                    warn!(host, revision = %id, %served, "Host is listed by several revisions; the first by name is served");
                }
            }
        }
    }

    fn withdraw(&mut self, host: &str, id: &RevisionId) {
        let Some(claimants) = self.hosts.get_mut(host) else { return };
        claimants.retain(|claimant| claimant.revision.id() != id);
        if claimants.is_empty() {
            self.hosts.remove(host);
        }
    }

    fn revision(&self, namespace: &str, name: &str) -> Option<&Arc<Route>> {
        self.revisions.get(namespace)?.get(name)
    }

    /// The only revision, if there is exactly one. `None` before all are known: the first one added need not be the only.
    fn only_revision(&self) -> Option<&Arc<Route>> {
        let is_alone = self.is_complete && self.revision_count == 1;
        self.revisions.values().next().filter(|_| is_alone)?.values().next()
    }

    fn unroutable(&self, why: impl FnOnce() -> Unroutable) -> Unroutable {
        if self.is_complete { why() } else { Unroutable::NotYet }
    }
}

/// A header as text; empty if it is not there or is not text.
fn text<'r>(headers: &'r HeaderMap, name: &HeaderName) -> &'r str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A host as revisions list it: without port and final dot, in lower case.
fn normal_host(host: &str) -> String {
    let without_port = match host.rsplit_once(':') {
        // `[::1]` ends in a bracket, a port never does.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.strip_suffix('.').unwrap_or(without_port).to_ascii_lowercase()
}

/// The longest time a request waits until all revisions are known.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pilotlight_net::Body;
    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::*;
    use crate::throttler::Backlog;

    fn route(name: &str, hosts: &[&str]) -> Route {
        Route {
            revision: Arc::new(RevisionTraffic::new(
                RevisionId::new("default", name),
                pilotlight_net::Clock::start(),
                10,
                ByteBudget::new(0),
                Backlog::new(10),
                true,
            )),
            timeouts: Timeouts { total: Duration::from_secs(300), response_start: None, idle: None },
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            peers: BTreeSet::new(),
        }
    }

    fn routes(single_default: bool, names: &[(&str, &[&str])]) -> Routes {
        let routes = Routes::new("cluster.local", single_default);
        names.iter().for_each(|(name, hosts)| routes.set(route(name, hosts)));
        routes.complete();
        routes
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let builder = headers
            .iter()
            .fold(http::Request::builder().uri("/"), |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    fn find(routes: &Routes, request: &Request) -> Result<String, Unroutable> {
        routes.find(None, request).map(|route| route.revision.id().name.clone())
    }

    fn found(routes: &Routes, headers: &[(&str, &str)]) -> Result<String, Unroutable> {
        find(routes, &request(headers))
    }

    fn at_host(routes: &Routes, host: &str) -> Result<String, Unroutable> {
        found(routes, &[("host", host)])
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
        assert_eq!(found(&routes, &unknown), Err(Unroutable::Revision("zzz".to_owned())));
    }

    #[test]
    fn cluster_local_hosts_name_the_revision() {
        let routes = routes(true, &[("rev", &[])]);
        for host in ["rev.default.svc.cluster.local", "rev.default.svc.cluster.local:80"] {
            assert_eq!(found(&routes, &[("host", host)]), Ok("rev".to_owned()), "{host}");
        }
        let gone = [("host", "gone.default.svc.cluster.local")];
        assert_eq!(found(&routes, &gone), Err(Unroutable::Revision("gone".to_owned())), "not the default's");
    }

    #[test]
    fn listed_hosts_are_found_whatever_their_case_and_port() {
        let routes = routes(false, &[("hello", &["hello.default.localhost", "hello", "[::1]"]), ("b", &[])]);
        for host in
            ["hello", "HELLO:8080", "hello.default.localhost", "hello.default.localhost.:80", "[::1]:80"]
        {
            assert_eq!(found(&routes, &[("host", host)]), Ok("hello".to_owned()), "{host}");
        }
        assert_eq!(found(&routes, &[("host", "x.hello")]), Err(Unroutable::Host("x.hello".to_owned())));
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
        assert_eq!(find(&routes, &request), Ok("a".to_owned()));
    }

    #[test]
    fn a_host_that_two_list_leads_to_the_first_by_name_and_to_the_other_once_that_is_gone() {
        let routes = routes(false, &[("b", &["shared", "b"]), ("a", &["shared", "a"])]);
        assert_eq!(at_host(&routes, "shared"), Ok("a".to_owned()));
        routes.remove(&RevisionId::new("default", "a"));
        assert_eq!(at_host(&routes, "shared"), Ok("b".to_owned()));
        assert_eq!(at_host(&routes, "a"), Err(Unroutable::Host("a".to_owned())));
        assert_eq!(at_host(&routes, "b"), Ok("b".to_owned()));
        routes.remove(&RevisionId::new("default", "b"));
        assert_eq!(routes.hosts(), [""; 0]);
    }

    #[test]
    fn a_revision_that_changes_its_hosts_gives_up_those_it_no_longer_lists() {
        let routes = routes(false, &[("a", &["old", "kept"]), ("b", &["kept"])]);
        routes.set(route("a", &["kept", "new"]));
        assert_eq!(routes.hosts(), ["kept", "new"]);
        assert_eq!(at_host(&routes, "kept"), Ok("a".to_owned()));
        routes.set(route("a", &[]));
        assert_eq!(routes.hosts(), ["kept"]);
        assert_eq!(at_host(&routes, "kept"), Ok("b".to_owned()));
        assert_eq!(at_host(&routes, "a.default.svc.cluster.local"), Ok("a".to_owned()));
    }

    #[test]
    fn the_only_revision_is_counted_as_others_come_and_go() {
        let routes = routes(true, &[("a", &[])]);
        assert_eq!(at_host(&routes, "any"), Ok("a".to_owned()));
        routes.set(route("a", &["a"]));
        assert_eq!(at_host(&routes, "any"), Ok("a".to_owned()), "changed, not added");
        routes.set(route("b", &[]));
        assert!(at_host(&routes, "any").is_err());
        routes.remove(&RevisionId::new("default", "a"));
        routes.remove(&RevisionId::new("default", "a"));
        assert_eq!(at_host(&routes, "any"), Ok("b".to_owned()));
    }

    #[test]
    fn before_all_are_known_who_is_known_is_found_and_nobody_is_the_only_one() {
        let routes = Routes::new("cluster.local", true);
        routes.set(route("a", &["a.example"]));
        assert_eq!(at_host(&routes, "a.example"), Ok("a".to_owned()));
        for unknown in ["b.example", "b.default.svc.cluster.local"] {
            assert_eq!(at_host(&routes, unknown), Err(Unroutable::NotYet));
        }
        routes.complete();
        assert_eq!(at_host(&routes, "b.example"), Ok("a".to_owned()));
        assert_eq!(
            at_host(&routes, "b.default.svc.cluster.local"),
            Err(Unroutable::Revision("b".to_owned()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_for_an_unknown_host_waits_for_it_or_for_the_end_of_the_list() {
        let routes = Routes::new("cluster.local", false);
        let wait = async |host| {
            let mut request = request(&[("host", host)]);
            let budget = ByteBudget::new(0);
            let route = routes.find_or_wait(None, &mut request, &budget).await.unwrap();
            route.map(|route| route.revision.id().name.clone())
        };
        let started = Instant::now();
        assert_eq!(wait("a.example").await, Err(Unroutable::NotYet), "nobody tells of anything");
        assert_eq!(started.elapsed(), COMPLETE_TIMEOUT);
        let second = Duration::from_secs(1);
        let telling = async {
            sleep(second).await;
            routes.set(route("a", &["a.example"]));
            sleep(second).await;
            routes.complete();
        };
        let timed = async |host| (wait(host).await, started.elapsed() - COMPLETE_TIMEOUT);
        let ((), known, unknown) = tokio::join!(telling, timed("a.example"), timed("b.example"));
        assert_eq!(known, (Ok("a".to_owned()), second));
        assert_eq!(unknown, (Err(Unroutable::Host("b.example".to_owned())), second * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_head_that_waits_for_the_first_table_counts_and_is_refused_without_room() {
        let (routes, budget) = (Routes::new("cluster.local", false), ByteBudget::new(50_000));
        let large = "x".repeat(40_000);
        let ask = async || {
            let mut request = request(&[("host", "a.example"), ("x-large", &large)]);
            routes.find_or_wait(None, &mut request, &budget).await
        };
        let telling = async {
            sleep(Duration::from_secs(1)).await;
            assert!((40_000..50_000).contains(&budget.used()), "{}", budget.used());
            routes.set(route("a", &["a.example"]));
        };
        let (first, second, ()) = tokio::join!(ask(), ask(), telling);
        assert!(matches!(first, Ok(Ok(_))), "{first:?}");
        assert!(matches!(second, Err(Error::NoRoom)), "{second:?}");
        assert_eq!(budget.used(), 0);
    }

    /// A few revisions that list a few hosts, changed at random.
    fn steps() -> impl Strategy<Value = Vec<(usize, Option<Vec<usize>>)>> {
        let hosts = prop::option::weighted(0.8, prop::collection::vec(0usize..3, 0..4));
        prop::collection::vec((0usize..4, hosts), 0..60)
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
        fn after_any_changes_routes_are_those_of_what_is_left(steps in steps()) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            const HOSTS: [&str; 3] = ["x", "y", "z"];
            let routes = routes(true, &[]);
            let mut left = BTreeMap::new();
            for (name, hosts) in steps {
                match hosts {
                    Some(hosts) => {
                        let hosts: Vec<&str> = hosts.into_iter().map(|host| HOSTS[host]).collect();
                        routes.set(route(NAMES[name], &hosts));
                        left.insert(NAMES[name], hosts);
                    }
                    None => {
                        routes.remove(&RevisionId::new("default", NAMES[name]));
                        left.remove(NAMES[name]);
                    }
                }
            }
            let only = left.keys().next().filter(|_| left.len() == 1).copied();
            for host in HOSTS {
                let first = left.iter().find(|(_, hosts)| hosts.contains(&host)).map(|(name, _)| *name);
                let found = at_host(&routes, host).ok();
                prop_assert_eq!(found.as_deref(), first.or(only), "{}", host);
            }
            let found = at_host(&routes, "other").ok();
            prop_assert_eq!(found.as_deref(), only);
        }

        #[test]
        fn no_host_makes_the_lookup_panic(host in prop::collection::vec(any::<u8>(), 0..40)) {
            let routes = routes(true, &[("a", &["a.example"])]);
            if let Ok(host) = http::HeaderValue::from_bytes(&host) {
                let mut request = request(&[]);
                request.headers_mut().insert(header::HOST, host);
                let _ = find(&routes, &request);
            }
        }
    }
}
