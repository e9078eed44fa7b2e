//! The manifests people have are read as their own controllers would read them.

use std::time::Duration;

use pilotlight_config::workload::{self, Kind, Manifest, Workloads};
use pilotlight_config::{AutoscalerConfig, Origin, Parsed, Workload};
use pilotlight_core::{ConcurrencyLimit, RevisionId, ScalingMetric};
use serde_json::json;

fn fixture(file: &str) -> String {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read(file: &str) -> Parsed<Workloads> {
    workload::read(&[Manifest { file, text: &fixture(file) }], None)
}

fn read_text(text: &str) -> Parsed<Workloads> {
    workload::read(&[Manifest { file: "f.yaml", text }], None)
}

fn workloads(file: &str) -> Vec<Workload> {
    read(file).value.unwrap_or_else(|faults| panic!("{faults}")).workloads
}

fn warnings(parsed: &Parsed<Workloads>) -> Vec<String> {
    parsed.warnings.iter().map(ToString::to_string).collect()
}

fn faults(parsed: Parsed<Workloads>) -> Vec<String> {
    parsed.value.unwrap_err().iter().map(ToString::to_string).collect()
}

fn origin<'a>(workload: &'a Workload, name: &str) -> &'a Origin {
    &workload.settings.iter().find(|setting| setting.name == name).unwrap().from
}

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[test]
fn a_knative_service_is_read_whole() {
    let [hello] = &workloads("service.yaml")[..] else { panic!("one workload") };
    assert_eq!(hello.id, RevisionId::new("shop", "hello"));
    assert_eq!(hello.kind, Kind::Service);
    assert_eq!((hello.source.file.as_str(), hello.source.line), ("service.yaml", 12));

    // The annotation's target of 10 is below the limit of 20; the window comes from the ConfigMap above it.
    assert_eq!((hello.spec.total, hello.spec.target), (10.0, 7.0));
    assert_eq!(hello.container_concurrency, 20.into());
    assert_eq!(hello.spec.max_scale, Some(7));
    assert_eq!(hello.spec.stable_window, seconds(120));
    assert_eq!(origin(hello, "stable-window"), &Origin::Config("stable-window"));
    assert_eq!(origin(hello, "max-scale"), &Origin::Annotation("autoscaling.knative.dev/maxScale"));
    assert_eq!(hello.spec.pod_retention, seconds(65));

    // 300 s for the start of a response is Knative's default below a timeout of 600 s.
    assert_eq!(hello.timeouts.total, seconds(600));
    assert_eq!(hello.timeouts.response_start, Some(seconds(300)));
    assert_eq!(hello.timeouts.idle, Some(seconds(30)));
    assert_eq!(hello.progress_deadline, seconds(1_200));
    assert_eq!(hello.spec.activation_timeout, seconds(1_230));

    // The container with the port serves.
    let container = &hello.container;
    assert_eq!(container.image.as_deref(), Some("registry.example/hello:3"));
    assert_eq!(container.command, ["/app/hello"]);
    assert_eq!(container.args, ["--greeting", "good morning"]);
    assert_eq!(container.working_dir.as_deref(), Some("/srv"));
    assert_eq!(container.port, Some(9000));
    assert_eq!(container.env, [("COLOUR".into(), "green".into()), ("EMPTY".into(), String::new())]);
    assert_eq!(
        hello.readiness_probe,
        Some(json!({
            "httpGet": {
                "path": "/ready?deep=1", "port": 9000, "host": "127.0.0.1", "scheme": "HTTP",
                "httpHeaders": [{ "name": "X-Probe", "value": "1" }],
            },
            "periodSeconds": 5, "timeoutSeconds": 1, "successThreshold": 1,
        }))
    );
    let notes: Vec<String> = hello.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "service.yaml:31: document 2, Service shop/hello: spec.template.spec.containers: only one container runs on one \
             machine, hello: sidecars are left out",
            "service.yaml:45: document 2, Service shop/hello: spec.template.spec.containers[1].env[2]: TOKEN takes its value \
             from the cluster; it is left out",
        ]
    );
}

#[test]
fn a_given_config_counts_before_a_config_map_in_the_files() {
    let text = fixture("service.yaml");
    let config = AutoscalerConfig::default();
    let parsed = workload::read(&[Manifest { file: "service.yaml", text: &text }], Some(&config));
    assert_eq!(parsed.value.unwrap().workloads[0].spec.stable_window, seconds(60));
}

