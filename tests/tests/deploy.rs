//! `config/deploy`: what is written there is about things that exist, here and in Knative's manifests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;
use serde_json::{Value, json};

/// Knative's objects, as far as they are patched: `config/core` of knative/serving.
fn knative(component: &str) -> Value {
    match component {
        "queue-proxy" => json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "config-deployment", "namespace": "knative-serving"},
            "data": {"queue-sidecar-image": ""}}),
        of_deployment => json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": of_deployment, "namespace": "knative-serving"},
            "spec": {"template": {"spec": {"containers": [{"name": of_deployment, "image": ""}]}}}}),
    }
}

#[test]
fn each_patch_puts_an_image_in_the_place_of_knatives_and_changes_nothing_else() {
    for component in COMPONENTS {
        let patch = yaml(&deploy().join("knative").join(component).join("patch.yaml"));
        let mut images = Vec::new();
        assert_eq!(without_images(patch, &mut images), knative(component), "{component}");
        assert_eq!(
            images,
            [format!("registry.example/pilotlight-{component}:{}", env!("CARGO_PKG_VERSION"))]
        );
    }
}

#[test]
fn each_component_is_its_patch_and_the_example_has_all_three() {
    for component in COMPONENTS {
        let kustomization = yaml(&deploy().join("knative").join(component).join("kustomization.yaml"));
        let expected = json!({"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component",
            "patches": [{"path": "patch.yaml"}]});
        assert_eq!(kustomization, expected, "{component}");
    }
    let example = yaml(&deploy().join("knative/example/kustomization.yaml"));
    let listed = example["components"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let listed: BTreeSet<String> = listed.map(str::to_owned).collect();
    assert_eq!(listed, COMPONENTS.map(|component| format!("../{component}")).into());
}

/// With `kubectl` where there is one; its kustomize needs no cluster.
#[test]
fn the_components_build_on_top_of_knatives_objects() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        println!("kubectl is not installed: the components are not built");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for component in COMPONENTS {
        let (from, to) = (deploy().join("knative").join(component), folder.path().join(component));
        fs::create_dir(&to).expect("a folder");
        for file in ["kustomization.yaml", "patch.yaml"] {
            fs::copy(from.join(file), to.join(file)).expect("a copy");
        }
        fs::write(folder.path().join(format!("{component}.json")), knative(component).to_string())
            .expect("a file");
    }
    let kustomization = json!({"resources": COMPONENTS.map(|component| format!("{component}.json")), "components": COMPONENTS});
    fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).expect("a file");
    let built = Command::new("kubectl").arg("kustomize").arg(folder.path()).output().expect("kubectl");
    let (text, error) = (String::from_utf8_lossy(&built.stdout), String::from_utf8_lossy(&built.stderr));
    assert!(built.status.success(), "{error}");
    for component in COMPONENTS {
        assert!(
            text.contains(&format!("registry.example/pilotlight-{component}:")),
            "{component} in\n{text}"
        );
    }
}

#[test]
fn the_dockerfile_builds_and_starts_executables_that_exist() {
    let dockerfile = fs::read_to_string(deploy().join("docker/Dockerfile")).expect("a Dockerfile");
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let executables: BTreeSet<(String, String)> = metadata
        .workspace_packages()
        .iter()
        .flat_map(|package| {
            package
                .targets
                .iter()
                .filter(|target| target.is_bin())
                .map(|target| (package.name.to_string(), target.name.clone()))
        })
        .collect();
    let built: BTreeSet<(String, String)> = dockerfile.lines().filter_map(built).collect();
    assert_eq!(built.len(), images().count(), "{built:?}");
    let missing: Vec<_> = built.difference(&executables).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (_, executable) in &built {
        let copy = format!("/source/target/dist/{executable} /{executable}");
        assert!(dockerfile.contains(&copy), "{copy}");
        assert!(dockerfile.contains(&format!("ENTRYPOINT [\"/{executable}\"]")), "{executable}");
    }
}

#[test]
fn images_hold_nothing_but_the_executable_and_run_as_a_number() {
    let dockerfile = fs::read_to_string(deploy().join("docker/Dockerfile")).expect("a Dockerfile");
    let stages: Vec<&str> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert!(stages.contains(&"FROM scratch AS base"), "{stages:?}");
    for component in images() {
        assert!(stages.contains(&format!("FROM base AS {component}").as_str()), "{component} in {stages:?}");
    }
    let users: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
    assert_eq!(users, ["65532:65532"]);
    for label in ["title", "description", "version", "revision", "licenses"] {
        assert!(dockerfile.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    let toolchain = format!("ARG RUST={}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(dockerfile.lines().any(|line| line == toolchain), "{toolchain}");
}

/// Images for Knative, and the one for plain Kubernetes.
fn images() -> impl Iterator<Item = &'static str> {
    COMPONENTS.into_iter().chain(["pilotlight"])
}

/// Package and executable of a line that builds one.
fn built(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.strip_prefix("RUN cargo build ")?.split_whitespace().collect();
    let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1].to_owned());
    Some((after("-p")?, after("--bin")?))
}

/// The same object, with empty images; the images.
fn without_images(object: Value, images: &mut Vec<String>) -> Value {
    match object {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(image) if ["image", "queue-sidecar-image"].contains(&key.as_str()) => {
                    images.push(image);
                    (key, json!(""))
                }
                value => (key, without_images(value, images)),
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| without_images(item, images)).collect(),
        other => other,
    }
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deploy")
}

const COMPONENTS: [&str; 3] = ["activator", "autoscaler", "queue-proxy"];
