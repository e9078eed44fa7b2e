//! The queue-proxy in every pod of a manifest: it counts and limits requests, and lets a pod leave without losing one.
//!
//! Services have to lead to the app's port by its name: the name moves to the queue-proxy's port, so that whatever follows
//! the name meets the queue-proxy first.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use pilotlight_config::workload::manifest::documents;
use pilotlight_controller::facts::QUEUE_PROXY;
use pilotlight_controller::manifest::{ManifestParams, to_yaml};
use pilotlight_process::WrongSettings;
use serde_json::{Value, json};

use crate::output::print;

/// Flags of an injection. Comments of the manifest are lost.
#[derive(Debug, Args)]
pub(super) struct InjectArgs {
    /// The manifest; - is standard input
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    filename: PathBuf,
    /// Port of the app [default: the first port of a container]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Name of the RequestAutoscaler [default: that of the object]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Most requests that the app may run at once; 0: any number
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    container_concurrency: u32,
    /// The image of Pilotlight [default: that of this version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

impl InjectArgs {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut text = String::new();
        let file = self.filename.display();
        if self.filename.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        } else {
            text = std::fs::read_to_string(&self.filename).with_context(|| format!("cannot read {file}"))?;
        }
        let documents = documents(&text).map_err(|error| WrongSettings::new(format!("{file}: {error}")))?;
        let mut written = Vec::new();
        for document in &documents {
            let Some(value) = document.root().value.cloned() else { continue };
            let injected =
                self.inject(value).map_err(|error| WrongSettings::new(format!("{file}: {error:#}")))?;
            written.push(to_yaml(&injected.object));
            for note in injected.notes {
                eprintln!("note: {note}");
            }
        }
        print(&written.join("---\n"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// The same object, with a queue-proxy if it has pods that can be scaled and that have none.
    fn inject(&self, mut object: Value) -> anyhow::Result<Injected> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, own) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let pod = object.pointer("/spec/template/spec");
        let has = |pod: &Value| containers(pod).any(|container| container["name"] == QUEUE_PROXY);
        if !KINDS.contains(&kind.as_str()) || pod.is_none_or(has) {
            return Ok(Injected { object, notes: Vec::new() });
        }
        let name = self.name.clone().unwrap_or(own.clone());
        let pod =
            object.pointer_mut("/spec/template/spec").ok_or_else(|| anyhow!("{kind} {own} has no pods"))?;
        let (at, port, port_name) = self.app_port(pod).ok_or_else(|| {
            anyhow!("{kind} {own}: no container has a port; say which one the app listens at: --port")
        })?;
        let mut notes = vec![format!(
            "{kind} {own}: Services must lead to its port by name (targetPort: {port_name}); a number would pass the \
             queue-proxy by"
        )];
        let app = &mut pod["containers"][at];
        let probe = by_number(app, &port_name, port);
        if app["lifecycle"]["preStop"].is_null() {
            app["lifecycle"]["preStop"] = json!({"httpGet": {"path": "/wait-for-drain", "port": ADMIN_PORT}});
        } else {
            notes.push(format!(
                "{kind} {own}: the app has a preStop hook of its own; it must last until the queue-proxy has drained"
            ));
        }
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        pod["terminationGracePeriodSeconds"] = json!(grace.max(GRACE_PERIOD));
        let proxy = self.queue_proxy(&name, (&port_name, port), &probe);
        if let Some(containers) = pod["containers"].as_array_mut() {
            containers.push(proxy);
        }
        Ok(Injected { object, notes })
    }

    /// The container of the app, its port, and the port's name, which is taken away from it.
    fn app_port(&self, pod: &mut Value) -> Option<(usize, u16, String)> {
        let containers = pod["containers"].as_array_mut()?;
        let is_wanted = |port: &Value| {
            let is_tcp = port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
            is_tcp && self.port.is_none_or(|wanted| port["containerPort"] == wanted)
        };
        for (at, container) in containers.iter_mut().enumerate() {
            let ports = container["ports"].as_array_mut().into_iter().flatten();
            if let Some(port) = ports.into_iter().find(|port| is_wanted(port)) {
                let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
                let name = port.as_object_mut()?.remove("name");
                let name = name.and_then(|name| Some(name.as_str()?.to_owned()));
                return Some((at, number, name.unwrap_or_else(|| "http".to_owned())));
            }
        }
        Some((0, self.port?, "http".to_owned())).filter(|_| !containers.is_empty())
    }

    fn queue_proxy(&self, name: &str, (port_name, port): (&str, u16), probe: &Value) -> Value {
        let image = self.image.clone().unwrap_or_else(|| ManifestParams::default().image);
        let value = |name: &str, value: String| json!({"name": name, "value": value});
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        json!({
            "name": QUEUE_PROXY,
            "image": image,
            "args": ["queue-proxy"],
            "ports": [{"name": port_name, "containerPort": PROXY_PORT}, {"name": "pl-stats", "containerPort": STATS_PORT}],
            "env": [
                value("SERVING_REVISION", name.to_owned()),
                value("SERVING_CONFIGURATION", name.to_owned()),
                field("SERVING_NAMESPACE", "metadata.namespace"),
                field("SERVING_POD", "metadata.name"),
                field("SERVING_POD_IP", "status.podIP"),
                value("QUEUE_SERVING_PORT", PROXY_PORT.to_string()),
                value("QUEUE_SERVING_TLS_PORT", PROXY_TLS_PORT.to_string()),
                value("USER_PORT", port.to_string()),
                value("CONTAINER_CONCURRENCY", self.container_concurrency.to_string()),
                value("REVISION_TIMEOUT_SECONDS", "300".to_owned()),
                value("SERVING_READINESS_PROBE", probe.to_string()),
                value("SERVING_LOGGING_CONFIG", String::new()),
                value("SERVING_LOGGING_LEVEL", String::new()),
            ],
            "readinessProbe": {
                "httpGet": {"path": "/", "port": PROXY_PORT,
                    "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}]},
                "periodSeconds": 1, "failureThreshold": 3,
            },
            "resources": {"requests": {"cpu": "25m", "memory": "32Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "runAsNonRoot": true, "runAsUser": 65532, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"}},
        })
    }
}

/// An object with a queue-proxy, and what else has to be done.
struct Injected {
    object: Value,
    notes: Vec<String>,
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|field| pod[field].as_array().into_iter().flatten())
}

