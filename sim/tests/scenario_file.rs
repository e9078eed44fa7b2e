//! Scenarios as files: what is read, what is refused and how, and that the docs have every field.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pilotlight_core::{Time, TroubleReason};
use pilotlight_sim::cluster::{Capacity, Room};
use pilotlight_sim::scenario::file::{Draft, SECTIONS, ScenarioFile, markdown};
use pilotlight_sim::scenario::{self, Load, Scaler};
use pilotlight_sim::{Run, simulate};
use tempfile::tempdir;

fn read(text: &str) -> Result<ScenarioFile, String> {
    read_in(Path::new("."), text)
}

fn read_in(folder: &Path, text: &str) -> Result<ScenarioFile, String> {
    let draft = Draft::parse("s.yaml", text, folder).map_err(|faults| faults.to_string())?;
    draft.load().value.map_err(|faults| faults.to_string())
}

const LEAST: &str = "load: {constant: {rate: 10, for: 1m}}\napp: {service-time: 100ms}\n";

#[test]
fn a_load_and_a_service_time_are_enough() {
    let file = read(LEAST).unwrap();
    assert_eq!(file.scenario.name, "s");
    assert_eq!(file.scenario.duration, Duration::from_secs(60));
    assert_eq!(file.settings.len(), 1);
    let Scaler::Requests(spec) = &file.settings[0].scaler else { panic!("{:?}", file.settings) };
    assert_eq!(**spec, pilotlight_core::RevisionSpec::default());
    assert!(file.written.is_some());
}

#[test]
fn every_field_is_read() {
    let text = "
name: all
description: |
  Two
  lines.
duration: 5m
load:
  users:
    steps: [{at: 0s, users: 5}, {at: 1m, users: 10, spawn-rate: 0.5}]
    think: exponential:1s
app:
  service-time: lognormal:p50=80ms,p99=1s
  contention: 0.1
  coherency: 0.01
  cores: 1500m
  cores-per-request: 0.5
  errors: 2%
pods:
  schedule: 100ms
  provision: 1m
  pull: 10s
  cached-pull: 1s
  init: uniform:1s..2s
  ready: 100ms
  warm: 3
  crash-after: exponential:1h
  failing-starts: {share: 20%, after: 2s, until: 1m, reason: never-ready}
  drain-quiet: 1s
  termination-grace: 30s
cluster:
  nodes: {initial: 2, min: 1, max: 5, scan: 5s, idle: 2m}
  cores-per-node: 4
  placement: pack
  max-starting: 4
  max-starting-per-node: 2
  image-on-first-nodes: true
platform:
  kind: knative
  activator: always
  activators: 2
  activator-queue: 50
  request-timeout: 1m
  endpoint-delay: 100ms
  scrape-loss: 0.1
  outages: [{at: 1m, for: 10s}]
  victim: least-busy
  balancing: knative
clients: {timeout: 10s, retries: 2, backoff: 200ms}
slo: p95<500ms
settings:
  - name: one
    annotations: {target: 5, autoscaling.knative.dev/window: 30s}
    config: {scale-to-zero-grace-period: 10s}
    container-concurrency: 10
  - {hpa: {maxReplicas: 4}}
  - {pods: 4}
";
    let ScenarioFile { scenario, settings, slo, written, description } = read(text).unwrap();
    assert_eq!((scenario.name.as_str(), description.as_str()), ("all", "Two lines."));
    let Load::Closed(users) = &scenario.load else { panic!("{:?}", scenario.load) };
    assert_eq!((users.steps[1].at, users.steps[1].spawn_rate), (Time::from_secs(60), Some(0.5)));
    assert_eq!((scenario.app.slowdown.cores, scenario.app.error_fraction), (Some(1.5), 0.02));
    assert_eq!((scenario.pods.warm, scenario.pods.crash_after.is_some()), (Some(3), true));
    let failing = scenario.pods.failing_starts.as_ref().unwrap();
    assert_eq!((failing.fraction, failing.until), (0.2, Some(Time::from_secs(60))));
    assert_eq!((failing.after.mean(), failing.reason), (Duration::from_secs(2), TroubleReason::NeverReady));
    let Capacity::Group(group) = &scenario.cluster.capacity else { panic!("{:?}", scenario.cluster) };
    assert_eq!((group.initial, group.min, group.max), (2, 1, 5));
    assert_eq!(group.room, Room::Cores { node_millicores: 4_000, pod_millicores: 1_500 });
    assert_eq!(scenario.platform.path, scenario::Path::Always);
    assert_eq!(scenario.platform.autoscaler_outages.len(), 1);
    assert_eq!((scenario.clients.retries, slo.unwrap().quantile), (2, 0.95));
    let names: Vec<&str> = settings.iter().map(|settings| settings.name.as_str()).collect();
    assert_eq!(names, ["one", "hpa", "4 pods"]);
    let Scaler::Requests(spec) = &settings[0].scaler else { panic!("{settings:?}") };
    assert_eq!((spec.target, spec.stable_window), (3.5, Duration::from_secs(30)));
    assert_eq!(spec.scale_to_zero_grace_period, Duration::from_secs(10));
    assert_eq!(written.unwrap().annotations["autoscaling.knative.dev/target"], "5");
    // Each section is in it, so that this test knows of every field.
    for section in SECTIONS {
        for field in section.fields {
            let is_elsewhere = ["pods-per-node", "cores-per-pod", "file"].contains(&field.name);
            assert!(
                is_elsewhere || text.contains(&format!("{}:", field.name)),
                "{} {}",
                section.path,
                field.name
            );
        }
    }
}

