//! The container that serves, and the probe that tells when it is ready.

use serde_json::{Map, Value, json};

use super::manifest::{Node, shown};
use super::{Container, DEFAULT_PORT, unused};
use crate::fault::Findings;

/// Picks the serving container among several: the one with a port. Knative insists that exactly one has one;
/// elsewhere the first will do.
pub(super) fn serving<'a>(
    containers: &Node<'a>,
    is_strict: bool,
    findings: &mut Findings,
) -> Option<Node<'a>> {
    let items = containers.items(findings);
    let with_port: Vec<&Node<'a>> = items.iter().filter(|item| item.child("ports").is_present()).collect();
    let serving = match (items.as_slice(), with_port.as_slice()) {
        ([], _) => {
            containers.fault("has no container", findings);
            None
        }
        ([only], _) => Some(only.clone()),
        (_, [one]) => Some((*one).clone()),
        (_, _) if is_strict => {
            let rule =
                format!("exactly one of several containers must have ports, here {} have", with_port.len());
            containers.fault(rule, findings);
            None
        }
        ([first, ..], _) => Some(with_port.first().map_or(first, |one| one).clone()),
    };
    if let Some(serving) = &serving {
        unused::sidecars(containers, serving, findings);
    }
    serving
}

/// Reads what the container runs. Knative insists on a single port.
pub(super) fn container(node: &Node<'_>, is_strict: bool, findings: &mut Findings) -> Container {
    let ports = node.child("ports").items(findings);
    let of_requests = ports.iter().find(|port| is_for_requests(port)).or(ports.first());
    if ports.len() > 1 && is_strict {
        node.child("ports").fault("has more than one port; requests come in on a single one", findings);
    } else if let (Some(port), 2..) = (of_requests, ports.len()) {
        let shown = |key| port.child(key).value.map(shown).unwrap_or_default();
        let name =
            if port.child("name").is_present() { format!("{} ", shown("name")) } else { String::new() };
        let why = if is_for_requests(port) { "by its name" } else { "the first" };
        let advice = format!("several ports; requests come in on {name}{}, {why}", shown("containerPort"));
        findings.warn_once(&node.child("ports").path, advice);
    }
    let port = of_requests.and_then(|port| port_number(&port.child("containerPort"), findings));
    if let Some(name) = of_requests.map(|port| port.child("name"))
        && let Some(Value::String(protocol)) = name.value
        && protocol == "h2c"
    {
        findings.warn(&name.path, "h2c: the application is expected to speak HTTP/2 without TLS");
    }
    let mut env = Vec::new();
    for variable in node.child("env").items(findings) {
        let Some(name) = variable.child("name").text(findings) else {
            variable.fault("has no name", findings);
            continue;
        };
        if name.is_empty() || name.contains(['=', '\0']) {
            findings.fault(&variable.child("name").path, &name, "is not the name of a variable");
            continue;
        }
        if variable.child("valueFrom").is_present() {
            let advice = format!("{name} takes its value from the cluster; it is left out");
            findings.warn_once(&variable.path, advice);
            continue;
        }
        env.push((name, variable.child("value").text(findings).unwrap_or_default()));
    }
    let env_from = node.child("envFrom");
    if env_from.is_present() {
        findings.warn_once(&env_from.path, "variables from the cluster are left out");
    }
    Container {
        image: node.child("image").text(findings),
        command: node.child("command").texts(findings),
        args: node.child("args").texts(findings),
        env,
        working_dir: node.child("workingDir").text(findings),
        port,
    }
}

/// Whether a port has the name of one that requests come in on.
fn is_for_requests(port: &Node<'_>) -> bool {
    port.child("name").value.is_some_and(|name| name == "http" || name == "http1" || name == "h2c")
}

fn port_number(node: &Node<'_>, findings: &mut Findings) -> Option<u16> {
    let value = node.value?;
    let port = value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 0);
    if port.is_none() {
        findings.fault(&node.path, &shown(value), "is not a port between 1 and 65535");
    }
    port
}

/// The readiness probe as Knative hands it to the queue-proxy: aimed at 127.0.0.1, with the container's port
/// unless it names its own, and a TCP connect where there is none or one that only runs inside the container.
pub(super) fn readiness_probe(node: &Node<'_>, port: Option<u16>, findings: &mut Findings) -> Value {
    let probe = node.child("readinessProbe");
    let user_port = port.unwrap_or(DEFAULT_PORT);
    let mut result = Map::new();
    let mut number = |key: &str, findings: &mut Findings| {
        let value = probe.child(key).whole(i32::MAX as u32, findings).unwrap_or(0);
        if value > 0 {
            result.insert(key.to_owned(), json!(value));
        }
        value
    };
    let period = number("periodSeconds", findings);
    let timeout = number("timeoutSeconds", findings);
    let success = number("successThreshold", findings);
    number("failureThreshold", findings);
    number("initialDelaySeconds", findings);
    if period > 0 && timeout < 1 {
        result.insert("timeoutSeconds".to_owned(), json!(1));
    }
    if success == 0 {
        result.insert("successThreshold".to_owned(), json!(1));
    }

    let (http, grpc, tcp) = (probe.child("httpGet"), probe.child("grpc"), probe.child("tcpSocket"));
    if http.is_present() {
        let mut action = Map::new();
        if let Some(path) = http.child("path").text(findings) {
            action.insert("path".to_owned(), json!(path));
        }
        action.insert("port".to_owned(), json!(numeric_port(&http, node, user_port)));
        action.insert("host".to_owned(), json!("127.0.0.1"));
        let scheme = http.child("scheme").text(findings).unwrap_or_else(|| "HTTP".to_owned());
        action.insert("scheme".to_owned(), json!(scheme));
        let headers: Vec<Value> = http
            .child("httpHeaders")
            .items(findings)
            .iter()
            .map(|header| {
                let text = |key| header.child(key).value.map(shown).unwrap_or_default();
                json!({ "name": text("name"), "value": text("value") })
            })
            .collect();
        if !headers.is_empty() {
            action.insert("httpHeaders".to_owned(), Value::Array(headers));
        }
        result.insert("httpGet".to_owned(), Value::Object(action));
    } else if grpc.is_present() {
        let service = grpc.child("service").text(findings).unwrap_or_default();
        let action = json!({ "port": numeric_port(&grpc, node, user_port), "service": service });
        result.insert("grpc".to_owned(), action);
    } else {
        if probe.child("exec").is_present() {
            let advice =
                "an exec probe cannot be run from outside the container; a TCP connect takes its place";
            findings.warn(&probe.child("exec").path, advice);
        }
        let action = json!({ "port": numeric_port(&tcp, node, user_port), "host": "127.0.0.1" });
        result.insert("tcpSocket".to_owned(), action);
    }
    Value::Object(result)
}

/// A port by its number or by the name it has in the container; none means the container's own.
fn numeric_port(action: &Node<'_>, container: &Node<'_>, user_port: u16) -> u16 {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 0);
    let named = |name: &String| {
        let ports = container.child("ports").items(&mut Findings::default());
        let port = ports.iter().find(|port| port.child("name").value.is_some_and(|it| it == name))?;
        port.child("containerPort").value.and_then(number)
    };
    match action.child("port").value {
        Some(Value::String(text)) => text.parse().ok().filter(|&n| n > 0).or_else(|| named(text)),
        Some(value) => number(value),
        None => None,
    }
    .unwrap_or(user_port)
}