#[test]
fn a_config_map_counts_for_the_files_before_it_too() {
    let revision = fixture("revision.yaml");
    let map =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-autoscaler}\ndata: {max-scale: \"4\"}\n";
    let files =
        [Manifest { file: "revision.yaml", text: &revision }, Manifest { file: "map.yaml", text: map }];
    let found = workload::read(&files, None).value.unwrap();
    assert_eq!(found.workloads[0].spec.max_scale, Some(4));
    assert_eq!(found.config.max_scale, Some(4));
}

#[test]
fn a_revision_has_its_annotations_on_itself() {
    let [hello] = &workloads("revision.yaml")[..] else { panic!("one workload") };
    assert_eq!(hello.id, RevisionId::new("default", "hello-00007"));
    assert_eq!(hello.kind, Kind::Revision);
    assert_eq!(hello.spec.scaling_metric, ScalingMetric::Rps);
    assert_eq!(hello.spec.min_scale, 2);
    assert_eq!(hello.timeouts.total, seconds(300));
    assert_eq!(hello.timeouts.response_start, None);
    assert_eq!(hello.progress_deadline, seconds(600));
    assert_eq!(
        hello.readiness_probe,
        Some(json!({ "grpc": { "port": 9001, "service": "" }, "successThreshold": 1 }))
    );
}

#[test]
fn a_kfserving_service_may_sleep_only_if_it_says_so() {
    let parsed = read("inferenceservice-v1alpha2.yaml");
    assert_eq!(
        warnings(&parsed),
        [
            "inferenceservice-v1alpha2.yaml:21: document 1, InferenceService default/flowers: spec.canary: the canary is \
             left out; only the default is served",
            "inferenceservice-v1alpha2.yaml:34: document 2, InferenceService default/irises: \
             spec.default.predictor.sklearn: image and command come from the cluster's serving runtime",
            "inferenceservice-v1alpha2.yaml:35: document 2, InferenceService default/irises: \
             spec.default.predictor.sklearn.storageUri: left out on one machine: the app finds its model itself",
        ]
    );
    let [flowers, irises] = &parsed.value.unwrap().workloads[..] else { panic!("two workloads") };
    assert_eq!((flowers.spec.min_scale, flowers.spec.max_scale), (0, Some(3)));
    assert_eq!(flowers.container_concurrency, 4.into());
    assert_eq!(flowers.spec.total, 4.0);
    assert_eq!(flowers.spec.stable_window, seconds(90));
    assert_eq!(flowers.container.command, ["python", "-m", "server"]);
    assert_eq!(origin(flowers, "min-scale"), &Origin::Field("spec.default.predictor.minReplicas".into()));
    assert_eq!(
        flowers.readiness_probe,
        Some(json!({ "tcpSocket": { "port": 8501, "host": "127.0.0.1" }, "successThreshold": 1 }))
    );

    assert_eq!((irises.spec.min_scale, irises.spec.max_scale), (1, None));
    assert_eq!(origin(irises, "min-scale"), &Origin::Default);
    // KFServing aims for one request in flight where nothing is said.
    assert_eq!((irises.spec.total, irises.container_concurrency), (1.0, ConcurrencyLimit::UNLIMITED));
    assert!(irises.container.command.is_empty());
    assert_eq!(irises.source.line, 27);
}

#[test]
fn a_kserve_predictor_counts_before_the_annotations() {
    let parsed = read("inferenceservice-v1beta1.yaml");
    let said = warnings(&parsed);
    assert!(
        said.iter().any(|line| line.ends_with("spec.transformer: left out; only the predictor is served")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|line| line.contains("metadata.annotations.autoscaling.knative.dev/min-scale: no effect")),
        "{said:?}"
    );
    let [llm] = &parsed.value.unwrap().workloads[..] else { panic!("one workload") };
    assert_eq!(llm.kind, Kind::InferenceService);
    assert_eq!((llm.spec.min_scale, llm.spec.max_scale), (1, Some(8)));
    assert_eq!((llm.spec.total, llm.container_concurrency), (2.0, 2.into()));
    assert_eq!(llm.timeouts.total, seconds(120));
    assert_eq!(llm.container.args, ["--model_name=llm"]);
    assert_eq!(llm.container.env, [("DTYPE".into(), "float16".into())]);
    assert_eq!(origin(llm, "max-scale"), &Origin::Field("spec.predictor.maxReplicas".into()));
}

