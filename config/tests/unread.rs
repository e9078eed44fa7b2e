//! Warnings about fields and annotations without effect: what was meant, and what is in force. Valid manifests get none.

use pilotlight_config::workload::{self, Manifest, Workloads};
use pilotlight_config::{Findings, Warning};

fn survey(text: &str) -> (Workloads, Findings) {
    workload::survey(&[Manifest { file: "f.yaml", text }], None)
}

/// The warnings of a legal file.
fn told(text: &str) -> Vec<String> {
    let (_, findings) = survey(text);
    assert_eq!(findings.faults, [], "{text}");
    findings.warnings.iter().map(ToString::to_string).collect()
}

/// Key and advice of all warnings of a legal file.
fn advice(text: &str) -> Vec<(String, String)> {
    let (_, findings) = survey(text);
    assert_eq!(findings.faults, [], "{text}");
    findings.warnings.into_iter().map(|Warning { key, advice, .. }| (key, advice)).collect()
}

fn one(text: &str) -> (String, String) {
    let mut all = advice(text);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn knative(metadata: &str, template: &str, pod: &str) -> String {
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: a{metadata}}}\n\
         spec:\n  template: {{{template} spec: {{{pod} containers: [{{image: a}}]}}}}\n"
    )
}

#[test]
fn a_misspelt_field_is_told_with_what_is_in_force() {
    for (template, pod, key, expected) in [
        (
            "",
            "containerConcurency: 5,",
            "spec.template.spec.containerConcurency",
            "unknown field; did you mean `containerConcurrency`? In force: 0, no limit",
        ),
        (
            "",
            "timeoutSecnds: 5,",
            "spec.template.spec.timeoutSecnds",
            "unknown field; did you mean `timeoutSeconds`? In force: 300 s",
        ),
        (
            "",
            "containerConcurency: 5, containerConcurrency: 2,",
            "spec.template.spec.containerConcurency",
            "unknown field; did you mean `containerConcurrency`? In force: 2, from spec.template.spec.containerConcurrency",
        ),
        (
            "metdata: {annotations: {}},",
            "",
            "spec.template.metdata",
            "unknown field; did you mean `metadata`?",
        ),
        (
            "metadata: {anotations: {}},",
            "",
            "spec.template.metadata.anotations",
            "unknown field; did you mean `annotations`? In force: none",
        ),
        ("", "whatever: 5,", "spec.template.spec.whatever", "unknown field; it has no effect"),
    ] {
        assert_eq!(one(&knative("", template, pod)), (key.to_owned(), expected.to_owned()));
    }
    let container = |fields: &str| {
        one(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{template: {{spec: {{containers: [{{{fields}}}]}}}}}}\n"
        ))
    };
    assert_eq!(
        container("comand: [a]").1,
        "unknown field; did you mean `command`? In force: the image's own"
    );
    assert_eq!(container("enw: []").1, "unknown field; did you mean `env`? In force: no variables");
    assert_eq!(
        container("env: [{name: A, vale: b}]"),
        (
            "spec.template.spec.containers[0].env[0].vale".to_owned(),
            "unknown field; did you mean `value`? In force: an empty text".to_owned()
        )
    );
    assert_eq!(container("readinessProbe: {httpGet: {pth: /}}").1, "unknown field; did you mean `path`?");
    let (_, port) = container("ports: [{contanerPort: 1}]");
    assert_eq!(port, "unknown field; did you mean `containerPort`? In force: 8080");
}

#[test]
fn a_misplaced_field_is_told_with_its_place() {
    let service = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec:\n  containerConcurrency: 3\n  \
                   template: {spec: {containers: [{image: a, timeoutSeconds: 3}]}}\n";
    assert_eq!(
        told(service),
        [
            "f.yaml:5: Service default/a: spec.containerConcurrency: unknown field here; it belongs below \
             spec.template.spec. In force: 0, no limit",
            "f.yaml:6: Service default/a: spec.template.spec.containers[0].timeoutSeconds: unknown field here; it belongs \
             below spec.template.spec. In force: 300 s",
        ]
    );
    let timeout = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: a}\nspec: {predictor: \
                   {timeoutSeconds: 5, containers: [{image: a}]}}\n";
    assert_eq!(one(timeout).1, "unknown field; did you mean `timeout`? In force: 300 s");
    let predictor = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: a}\nspec: {minReplicas: 0, \
                     predictor: {containers: [{image: a}]}}\n";
    assert_eq!(
        one(predictor),
        (
            "spec.minReplicas".to_owned(),
            "unknown field here; it belongs below spec.predictor. In force: 1".to_owned()
        )
    );
}

