//! Workloads that can run on this machine, and the reasons why others cannot.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use pilotlight_config::resolve::Origin;
use pilotlight_config::workload::{DEFAULT_PORT, Workload};
use pilotlight_core::{ConcurrencyLimit, RevisionEndpoints, RevisionId, RevisionSpec, Timeouts};
use serde_json::Value;

use crate::guard::Spawn;

/// A workload that can run here.
#[derive(Clone, Debug)]
pub struct LocalWorkload {
    /// Name and namespace.
    pub id: RevisionId,
    /// How it scales.
    pub spec: Arc<RevisionSpec>,
    /// Host names that lead to it.
    pub hosts: Vec<String>,
    /// The most requests one pod may run at once.
    pub container_concurrency: ConcurrencyLimit,
    /// The time limits of a request.
    pub timeouts: Timeouts,
    /// How long a pod may take to become ready.
    pub startup_timeout: Duration,
    command: Vec<String>,
    env: Vec<(String, String)>,
    working_dir: Option<PathBuf>,
    /// The port its manifest names; each pod has one of its own in its place.
    declared_port: Option<u16>,
    /// The port that the app has taken instead of the one it was told; 0: none is known.
    own_port: Arc<AtomicU16>,
    readiness_probe: Option<Value>,
}

/// Why a workload cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum NotRunnable {
    /// There is an image, but no command.
    #[error(
        "{place}: {id} has {what}no command that can run here; add one to its container, such as \
         command: [\"./app\"], args: [\"--port\", \"{{port}}\"], or start the app itself with \
         `pilotlight run -- ./app --port {{port}}`"
    )]
    NoCommand {
        /// File and line.
        place: String,
        /// The workload.
        id: RevisionId,
        /// Words for the image it has instead.
        what: String,
    },
    /// The command is not there.
    #[error("{place}: {id}: cannot run {program}: {why}")]
    NoProgram {
        /// File and line.
        place: String,
        /// The workload.
        id: RevisionId,
        /// The program.
        program: String,
        /// The reason.
        why: String,
    },
    /// Two workloads answer to one host name: requests for it could go to either.
    #[error("{place}: {id} and {other} both answer to the host {host}: give one of them another name")]
    SameHost {
        /// File and line.
        place: String,
        /// The workload.
        id: RevisionId,
        /// The workload that was read first, with file and line.
        other: String,
        /// The shortest host name that both have.
        host: String,
    },
}

/// Why workloads cannot run on this machine, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(NotRunnable::to_string).collect::<Vec<_>>().join("\n"))]
pub struct NoneRunnable(Vec<NotRunnable>);

impl LocalWorkload {
    /// Checks that the workload's command exists, and completes what a cluster would.
    ///
    /// A workload starts asleep unless its manifest or configuration asks for an initial scale: on a laptop,
    /// nothing runs before it is needed.
    pub fn new(workload: &Workload, startup_timeout: Duration) -> Result<Self, NotRunnable> {
        let container = &workload.container;
        let place = place_of(workload);
        let command: Vec<String> = container.command.iter().chain(&container.args).cloned().collect();
        if container.command.is_empty() {
            let what =
                container.image.as_ref().map_or(String::new(), |image| format!("the image {image}, but "));
            return Err(NotRunnable::NoCommand { place, id: workload.id.clone(), what });
        }
        let working_dir = container.working_dir.as_ref().map(PathBuf::from);
        // A program that is named by a variable is known when the pod starts.
        if !command[0].contains("$(")
            && let Err(why) = find_program(&command[0], working_dir.as_deref())
        {
            let (id, program) = (workload.id.clone(), command[0].clone());
            let first = program.split_whitespace().next().unwrap_or_default();
            let is_quoted = first != program && find_program(first, working_dir.as_deref()).is_ok();
            let why = if is_quoted {
                format!("this is one word; without the quotes it is {first} and its arguments")
            } else {
                why.to_owned()
            };
            return Err(NotRunnable::NoProgram { place, id, program, why });
        }
        let asked = |name| workload.settings.iter().any(|it| it.name == name && it.from != Origin::Default);
        let mut spec = workload.spec.clone();
        if !asked("initial-scale") {
            spec.initial_scale = 0;
        }
        Ok(LocalWorkload {
            id: workload.id.clone(),
            spec: Arc::new(spec),
            hosts: hosts_of(&workload.id).into(),
            container_concurrency: workload.container_concurrency,
            timeouts: workload.timeouts,
            startup_timeout,
            command,
            env: container.env.clone(),
            working_dir,
            declared_port: container.port,
            own_port: Arc::default(),
            readiness_probe: workload.readiness_probe.clone(),
        })
    }