#[test]
fn a_share_alone_says_how_many_starts_fail() {
    let text = "load: {constant: {rate: 1, for: 1m}}\napp: {service-time: 1s}\npods: {failing-starts: 30%}\n";
    let failing = read(text).unwrap().scenario.pods.failing_starts.unwrap();
    assert_eq!((failing.fraction, failing.until, failing.reason), (0.3, None, TroubleReason::Exited));
}

#[test]
fn all_faults_come_at_once_each_with_its_place() {
    let text = "
laod: {}
load: {users: {steps: [{at: 1m, users: 5}, {at: 30s, users: -1}], think: gauss:1s}}
app: {service-time: 5, errors: 120%, cores: many}
pods: {init: 2}
cluster: {pods: 0, nodes: 3}
platform: knativ
clients: {timeout: 0s}
slo: p95
settings: [{pods: 1, hpa: {}}, {annotations: {target: ten, windw: 6s}}]
";
    let told = read(text).unwrap_err();
    assert_eq!(told.lines().count(), 16, "{told}");
    for part in [
        "s.yaml: laod: unknown field; did you mean `load`?",
        "s.yaml: load.users.think: \"gauss\" is not a distribution: ",
        "s.yaml: load.users.steps[1].users: \"-1\" is not a whole number between 0 and 10000000",
        "s.yaml: duration: is missing: a load of users has no duration of its own",
        "s.yaml: app.service-time: \"5\": a number needs a unit, such as 5s",
        "s.yaml: app.errors: \"120%\" is not a share, such as 0.05 or 5%",
        "s.yaml: app.cores: \"many\" is not a number of cores, such as 2, 0.5 or 500m",
        "s.yaml: pods.init: \"2\": a number needs a unit, such as 2s",
        "s.yaml: cluster.nodes: stands beside `pods`, which says how much room there is in all",
        "s.yaml: cluster.pods: \"0\" is not a whole number between 1 and 4294967295",
        "s.yaml: platform: \"knativ\" is not one of local, knative, kubernetes (did you mean \"knative\"?)",
        "s.yaml: clients.timeout: \"0s\" must be above 0s",
        "s.yaml: slo: \"p95\" is wrong: ",
        "s.yaml: settings[0].hpa: stands beside `settings[0].pods`, and one of them is needed",
        "s.yaml: settings[1].annotations.target: \"ten\" ",
        "s.yaml: settings[1].annotations.windw: unknown annotation; did you mean",
    ] {
        assert!(told.contains(part), "{part}\nis not in\n{told}");
    }
}

#[test]
fn faults_of_the_load_have_their_places_too() {
    assert_eq!(
        read("load: {constant: {rat: 20, for: 1x}}\napp: {service-time: 1s}\n").unwrap_err(),
        "s.yaml: load.constant.rat: unknown field; did you mean `rate`?\n\
         s.yaml: load.constant.rate: is missing\n\
         s.yaml: load.constant.for: \"1x\" is not a duration: \"x\" is not a unit of time: use h, m, s, ms, us or ns"
    );
    let load = "[{bursts: {base: 1, burst: 9, length: 2m, every: 1m, for: 1h}}, {scale: 2}]";
    assert_eq!(
        read(&format!("load: {load}\napp: {{service-time: 1s}}\n")).unwrap_err(),
        "s.yaml: load[0].bursts.length: \"2m0s\" must not be longer than from burst to burst"
    );
    assert_eq!(
        read("load: {usrs: {steps: [{users: 5}]}}\napp: {service-time: 1s}\n").unwrap_err(),
        "s.yaml: load.usrs: unknown field; did you mean `users`?"
    );
}

#[test]
fn steps_must_rise_and_names_must_differ() {
    let text = "load: {users: {steps: [{at: 1m, users: 5}, {at: 30s, users: 6}]}}\nduration: 5m\n\
                app: {service-time: 1s}\nsettings: [{name: a, pods: 1}, {name: a, pods: 2}]\n";
    assert_eq!(
        read(text).unwrap_err(),
        "s.yaml: load.users.steps[1].at: \"30s\" is not after the step before it\n\
         s.yaml: settings[1].name: \"a\" is the name of other settings already"
    );
}

