//! Files as people have them: many objects, lists, JSON, what a cluster made itself, and what is wrong in one of many.

use pilotlight_config::explain::{render, render_json};
use pilotlight_config::workload::{self, Kind, Manifest, Workloads};
use pilotlight_config::{Fault, Findings};

fn survey(text: &str) -> (Workloads, Findings) {
    workload::survey(&[Manifest { file: "f.yaml", text }], None)
}

fn service(name: &str, annotations: &str) -> String {
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{template: {{metadata: \
         {{annotations: {{{annotations}}}}}, spec: {{containers: [{{image: a}}]}}}}}}\n"
    )
}

fn shown(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn names(found: &Workloads) -> Vec<String> {
    found.workloads.iter().map(|workload| workload.id.to_string()).collect()
}

const TARGET_0: &str = "autoscaling.knative.dev/target: \"0\"";

#[test]
fn each_finding_names_file_line_document_and_object_and_hides_no_other_object() {
    let text =
        [service("a", ""), service("b", TARGET_0), service("c", TARGET_0), service("d", "")].join("---\n");
    let (found, findings) = survey(&text);
    let key = "spec.template.metadata.annotations.autoscaling.knative.dev/target";
    assert_eq!(
        shown(&findings.faults),
        [
            format!("f.yaml:9: document 2, Service default/b: {key}: \"0\" is not a number of at least 0.01"),
            format!(
                "f.yaml:14: document 3, Service default/c: {key}: \"0\" is not a number of at least 0.01"
            ),
        ]
    );
    assert_eq!(names(&found), ["default/a", "default/d"]);
    assert!(render(&found).contains("default/a  Service, f.yaml:1\n"));
    let json = render_json(&found, &findings);
    assert_eq!(json["workloads"].as_array().unwrap().len(), 2);
    let fault = &json["faults"][1];
    assert_eq!(
        (&fault["file"], &fault["line"], &fault["document"], &fault["object"]),
        (&"f.yaml".into(), &14.into(), &3.into(), &"Service default/c".into())
    );
}

#[test]
fn a_document_that_cannot_be_parsed_and_a_file_at_fault_hide_no_others() {
    let broken = format!("{}---\nkind: [\n---\n{}", service("a", ""), service("b", ""));
    let one = service("c", "");
    let files = [Manifest { file: "a.yaml", text: &broken }, Manifest { file: "b.yaml", text: &one }];
    let (found, findings) = workload::survey(&files, None);
    assert_eq!(names(&found), ["default/a", "default/b", "default/c"]);
    let [fault] = &findings.faults[..] else { panic!("{:?}", findings.faults) };
    let position = fault.position.as_ref().unwrap();
    assert_eq!((fault.file.as_deref(), position.line, position.document), (Some("a.yaml"), 6, Some(2)));
    assert!(fault.rule.starts_with("is not valid YAML: unclosed bracket"), "{fault}");
}

#[test]
fn a_key_that_is_there_twice_is_told_in_our_own_words() {
    let (_, findings) = survey("apiVersion: v1\nkind: Service\nkind: Service\n");
    assert_eq!(
        shown(&findings.faults),
        ["f.yaml:3: is not valid YAML: duplicate mapping key: kind at line 3, column 1"]
    );
}

#[test]
fn lists_json_lines_and_arrays_are_opened() {
    let json = |name: &str| {
        format!(
            "{{\"apiVersion\": \"serving.knative.dev/v1\", \"kind\": \"Service\", \"metadata\": {{\"name\": \"{name}\"}}, \
             \"spec\": {{\"template\": {{\"spec\": {{\"containers\": [{{\"image\": \"a\"}}]}}}}}}}}"
        )
    };
    let both = ["default/a", "default/b"];
    for text in [
        format!("{}\n{}\n", json("a"), json("b")),
        format!("[{},\n {}]", json("a"), json("b")),
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}, {}]}}", json("a"), json("b")),
        format!("apiVersion: v1\nkind: ServiceList\nitems:\n- {}\n- {}\n", json("a"), json("b")),
    ] {
        let (found, findings) = survey(&text);
        assert_eq!((names(&found), findings.faults), (both.map(str::to_owned).to_vec(), vec![]), "{text}");
    }
    let (found, _) = survey(&format!("{}\n{}\n", json("a"), json("b")));
    assert_eq!(found.workloads[1].source.line, 2);
}

