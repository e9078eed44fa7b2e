//! Ownership of buckets: an autoscaler decides about those whose leases it holds, or whose ordinal is its own in a
//! StatefulSet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use pilotlight_config::process::StatefulEnv;
use pilotlight_kubernetes::LeaseState;
use pilotlight_net::Target;
use pilotlight_process::WrongSettings;
use tokio::sync::watch;

use super::buckets::Buckets;

/// The addresses of the autoscalers that hold the other buckets, by bucket, in the order in which they are tried.
pub type Holders = BTreeMap<String, Vec<Target>>;

/// Owners of all buckets, as they change.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// All buckets, and those held here.
    pub buckets: watch::Receiver<Arc<Buckets>>,
    /// The holders of the others.
    pub holders: watch::Receiver<Arc<Holders>>,
}

/// Where the holders of leases are found.
#[derive(Clone, Debug)]
pub struct HolderAddresses {
    /// Our own name in a lease.
    pub identity: String,
    /// The system namespace.
    pub namespace: String,
    /// The domain of the cluster's Services.
    pub cluster_domain: String,
    /// The port of the stat servers.
    pub port: u16,
}

impl Ownership {
    /// Ownership by leases with these names, as their state tells it. Ends with the state.
    pub fn by_leases(
        names: Vec<String>,
        addresses: HolderAddresses,
        mut state: watch::Receiver<LeaseState>,
    ) -> Ownership {
        let all: Arc<[String]> = names.into();
        let read = move |state: &LeaseState| {
            let buckets = Buckets { all: Arc::clone(&all), held: state.held.clone() };
            (Arc::new(buckets), Arc::new(addresses.holders(state)))
        };
        let (buckets, holders) = read(&state.borrow_and_update());
        let ((tell_buckets, buckets), (tell_holders, holders)) =
            (watch::channel(buckets), watch::channel(holders));
        tokio::spawn(async move {
            while state.changed().await.is_ok() {
                let (buckets, holders) = read(&state.borrow_and_update());
                // Before the buckets: a stat of one that was lost already finds its new holder.
                set(&tell_holders, holders);
                set(&tell_buckets, buckets);
            }
        });
        Ownership { buckets, holders }
    }

    /// Ownership of one pod of a StatefulSet: it never changes.
    pub fn by_ordinal(set: &StatefulSet) -> Ownership {
        let others = set.others.iter();
        let holders: Holders = others.map(|(name, target)| (name.clone(), vec![target.clone()])).collect();
        let mut all: Vec<String> = holders.keys().cloned().chain([set.own.clone()]).collect();
        all.sort();
        let buckets = Buckets { all: all.into(), held: BTreeSet::from([set.own.clone()]) };
        Ownership {
            buckets: watch::channel(Arc::new(buckets)).1,
            holders: watch::channel(Arc::new(holders)).1,
        }
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: Arc<T>) {
    sender.send_if_modified(|current| {
        let is_news = **current != *value;
        *current = value;
        is_news
    });
}

impl HolderAddresses {
    fn holders(&self, state: &LeaseState) -> Holders {
        let others = state.holders.iter().filter(|(_, holder)| **holder != self.identity);
        others.map(|(bucket, holder)| (bucket.clone(), self.of(bucket, holder))).collect()
    }

    /// The holder's own address, and behind it the Service of the bucket, which leads there, too.
    fn of(&self, bucket: &str, holder: &str) -> Vec<Target> {
        let HolderAddresses { namespace, cluster_domain, port, .. } = self;
        let ip = holder.split_once('_').and_then(|(_, ip)| ip.parse::<IpAddr>().ok());
        let ip = ip.map(|ip| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
        let service = format!("{bucket}.{namespace}.svc.{cluster_domain}");
        let hosts = ip.into_iter().chain([service]);
        // A bucket's name and a namespace make a legal host.
        hosts.filter_map(|host| Target::ws(&format!("ws://{host}:{port}")).ok()).collect()
    }
}

/// A pod of a StatefulSet of autoscalers, each of which has the bucket of its ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSet {
    /// The bucket of this pod. A bucket's name is the URL of its pod's stat server.
    own: String,
    /// Those of the others.
    others: Vec<(String, Target)>,
}

impl StatefulSet {
    /// The place that Knative's variables tell. `namespace` and `cluster_domain` are those of the Service that governs the
    /// StatefulSet, `buckets` is how many pods it has.
    pub fn new(
        env: &StatefulEnv,
        namespace: &str,
        cluster_domain: &str,
        buckets: u32,
    ) -> Result<StatefulSet, WrongSettings> {
        let StatefulEnv { pod, service, protocol, port } = env;
        let mut wrong = WrongSettings::default();
        let parsed =
            pod.rsplit_once('-').and_then(|(set, ordinal)| Some((set, ordinal.parse::<usize>().ok()?)));
        let parsed = wrong.check_named(
            ORDINAL,
            parsed.ok_or_else(|| {
                format!("{pod:?} is not the name of a StatefulSet's pod, such as autoscaler-0")
            }),
        );
        if let Some((_, ordinal)) = parsed
            && ordinal >= buckets as usize
        {
            let rule = format!("{pod:?} has no bucket: config-leader-election says that there are {buckets}");
            wrong.check_named(ORDINAL, Err::<(), _>(rule));
        }
        let mut set = StatefulSet { own: String::new(), others: Vec::new() };
        if let Some((name, ordinal)) = parsed {
            for number in 0..buckets {
                let url =
                    format!("{protocol}://{name}-{number}.{service}.{namespace}.svc.{cluster_domain}:{port}");
                // Nobody connects to the own one: with a single bucket Knative's default, http, will do.
                if number as usize == ordinal {
                    set.own = url;
                    continue;
                }
                let target = Target::ws(&url).map_err(|error| format!("{error} ({PROTOCOL} is to be ws)"));
                let Some(target) = wrong.check_named(SERVICE, target) else { break };
                set.others.push((url, target));
            }
        }
        wrong.finish(|| Some(set))
    }
}

const ORDINAL: &str = "STATEFUL_CONTROLLER_ORDINAL";
const SERVICE: &str = "STATEFUL_SERVICE_NAME";
const PROTOCOL: &str = "STATEFUL_SERVICE_PROTOCOL";

#[cfg(test)]
mod tests {
    use pilotlight_core::RevisionId;