#[test]
fn a_deployment_in_a_list_takes_its_annotations_from_both_places() {
    let parsed = read("deployment.yaml");
    let said = warnings(&parsed);
    assert!(
        said.iter()
            .any(|line| line == "deployment.yaml: Service web is not something to scale; it is passed over")
    );
    assert!(
        said.iter()
            .any(|line| line.contains("items[1].spec.template.spec.containers[0].readinessProbe.exec"))
    );
    let [web] = &parsed.value.unwrap().workloads[..] else { panic!("one workload") };
    assert_eq!(web.kind, Kind::Deployment);
    assert_eq!((web.spec.total, web.spec.stable_window), (5.0, seconds(20)));
    assert_eq!(web.progress_deadline, seconds(60));
    assert_eq!(web.container.port, Some(3000));
    assert!(web.container.command.is_empty());
    assert_eq!(
        web.readiness_probe,
        Some(json!({ "tcpSocket": { "port": 3000, "host": "127.0.0.1" }, "successThreshold": 1 }))
    );
    let field = "items[1].metadata.annotations.autoscaling.knative.dev/target";
    assert_eq!(origin(web, "target"), &Origin::Field(field.into()));
}

#[test]
fn all_faults_of_a_file_come_at_once() {
    let parsed = read("faulty.yaml");
    let said = warnings(&parsed);
    for expected in [
        "faulty.yaml:8: document 1, ConfigMap default/config-autoscaler: data.stabel-window: unknown key; did you mean `stable-window`?",
        "faulty.yaml:24: document 2, Service default/hello: \
         spec.template.metadata.annotations.autoscaling.knative.dev/min-scael: unknown annotation; did you mean `autoscaling.knative.dev/min-scale`?",
    ] {
        assert!(said.iter().any(|line| line == expected), "{expected} is not in {said:#?}");
    }
    let said = faults(parsed);
    let map =
        |line: u64| format!("faulty.yaml:{line}: document 1, ConfigMap default/config-autoscaler: data");
    let hello = |line: u64| format!("faulty.yaml:{line}: document 2, Service default/hello: ");
    let template =
        |line: u64| format!("{}spec.template.metadata.annotations.autoscaling.knative.dev", hello(line));
    let pod = |line: u64| format!("{}spec.template.spec", hello(line));
    let expected = [
        format!("{}.min-scale: must be a string: write \"1\"", map(6)),
        format!("{}.stable-window: \"5s\" is not a duration between 6s and 1h0m0s, in whole seconds", map(5)),
        format!("{}.max-scale-limit: \"-1\" is not a whole number between 0 and 2147483647", map(7)),
        format!(
            "{}metadata.annotations.autoscaling.knative.dev/min-scale: autoscaling annotations must be put under \
             spec.template.metadata.annotations to work",
            hello(15)
        ),
        format!("{}/max-scale: \"ten\" is not a whole number between 0 and 2147483647", template(20)),
        format!("{}/targetBurstCapacity: \"-2\" is not a number of at least 0, or -1", template(21)),
        format!(
            "{}/window: \"90\" is not a duration between 6s and 1h0m0s, in whole seconds: a number needs a unit, such as \
             90s",
            template(22)
        ),
        format!("{}/target: must be a string: write \"10\"", template(25)),
        format!("{}.containerConcurrency: \"many\" is not a whole number between 0 and 2147483647", pod(27)),
        format!("{}.responseStartTimeoutSeconds: \"61\" is above the timeout of 60 s", pod(29)),
        format!("{}.containers[0].command: is not a list", pod(31)),
        format!("{}.containers[0].ports: has more than one port; requests come in on a single one", pod(32)),
        "faulty.yaml:36: document 3, InferenceService: metadata.name: is missing".to_owned(),
        "faulty.yaml:41: document 3, InferenceService: spec.predictor.maxReplicas: \"2\" is less than the min-scale of 5"
            .to_owned(),
    ];
    for line in &expected {
        assert!(said.contains(line), "missing: {line}\nin {said:#?}");
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");
}

#[test]
fn a_file_with_nothing_to_scale_is_a_fault() {
    assert_eq!(
        faults(read("nothing.yaml")),
        ["nothing.yaml: holds nothing to scale, only Namespace shop, Ingress shop"]
    );
    assert_eq!(faults(read_text("")), ["f.yaml: is empty"]);
    assert_eq!(faults(read_text("---\n# nothing\n---\n")), ["f.yaml: is empty"]);
    assert_eq!(
        faults(read_text("stable-window: 60s")),
        ["f.yaml:1: is not a Kubernetes manifest: it has no apiVersion and kind"]
    );
}

#[test]
fn broken_yaml_is_one_line_that_names_the_place() {
    let said = faults(read_text("apiVersion: v1\nkind: [\n"));
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("f.yaml:2: is not valid YAML: ") && said[0].contains("line"), "{said:?}");
    assert_eq!(faults(read_text("a: 1\na: 2\n")).len(), 1, "a key written twice is a fault");
}