#[test]
fn a_list_as_long_as_a_clusters_is_read() {
    let item = |n: u32| {
        format!(
            "- apiVersion: serving.knative.dev/v1\n  kind: Service\n  metadata: {{name: s{n}}}\n  spec: {{template: {{spec: \
             {{containers: [{{image: a, env: [{}]}}]}}}}}}\n",
            "{name: A, value: b}, ".repeat(40)
        )
    };
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{}", (0..1_600).map(item).collect::<String>());
    let (found, findings) = survey(&list);
    assert_eq!((found.workloads.len(), findings.faults), (1_600, vec![]));
    let documents: String = (0..1_100).map(|n| format!("---\n{}", service(&format!("s{n}"), ""))).collect();
    assert_eq!(survey(&documents).0.workloads.len(), 1_100);
}

#[test]
fn a_name_that_is_there_twice_is_told() {
    let twice = format!("{}---\n{}", service("web", ""), service("web", ""));
    let (_, findings) = survey(&twice);
    assert_eq!(
        shown(&findings.faults),
        ["f.yaml:6: Service default/web: metadata.name: is defined already at f.yaml:1"]
    );
    let elsewhere = service("web", "").replace("name: web", "name: web, namespace: shop");
    let (_, findings) = survey(&format!("{}---\n{elsewhere}", service("web", "")));
    assert_eq!(findings.faults, []);
    assert_eq!(
        findings.warnings[0].to_string(),
        "f.yaml:6: Service shop/web: metadata.name: Service default/web (f.yaml:1) has the same name: on one machine both \
         would answer to the host web, and `pilotlight run` refuses them together"
    );
}

#[test]
fn names_that_many_share_are_not_told_one_by_one() {
    let all: String = (0..20)
        .map(|n| {
            format!(
                "---\n{}",
                service("web", "").replace("name: web", &format!("name: web, namespace: n{n}"))
            )
        })
        .collect();
    let (_, findings) = survey(&all);
    assert_eq!((findings.faults.len(), findings.warnings.len()), (0, 6));
    assert_eq!(findings.warnings[5].to_string(), "14 more objects share a name with an earlier one");
}

#[test]
fn what_another_object_of_the_files_made_is_passed_over() {
    let owned = |kind: &str, name: &str, owner: &str| {
        format!(
            "---\napiVersion: serving.knative.dev/v1\nkind: {kind}\nmetadata: {{name: {name}, ownerReferences: [{{kind: {owner}, \
             name: web, controller: true}}]}}\nspec: {{template: {{spec: {{containers: [{{image: a}}]}}}}, containers: [{{image: \
             a}}]}}\n"
        )
    };
    let made = format!(
        "{}{}",
        owned("Configuration", "web", "Service"),
        owned("Revision", "web-1", "Configuration")
    );
    let (found, findings) = survey(&format!("{}{made}", service("web", "")));
    assert_eq!((names(&found), findings.faults), (vec!["default/web".to_owned()], vec![]));
    assert_eq!(
        findings.warnings[0].to_string(),
        "f.yaml: Configuration web, Revision web-1 are made by other objects here; they are passed over"
    );
    // Alone they are all there is.
    let (found, _) = survey(&owned("Configuration", "web", "Service"));
    assert_eq!(found.workloads[0].kind, Kind::Configuration);
}

