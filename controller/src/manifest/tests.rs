use std::path::Path;

use super::*;

/// Compares with the file in the repository, or writes it if `PILOTLIGHT_BLESS` is set.
fn expect_file(name: &str, content: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deploy/kubernetes").join(name);
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::write(&path, content).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == content, "{} is out of date; write it anew with PILOTLIGHT_BLESS=1", path.display());
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object["kind"].as_str()).collect()
}

#[test]
fn the_manifest_is_the_file_of_the_repository() {
    expect_file("pilotlight.yaml", &yaml(&ManifestParams::default()));
    expect_file("crd.yaml", &to_yaml(&custom_resource_definition()));
}

#[test]
fn both_programs_run_restricted_and_roll_without_a_gap() {
    let objects = objects(&ManifestParams::default());
    for name in [NAME, ACTIVATOR_NAME] {
        let spec = &find(&objects, "Deployment", name)["spec"];
        let pod = &spec["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(
            container["image"],
            format!("ghcr.io/pilotlight/pilotlight:{}", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
        assert!(pod["hostNetwork"].is_null());
        find(&objects, "PodDisruptionBudget", name);
    }
    let activator = &find(&objects, "Deployment", ACTIVATOR_NAME)["spec"]["template"]["spec"];
    assert_eq!(activator["terminationGracePeriodSeconds"], 600);
}

#[test]
fn nothing_of_a_users_is_written_but_scales_and_stale_endpoints() {
    let objects = objects(&ManifestParams::default());
    let writes = |name: &str| {
        let rules = find(&objects, "ClusterRole", name)["rules"].as_array().unwrap().clone();
        let mut writes: Vec<String> = Vec::new();
        for rule in rules {
            let texts = |field: &str| -> Vec<String> {
                rule[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
            };
            for resource in texts("resources") {
                let verbs = texts("verbs")
                    .into_iter()
                    .filter(|verb| !["get", "list", "watch"].contains(&verb.as_str()));
                writes.extend(verbs.map(|verb| format!("{verb} {resource}")));
            }
        }
        writes
    };
    let expected = ["patch deployments/scale", "patch statefulsets/scale", "patch replicasets/scale"];
    assert_eq!(writes(ACTIVATOR_NAME), expected);
    let of_controller = writes(NAME);
    for forbidden in ["patch pods", "patch services", "update services", "patch deployments"] {
        assert!(!of_controller.contains(&forbidden.to_owned()), "{forbidden}");
    }
    assert!(of_controller.contains(&"delete endpoints".to_owned()));

    let with = ManifestParams { with_deletion_cost: true, ..ManifestParams::default() };
    let with = super::objects(&with);
    let rules = find(&with, "ClusterRole", NAME)["rules"].as_array().unwrap();
    assert!(rules.contains(&json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]})));
}

#[test]
fn namespaces_that_are_named_are_looked_after_by_roles_alone() {
    let namespaces = vec!["a".to_owned(), "pilotlight-system".to_owned()];
    let objects = objects(&ManifestParams { namespaces, ..ManifestParams::default() });
    assert!(!kinds(&objects).iter().any(|kind| kind.starts_with("ClusterRole")));
    let args = &find(&objects, "Deployment", NAME)["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(*args, json!(["kube", "controller", "--namespace=a,pilotlight-system"]));
    let mut names: Vec<String> = objects
        .iter()
        .map(|object| {
            let part = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            format!("{} {}/{}", object["kind"].as_str().unwrap(), part("namespace"), part("name"))
        })
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "each object is there once");
    assert!(names.contains(&"RoleBinding a/pilotlight-activator".to_owned()));
}