#[test]
fn a_revision_of_another_class_is_left_alone_with_a_note() {
    let text = "apiVersion: serving.knative.dev/v1\nkind: Revision\nmetadata:\n  name: a\n  annotations:\n    \
                autoscaling.knative.dev/class: hpa.autoscaling.knative.dev\n    autoscaling.knative.dev/metric: \
                packets\nspec: {containers: [{image: x}]}\n";
    let parsed = read_text(text);
    assert_eq!(
        warnings(&parsed),
        [
            "f.yaml:6: Revision default/a: metadata.annotations.autoscaling.knative.dev/class: default/a belongs to the \
             autoscaler hpa.autoscaling.knative.dev; it is left alone"
        ]
    );
    assert!(parsed.value.unwrap().workloads.is_empty());
}

#[test]
fn several_containers_need_exactly_one_port_in_knative() {
    let service = |containers: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{template: {{spec: \
                 {{containers: {containers}}}}}}}\n"
        )
    };
    let both = "[{ports: [{containerPort: 1}]}, {ports: [{containerPort: 2}]}]";
    let rule = "exactly one of several containers must have ports, here 2 have";
    assert_eq!(
        faults(read_text(&service(both))),
        [format!("f.yaml:4: Service default/a: spec.template.spec.containers: {rule}")]
    );
    assert_eq!(
        faults(read_text(&service("[]"))),
        ["f.yaml:4: Service default/a: spec.template.spec.containers: has no container"]
    );
    assert!(read_text(&service("[{}, {ports: [{containerPort: 2}]}]")).value.is_ok());
}

#[test]
fn ports_and_variables_must_be_possible() {
    let revision = |container: &str| {
        let head = "apiVersion: serving.knative.dev/v1\nkind: Revision\nmetadata: {name: a}\n";
        faults(read_text(&format!("{head}spec: {{containers: [{{{container}}}]}}\n")))
    };
    let port = "f.yaml:4: Revision default/a: spec.containers[0].ports[0].containerPort";
    assert_eq!(
        revision("ports: [{containerPort: 0}]"),
        [format!("{port}: \"0\" is not a port between 1 and 65535")]
    );
    assert_eq!(
        revision("ports: [{containerPort: 70000}]"),
        [format!("{port}: \"70000\" is not a port between 1 and 65535")]
    );
    assert_eq!(
        revision("ports: [{containerPort: 8012}]"),
        [format!("{port}: \"8012\" is a port that Knative keeps for itself")]
    );
    assert_eq!(
        revision("env: [{name: A=B, value: c}]"),
        [
            "f.yaml:4: Revision default/a: spec.containers[0].env[0].name: \"A=B\" is not the name of a variable"
        ]
    );
}

#[test]
fn the_config_map_is_read_as_manifest_or_as_bare_data() {
    let manifest =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-autoscaler}\ndata:\n  stable-window: 90s\n";
    let bare = "stable-window: 90s\nmax-scale: 7\nenable-scale-to-zero: false\ncontainer-concurrency-target-percentage: 0.5";
    let renamed = manifest.replace("config-autoscaler", "our-defaults");
    assert_eq!(AutoscalerConfig::from_yaml(&renamed).value.unwrap().stable_window, seconds(90));
    assert_eq!(AutoscalerConfig::from_yaml(manifest).value.unwrap().stable_window, seconds(90));
    let config = AutoscalerConfig::from_yaml(bare).value.unwrap();
    assert_eq!(
        (config.stable_window, config.max_scale, config.enable_scale_to_zero),
        (seconds(90), Some(7), false)
    );
    assert_eq!(config.container_concurrency_target_fraction, 0.5);
    for (text, said) in [
        ("", "is empty"),
        ("apiVersion: v1\nkind: Secret\n", "holds no ConfigMap config-autoscaler, only Secret"),
        ("stable-window: [1]", "stable-window: is not a single value"),
        ("- 1", "is not a map of keys and values"),
    ] {
        assert_eq!(AutoscalerConfig::from_yaml(text).value.unwrap_err().to_string(), said);
    }
}