#[test]
fn what_is_no_scenario_is_refused() {
    assert_eq!(read("").unwrap_err(), "s.yaml: is empty");
    assert_eq!(read("- 1\n").unwrap_err(), "s.yaml: is not a scenario: a map with `load`, `app` and so on");
    assert_eq!(
        read("kind: Service\n").unwrap_err(),
        "s.yaml: is a Service, not a scenario: name it under `settings` with `file:`"
    );
    assert!(read("a: [").unwrap_err().starts_with("s.yaml: is not valid YAML: "));
}

#[test]
fn manifests_are_read_by_the_parsers_of_production_and_from_beside_the_scenario() {
    let folder = tempdir().unwrap();
    let service = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/target: \"20\"}}
    spec: {containerConcurrency: 50, containers: [{image: hello}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config-autoscaler}
data: {container-concurrency-target-percentage: \"50\"}
";
    let hpa = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {maxReplicas: 9, scaleTargetRef: {kind: Deployment, name: web, apiVersion: apps/v1}}
";
    fs::write(folder.path().join("service.yaml"), service).unwrap();
    fs::write(folder.path().join("hpa.yaml"), hpa).unwrap();
    let text = format!("{LEAST}settings: [{{file: service.yaml}}, {{name: cpu, file: hpa.yaml}}]\n");
    let file = read_in(folder.path(), &text).unwrap();
    let Scaler::Requests(spec) = &file.settings[0].scaler else { panic!("{:?}", file.settings) };
    assert_eq!((file.settings[0].name.as_str(), spec.target), ("hello", 10.0));
    assert_eq!(file.settings[0].container_concurrency, 50.into());
    let Scaler::Hpa(spec) = &file.settings[1].scaler else { panic!("{:?}", file.settings) };
    assert_eq!((file.settings[1].name.as_str(), spec.max_replicas), ("cpu", 9));
    // The settings that a search begins with resolve to the same.
    let again = file.written.unwrap().resolve("hello").unwrap();
    let (Scaler::Requests(again), Scaler::Requests(first)) = (&again.scaler, &file.settings[0].scaler) else {
        panic!("{again:?}")
    };
    assert_eq!(again, first);
    let missing =
        read_in(folder.path(), &format!("{LEAST}settings: [{{file: nowhere.yaml}}]\n")).unwrap_err();
    assert!(missing.starts_with("s.yaml: settings[0].file: \"nowhere.yaml\" cannot be read: "), "{missing}");
}

#[test]
fn a_trace_that_knows_how_long_requests_took_needs_no_service_time() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("t.csv"), "t_start_s,duration_s\n0,0.5\n1,0.5\n").unwrap();
    fs::write(folder.path().join("u.csv"), "t_start_s,duration_s\n0,0.5\n1,\n").unwrap();
    assert!(read_in(folder.path(), "load: {trace: {file: t.csv}}\n").is_ok());
    assert_eq!(
        read_in(folder.path(), "load: {trace: {file: u.csv}}\n").unwrap_err(),
        "s.yaml: app.service-time: is missing: how long a request takes that is alone on a pod"
    );
}

#[test]
fn a_draft_can_be_changed_and_written_and_read_again() {
    let mut draft = Draft::parse("s.yaml", LEAST, Path::new(".")).unwrap();
    draft.set("app.service-time=250ms").unwrap();
    draft.set("settings=[{pods: 2}]").unwrap();
    draft.set("settings[0].pods=3").unwrap();
    let file = draft.load().value.unwrap();
    assert_eq!(file.scenario.app.service_time.mean(), Duration::from_millis(250));
    assert!(matches!(file.settings[0].scaler, Scaler::Fixed(3)));
    let again = Draft::parse("s.yaml", &draft.text(), Path::new(".")).unwrap();
    assert_eq!(again.value(), draft.value());
    assert_eq!(
        draft.set("app").unwrap_err().rule,
        "is not of the form PLACE=VALUE, such as app.service-time=200ms"
    );
}

#[test]
fn under_an_hpa_there_is_no_activator_and_without_a_pod_requests_fail() {
    let text = format!(
        "{LEAST}pods: {{init: 20s, warm: 0}}\nplatform: kubernetes\nsettings: [{{hpa: {{maxReplicas: 2}}}}, \
                        {{annotations: {{target: 10}}}}]\n"
    );
    let file = read(&text).unwrap();
    let run =
        |index: usize| simulate(&file.scenario, &file.settings[index], Run { seed: 1, timeline: false });
    assert!(run(0).metric("503") > Some(0.0));
    assert_eq!(run(1).metric("errors"), Some(0.0));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may be told to write the page")]
fn the_docs_have_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulation.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark before the fields");
    let (_, after) = rest.split_once(END).expect("the mark behind them");
    let expected = format!("{before}{BEGIN}\n\n{}{END}{after}", markdown());
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        fs::write(path, expected).unwrap();
        return;
    }
    assert_eq!(
        page, expected,
        "PILOTLIGHT_BLESS=1 cargo test -p pilotlight-sim --test scenario_file writes it anew"
    );
}

const BEGIN: &str = "<!-- the fields: sim/src/scenario/file/fields.rs -->";
const END: &str = "<!-- the end of the fields -->";