    /// All of them, or everything that stands in their way. No two may answer to the same host name.
    pub fn all(workloads: &[Workload], startup_timeout: Duration) -> Result<Vec<Self>, NoneRunnable> {
        let mut why = Vec::new();
        let here = workloads.iter().filter_map(|it| {
            LocalWorkload::new(it, startup_timeout).map_err(|not_runnable| why.push(not_runnable)).ok()
        });
        let here: Vec<Self> = here.collect();
        let mut taken = BTreeMap::new();
        why.extend(workloads.iter().filter_map(|it| same_host(it, &mut taken)));
        if why.is_empty() { Ok(here) } else { Err(NoneRunnable(why)) }
    }

    /// Whether its command line or environment names `{port}`, beside `PORT`.
    pub fn passes_port(&self) -> bool {
        let values = self.env.iter().map(|(_, value)| value);
        self.command.iter().chain(values).any(|text| text.contains("{port}") || text.contains("PORT"))
    }

    /// The app of one pod, told to listen on `port`.
    pub(super) fn app(&self, pod: &str, port: u16) -> Spawn {
        let port = port.to_string();
        let RevisionId { namespace, name } = &self.id;
        let contract = [
            ("PORT", port.as_str()),
            ("HOSTNAME", pod),
            ("K_REVISION", name),
            ("K_CONFIGURATION", name),
            ("K_SERVICE", name),
            ("POD_NAMESPACE", namespace),
        ];
        // The last value of a variable wins, so that a manifest can set these too.
        let mut env: Vec<(String, String)> =
            contract.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (name, value) in &self.env {
            let value = expand(value, &env).replace("{port}", &port);
            env.push((name.clone(), value));
        }
        let mut words = self.command.iter().map(|word| expand(word, &env).replace("{port}", &port).into());
        Spawn {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: self.working_dir.clone(),
        }
    }

    /// The port that the app has taken instead of the one it was told, as far as that is known.
    pub(super) fn own_port(&self) -> Option<u16> {
        Some(self.own_port.load(Ordering::Relaxed)).filter(|&port| port != 0)
    }

    /// The port to reach an app at that listens on these ports, and was told another: it may have a port of its own if
    /// its manifest names that one, or if there is never a second pod, which could not have it, too.
    pub(super) fn port_to_use(&self, told: u16, ports: &[u16]) -> Option<u16> {
        if ports.contains(&told) {
            self.own_port.store(0, Ordering::Relaxed);
            return Some(told);
        }
        let declared = self.declared_port.filter(|port| ports.contains(port));
        let only = match ports {
            [port] if self.spec.max_scale == Some(1) => Some(*port),
            _ => None,
        };
        let own = declared.or(only)?;
        self.own_port.store(own, Ordering::Relaxed);
        Some(own)
    }