#[test]
fn annotations_where_nobody_reads_them_are_told_with_the_right_place() {
    let target = "annotations: {autoscaling.knative.dev/target: \"10\"},";
    let right = "spec.template.metadata.annotations";
    let lost = format!(
        "no effect here; annotations belong below {right}. In force: the defaults, and not target 10"
    );
    assert_eq!(one(&knative("", target, "")), ("spec.template.annotations".to_owned(), lost.clone()));
    assert_eq!(one(&knative("", "", target)), ("spec.template.spec.annotations".to_owned(), lost));
    let bare = knative("", "metadata: {autoscaling.knative.dev/target: \"10\"},", "");
    assert_eq!(one(&bare).1, format!("no effect here: it is an annotation, and belongs below {right}"));
    let label = knative("", "metadata: {labels: {autoscaling.knative.dev/target: \"10\"}},", "");
    assert_eq!(one(&label).1, format!("no effect: a label sets nothing; write it below {right}"));
    let deadline = knative(", annotations: {serving.knative.dev/progress-deadline: 60s}", "", "");
    assert_eq!(one(&deadline).1, format!("no effect here: write it below {right}. In force: 600 s"));
}

#[test]
fn a_misspelt_prefix_is_told() {
    for (written, meant) in [
        ("autoscaling.knative.dve/target", "autoscaling.knative.dev/target"),
        ("autoscalling.knative.dev/min-scale", "autoscaling.knative.dev/min-scale"),
        ("serving.knative.dev/max-scale", "autoscaling.knative.dev/max-scale"),
        ("max-scale", "autoscaling.knative.dev/max-scale"),
    ] {
        let text = knative("", &format!("metadata: {{annotations: {{{written}: \"1\"}}}},"), "");
        assert_eq!(
            one(&text),
            (
                format!("spec.template.metadata.annotations.{written}"),
                format!("no effect: nobody knows an annotation of this name; did you mean `{meant}`?")
            )
        );
    }
}

#[test]
fn what_means_nothing_on_one_machine_is_told_once_a_file() {
    let service = |name: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {name}}}
spec:
  traffic: [{{revisionName: a-1, percent: 90}}, {{latestRevision: true, percent: 10}}]
  template:
    spec:
      volumes: [{{name: v, emptyDir: {{}}}}]
      initContainers: [{{image: a}}]
      imagePullSecrets: [{{name: a}}]
      serviceAccountName: a
      nodeSelector: {{a: b}}
      enableServiceLinks: false
      containers:
        - image: a
          ports: [{{containerPort: 1}}]
          volumeMounts: [{{name: v, mountPath: /a}}]
          livenessProbe: {{tcpSocket: {{}}}}
          startupProbe: {{tcpSocket: {{}}}}
          resources: {{limits: {{memory: 1Gi}}}}
          env: [{{name: T, valueFrom: {{secretKeyRef: {{name: a, key: b}}}}}}]
        - image: b
"
        )
    };
    let fields = |text: &str| -> Vec<String> {
        let all = advice(text).into_iter();
        all.map(|(key, _)| key.rsplit('.').next().unwrap_or_default().to_owned()).collect()
    };
    let expected = [
        "traffic",
        "volumes",
        "initContainers",
        "imagePullSecrets",
        "serviceAccountName",
        "nodeSelector",
        "containers",
        "volumeMounts",
        "livenessProbe",
        "startupProbe",
        "resources",
        "env[0]",
    ];
    assert_eq!(fields(&service("a")), expected);
    let hundred: String = (0..100).map(|n| format!("---\n{}", service(&format!("s{n}")))).collect();
    assert_eq!(fields(&hundred), expected);
    assert!(advice(&hundred).iter().all(|(_, advice)| advice.ends_with("(so in 100 objects)")));
}

