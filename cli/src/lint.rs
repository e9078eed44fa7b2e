//! `pilotlight lint`: checks manifests and settings without running anything, shows the settings in force and their
//! effects. Results go to standard output; faults and warnings to standard error, one to a line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use pilotlight_config::workload::{self, Manifest};
use pilotlight_config::{Fault, Faults, explain};
use pilotlight_local::manifests::{self, ManifestError};
use pilotlight_process::{WrongSettings, chain};

use crate::logging::Format;
use crate::output::print;

/// Check manifests, show the settings in force and their effects in plain words
#[derive(Debug, Args)]
pub struct LintArgs {
    /// YAML or JSON files, or folders of them; - is standard input. Read are Knative Services, Configurations,
    /// Revisions and PodAutoscalers, InferenceServices, Deployments, StatefulSets, HorizontalPodAutoscalers,
    /// ScaledObjects, and the defaults: ConfigMap config-autoscaler or KnativeServing
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Defaults: a config-autoscaler ConfigMap or a KnativeServing in YAML. Without it one among the files counts
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the result
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Checks the files. Exits with 1 if anything in them is a fault.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let (config, mut warnings, mut faults) = match &args.config {
        Some(path) => match manifests::config(path) {
            Ok((config, warnings)) => (Some(config), warnings, Vec::new()),
            Err(ManifestError::Faulty(faults)) => (None, Vec::new(), faults.into_vec()),
            Err(other) => return Err(refused(&other)),
        },
        None => (None, Vec::new(), Vec::new()),
    };
    let (mut texts, mut unreadable) = (Vec::new(), WrongSettings::default());
    for file in manifests::texts(&args.files) {
        match file {
            Ok(text) => texts.push(text),
            Err(ManifestError::NotText(path)) => {
                let fault = Fault::without_value("", "is not text in UTF-8");
                faults.push(fault.in_file(path.display().to_string()));
            }
            Err(other) => {
                unreadable.check(Err::<(), _>(other));
            }
        }
    }
    let manifests: Vec<Manifest<'_>> = texts.iter().map(|(file, text)| Manifest { file, text }).collect();
    let (found, mut findings) = workload::survey(&manifests, config.as_ref());
    findings.faults.splice(..0, faults);
    warnings.append(&mut findings.warnings);
    findings.warnings = warnings;
    // What is at fault hides nothing else: the rest is explained.
    match args.format {
        Format::Json => print(&format!("{:#}\n", explain::render_json(&found, &findings)))?,
        Format::Text => print(&explain::render(&found))?,
    }
    let mut stderr = std::io::stderr().lock();
    for warning in &findings.warnings {
        writeln!(stderr, "warning: {warning}")?;
    }
    let faults = Faults::all(findings.faults);
    if unreadable != WrongSettings::default() {
        unreadable.check(faults.map_or(Ok(()), Err));
        return Err(unreadable.into());
    }
    match faults {
        Some(faults) => Err(anyhow!(faults)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Faults in a file are what a lint looks for; a file that cannot be read is a wrong command line.
fn refused(error: &ManifestError) -> anyhow::Error {
    WrongSettings::new(chain(error)).into()
}

#[cfg(test)]
mod tests {
    use pilotlight_process::{FAILURE, USAGE, end};

    use super::*;

    fn lint(text: &str, config: Option<&str>, format: Format) -> ExitCode {
        let folder =
            std::env::temp_dir().join(format!("pilotlight-lint-{}-{:?}", std::process::id(), format));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, map) = (folder.join("service.yaml"), folder.join("config.yaml"));
        std::fs::write(&file, text).unwrap();
        if let Some(config) = config {
            std::fs::write(&map, config).unwrap();
        }
        let args = LintArgs { files: vec![file], config: config.map(|_| map.clone()), format };
        let code = end(run(&args), Format::Text);
        std::fs::remove_dir_all(&folder).unwrap();
        code
    }

    const SERVICE: &str = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n\
                           spec: {template: {spec: {containers: [{image: a}]}}}\n";

    #[test]
    fn exits_with_zero_for_what_is_legal_and_one_for_what_is_not() {
        assert_eq!(lint(SERVICE, None, Format::Text), ExitCode::SUCCESS);
        assert_eq!(lint(SERVICE, Some("unknown: 1"), Format::Text), ExitCode::SUCCESS);
        assert_eq!(lint(SERVICE, Some("stable-window: 1s"), Format::Text), ExitCode::from(FAILURE));
        assert_eq!(lint("kind: [", None, Format::Text), ExitCode::from(FAILURE));
    }

    #[test]
    fn json_has_the_same_verdict() {
        assert_eq!(lint(SERVICE, None, Format::Json), ExitCode::SUCCESS);
        assert_eq!(lint("kind: [", None, Format::Json), ExitCode::from(FAILURE));
    }

    #[test]
    fn a_fault_of_the_defaults_hides_no_service() {
        assert_eq!(lint("kind: [", Some("stable-window: 1s"), Format::Json), ExitCode::from(FAILURE));
    }

    #[test]
    fn a_file_that_is_no_text_is_a_fault_and_hides_no_other() {
        let folder = std::env::temp_dir().join(format!("pilotlight-lint-bytes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), b"a: \xe4\n").unwrap();
        std::fs::write(folder.join("b.yaml"), "kind: [").unwrap();
        let lint = |files| run(&LintArgs { files, config: None, format: Format::Text }).unwrap_err();
        let error = lint(vec![folder.clone()]);
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert!(lines.len() == 2 && lines[0].ends_with("a.yaml: is not text in UTF-8"), "{lines:?}");
        assert_eq!(end::<anyhow::Error>(Err(error), Format::Text), ExitCode::from(FAILURE));
        let both = lint(vec![folder.join("b.yaml"), "/nowhere.yaml".into()]).to_string();
        assert!(both.contains("cannot read /nowhere.yaml") && both.contains("is not valid YAML"), "{both}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error =
            run(&LintArgs { files: vec!["/nowhere.yaml".into()], config: None, format: Format::Text })
                .unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere.yaml: "), "{error}");
        assert_eq!(end::<anyhow::Error>(Err(error), Format::Text), ExitCode::from(USAGE));
    }
}
