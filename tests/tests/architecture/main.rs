//! The house keeps its shape: who may depend on whom, and what every crate has.

mod circles;
mod comments;
mod dependencies;
mod names;
mod source;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::source::Source;

/// Arrows: who may use whom within the workspace. The tests may use everybody.
const ARROWS: &[(&str, &[&str])] = &[
    ("pilotlight-core", &[]),
    ("pilotlight-feed", &[]),
    ("pilotlight-config", &["pilotlight-core"]),
    ("pilotlight-histogram", &[]),
    ("pilotlight-net", &["pilotlight-core"]),
    ("pilotlight-telemetry", &["pilotlight-config", "pilotlight-net"]),
    ("pilotlight-process", &["pilotlight-config", "pilotlight-net", "pilotlight-telemetry"]),
    ("pilotlight-autoscaler", COMPONENT),
    (
        "pilotlight-activator",
        &[
            "pilotlight-core",
            "pilotlight-feed",
            "pilotlight-config",
            "pilotlight-histogram",
            "pilotlight-net",
            "pilotlight-telemetry",
            "pilotlight-process",
        ],
    ),
    ("pilotlight-queue-proxy", COMPONENT),
    (
        "pilotlight-local",
        &[
            "pilotlight-core",
            "pilotlight-feed",
            "pilotlight-config",
            "pilotlight-net",
            "pilotlight-telemetry",
            "pilotlight-process",
            "pilotlight-autoscaler",
        ],
    ),
    ("pilotlight-kubernetes", &["pilotlight-core", "pilotlight-feed", "pilotlight-config", "pilotlight-net"]),
    (
        "pilotlight-knative",
        &[
            "pilotlight-core",
            "pilotlight-feed",
            "pilotlight-config",
            "pilotlight-net",
            "pilotlight-telemetry",
            "pilotlight-process",
            "pilotlight-autoscaler",
            "pilotlight-activator",
            "pilotlight-kubernetes",
        ],
    ),
    ("pilotlight-sim", &["pilotlight-core", "pilotlight-config", "pilotlight-histogram"]),
    (
        "pilotlight-controller",
        &[
            "pilotlight-core",
            "pilotlight-feed",
            "pilotlight-config",
            "pilotlight-net",
            "pilotlight-telemetry",
            "pilotlight-process",
            "pilotlight-autoscaler",
            "pilotlight-activator",
            "pilotlight-kubernetes",
        ],
    ),
    (
        "pilotlight",
        &[
            "pilotlight-core",
            "pilotlight-feed",
            "pilotlight-config",
            "pilotlight-histogram",
            "pilotlight-net",
            "pilotlight-telemetry",
            "pilotlight-process",
            "pilotlight-autoscaler",
            "pilotlight-activator",
            "pilotlight-queue-proxy",
            "pilotlight-local",
            "pilotlight-kubernetes",
            "pilotlight-knative",
            "pilotlight-controller",
            "pilotlight-sim",
        ],
    ),
];

const COMPONENT: &[&str] = &[
    "pilotlight-core",
    "pilotlight-feed",
    "pilotlight-config",
    "pilotlight-net",
    "pilotlight-telemetry",
    "pilotlight-process",
];

/// Crates that must not be reachable from a crate, however indirectly.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("pilotlight-core", &["tokio", "hyper", "kube", "rand", "tracing", "metrics"]),
    ("pilotlight-sim", &["tokio", "hyper", "kube"]),
    ("pilotlight-queue-proxy", &["kube"]),
    ("pilotlight-autoscaler", &["clap"]),
];

/// A file longer than this holds two things.
const MAX_LINES: usize = 800;

#[test]
fn arrows_between_crates_go_one_way() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| name(package)).collect();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        if name(package) == TESTS {
            continue;
        }
        let Some(allowed) = allowed.get(name(package)) else {
            wrong.push(format!("{} has no place in the list of arrows", name(package)));
            continue;
        };
        for dependency in package.dependencies.iter().map(|dependency| dependency.name.as_str()) {
            if members.contains(dependency) && !allowed.contains(&dependency) {
                wrong.push(format!("{} -> {dependency}", name(package)));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not allowed: {wrong:#?}");
}

#[test]
fn pure_crates_reach_no_runtime() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (root, forbidden) in FORBIDDEN {
        let reached = reached_from(&metadata, root);
        wrong.extend(
            forbidden
                .iter()
                .filter(|name| reached.contains(**name))
                .map(|name| format!("{root} -> .. -> {name}")),
        );
    }
    assert!(wrong.is_empty(), "dependencies that are not allowed: {wrong:#?}");
}

#[test]
fn the_search_for_forbidden_crates_finds_what_is_there() {
    let metadata = metadata();
    let reached = reached_from(&metadata, "pilotlight-net");
    assert!(reached.contains("hyper") && reached.contains("mio"), "{reached:?}");
    // Only a dependency of its tests.
    assert!(!reached_from(&metadata, "pilotlight-core").contains("proptest"));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{} has lints of its own", name(package));
    }
}

/// Clippy reads the nearest `clippy.toml`, and no other.
#[test]
fn lists_of_what_is_banned_repeat_that_of_the_workspace() {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let rows = |folder: &Path| {
        let text = fs::read_to_string(folder.join("clippy.toml")).ok()?;
        Some(
            text.lines().filter(|line| line.starts_with("    {")).map(str::to_owned).collect::<BTreeSet<_>>(),
        )
    };
    let everywhere = rows(root).expect("a clippy.toml in the root");
    assert!(!everywhere.is_empty(), "no rows found");
    let mut own_lists = 0;
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder");
        let Some(own) = rows(folder.as_std_path()) else { continue };
        own_lists += 1;
        let missing: Vec<_> = everywhere.difference(&own).collect();
        assert!(missing.is_empty(), "{folder}/clippy.toml has not {missing:#?}");
    }
    assert!(own_lists >= 2, "core and sim have lists of their own");
}

#[test]
fn no_file_is_longer_than_a_reader_bears() {
    let crates = crates();
    let sources: Vec<_> = crates.iter().flat_map(|each| &each.sources).collect();
    assert!(sources.len() > crates.len(), "no sources found");
    let lines = |source: &&Source| (source.path.clone(), source.lines().count());
    let long: Vec<_> = sources.iter().map(lines).filter(|(_, lines)| *lines > MAX_LINES).collect();
    assert!(long.is_empty(), "look for the second noun in {long:#?}");
}

/// A member of the workspace with everything that is written in Rust in its folder.
struct Crate {
    name: String,
    sources: Vec<Source>,
}

fn crates() -> Vec<Crate> {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let mut crates = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder");
        let mut files = Vec::new();
        rust_files(folder.as_std_path(), &mut files);
        files.sort();
        let sources =
            files.iter().map(|file| Source::read(root, file.strip_prefix(root).expect("inside"))).collect();
        crates.push(Crate { name: name(package).into(), sources });
    }
    crates
}

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().expect("cargo metadata answers")
}

fn name(package: &Package) -> &str {
    package.name.as_str()
}

/// The names of all crates that end up in a build of `root`, tests aside.
fn reached_from(metadata: &Metadata, root: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&PackageId, _> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (&node.id, node)).collect();
    let root = metadata.workspace_packages().into_iter().find(|package| name(package) == root);
    let mut open = vec![&root.expect("a member of the workspace").id];
    let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in &nodes[id].deps {
            if dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

const TESTS: &str = "pilotlight-tests";