    use super::*;

    fn set(pod: &str, protocol: &str) -> Result<StatefulSet, WrongSettings> {
        set_of(2, pod, protocol)
    }

    fn set_of(buckets: u32, pod: &str, protocol: &str) -> Result<StatefulSet, WrongSettings> {
        let [pod, service, protocol, port] = [pod, "autoscaler", protocol, "8080"].map(str::to_owned);
        let env = StatefulEnv { pod, service, protocol, port };
        StatefulSet::new(&env, "knative-serving", "cluster.local", buckets)
    }

    #[tokio::test]
    async fn leases_say_what_is_held_and_where_the_others_are() {
        let names = vec!["b-0".to_owned(), "b-1".to_owned(), "b-2".to_owned()];
        let addresses = HolderAddresses {
            identity: "me_10.0.0.1".to_owned(),
            namespace: "knative-serving".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            port: 8080,
        };
        let (tell, state) = watch::channel(LeaseState::default());
        let Ownership { mut buckets, holders } = Ownership::by_leases(names, addresses, state);
        assert!(buckets.borrow_and_update().held.is_empty());
        let of =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        tell.send_replace(LeaseState {
            held: ["b-0".to_owned()].into(),
            holders: of(&[("b-0", "me_10.0.0.1"), ("b-1", "other_10.0.0.2"), ("b-2", "six_fd00::1")]),
        });
        buckets.changed().await.unwrap();
        assert_eq!(buckets.borrow().held, BTreeSet::from(["b-0".to_owned()]));
        let text = |bucket: &str| -> Vec<String> {
            holders.borrow()[bucket].iter().map(Target::to_string).collect()
        };
        assert_eq!(text("b-1"), ["ws://10.0.0.2:8080/", "ws://b-1.knative-serving.svc.cluster.local:8080/"]);
        assert_eq!(text("b-2")[0], "ws://[fd00::1]:8080/");
        assert_eq!(holders.borrow().len(), 2, "we are none of the others");
    }

    #[test]
    fn a_pod_of_a_stateful_set_has_the_bucket_of_its_ordinal() {
        let set = set("as-1", "ws").unwrap();
        let Ownership { buckets, holders } = Ownership::by_ordinal(&set);
        let url = |ordinal| format!("ws://as-{ordinal}.autoscaler.knative-serving.svc.cluster.local:8080");
        let buckets = buckets.borrow();
        assert_eq!(
            (buckets.all.to_vec(), buckets.held.clone()),
            (vec![url(0), url(1)], BTreeSet::from([url(1)]))
        );
        assert_eq!(holders.borrow()[&url(0)], [Target::ws(&url(0)).unwrap()]);
        assert!(buckets.of(&RevisionId::new("a", "b")).is_some());
    }

    #[test]
    fn one_pod_alone_needs_no_protocol() {
        let set = set_of(1, "as-0", "http").unwrap();
        let Ownership { buckets, holders } = Ownership::by_ordinal(&set);
        assert_eq!(
            buckets.borrow().all.to_vec(),
            ["http://as-0.autoscaler.knative-serving.svc.cluster.local:8080"]
        );
        assert!(holders.borrow().is_empty());
    }

    #[test]
    fn variables_of_a_stateful_set_that_do_not_fit_are_refused() {
        let wrong = |pod, protocol| set(pod, protocol).unwrap_err().to_string();
        assert!(wrong("as-1", "http").contains("STATEFUL_SERVICE_PROTOCOL is to be ws"));
        assert!(wrong("autoscaler", "ws").contains("is not the name of a StatefulSet's pod"));
        assert!(wrong("as-2", "ws").contains("has no bucket"));
    }
}
