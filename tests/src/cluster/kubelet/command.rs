//! The command and the environment of a container, as its pod's spec has them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use pilotlight_local::guard::Spawn;
use serde_json::Value;

use super::node::Image;

/// The name of the container that stands in front of the others.
const QUEUE_PROXY: &str = "queue-proxy";

/// The places where a pod's containers listen.
///
/// Pods of a real cluster have a loopback address each; here all share one. A queue-proxy looks for its app there, so behind
/// one the app's port on 127.0.0.1 is one that no other pod has, and both are told of it in place of the port that the
/// pod's spec names.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) ip: IpAddr,
    /// Ports of the spec, and the ports on 127.0.0.1 that stand for them.
    moved: BTreeMap<i32, u16>,
}

impl Places {
    pub(super) fn of(pod: &Pod, ip: IpAddr) -> Places {
        let containers = || pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut moved = BTreeMap::new();
        if containers().any(|container| container.name == QUEUE_PROXY) {
            for container in containers().filter(|container| container.name != QUEUE_PROXY) {
                moved.insert(own_port(container), free_port());
            }
        }
        Places { ip, moved }
    }

    /// The address at which a port of the spec is found.
    pub(super) fn find(&self, port: i32) -> SocketAddr {
        match self.moved.get(&port) {
            Some(moved) => (Ipv4Addr::LOCALHOST, *moved).into(),
            None => (self.ip, u16::try_from(port).unwrap_or_default()).into(),
        }
    }
}

/// The number of a port of the container that may be named.
pub(super) fn port_number(container: &Container, port: &IntOrString) -> Option<i32> {
    match port {
        IntOrString::Int(port) => Some(*port),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    }
}

/// What starts the container.
pub(super) fn command(
    pod: &Pod,
    container: &Container,
    image: &Image,
    places: &Places,
    node: (&str, IpAddr),
) -> Spawn {
    let is_queue_proxy = container.name == QUEUE_PROXY;
    let own = places.find(own_port(container));
    let bind = if is_queue_proxy { places.ip } else { own.ip() };
    let mut spawn = match container.command.as_deref() {
        Some([program, args @ ..]) => args.iter().fold(Spawn::new(program), Spawn::arg),
        _ => {
            let args = image.args.iter().map(|arg| arg.replace("{ip}", &bind.to_string()));
            args.fold(Spawn::new(&image.program), Spawn::arg)
        }
    };
    spawn = container.args.iter().flatten().fold(spawn, Spawn::arg);
    for (name, value) in &image.env {
        spawn = spawn.env(name, value.replace("{ip}", &bind.to_string()));
    }
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref();
        let value =
            source.map_or_else(|| variable.value.clone(), |source| look_up(source, pod, places.ip, node));
        let Some(mut value) = value else { continue };
        if is_queue_proxy {
            value = moved(&variable.name, value, places);
        }
        spawn = spawn.env(&variable.name, value);
    }
    if is_queue_proxy {
        spawn = spawn.env("PILOTLIGHT_BIND_ADDRESS", places.ip.to_string());
    } else {
        spawn = spawn.env("PORT", own.port().to_string());
    }
    spawn.env("HOSTNAME", pod.name_any())
}

/// The value of a queue-proxy's variable, with the port that stands for the app's.
fn moved(name: &str, value: String, places: &Places) -> String {
    match name {
        "USER_PORT" => value.parse().map_or(value, |port| places.find(port).port().to_string()),
        "SERVING_READINESS_PROBE" => serde_json::from_str(&value).map_or(value, |mut probe: Value| {
            move_ports(&mut probe, places);
            probe.to_string()
        }),
        _ => value,
    }
}

fn move_ports(value: &mut Value, places: &Places) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| move_ports(item, places)),
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, field)| match (name.as_str(), field.as_i64()) {
                ("port", Some(port)) => {
                    *field = places.find(i32::try_from(port).unwrap_or_default()).port().into()
                }
                _ => move_ports(field, places),
            })
        }
        _ => {}
    }
}

