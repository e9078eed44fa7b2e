//! `pilotlight lint`: checks manifests and settings without running anything, shows what is in force and says
//! what it will do. Results go to stdout; faults and warnings to stderr, one to a line.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use pilotlight_config::workload::{self, Manifest};
use pilotlight_config::{AutoscalerConfig, explain};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table and sentences for each workload.
    #[default]
    Text,
    /// One JSON object with everything.
    Json,
}

/// Checks `files` (`-` is stdin) against `config`, the ConfigMap `config-autoscaler` as a manifest or bare data;
/// without it one among the files counts, and without that Knative's defaults. Exits with 1 if anything is a fault.
pub fn run(files: &[PathBuf], config: Option<&Path>, format: Format) -> anyhow::Result<ExitCode> {
    let mut stderr = std::io::stderr().lock();

    let config = match config {
        None => None,
        Some(path) => {
            let name = name(path);
            let parsed = AutoscalerConfig::from_yaml(&read(path)?);
            for warning in parsed.warnings {
                writeln!(stderr, "warning: {}", warning.in_file(name.clone()))?;
            }
            match parsed.value {
                Ok(config) => Some(config),
                Err(faults) => {
                    for fault in faults.into_vec() {
                        writeln!(stderr, "{}", fault.in_file(name.clone()))?;
                    }
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    };

    let texts: Vec<(String, String)> =
        files.iter().map(|path| Ok((name(path), read(path)?))).collect::<anyhow::Result<_>>()?;
    let manifests: Vec<Manifest<'_>> = texts.iter().map(|(file, text)| Manifest { file, text }).collect();
    let parsed = workload::read(&manifests, config.as_ref());

    match (format, &parsed.value) {
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

/// Writes to stdout. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name(path: &Path) -> String {
    if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() }
}

fn read(path: &Path) -> anyhow::Result<String> {
    if is_stdin(path) {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
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
        let code = run(&[file], config.map(|_| map.as_path()), format).unwrap();
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
        let error = run(&[PathBuf::from("/nowhere.yaml")], None, Format::Text).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere.yaml");
    }
}
