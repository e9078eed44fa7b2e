//! Reading the manifests that name the workloads to run.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _};
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
    /// Every fault of the files, two workloads with one name among them.
    #[error("{0}")]
    Faulty(Faults),
    /// A file holds something else than text.
    #[error("{} is not text in UTF-8", .0.display())]
    NotText(PathBuf),
    /// A folder holds no manifest.
    #[error("{} is a folder without a file that ends in .yaml, .yml or .json", .0.display())]
    NoManifest(PathBuf),
}

/// Reads workloads from files and folders, and defaults from a ConfigMap file. `-` is standard input.
pub fn read(files: &[PathBuf], config: Option<&Path>) -> Result<Manifests, ManifestError> {
    let (config, mut warnings) = match config {
        Some(path) => {
            let (config, warnings) = self::config(path)?;
            (Some(config), warnings)
        }
        None => (None, Vec::new()),
    };
    let texts = texts(files).into_iter().collect::<Result<Vec<_>, _>>()?;
    let manifests: Vec<Manifest<'_>> = texts.iter().map(|(file, text)| Manifest { file, text }).collect();
    let Parsed { value, warnings: more } = workload::read(&manifests, config.as_ref());
    warnings.extend(more);
    let workloads = value.map_err(ManifestError::Faulty)?.workloads;
    warnings.extend(workloads.iter().filter(|workload| workload.elsewhere.is_some()).map(|workload| {
        let advice = format!(
            "{} is scaled by requests here, and by another autoscaler in a cluster: `pilotlight lint` explains it",
            workload.id
        );
        Warning::new("", advice).in_file(workload.source.file.as_str())
    }));
    Ok(Manifests { workloads, warnings })
}

/// The names and texts of files; of a folder, all manifests in it and below, in the order of their names. One that
/// cannot be read hides no other.
pub fn texts(files: &[PathBuf]) -> Vec<Result<(String, String), ManifestError>> {
    let mut texts = Vec::new();
    for file in files {
        match manifests_in(file) {
            Ok(paths) => {
                let named = |path: &PathBuf| Ok((path.display().to_string(), text_of(path)?));
                texts.extend(paths.iter().map(named));
            }
            Err(error) => texts.push(Err(error)),
        }
    }
    texts
}

/// A file itself; of a folder, the files whose names end as manifests do. Hidden folders are left out.
fn manifests_in(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |source| ManifestError::Unreadable { path: path.to_owned(), source };
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let ending = path.extension().map(OsStr::to_ascii_lowercase);
            // Links to folders are not followed: they may lead back.
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.extend((!is_hidden).then_some(path));
            } else if !is_hidden && ending.is_some_and(|it| MANIFESTS.iter().any(|known| it == *known)) {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() { Err(ManifestError::NoManifest(path.to_owned())) } else { Ok(found) }
}

/// How the names of manifests end.
const MANIFESTS: &[&str] = &["yaml", "yml", "json"];

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
    text.map_err(|source| match source.kind() {
        ErrorKind::InvalidData => ManifestError::NotText(path.to_owned()),
        _ => ManifestError::Unreadable { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scaled_otherwise_in_a_cluster_is_told() {
        let file = std::env::temp_dir().join(format!("pilotlight-raw-{}.yaml", std::process::id()));
        let text = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris, annotations: \
                    {serving.kserve.io/deploymentMode: Standard}}\nspec: {predictor: {maxReplicas: 2, containers: [{command: \
                    [sh]}]}}\n";
        std::fs::write(&file, text).unwrap();
        let read = read(std::slice::from_ref(&file), None).unwrap();
        std::fs::remove_file(&file).unwrap();
        let expected = format!(
            "{}: default/iris is scaled by requests here, and by another autoscaler in a cluster: `pilotlight lint` explains it",
            file.display()
        );
        assert_eq!(read.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn a_folder_is_read_with_all_below_it_in_the_order_of_the_names() {
        let folder = std::env::temp_dir().join(format!("pilotlight-folder-{}", std::process::id()));
        let below = folder.join("b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::create_dir_all(folder.join(".git")).unwrap();
        for file in ["c.yaml", "a.yml", "b/d.JSON", "b/e.txt", ".git/f.yaml", ".g.yaml"] {
            std::fs::write(folder.join(file), file).unwrap();
        }
        let names = |path: &Path| -> Vec<String> {
            texts(&[path.to_owned()]).into_iter().map(|file| file.unwrap().1).collect()
        };
        assert_eq!(names(&folder), ["a.yml", "b/d.JSON", "c.yaml"]);
        assert_eq!(
            names(&below.join("e.txt")),
            ["b/e.txt"],
            "a file that is named is read whatever its name"
        );
        let empty = folder.join(".git").join("empty");
        std::fs::create_dir_all(&empty).unwrap();
        let error = texts(&[empty]).remove(0).unwrap_err().to_string();
        assert!(error.ends_with("is a folder without a file that ends in .yaml, .yml or .json"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