    /// Knative's part of a queue-proxy's environment, for an app on `port`.
    pub(super) fn queue_proxy_env(&self, port: u16) -> BTreeMap<&'static str, String> {
        let seconds = |limit: Duration| limit.as_secs_f64().ceil().to_string();
        let optional = |limit: Option<Duration>| limit.map_or_else(|| "0".to_owned(), seconds);
        let mut env = BTreeMap::from([
            ("CONTAINER_CONCURRENCY", self.container_concurrency.to_string()),
            ("QUEUE_SERVING_TLS_PORT", "8112".to_owned()),
            ("USER_PORT", port.to_string()),
            ("REVISION_TIMEOUT_SECONDS", seconds(self.timeouts.total)),
            ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", optional(self.timeouts.response_start)),
            ("REVISION_IDLE_TIMEOUT_SECONDS", optional(self.timeouts.idle)),
            ("SERVING_LOGGING_CONFIG", String::new()),
            ("SERVING_LOGGING_LEVEL", String::new()),
            ("SERVING_NAMESPACE", self.id.namespace.clone()),
            ("SERVING_CONFIGURATION", self.id.name.clone()),
            ("SERVING_REVISION", self.id.name.clone()),
            ("SERVING_SERVICE", self.id.name.clone()),
        ]);
        if let Some(probe) = &self.readiness_probe {
            let mut probe = probe.clone();
            redirect(&mut probe, self.declared_port.unwrap_or(DEFAULT_PORT), port);
            env.insert("SERVING_READINESS_PROBE", probe.to_string());
        }
        env
    }

    /// Endpoints for the activator, but for the pods.
    pub(super) fn endpoints(&self) -> RevisionEndpoints {
        RevisionEndpoints {
            hosts: self.hosts.clone(),
            container_concurrency: self.container_concurrency,
            timeouts: self.timeouts,
            ..RevisionEndpoints::default()
        }
    }
}

/// Puts the values of variables in the place of `$(NAME)`, as Kubernetes does in commands, arguments and variables:
/// `$$` is a dollar sign, and what names no variable stays as it is (third_party/forked/golang/expansion).
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded += &rest[..at];
        rest = &rest[at..];
        let named = rest.strip_prefix("$(").and_then(|inside| inside.split_once(')'));
        if rest.starts_with("$$") {
            expanded.push('$');
            rest = &rest[2..];
        } else if let Some((name, after)) = named {
            match env.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => expanded += value,
                None => expanded += &rest[..rest.len() - after.len()],
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded + rest
}

/// Host names that lead to a workload, the longest first.
fn hosts_of(RevisionId { namespace, name }: &RevisionId) -> [String; 4] {
    [
        format!("{name}.{namespace}.localhost"),
        format!("{name}.{namespace}"),
        format!("{name}.localhost"),
        name.clone(),
    ]
}

/// Takes the hosts of a workload; if one of them is taken already, says by which workload.
fn same_host<'a>(workload: &'a Workload, taken: &mut BTreeMap<String, &'a Workload>) -> Option<NotRunnable> {
    let hosts = hosts_of(&workload.id);
    let found = hosts.iter().rev().find_map(|host| Some((host.clone(), *taken.get(host)?)));
    for host in hosts {
        taken.entry(host).or_insert(workload);
    }
    let (host, other) = found?;
    Some(NotRunnable::SameHost {
        place: place_of(workload),
        id: workload.id.clone(),
        other: format!("{} ({})", other.id, place_of(other)),
        host,
    })
}

fn place_of(workload: &Workload) -> String {
    format!("{}:{}", workload.source.file, workload.source.line)
}

/// A probe of the declared port is meant for the pod's own.
fn redirect(probe: &mut Value, declared: u16, port: u16) {
    match probe {
        Value::Array(probes) => probes.iter_mut().for_each(|probe| redirect(probe, declared, port)),
        Value::Object(probe) => {
            for handler in ["httpGet", "tcpSocket", "grpc"] {
                if let Some(asked) = probe.get_mut(handler).and_then(|handler| handler.get_mut("port"))
                    && (asked.as_u64() == Some(declared.into())
                        || asked.as_str() == Some(&declared.to_string()))
                {
                    *asked = port.into();
                }
            }
        }
        _ => {}
    }
}

