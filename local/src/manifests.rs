//! Reading the manifests that name the workloads to run.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use pilotlight_config::workload::{self, Manifest};
use pilotlight_config::{AutoscalerConfig, Faults, Parsed, Warning, Workload};

/// Manifests that were read.
#[derive(Debug)]
pub struct Manifests {
    /// The workloads, in the order of the files.
    pub workloads: Vec<Workload>,
    /// Settings that are legal but suspicious.
    pub warnings: Vec<Warning>,
}

/// Why manifests could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Every fault of the files.
    #[error("{0}")]
    Faulty(Faults),
    /// Two workloads have the same name.
    #[error("{second}: {id} is defined already in {first}")]
    Twice {
        /// The name.
        id: String,
        /// File and line of its first definition.
        first: String,
        /// File and line of its second definition.
        second: String,
    },
}

/// Reads workloads from files, and defaults from a ConfigMap file. `-` is standard input.
pub fn read(files: &[PathBuf], config: Option<&Path>) -> Result<Manifests, ManifestError> {
    let (config, mut warnings) = match config {
        Some(path) => {
            let (config, warnings) = self::config(path)?;
            (Some(config), warnings)
        }
        None => (None, Vec::new()),
    };
    let texts = files.iter().map(|path| text_of(path)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let manifests: Vec<Manifest<'_>> =
        names.iter().zip(&texts).map(|(file, text)| Manifest { file, text }).collect();
    let Parsed { value, warnings: more } = workload::read(&manifests, config.as_ref());
    warnings.extend(more);
    let workloads = value.map_err(ManifestError::Faulty)?.workloads;
    for (at, workload) in workloads.iter().enumerate() {
        let place = |it: &Workload| format!("{}:{}", it.source.file, it.source.line);
        if let Some(first) = workloads[..at].iter().find(|first| first.id == workload.id) {
            let id = workload.id.to_string();
            return Err(ManifestError::Twice { id, first: place(first), second: place(workload) });
        }
    }
    Ok(Manifests { workloads, warnings })
}

/// Reads a `config-autoscaler` ConfigMap.
pub fn config(path: &Path) -> Result<(AutoscalerConfig, Vec<Warning>), ManifestError> {
    let Parsed { value, warnings } = AutoscalerConfig::from_yaml(&text_of(path)?);
    let file = path.display().to_string();
    let warnings = warnings.into_iter().map(|warning| warning.in_file(file.as_str())).collect();
    Ok((value.map_err(|faults| ManifestError::Faulty(faults.in_file(&file)))?, warnings))
}

/// The text of a file; `-` is standard input.
pub fn text_of(path: &Path) -> Result<String, ManifestError> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|source| ManifestError::Unreadable { path: path.to_owned(), source })
}
