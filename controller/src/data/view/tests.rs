use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;
use crate::data::pretend::{autoscaler, pod, service};

struct Script {
    view: View,
    out: Outputs,
}

impl Script {
    fn new() -> Script {
        let out = Outputs::default();
        Script { view: View::new("10.0.0.1".parse().unwrap(), out.clone()), out }
    }

    fn learn(&mut self, fact: Fact) -> &mut Script {
        for id in self.view.learn(fact) {
            self.view.settle(&id);
        }
        self
    }

    /// A table with the ports of a namespace `shop`, one a line: `service/port number`.
    fn table(&mut self, version: &str, lines: &str) -> &mut Script {
        let map = json!({"metadata": {"name": "pilotlight-ports", "resourceVersion": version}, "data": {"shop": lines}});
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        let (table, faults) = PortTable::decode(&map);
        assert_eq!(faults, [""; 0]);
        self.view.table(table.into());
        assert_eq!(*self.out.table.borrow(), version);
        self
    }

    /// The workload and the name of a port; `""`: its owner is of no workload; `None`: it is no port of the table.
    fn owner(&self, port: u16) -> Option<String> {
        let used = self.out.ports.get(&port)?;
        let name = |identity: &PortIdentity| format!("{} {}", identity.revision.name, identity.port);
        Some(used.identity.as_ref().map(name).unwrap_or_default())
    }

    fn sleeps(&self, name: &str) -> Option<u32> {
        self.out.sleepers.get(&id(name)).map(|sleeper| sleeper.pods)
    }

    fn ready(&self, name: &str) -> Option<usize> {
        self.out.endpoints.get(&id(name)).map(|endpoints| endpoints.ready.len())
    }
}

fn id(name: &str) -> RevisionId {
    RevisionId::new("shop", name)
}

fn workload(name: &str, spec: &Value) -> Fact {
    let mut whole = json!({"scaleTargetRef": {"name": name}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    autoscaler(name, &whole, &json!({"selector": format!("app={name}")}))
}

fn web() -> Fact {
    service("web", &json!({"app": "web"}), &json!([{"name": "http", "port": 80, "targetPort": 8080}]))
}

fn web_named(port: &str, target: u16) -> Fact {
    service("web", &json!({"app": "web"}), &json!([{"name": port, "port": 80, "targetPort": target}]))
}

#[test]
fn connections_that_came_in_by_a_ports_former_name_still_find_the_pods() {
    let mut script = Script::new();
    script.learn(workload("web", &json!({}))).learn(web());
    script.learn(web_named("web", 8081)).learn(running("web-1"));
    let ports = |script: &Script| {
        let endpoints = script.out.endpoints.get(&id("web")).unwrap();
        let ports = endpoints.ready[0].ports.iter().map(|(key, port)| (key.clone(), *port));
        ports.collect::<Vec<_>>()
    };
    assert_eq!(ports(&script), [("web/http".to_owned(), 8080), ("web/web".to_owned(), 8081)]);
    // The port of today counts, whatever it was before.
    script.learn(web_named("http", 9090));
    assert_eq!(ports(&script), [("web/http".to_owned(), 9090), ("web/web".to_owned(), 8081)]);
}

fn running(name: &str) -> Fact {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"phase": "Running", "podIP": "10.1.0.1", "conditions": ready});
    pod(name, &json!({"app": "web"}), &json!({}), &status)
}

#[test]
fn ports_belong_to_the_workload_that_counts_the_service_whatever_is_heard_first() {
    let facts = [
        |script: &mut Script| {
            script.table("1", "web/http 10000");
        },
        |script: &mut Script| {
            script.learn(workload("web", &json!({})));
        },
        |script: &mut Script| {
            script.learn(web());
        },
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut script = Script::new();
        for number in order {
            facts[number](&mut script);
        }
        assert_eq!(script.owner(10_000).as_deref(), Some("web web/http"), "{order:?}");
        let used = script.out.ports.get(&10_000).unwrap();
        assert_eq!(used.settings.protocol, pilotlight_activator::PortProtocol::Http, "{order:?}");
    }
}

#[test]
fn a_port_of_no_known_workload_waits_for_one_and_stays_with_the_last() {
    let mut script = Script::new();
    script.table("1", "web/http 10000");
    assert_eq!(script.owner(10_000).as_deref(), Some(""));
    script.learn(workload("web", &json!({"services": [{"name": "web"}]})));
    assert_eq!(
        script.owner(10_000).as_deref(),
        Some("web web/http"),
        "it names the Service, which may come later"
    );
    script.learn(Fact::Autoscaler(id("web").into(), None));
    assert_eq!(script.owner(10_000).as_deref(), Some("web web/http"), "the table still has it");
    script.learn(workload("other", &json!({"services": [{"name": "web"}]})));
    assert_eq!(script.owner(10_000).as_deref(), Some("other web/http"));
    script.table("2", "");
    assert_eq!(script.owner(10_000), None);
}