/// Has probes and hooks of a container name a port by its number, now that its name is the queue-proxy's. Returns the probe
/// that says whether the app is ready.
fn by_number(container: &mut Value, name: &str, port: u16) -> Value {
    let handlers =
        ["/readinessProbe", "/livenessProbe", "/startupProbe", "/lifecycle/preStop", "/lifecycle/postStart"];
    for path in handlers {
        for action in ["httpGet", "tcpSocket"] {
            if let Some(named) = container.pointer_mut(&format!("{path}/{action}/port"))
                && *named == name
            {
                *named = json!(port);
            }
        }
    }
    let probe = &container["readinessProbe"];
    let action = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|action| probe[*action].is_object());
    match action {
        Some(action) => json!({action: probe[action], "successThreshold": 1}),
        None => json!({"tcpSocket": {"port": port}, "successThreshold": 1}),
    }
}

/// Kinds whose pods are scaled.
const KINDS: [&str; 4] = ["Deployment", "StatefulSet", "ReplicaSet", "Rollout"];
/// The queue-proxy's port for requests, as in Knative.
const PROXY_PORT: u16 = 8012;
/// The queue-proxy's port for requests over TLS, if there is a certificate.
const PROXY_TLS_PORT: u16 = 8112;
/// The queue-proxy's port for those who ask how many requests there are.
const STATS_PORT: u16 = 9090;
/// The queue-proxy's port for a hook that waits until it has drained.
const ADMIN_PORT: u16 = 8022;
/// Seconds within which the longest request and the drain's quiet period find room.
const GRACE_PERIOD: u64 = 330;

#[cfg(test)]
mod tests {
    use super::*;

    fn args(port: Option<u16>) -> InjectArgs {
        InjectArgs { filename: "-".into(), port, name: None, container_concurrency: 0, image: None }
    }

    fn deployment(containers: &Value) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn the_name_of_the_apps_port_leads_to_the_queue_proxy() {
        let app = json!([{"name": "app", "ports": [{"name": "web", "containerPort": 3000}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "web"}},
            "livenessProbe": {"tcpSocket": {"port": "web"}}}]);
        let injected = args(None).inject(deployment(&app)).unwrap();
        let pod = &injected.object["spec"]["template"]["spec"];
        let (app, proxy) = (&pod["containers"][0], &pod["containers"][1]);
        assert_eq!(app["ports"], json!([{"containerPort": 3000}]));
        assert_eq!(app["readinessProbe"]["httpGet"]["port"], 3000);
        assert_eq!(app["livenessProbe"]["tcpSocket"]["port"], 3000);
        assert_eq!(app["lifecycle"]["preStop"]["httpGet"]["path"], "/wait-for-drain");
        assert_eq!(proxy["ports"][0], json!({"name": "web", "containerPort": 8012}));
        let value = |name: &str| {
            let mut env = proxy["env"].as_array().unwrap().iter();
            env.find(|variable| variable["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
        };
        assert_eq!((value("SERVING_REVISION"), value("USER_PORT")), ("web".to_owned(), "3000".to_owned()));
        let probe: Value = serde_json::from_str(&value("SERVING_READINESS_PROBE")).unwrap();
        assert_eq!(probe, json!({"httpGet": {"path": "/ready", "port": 3000}, "successThreshold": 1}));
        assert_eq!(pod["terminationGracePeriodSeconds"], 330);
        assert!(injected.notes[0].contains("targetPort: web"), "{:?}", injected.notes);
    }

    #[test]
    fn what_has_one_or_cannot_be_scaled_stays_as_it_is() {
        let app = json!([{"name": "app", "ports": [{"name": "http", "containerPort": 80}]}]);
        let once = args(None).inject(deployment(&app)).unwrap().object;
        assert_eq!(args(None).inject(once.clone()).unwrap().object, once);
        let service = json!({"kind": "Service", "metadata": {"name": "web"}});
        assert_eq!(args(None).inject(service.clone()).unwrap().object, service);
    }

    #[test]
    fn an_app_without_a_port_is_asked_for_one() {
        let app = json!([{"name": "app"}]);
        assert!(args(None).inject(deployment(&app)).is_err_and(|error| error.to_string().contains("--port")));
        let injected = args(Some(8080)).inject(deployment(&app)).unwrap().object;
        let proxy = &injected["spec"]["template"]["spec"]["containers"][1];
        assert_eq!(proxy["ports"][0]["name"], "http");
        // A port that no container has is no port of another.
        let other = json!([{"name": "a", "ports": [{"containerPort": 1}]}, {"name": "b", "ports": [{"containerPort": 2}]}]);
        let injected = args(Some(2)).inject(deployment(&other)).unwrap().object;
        assert!(injected["spec"]["template"]["spec"]["containers"][1]["lifecycle"].is_object());
    }
}