#[test]
fn a_version_or_kind_that_is_nearly_known_is_told() {
    let fault =
        |from: &str, to: &str| shown(&survey(&service("a", "").replace(from, to)).1.faults).join("\n");
    assert_eq!(
        fault("serving.knative.dev/v1", "serving.knative.dve/v1"),
        "f.yaml:1: Service default/a: apiVersion: \"serving.knative.dve/v1\" is no known version of Service; known are \
         serving.knative.dev/v1, serving.knative.dev/v1beta1, serving.knative.dev/v1alpha1"
    );
    assert_eq!(
        fault("kind: Service", "kind: Servcie"),
        "f.yaml:2: Servcie default/a: kind: \"Servcie\" is unknown; did you mean \"Service\"?"
    );
    let inference = "apiVersion: serving.kserve.io/v1alpha2\nkind: InferenceService\nmetadata: {name: a}\n";
    assert!(shown(&survey(inference).1.faults)[0].contains("known are serving.kserve.io/v1beta1"));
    let old = "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\n";
    assert!(shown(&survey(old).1.faults)[0].contains("known are apps/v1, "));
    // Kubernetes' own Service and other people's Configurations are none of ours.
    let plain = format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n---\napiVersion: pkg.crossplane.io/v1\n\
                         kind: Configuration\nmetadata: {{name: a}}\n",
        service("a", "")
    );
    let (_, findings) = survey(&plain);
    assert_eq!(findings.faults, []);
    assert_eq!(
        findings.warnings[0].to_string(),
        "f.yaml: Service a, Configuration a are nothing to scale; they are passed over"
    );
}

#[test]
fn files_without_anything_to_scale_are_notes_beside_others() {
    let (one, other) = (service("a", ""), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    let files = [
        Manifest { file: "a.yaml", text: &one },
        Manifest { file: "b.yaml", text: other },
        Manifest { file: "c.yaml", text: "# nothing\n" },
    ];
    let (_, findings) = workload::survey(&files, None);
    assert_eq!(findings.faults, []);
    let said: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["c.yaml: is empty", "b.yaml: holds nothing to scale, only Namespace shop"]);
}

#[test]
fn a_template_is_to_be_rendered_first() {
    let (_, findings) = survey(&service("{{ .Values.name }}", ""));
    let [fault] = &findings.faults[..] else { panic!("{:?}", findings.faults) };
    assert!(fault.to_string().starts_with("f.yaml:3: is a template, which line 3 shows"), "{fault}");
    let (_, findings) = survey(&service("a", "autoscaling.knative.dev/target: \"{{ .Values.target }}\""));
    assert!(shown(&findings.faults)[0].ends_with("; render it first, as with `helm template`"));
}

#[test]
fn a_short_name_of_a_class_is_most_likely_its_long_one() {
    for (written, meant) in [
        ("kpa", "; did you mean `kpa.autoscaling.knative.dev`?"),
        ("hpa", "; did you mean `hpa.autoscaling.knative.dev`?"),
        ("kpa.autoscaling.knative.de", "; did you mean `kpa.autoscaling.knative.dev`?"),
        ("hpa.autoscaling.knative.dev", ""),
        ("ours.example.com", ""),
    ] {
        let (_, findings) = survey(&service("a", &format!("autoscaling.knative.dev/class: {written}")));
        let expected = format!("default/a belongs to the autoscaler {written}; it is left alone{meant}");
        assert_eq!(findings.warnings[0].advice, expected);
    }
}

#[test]
fn of_several_ports_the_one_with_the_right_name_counts_outside_of_knative() {
    let ports = |kind: &str, version: &str, ports: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{template: {{spec: {{containers: [{{image: a, \
             ports: [{ports}], readinessProbe: {{httpGet: {{port: metrics}}}}}}]}}}}}}\n"
        )
    };
    let named = "{name: metrics, containerPort: 9102}, {name: http, containerPort: 8080}";
    for kind in ["Deployment", "StatefulSet", "ReplicaSet"] {
        let (found, findings) = survey(&ports(kind, "apps/v1", named));
        assert_eq!((found.workloads[0].container.port, &findings.faults), (Some(8080), &vec![]));
        assert_eq!(findings.warnings[0].advice, "several ports; requests come in on http 8080, by its name");
        let probe = found.workloads[0].readiness_probe.as_ref().unwrap();
        assert_eq!(probe["httpGet"]["port"], 9102);
    }
    let (found, findings) = survey(&ports("Deployment", "apps/v1", "{containerPort: 1}, {containerPort: 2}"));
    assert_eq!(found.workloads[0].container.port, Some(1));
    assert_eq!(findings.warnings[0].advice, "several ports; requests come in on 1, the first");
    for kind in ["Service", "Configuration"] {
        let (_, findings) = survey(&ports(kind, "serving.knative.dev/v1", named));
        assert_eq!(findings.faults[0].rule, "has more than one port; requests come in on a single one");
    }
}
