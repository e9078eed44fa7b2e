//! The service that the flags of a command line describe.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use pilotlight_config::workload::{self, Manifest};
use pilotlight_config::{Fault, Parsed, Warning, Workload, duration};
use pilotlight_local::manifests::{self, ManifestError};
use serde_json::json;

/// Settings of the app on the command line; each is the Knative annotation or field of that name.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings of the service (those of files are in the files)")]
pub struct ServiceArgs {
    /// Name of the service, and its host name: NAME.default.localhost [default: after the command]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Fewest pods (min-scale) [default: 0]
    #[arg(long, value_name = "PODS")]
    pub min: Option<String>,
    /// Most pods (max-scale); 0: no limit [default: 0]
    #[arg(long, value_name = "PODS")]
    pub max: Option<String>,
    /// Requests in flight, or per second, that one pod can take (target) [default: 100, or 200 per second]
    #[arg(long, value_name = "NUMBER")]
    pub target: Option<String>,
    /// Percentage of the target to aim for (target-utilization-percentage) [default: 70]
    #[arg(long, value_name = "PERCENT")]
    pub utilization: Option<String>,
    /// Measure of load: concurrency or rps (metric) [default: concurrency]
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// Most requests one pod may run at once (containerConcurrency); 0: no limit [default: 0]
    #[arg(long, value_name = "REQUESTS")]
    pub concurrency: Option<u32>,
    /// Time over which load is averaged (window) [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub window: Option<String>,
    /// Time the last pod stays after the last request (scale-to-zero-pod-retention-period) [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub retention: Option<String>,
    /// Time limit of a request, start-up included (timeoutSeconds) [default: 300s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Path that answers 200 when the app is ready, rather than an open port (readinessProbe)
    #[arg(long, value_name = "PATH")]
    pub readiness_path: Option<String>,
    /// Any other annotation, without the prefix autoscaling.knative.dev/
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = key_value)]
    pub annotations: Vec<(String, String)>,
}

impl ServiceArgs {
    /// Annotations that the flags stand for, without their prefix.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let flags = self.flags().into_iter();
        let flags = flags.filter_map(|(_, key, value)| Some((key.to_owned(), value.clone()?)));
        flags.chain(self.annotations.clone()).collect()
    }

    /// Flags, and the annotations that they stand for.
    fn flags(&self) -> [(&'static str, &'static str, &Option<String>); 7] {
        [
            ("--min", "min-scale", &self.min),
            ("--max", "max-scale", &self.max),
            ("--target", "target", &self.target),
            ("--utilization", "target-utilization-percentage", &self.utilization),
            ("--metric", "metric", &self.metric),
            ("--window", "window", &self.window),
            ("--retention", "scale-to-zero-pod-retention-period", &self.retention),
        ]
    }

    /// What is wrong with flags where no command is given: they say nothing about the services of files. Each names
    /// what to write into the file instead.
    pub fn without_command(&self) -> Vec<String> {
        let written = self.flags().into_iter().filter(|(.., value)| value.is_some());
        let mut given: Vec<(&str, String)> = written
            .map(|(flag, annotation, _)| (flag, format!("the annotation {PREFIX}{annotation}")))
            .collect();
        let fields = [
            (self.name.is_some(), "--name", "metadata.name"),
            (self.concurrency.is_some(), "--concurrency", "containerConcurrency"),
            (self.timeout.is_some(), "--timeout", "timeoutSeconds"),
            (self.readiness_path.is_some(), "--readiness-path", "readinessProbe.httpGet.path"),
        ];
        given.extend(
            fields
                .into_iter()
                .filter(|(is_given, ..)| *is_given)
                .map(|(_, flag, field)| (flag, field.to_owned())),
        );
        let others =
            self.annotations.iter().map(|(key, _)| ("--annotation", format!("the annotation {PREFIX}{key}")));
        let wrong = |(flag, instead)| {
            format!(
                "{flag} is about an app given behind --, and there is none: for services of files write {instead} in the file"
            )
        };
        given.into_iter().chain(others).map(wrong).collect()
    }

    /// The flag for a key of the manifest that the flags stand for.
    fn flag_for(&self, key: &str) -> String {
        if let Some((_, annotation)) = key.split_once(PREFIX) {
            let mut flags = self.flags().into_iter();
            let flag = flags.find(|(_, name, value)| *name == annotation && value.is_some());
            return flag.map_or_else(|| format!("--annotation {annotation}"), |(flag, ..)| flag.to_owned());
        }
        let fields = [
            ("metadata.name", "--name"),
            ("containerConcurrency", "--concurrency"),
            ("timeoutSeconds", "--timeout"),
            ("readinessProbe", "--readiness-path"),
        ];
        let field = fields.into_iter().find(|(field, _)| key.contains(field));
        field.map_or_else(|| key.to_owned(), |(_, flag)| flag.to_owned())
    }

    /// The command as the Knative Service it stands for, read by the parser that reads files: one set of rules.
    pub fn workload(
        &self,
        command: &[String],
        config: Option<&Path>,
    ) -> Result<(Workload, Vec<Warning>), ManifestError> {
        let annotations: BTreeMap<String, String> =
            self.annotations().into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), value)).collect();
        let mut container = json!({ "command": command });
        if let Some(path) = &self.readiness_path {
            container["readinessProbe"] = json!({ "httpGet": { "path": path } });
        }
        let mut spec = json!({ "containers": [container] });
        if let Some(limit) = self.concurrency {
            spec["containerConcurrency"] = limit.into();
        }
        if let Some(timeout) = self.timeout {
            spec["timeoutSeconds"] = (timeout.as_secs_f64().ceil() as u64).into();
        }
        let name = self.name.clone().unwrap_or_else(|| name_after(&command[0]));
        let manifest = json!({
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": { "name": name },
            "spec": { "template": { "metadata": { "annotations": annotations }, "spec": spec } },
        });
        let config = config.map(manifests::config).transpose()?;
        let (config, mut warnings) =
            config.map_or((None, Vec::new()), |(config, warnings)| (Some(config), warnings));
        // JSON is YAML.
        let text = manifest.to_string();
        let Parsed { value, warnings: more } =
            workload::read(&[Manifest { file: COMMAND_LINE, text: &text }], config.as_ref());
        // A fault of the manifest is a fault of a flag.
        let is_ours = |file: &Option<String>| file.as_deref() == Some(COMMAND_LINE);
        warnings.extend(more.into_iter().map(|it| {
            if is_ours(&it.file) {
                let flag = self.flag_for(&it.key);
                it.named(flag)
            } else {
                it
            }
        }));
        let named = |it: Fault| {
            if is_ours(&it.file) {
                let flag = self.flag_for(&it.key);
                it.named(flag)
            } else {
                it
            }
        };
        let mut workloads = value.map_err(|faults| ManifestError::Faulty(faults.map(named)))?.workloads;
        Ok((workloads.remove(0), warnings))
    }
}

