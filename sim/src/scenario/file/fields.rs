//! Every field a scenario can have: the reader refuses others, and `docs/simulation.md` shows this table.

use std::fmt::Write as _;

use pilotlight_config::Findings;
use pilotlight_config::workload::manifest::Node;

/// A map of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The place: `app`, `load.users.steps[]`; empty for the whole.
    pub path: &'static str,
    /// The meaning.
    pub about: &'static str,
    /// The fields that may be in it.
    pub fields: &'static [Field],
}

/// A field of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name.
    pub name: &'static str,
    /// The form of its value.
    pub value: &'static str,
    /// The value in force where none is written.
    pub default: &'static str,
    /// The meaning.
    pub about: &'static str,
}

impl Section {
    /// Records fields that are none of these; and that it is no map, if so.
    pub(super) fn check(&self, node: &Node<'_>, findings: &mut Findings) {
        if node.value.is_some_and(|value| !value.is_object()) {
            node.fault("is not a map of fields", findings);
            return;
        }
        let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        node.only(&names, findings);
    }
}

/// The sections as Markdown tables, as they stand in `docs/simulation.md`.
pub fn markdown() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let name =
            if section.path.is_empty() { "The whole".to_owned() } else { format!("`{}`", section.path) };
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "### {name}\n\n{}\n\n| field | value | default | what it says |", section.about);
        text.push_str("|---|---|---|---|\n");
        for Field { name, value, default, about } in section.fields {
            let _ = writeln!(text, "| `{name}` | {value} | {default} | {about} |");
        }
        text.push('\n');
    }
    text
}

const fn field(name: &'static str, value: &'static str, default: &'static str, about: &'static str) -> Field {
    Field { name, value, default, about }
}

/// All sections, in the order one writes them.
pub const SECTIONS: &[&Section] = &[
    &ROOT,
    &LOAD,
    &USERS,
    &STEP,
    &APP,
    &PODS,
    &FAILING_STARTS,
    &CLUSTER,
    &NODES,
    &PLATFORM,
    &OUTAGE,
    &CLIENTS,
    &SETTINGS,
];

pub(super) const ROOT: Section = Section {
    path: "",
    about: "Only `load` must be there, and `app.service-time` unless a trace knows how long its requests took.",
    fields: &[
        field("name", "text", "the file's name", "what it is called"),
        field("description", "text", "", "a sentence or two for whoever reads the result"),
        field("duration", "duration", "that of the traffic", "for how long requests are sent; users need it"),
        field("load", "map or list", "", "who sends requests: users, a pattern or a trace"),
        field("app", "map", "", "what a pod does with a request"),
        field("pods", "map", "", "how pods come and go"),
        field("cluster", "map", "room for all", "where pods can run"),
        field("platform", "word or map", "`local`", "what stands between clients, pods and the autoscaler"),
        field("clients", "map", "", "what clients do when there is no good answer"),
        field("slo", "expression", "none", "what is expected of latencies, such as `p95<500ms`"),
        field("settings", "list", "Knative's defaults", "what is tried, side by side"),
    ],
};

pub(super) const LOAD: Section = Section {
    path: "load",
    about: "Users, or one kind of traffic: `constant`, `steps`, `ramp`, `sine`, `diurnal`, `bursts`, `mmpp`, \
            `concurrent`, `trace`, `merge`, `sequence`; as the first of a list, with operators behind it: `scale`, \
            `speed`, `stretch`, `shift`, `cut`, `repeat`.",
    fields: &[field(
        "users",
        "map",
        "",
        "a closed loop: each user waits for an answer before the next request",
    )],
};

pub(super) const USERS: Section = Section {
    path: "load.users",
    about: "Users as Locust has them.",
    fields: &[
        field("steps", "list", "", "how many there are from when on"),
        field("think", "distribution", "`0s`", "from an answer to the same user's next request"),
    ],
};

pub(super) const STEP: Section = Section {
    path: "load.users.steps[]",
    about: "From a time on, so many users.",
    fields: &[
        field("at", "duration", "`0s`", "when they begin to come, or to go"),
        field("users", "number", "", "how many there are to be"),
        field("spawn-rate", "number", "all at once", "how many come per second"),
    ],
};

pub(super) const APP: Section = Section {
    path: "app",
    about: "What a pod does with a request.",
    fields: &[
        field(
            "service-time",
            "distribution",
            "the trace's",
            "how long a request takes that is alone on a pod",
        ),
        field(
            "contention",
            "number",
            "0",
            "the share of the work that only one request can do at a time (sigma)",
        ),
        field("coherency", "number", "0", "the cost of keeping in step with each other (kappa)"),
        field("cores", "cores", "as many as needed", "a pod's cores; requests share them"),
        field("cores-per-request", "number", "1 with `cores`, else 0", "what a request alone keeps busy"),
        field("errors", "share", "0", "answers with status 500"),
    ],
};

pub(super) const PODS: Section = Section {
    path: "pods",
    about: "How pods come and go. A pod is scheduled, then its image is pulled, then it starts; each phase is drawn \
            anew for each pod.",
    fields: &[
        field("schedule", "distribution", "`0s`", "from the wish for a pod to its place on a node"),
        field(
            "provision",
            "distribution",
            "`0s`",
            "from the wish for a node to the node, in a cluster that grows",
        ),
        field("pull", "distribution", "`0s`", "loading the image on a node that does not have it"),
        field("cached-pull", "distribution", "`0s`", "loading it on a node that does"),
        field("init", "distribution", "`0s`", "starting the container; a model is loaded here"),
        field("ready", "distribution", "`0s`", "from then to being ready"),
        field("warm", "number", "what the settings begin with", "pods that are ready when the load begins"),
        field("crash-after", "distribution", "never", "how long a pod that is ready lives"),
        field("failing-starts", "share or map", "none", "starts that fail; a map says how"),
        field(
            "drain-quiet",
            "duration",
            "`500ms`",
            "how long nothing has come to a leaving pod before it ends",
        ),
        field("termination-grace", "duration", "`5m`", "how long a leaving pod may take altogether"),
    ],
};

