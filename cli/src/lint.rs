//! `pilotlight lint`: checks manifests and settings without running anything, shows what is in force and says
//! what it will do. Results go to stdout; faults and warnings to stderr, one to a line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pilotlight_config::explain;
use pilotlight_config::workload::{self, Manifest};
use pilotlight_local::manifests::{self, ManifestError};

use crate::logging::Format;
use crate::output::print;

/// Check manifests, show what is in force, and say in plain words what it will do
#[derive(Debug, Args)]
pub struct LintArgs {
    /// YAML files (Knative Service, Revision, InferenceService, Deployment, ConfigMap); - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Defaults: a config-autoscaler ConfigMap in YAML. Without it one among the files counts
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the result looks
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Checks the files. Exits with 1 if anything is a fault.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let mut stderr = std::io::stderr().lock();
    let config = match args.config.as_deref().map(manifests::config).transpose() {
        Ok(None) => None,
        Ok(Some((config, warnings))) => {
            for warning in warnings {
                writeln!(stderr, "warning: {warning}")?;
            }
            Some(config)
        }
        Err(ManifestError::Faulty(faults)) => {
            writeln!(stderr, "{faults}")?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    let texts: Vec<(String, String)> = args
        .files
        .iter()
        .map(|path| Ok((path.display().to_string(), manifests::text_of(path)?)))
        .collect::<Result<_, ManifestError>>()?;
    let manifests: Vec<Manifest<'_>> = texts.iter().map(|(file, text)| Manifest { file, text }).collect();
    let parsed = workload::read(&manifests, config.as_ref());

    match (args.format, &parsed.value) {
        (Format::Json, _) => print(&format!("{:#}\n", explain::render_json(&parsed)))?,
        (Format::Text, Ok(found)) => print(&explain::render(found))?,
        (Format::Text, Err(_)) => {}
    }
    for warning in &parsed.warnings {
        writeln!(stderr, "warning: {warning}")?;
    }
    match parsed.value {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(faults) => {
            writeln!(stderr, "{faults}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
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
        let code = run(&LintArgs { files: vec![file], config: config.map(|_| map.clone()), format }).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        code
    }

    const SERVICE: &str = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n\
                           spec: {template: {spec: {containers: [{image: a}]}}}\n";

    #[test]
    fn exits_with_zero_for_what_is_legal_and_one_for_what_is_not() {
        assert_eq!(lint(SERVICE, None, Format::Text), ExitCode::SUCCESS);
        assert_eq!(lint(SERVICE, Some("unknown: 1"), Format::Text), ExitCode::SUCCESS);
        assert_eq!(lint(SERVICE, Some("stable-window: 1s"), Format::Text), ExitCode::FAILURE);
        assert_eq!(lint("kind: [", None, Format::Text), ExitCode::FAILURE);
    }

    #[test]
    fn json_has_the_same_verdict() {
        assert_eq!(lint(SERVICE, None, Format::Json), ExitCode::SUCCESS);
        assert_eq!(lint("kind: [", None, Format::Json), ExitCode::FAILURE);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error =
            run(&LintArgs { files: vec!["/nowhere.yaml".into()], config: None, format: Format::Text })
                .unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere.yaml");
    }
}