/// A field of the pod, by Kubernetes' downward API.
fn look_up(source: &EnvVarSource, pod: &Pod, ip: IpAddr, (node, host): (&str, IpAddr)) -> Option<String> {
    let path = source.field_ref.as_ref()?.field_path.as_str();
    let quoted = |prefix: &str| Some(path.strip_prefix(prefix)?.strip_suffix("']")?.to_owned());
    match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => Some(node.to_owned()),
        "status.podIP" | "status.podIPs" => Some(ip.to_string()),
        "status.hostIP" => Some(host.to_string()),
        _ => match (quoted("metadata.labels['"), quoted("metadata.annotations['")) {
            (Some(label), _) => pod.labels().get(&label).cloned(),
            (_, Some(annotation)) => pod.annotations().get(&annotation).cloned(),
            _ => None,
        },
    }
}

/// The port on which the container is meant to listen.
fn own_port(container: &Container) -> i32 {
    let declared = container.ports.iter().flatten().map(|port| port.container_port).next();
    let told = container.env.iter().flatten().find(|variable| variable.name == "PORT");
    declared.or_else(|| told?.value.as_ref()?.parse().ok()).unwrap_or(8080)
}

/// A port of 127.0.0.1 below those that the kernel gives to outgoing connections: nobody gets it before the app does.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (process::id() % 100 * 200) as u16;
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of 20,000 ports is free")
}

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn behind_a_queue_proxy_the_app_listens_at_a_port_of_its_own_and_both_are_told() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "a": "b" } },
            "spec": { "containers": [
                { "name": "app", "image": "i", "ports": [{ "containerPort": 8080 }], "args": ["--startup", "1s"] },
                { "name": "queue-proxy", "image": "q", "env": [
                    { "name": "USER_PORT", "value": "8080" },
                    { "name": "SERVING_READINESS_PROBE", "value": "{\"tcpSocket\":{\"port\":8080,\"host\":\"127.0.0.1\"}}" },
                    { "name": "SERVING_POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['a']" } } },
                ] },
            ] },
        }))
        .unwrap();
        let places = Places::of(&pod, [127, 64, 0, 9].into());
        let app = places.find(8080);
        assert_eq!((app.ip(), places.find(8012)), ([127, 0, 0, 1].into(), ([127, 64, 0, 9], 8012).into()));
        let image = Image {
            program: "/bin/app".into(),
            args: vec!["--host".into(), "{ip}".into()],
            env: BTreeMap::new(),
        };
        let containers = &pod.spec.as_ref().unwrap().containers;
        let spawn =
            |index: usize| command(&pod, &containers[index], &image, &places, ("n1", [127, 64, 0, 1].into()));
        let env = |spawn: &Spawn, name: &str| {
            spawn
                .env
                .iter()
                .find(|(each, _)| each == name)
                .map(|(_, value)| value.to_string_lossy().into_owned())
        };
        let (first, second) = (spawn(0), spawn(1));
        assert_eq!(first.args, ["--host", "127.0.0.1", "--startup", "1s"]);
        let port = app.port().to_string();
        assert_eq!(env(&first, "PORT"), Some(port.clone()));
        assert_eq!(second.args, ["--host", "127.64.0.9"]);
        assert_eq!(env(&second, "USER_PORT"), Some(port.clone()));
        let probe: Value = serde_json::from_str(&env(&second, "SERVING_READINESS_PROBE").unwrap()).unwrap();
        assert_eq!(probe, json!({ "tcpSocket": { "port": app.port(), "host": "127.0.0.1" } }));
        assert_eq!(env(&second, "SERVING_POD").as_deref(), Some("p"));
        assert_eq!(env(&second, "LABEL").as_deref(), Some("b"));
        assert_eq!(env(&second, "PILOTLIGHT_BIND_ADDRESS").as_deref(), Some("127.64.0.9"));
    }

    #[test]
    fn an_app_alone_listens_at_its_pods_address_and_own_port() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "app", "command": ["/bin/x", "y"], "args": ["z"] }] },
        }))
        .unwrap();
        let places = Places::of(&pod, [127, 64, 0, 9].into());
        let image = Image { program: "unused".into(), args: vec![], env: BTreeMap::new() };
        let spawn = command(
            &pod,
            &pod.spec.as_ref().unwrap().containers[0],
            &image,
            &places,
            ("n1", [127, 64, 0, 1].into()),
        );
        assert_eq!((spawn.program.to_str(), spawn.args.len()), (Some("/bin/x"), 2));
        assert!(spawn.env.contains(&("PORT".into(), "8080".into())));
        assert_eq!(places.find(8080), ([127, 64, 0, 9], 8080).into());
    }
}
