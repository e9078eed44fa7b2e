//! The reference page and the example ConfigMap, written from the one table of settings.
//!
//! Both are kept in the repository and compared with what is written here by a test; run it with
//! `PILOTLIGHT_BLESS=1` to write them anew.

use crate::keys::{Entry, annotation, config_map};

/// The page `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    page += "\n## ConfigMap `config-autoscaler`\n\n";
    page += "| key | type | default | must be | for one revision |\n|---|---|---|---|---|\n";
    for entry in config_map::ALL {
        let counterpart = entry.counterpart().map_or(String::from("-"), |name| format!("`{}`", short(name)));
        page += &format!(
            "| [`{0}`](#{1}) | {2} | `{3}` | {4} | {counterpart} |\n",
            entry.name(),
            anchor(entry.name()),
            entry.type_name(),
            entry.default(),
            entry.rule(),
        );
    }
    for entry in config_map::ALL {
        page += &section(*entry, &format!("\n```yaml\n{}: \"{}\"\n```\n", entry.name(), entry.example()));
    }
    page += "\n## Annotations of a revision\n\n";
    page += ANNOTATIONS;
    page += "\n| annotation | also written | type | where absent | must be |\n|---|---|---|---|---|\n";
    for entry in annotation::ALL {
        let alias = entry.alias().map_or(String::from("-"), |name| format!("`{}`", short(name)));
        page += &format!(
            "| [`{0}`](#{1}) | {alias} | {2} | {3} | {4} |\n",
            short(entry.name()),
            anchor(entry.name()),
            entry.type_name(),
            entry.default(),
            entry.rule(),
        );
    }
    for entry in annotation::ALL {
        page += &section(*entry, &format!("\n```yaml\n{}: \"{}\"\n```\n", entry.name(), entry.example()));
    }
    page
}

/// The file `config/deploy/config-autoscaler.yaml`.
pub fn example_config_map() -> String {
    let mut file = String::from(CONFIG_MAP_HEAD);
    for line in example_data().lines() {
        file += &if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    }
    file
}

/// The value of the key `_example`: every key of the ConfigMap with its default, and what it is about.
pub fn example_data() -> String {
    let mut file = String::new();
    for (at, entry) in config_map::ALL.iter().enumerate() {
        if at > 0 {
            file += "\n";
        }
        let about = format!("{} Must be {}.", entry.doc(), entry.rule());
        for line in wrap(&about, COMMENT_WIDTH) {
            file += &format!("# {line}\n");
        }
        if let Some(annotation) = entry.counterpart() {
            file += &format!("# For one revision: {annotation}\n");
        }
        file += &format!("{}: \"{}\"\n", entry.name(), entry.default());
    }
    file
}

const COMMENT_WIDTH: usize = 92;

const INTRODUCTION: &str = "\
# Configuration

<!-- Written from the table of settings in config/src/keys. Do not edit: change the table and run
     PILOTLIGHT_BLESS=1 cargo test -p pilotlight-config -->

Settings are Knative's, by name, meaning, default and bounds. The ConfigMap `config-autoscaler` holds what applies
to every revision; the operator's KnativeServing holds the same below `spec.config.autoscaler`, and is read wherever the
ConfigMap is. Annotations say what one revision wants otherwise. `pilotlight lint FILE...` checks both, shows what is in
force and explains it; also for what a cluster made of them (`kubectl get kpa -A -o yaml | pilotlight lint -`).

Values are strings. A duration is written as in Go: `30s`, `1m30s`, `500ms`; a bare number is not a duration, except
`0`. A bool is `true`, `false`, `1`, `0`, `t` or `f`. Numbers may be infinite (`Inf`) but must be numbers: `NaN`,
which Knative lets pass, is refused. Unknown keys are passed over with a warning.
";

const ANNOTATIONS: &str = "\
They stand on the revision template: `spec.template.metadata.annotations` of a Knative Service, `metadata.annotations`
of an InferenceService, the pod template of a Deployment. The second spelling counts only where the first is absent.
";

const CONFIG_MAP_HEAD: &str = "\
# Written from the table of settings in config/src/keys. Do not edit: change the table and run
# PILOTLIGHT_BLESS=1 cargo test -p pilotlight-config
apiVersion: v1
kind: ConfigMap
metadata:
  name: config-autoscaler
  namespace: knative-serving
  labels:
    app.kubernetes.io/name: knative-serving
    app.kubernetes.io/component: autoscaler
data:
  # Nothing in this block is in force. It shows every key with its default; to change one, copy it
  # to the level of _example.
  _example: |
";

fn section(entry: &dyn Entry, example: &str) -> String {
    let text = wrap(entry.doc(), 116).join("\n");
    format!("\n### {}\n\n{text}\n{example}", short(entry.name()))
        // Both tables have keys of the same short name; the anchor keeps them apart.
        .replacen("### ", &format!("<a id=\"{}\"></a>\n\n### ", anchor(entry.name())), 1)
}

fn short(name: &str) -> &str {
    name.strip_prefix(annotation::PREFIX).unwrap_or(name)
}

fn anchor(name: &str) -> String {
    name.replace(['/', '.'], "-")
}

/// Breaks a paragraph into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
