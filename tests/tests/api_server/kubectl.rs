//! kubectl with manifests of several kinds, among them one of a CustomResourceDefinition.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use pilotlight_tests::cluster::api::ApiServer;

/// kubectl at a server; none, which is said, where it is not installed.
struct Kubectl<'a>(&'a ApiServer);

impl<'a> Kubectl<'a> {
    fn at(server: &'a ApiServer) -> Option<Self> {
        let is_there = Command::new("kubectl").args(["version", "--client"]).output().is_ok();
        if !is_there {
            println!("skipped: kubectl is not installed");
        }
        is_there.then_some(Kubectl(server))
    }

    fn run(&self, args: &str, manifests: &str) -> Output {
        let mut command = Command::new("kubectl");
        command.args(args.split(' ')).env("KUBECONFIG", self.0.kubeconfig());
        let home = self.0.kubeconfig().parent().map(std::path::Path::to_path_buf).expect("a folder");
        command.env("HOME", home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().expect("started");
        running.stdin.take().expect("piped").write_all(manifests.as_bytes()).expect("written");
        running.wait_with_output().expect("its output")
    }

    /// What it says, if it succeeds.
    fn says(&self, args: &str, manifests: &str) -> String {
        let ended = self.run(args, manifests);
        assert!(ended.status.success(), "kubectl {args}: {ended:?}");
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }

    /// The words of the first line that begins with `first`.
    fn row(&self, args: &str, first: &str) -> Vec<String> {
        let said = self.says(args, "");
        let row = said.lines().find(|line| line.starts_with(first));
        let row = row.unwrap_or_else(|| panic!("kubectl {args}: no {first} in\n{said}"));
        row.split_whitespace().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn manifests_are_applied_shown_explained_and_deleted() {
    let server = ApiServer::start().await;
    let Some(kubectl) = Kubectl::at(&server) else { return };
    let made = kubectl.says("apply -f -", BIRDS);
    assert_eq!(made, "customresourcedefinition.apiextensions.k8s.io/birds.example.org created\n");
    let made = kubectl.says("apply -f -", MANIFESTS);
    assert!(made.lines().count() == 4 && made.lines().all(|line| line.ends_with(" created")), "{made}");
    let same = kubectl.says("apply -f -", MANIFESTS);
    // kubectl replaces the selector of a budget each time, and says so.
    let mut others = same.lines().filter(|line| !line.starts_with("poddisruptionbudget"));
    assert!(others.all(|line| line.ends_with(" unchanged")), "{same}");
    let applied = kubectl.says("apply --server-side -f -", MANIFESTS);
    assert!(applied.lines().all(|line| line.ends_with(" serverside-applied")), "{applied}");

    assert_eq!(kubectl.row("get birds", "NAME"), ["NAME", "COLOR", "READY", "AGE"]);
    assert_eq!(kubectl.row("get bi -o wide", "NAME"), ["NAME", "COLOR", "READY", "WINGS", "AGE"]);
    assert_eq!(kubectl.row("get bird -o wide", "robin")[..3], ["robin", "red", "2"]);
    assert_eq!(kubectl.row("get animals", "robin")[..2], ["robin", "red"]);
    assert_eq!(kubectl.row("get hpa", "web")[..5], ["web", "Deployment/web", "1", "4", "0"]);
    assert_eq!(kubectl.row("get pdb", "web")[..4], ["web", "1", "N/A", "0"]);
    assert_eq!(kubectl.row("api-resources", "birds"), ["birds", "bi", "example.org/v1", "true", "Bird"]);
    assert!(kubectl.says("explain bird.spec.color", "").contains("The color of its feathers."));
    assert!(kubectl.says("describe bird robin", "").contains("Color:     red"));
    assert!(kubectl.says("describe hpa web", "").contains("Max replicas:"));

    kubectl.says("scale bird robin --replicas 3", "");
    assert_eq!(kubectl.says("get bird robin -o jsonpath={.spec.replicas}", ""), "3");
    let deleted = kubectl.says("delete --wait=false -f -", MANIFESTS);
    assert!(
        deleted.lines().count() == 4 && deleted.lines().all(|line| line.ends_with(" deleted")),
        "{deleted}"
    );
    // A finalizer holds the bird.
    assert!(kubectl.says("get bird robin -o yaml", "").contains("deletionTimestamp"));
    let waited = kubectl.run("delete bird robin --timeout 1s", "");
    assert!(!waited.status.success(), "{waited:?}");
    kubectl.says(r#"patch bird robin --type merge -p {"metadata":{"finalizers":null}}"#, "");
    assert_eq!(kubectl.says("get all,birds,hpa,pdb", ""), "");
}

const BIRDS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: birds.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: birds, singular: bird, kind: Bird, shortNames: [bi], categories: [animals]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Wings, type: integer, jsonPath: .spec.wings, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              color: {type: string, description: The color of its feathers.}
              wings: {type: integer}
              replicas: {type: integer}
"#;

const MANIFESTS: &str = r"
apiVersion: example.org/v1
kind: Bird
metadata: {name: robin, namespace: default, finalizers: [example.org/hold]}
spec: {color: red, wings: 2, replicas: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.org/web}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: default}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 4}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
";