pub(super) const FAILING_STARTS: Section = Section {
    path: "pods.failing-starts",
    about: "Starts that fail. A pod that failed, or crashed within 10 s, is started again after 100 ms, \
            then later each time, up to 30 s, one pod at a time until one comes up. After three failures in \
            a row, requests that wait for a pod are answered with 503. A request that comes a second after \
            a failure has a start tried at once and waits for it, for up to 5 s; half a minute after the \
            last request nothing is tried unasked, unless pods are wanted without requests.",
    fields: &[
        field("share", "share", "1", "starts that fail"),
        field("after", "distribution", "`0s`", "from the end of the pull until the pod fails"),
        field("until", "duration", "always", "when starts begin to work"),
        field(
            "reason",
            "`exited`, `never-ready`, `cannot-start`",
            "`exited`",
            "how they fail; the last two are given up with the first failure",
        ),
    ],
};

pub(super) const CLUSTER: Section = Section {
    path: "cluster",
    about: "Where pods can run: room for a number of pods; or nodes, each with room for a number of pods or with \
            cores. Pods that find no room wait.",
    fields: &[
        field("pods", "number", "no limit", "pods that have room in all"),
        field("nodes", "number or map", "no limit", "nodes; a map where they come and go"),
        field("pods-per-node", "number", "", "pods that have room on a node"),
        field("cores-per-node", "cores", "", "cores of a node that pods can have"),
        field("cores-per-pod", "cores", "`app.cores`", "cores a pod asks for"),
        field("placement", "`spread`, `pack`", "`spread`", "which node with room a pod goes to"),
        field("max-starting", "number", "any", "pods that may be starting at once"),
        field("max-starting-per-node", "number", "any", "the same on each node"),
        field("image-on-first-nodes", "`true`, `false`", "`false`", "whether the first nodes have the image"),
    ],
};

pub(super) const NODES: Section = Section {
    path: "cluster.nodes",
    about: "Nodes that come when pods find no room, and go when they are empty.",
    fields: &[
        field("initial", "number", "`min`, or 1", "nodes at the beginning"),
        field("min", "number", "`initial`", "never fewer"),
        field("max", "number", "", "never more"),
        field("scan", "duration", "`10s`", "how often somebody looks"),
        field("idle", "duration", "`15m`", "how long a node is empty before it goes"),
    ],
};

pub(super) const PLATFORM: Section = Section {
    path: "platform",
    about: "A word, or a map with the word under `kind`. `local`: as under `pilotlight run`. `knative`, and \
            `kubernetes`: the activator leaves the path when pods can take the load, everybody learns of pods 200 ms \
            late, and the youngest pod goes first. Settings with `hpa` never have an activator.",
    fields: &[
        field(
            "kind",
            "`local`, `knative`, `kubernetes`",
            "`local`",
            "what is true where nothing else is written",
        ),
        field("activator", "`always`, `by-plan`, `never`", "by `kind`", "when the activator is in the path"),
        field("activators", "number", "1", "how many there are"),
        field(
            "activator-queue",
            "number",
            "10000",
            "requests that may wait in each; more are answered with 503",
        ),
        field(
            "request-timeout",
            "duration",
            "`5m`",
            "how long an attempt may take before it is answered with 504",
        ),
        field("endpoint-delay", "duration", "by `kind`", "from a change of pods to everybody knowing"),
        field("scrape-loss", "share", "0", "scrapes that fail"),
        field(
            "outages",
            "list",
            "none",
            "times at which the autoscaler is away; it comes back without memory",
        ),
        field("victim", "`least-busy`, `youngest`", "by `kind`", "which pod goes when there are too many"),
        field("balancing", "`pilotlight`, `knative`", "`pilotlight`", "how an activator chooses among pods"),
    ],
};

pub(super) const OUTAGE: Section = Section {
    path: "platform.outages[]",
    about: "The autoscaler goes away, and comes back without its memory.",
    fields: &[field("at", "duration", "", "when"), field("for", "duration", "", "for how long")],
};

pub(super) const CLIENTS: Section = Section {
    path: "clients",
    about: "What clients do when there is no good answer.",
    fields: &[
        field("timeout", "duration", "none", "how long they wait for an attempt"),
        field("retries", "number", "0", "how often they try again after 502, 503, 504 or their timeout"),
        field("backoff", "duration", "`100ms`", "the pause before the first retry; doubled with each"),
    ],
};

pub(super) const SETTINGS: Section = Section {
    path: "settings[]",
    about: "Settings under trial: `annotations` and `config`, or `file`, or `hpa`, or `pods`.",
    fields: &[
        field("name", "text", "by what is in it", "what they are called"),
        field("annotations", "map", "none", "as on a revision; `autoscaling.knative.dev/` may be left out"),
        field("config", "map or file", "Knative's", "the data of the ConfigMap `config-autoscaler`"),
        field("container-concurrency", "number", "0: no limit", "requests a pod works on at once"),
        field(
            "file",
            "file",
            "",
            "a Knative Service, InferenceService, Deployment or HorizontalPodAutoscaler",
        ),
        field("hpa", "map", "", "the `spec` of a HorizontalPodAutoscaler"),
        field("pods", "number", "", "always so many pods"),
    ],
};