/// Whether a program can be started by this name: a path, or a name to be looked up in `PATH`.
pub(crate) fn find_program(program: &str, working_dir: Option<&Path>) -> Result<(), &'static str> {
    if program.contains('/') {
        return check(&working_dir.unwrap_or(Path::new(".")).join(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| check(&folder.join(program)).is_ok());
    found.then_some(()).ok_or("there is no such program in PATH")
}

fn check(file: &Path) -> Result<(), &'static str> {
    let metadata = file.metadata().map_err(|_| "there is no such file")?;
    if !metadata.is_file() {
        Err("it is not a file")
    } else if metadata.permissions().mode() & 0o111 == 0 {
        Err("it is not executable")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_config::workload::{self, Manifest};

    use super::*;

    fn all(manifests: &[(&str, &str)]) -> Result<Vec<LocalWorkload>, NoneRunnable> {
        let text = |(name, namespace): &(&str, &str)| {
            format!(
                "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{template: {{spec: {{containers: [{{command: [sh]}}]}}}}}}"
            )
        };
        let texts: Vec<String> = manifests.iter().map(text).collect();
        let files: Vec<String> = manifests.iter().map(|(_, namespace)| format!("{namespace}.yaml")).collect();
        let manifests: Vec<Manifest<'_>> =
            files.iter().zip(&texts).map(|(file, text)| Manifest { file, text }).collect();
        let read = workload::read(&manifests, None).value.expect("legal manifests");
        LocalWorkload::all(&read.workloads, Duration::from_secs(60))
    }

    #[test]
    fn a_command_in_quotes_is_told_to_be_written_without_them() {
        let text = "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec: {template: {spec: {containers: [{command: [sh -c true]}]}}}";
        let read =
            workload::read(&[Manifest { file: "a.yaml", text }], None).value.expect("a legal manifest");
        let told = LocalWorkload::all(&read.workloads, Duration::from_secs(60)).unwrap_err().to_string();
        let why = "this is one word; without the quotes it is sh and its arguments";
        assert_eq!(told, format!("a.yaml:1: default/hello: cannot run sh -c true: {why}"));
    }

    #[test]
    fn two_workloads_that_answer_to_one_host_are_refused_and_both_are_named() {
        assert_eq!(
            all(&[("hello", "a"), ("other", "b"), ("hello", "b")]).unwrap_err().to_string(),
            "b.yaml:1: b/hello and a/hello (a.yaml:1) both answer to the host hello: give one of them another name"
        );
        assert_eq!(all(&[("hello", "a"), ("hello-2", "b")]).unwrap().len(), 2);
    }

    fn app(container: &str) -> Spawn {
        let text = format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: web}}\n\
             spec: {{template: {{spec: {{containers: [{container}]}}}}}}\n"
        );
        let read = workload::read(&[Manifest { file: "f.yaml", text: &text }], None).value.expect("legal");
        LocalWorkload::all(&read.workloads, Duration::from_secs(60)).unwrap()[0].app("web-1", 4711)
    }

    #[test]
    fn variables_are_put_into_command_arguments_and_later_variables() {
        let spawn = app(
            "{command: [sh, \"$(PORT)\"], args: [\"--on=$(ADDRESS)\", \"$$(PORT)\", \"$(NOBODY)\", \"{port}\"], \
             env: [{name: EARLY, value: \"$(ADDRESS)\"}, {name: ADDRESS, value: \"$(K_SERVICE):$(PORT)\"}]}",
        );
        assert_eq!(spawn.args, ["4711", "--on=web:4711", "$(PORT)", "$(NOBODY)", "4711"]);
        let of = |name: &str| {
            spawn.env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        assert_eq!(of("ADDRESS"), Some("web:4711".into()));
        assert_eq!(
            of("EARLY"),
            Some("$(ADDRESS)".into()),
            "a variable that is defined later is not known yet"
        );
    }

    #[test]
    fn text_that_names_no_variable_stays() {
        let env = [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
        for (text, expected) in [
            ("$(A)", "2"),
            ("x$(A)y$(A)", "x2y2"),
            ("$A ${A} $(A", "$A ${A} $(A"),
            ("$$(A) $$$(A) $$$$", "$(A) $2 $$"),
            ("$()", "$()"),
            ("50$", "50$"),
            ("$($(A))", "$($(A))"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn the_plain_name_of_one_is_no_host_of_another() {
        // "a.localhost" and "a" belong to the second only: of the first it is but a part.
        let both = all(&[("hello", "a"), ("a", "default")]).unwrap();
        assert_eq!(both[0].hosts, ["hello.a.localhost", "hello.a", "hello.localhost", "hello"]);
        assert_eq!(both[1].hosts, ["a.default.localhost", "a.default", "a.localhost", "a"]);
    }
}