#[test]
fn a_port_that_is_given_to_a_service_of_nobody_is_not_its_former_owners_any_more() {
    let mut script = Script::new();
    script.learn(workload("web", &json!({}))).learn(web()).table("1", "web/http 10000");
    script.table("2", "api/http 10000\nweb/http 10001");
    assert_eq!(script.owner(10_000).as_deref(), Some(""));
    assert_eq!(script.owner(10_001).as_deref(), Some("web web/http"));
    // What is heard of the former owner does not bring the port back.
    script.learn(running("web-1")).learn(web());
    assert_eq!(script.owner(10_000).as_deref(), Some(""));
}

#[test]
fn of_two_workloads_that_want_a_service_the_older_one_has_it() {
    let created = |name: &str, created: i64| {
        let Fact::Autoscaler(id, Some(fact)) = workload(name, &json!({"services": [{"name": "web"}]})) else {
            panic!("it is a RequestAutoscaler")
        };
        Fact::Autoscaler(id, Some(AutoscalerFact { created, ..AutoscalerFact::clone(&fact) }.into()))
    };
    let mut script = Script::new();
    script.table("1", "web/http 10000").learn(created("young", 20)).learn(web());
    assert_eq!(script.owner(10_000).as_deref(), Some("young web/http"));
    script.learn(created("old", 10));
    assert_eq!(script.owner(10_000).as_deref(), Some("old web/http"));
    script.learn(created("young", 20));
    assert_eq!(script.owner(10_000).as_deref(), Some("old web/http"));
    script.learn(Fact::Autoscaler(id("old").into(), None));
    assert_eq!(script.owner(10_000).as_deref(), Some("young web/http"));
}

#[test]
fn a_workload_without_pods_sleeps_unless_it_is_not_to_be_woken() {
    let mut script = Script::new();
    script.learn(workload("web", &json!({"minReplicas": 0}))).learn(web());
    assert_eq!(script.sleeps("web"), Some(1));
    script.learn(workload("web", &json!({"minReplicas": 0, "activationScale": 3})));
    assert_eq!(script.sleeps("web"), Some(3));
    for mode in ["Paused", "Observe"] {
        script.learn(workload("web", &json!({"mode": mode})));
        assert_eq!(script.sleeps("web"), None, "{mode}");
    }
    script.learn(workload("web", &json!({"minReplicas": 2})));
    assert_eq!(script.sleeps("web"), Some(2));
    script.learn(running("web-1"));
    assert_eq!((script.sleeps("web"), script.ready("web")), (None, Some(1)));
    script.learn(Fact::Autoscaler(id("web").into(), None));
    assert_eq!((script.sleeps("web"), script.ready("web")), (None, None));
}

#[test]
fn settings_that_are_not_accepted_leave_the_last_ones_in_force() {
    let mut script = Script::new();
    let timeout = |script: &Script| script.out.endpoints.get(&id("web")).unwrap().timeouts.total.as_secs();
    script.learn(workload("web", &json!({"timeoutSeconds": 7})));
    assert_eq!(timeout(&script), 7);
    script.learn(workload("web", &json!({"timeoutSeconds": 9, "window": "soon"})));
    assert_eq!(timeout(&script), 7);
    let mut fresh = Script::new();
    fresh.learn(workload("web", &json!({"timeoutSeconds": 9, "window": "soon"})));
    assert_eq!(timeout(&fresh), 300, "a workload that was never accepted is served all the same");
}

#[test]
fn activators_are_told_to_the_workloads_that_share_pods_among_them() {
    let mut script = Script::new();
    script.learn(workload("web", &json!({"containerConcurrency": 2}))).learn(workload("api", &json!({})));
    let name = Name::new("pilotlight-system", "a-1");
    let ip = "10.0.0.1".parse().unwrap();
    assert_eq!(script.view.activator(&name, Some(ip)), [id("web")].into());
    assert_eq!(script.view.activator(&name, Some(ip)), [].into(), "that is no news");
    script.view.settle(&id("web"));
    assert_eq!(script.out.endpoints.get(&id("web")).unwrap().activators, [ip].into());
    assert_eq!(script.view.activator(&name, None), [id("web")].into());
}

#[test]
fn nothing_is_told_twice() {
    let mut script = Script::new();
    script
        .learn(workload("web", &json!({})))
        .learn(web())
        .learn(running("web-1"))
        .table("1", "web/http 10000");
    let (mut endpoints, mut ports) = (script.out.endpoints.follow(), script.out.ports.follow());
    while endpoints.try_next().is_some() || ports.try_next().is_some() {}
    script
        .learn(workload("web", &json!({})))
        .learn(web())
        .learn(running("web-1"))
        .table("2", "web/http 10000");
    assert_eq!((endpoints.try_next(), ports.try_next()), (None, None));
}