/// `./my_app.sh` is `my-app`.
fn name_after(program: &str) -> String {
    let stem = Path::new(program).file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "app".to_owned() } else { name }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not of the form KEY=VALUE")?;
    let key = key.strip_prefix(PREFIX).unwrap_or(key);
    Ok((key.to_owned(), value.to_owned()))
}

const PREFIX: &str = "autoscaling.knative.dev/";
/// Name of the manifest that the flags stand for.
const COMMAND_LINE: &str = "command line";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_named_after_its_program() {
        let names = ["./my_app.sh", "/usr/bin/python3", "App", "..", "./_x_"].map(name_after);
        assert_eq!(names, ["my-app", "python3", "app", "app", "x"]);
    }

    #[test]
    fn flags_become_the_annotations_they_are_named_for() {
        let args = ServiceArgs {
            target: Some("10".to_owned()),
            max: Some("5".to_owned()),
            concurrency: Some(20),
            timeout: Some(Duration::from_millis(1_500)),
            annotations: vec![("panic-window-percentage".to_owned(), "20".to_owned())],
            ..ServiceArgs::default()
        };
        let (workload, warnings) = args.workload(&["true".to_owned()], None).unwrap();
        assert_eq!(warnings, []);
        assert_eq!((workload.spec.target, workload.spec.max_scale), (7.0, Some(5)));
        assert_eq!(workload.spec.panic_window, Duration::from_secs(12));
        assert_eq!(
            (workload.container_concurrency, workload.timeouts.total),
            (20.into(), Duration::from_secs(2))
        );
    }

    #[test]
    fn flags_without_a_command_say_what_to_write_in_the_file() {
        let args = ServiceArgs {
            target: Some("5".to_owned()),
            name: Some("a".to_owned()),
            concurrency: Some(3),
            annotations: vec![("activation-scale".to_owned(), "2".to_owned())],
            ..ServiceArgs::default()
        };
        let about = |flag: &str, instead: &str| {
            format!(
                "{flag} is about an app given behind --, and there is none: for services of files write {instead} in the file"
            )
        };
        assert_eq!(
            args.without_command(),
            [
                about("--target", "the annotation autoscaling.knative.dev/target"),
                about("--name", "metadata.name"),
                about("--concurrency", "containerConcurrency"),
                about("--annotation", "the annotation autoscaling.knative.dev/activation-scale"),
            ]
        );
        assert_eq!(ServiceArgs::default().without_command(), Vec::<String>::new());
    }

    #[test]
    fn all_faults_of_the_flags_come_at_once() {
        let args = ServiceArgs {
            target: Some("ten".to_owned()),
            max: Some("-1".to_owned()),
            ..ServiceArgs::default()
        };
        let error = args.workload(&["true".to_owned()], None).unwrap_err().to_string();
        let faults: Vec<&str> = error.lines().collect();
        assert!(faults.len() == 2 && faults[0].starts_with("--target: \"ten\" is not "), "{error}");
        assert!(faults[1].starts_with("--max: \"-1\" is not "), "{error}");
        let annotations = vec![("window".to_owned(), "soon".to_owned())];
        let error = ServiceArgs { annotations, ..args }.workload(&["true".to_owned()], None).unwrap_err();
        assert!(error.to_string().contains("--annotation window: \"soon\" is not "), "{error}");
    }
}