#[test]
fn replicas_and_the_parts_of_a_predictor_are_told() {
    let deployment = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\nspec: {replicas: 3, serviceName: a, \
                      template: {spec: {containers: [{image: a}]}}}\n";
    assert_eq!(one(deployment).1, "left out on one machine: the number of pods follows the requests");
    let predictor = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: a}\nspec: {predictor: \
                     {canaryTrafficPercent: 10, model: {modelFormat: {name: sklearn}, image: a, storageUri: \"gs://a\"}}}\n";
    let keys: Vec<String> = advice(predictor).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["spec.predictor.canaryTrafficPercent", "spec.predictor.model.storageUri"]);
}

#[test]
fn what_an_api_server_fills_in_is_not_told() {
    let dump = "apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: a
  namespace: shop
  uid: 3f1c9b1e-0000-0000-0000-000000000000
  resourceVersion: \"7\"
  generation: 1
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  managedFields: [{manager: kubectl, fieldsV1: {\"f:spec\": {}}}]
  annotations:
    serving.knative.dev/creator: admin
    serving.knative.dev/lastModifier: admin
    client.knative.dev/user-image: a
    kubectl.kubernetes.io/last-applied-configuration: \"{}\"
spec:
  template:
    metadata: {creationTimestamp: null, annotations: {client.knative.dev/nonce: x, prometheus.io/scrape: \"true\"}}
    spec:
      containerConcurrency: 0
      enableServiceLinks: false
      timeoutSeconds: 300
      containers:
        - name: user-container
          image: a
          imagePullPolicy: Always
          terminationMessagePath: /dev/termination-log
          terminationMessagePolicy: File
          ports: [{name: http1, containerPort: 8080, protocol: TCP}]
          readinessProbe: {successThreshold: 1, tcpSocket: {port: 0}}
          resources: {}
          securityContext: {}
      dnsPolicy: ClusterFirst
      restartPolicy: Always
      schedulerName: default-scheduler
      terminationGracePeriodSeconds: 30
  traffic: [{latestRevision: true, percent: 100}]
status: {url: \"http://a\", anything: {at: all}}
";
    assert_eq!(told(dump), Vec::<String>::new());
}

#[test]
fn a_deployment_of_many_fields_has_no_unknown_one() {
    let text = "apiVersion: apps/v1
kind: Deployment
metadata: {name: a, labels: {app: a}, ownerReferences: [], finalizers: []}
spec:
  progressDeadlineSeconds: 60
  revisionHistoryLimit: 3
  selector: {matchLabels: {app: a}, matchExpressions: [{key: a, operator: In, values: [b]}]}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: a}}
    spec:
      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 1, fsGroup: 2, seccompProfile: {type: RuntimeDefault}}
      tolerations: [{key: a, operator: Equal, value: b, effect: NoSchedule}]
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: a}}}]
      volumes:
        - {name: a, configMap: {name: a, items: [{key: a, path: b}], defaultMode: 420}}
        - {name: b, secret: {secretName: b, optional: true}}
        - {name: c, persistentVolumeClaim: {claimName: c}}
        - {name: d, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 600}}]}}
        - {name: e, hostPath: {path: /a, type: Directory}}
      containers:
        - name: a
          image: a
          env:
            - {name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: B, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1}}}
            - {name: C, valueFrom: {configMapKeyRef: {name: a, key: b, optional: true}}}
          envFrom: [{prefix: P_, configMapRef: {name: a}}, {secretRef: {name: b}}]
          lifecycle: {preStop: {exec: {command: [sleep, \"5\"]}}, postStart: {httpGet: {path: /, port: 80}}}
          readinessProbe: {httpGet: {path: /, port: http, scheme: HTTP, httpHeaders: [{name: A, value: b}]}, periodSeconds: 5, failureThreshold: 3}
          securityContext: {capabilities: {add: [A], drop: [ALL]}, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true}
          resources: {limits: {cpu: 1, nvidia.com/gpu: 1}, requests: {memory: 1Gi}, claims: [{name: a}]}
          volumeMounts: [{name: a, mountPath: /a, subPath: b, readOnly: true}]
          workingDir: /a
";
    assert!(told(text).iter().all(|line| !line.contains("unknown")), "{:#?}", told(text));
}
