//! Crates of others: where they come from, under which licence, which come twice, and how few the queue-proxy has.
//!
//! Advisories need a database that a build without network does not have; `.ci/run` asks `cargo audit` where it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use cargo_metadata::Package;

use crate::{metadata, name, reached_from};

/// Licences that allow what ours does. An expression needs one of its alternatives to be made of these.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The crates of a queue-proxy that is built alone, one a line. To be read before it is changed: every pod carries them.
const QUEUE_PROXY: &str = "queue-proxy/dependencies.txt";

/// Crates of which the executables hold more than one version. Lower it; never raise it.
///
/// Two of them are kube's: its parts ask for two versions of `base64`, and its runtime for an older `hashbrown`.
const MOST_DUPLICATES: usize = 9;

#[test]
fn every_crate_comes_from_the_registry() {
    let metadata = metadata();
    let ours: BTreeSet<_> = metadata.workspace_packages().iter().map(|package| &package.id).collect();
    let of_others = metadata.packages.iter().filter(|package| !ours.contains(&package.id));
    let elsewhere: Vec<&str> = of_others
        .filter(|it| !it.source.as_ref().is_some_and(cargo_metadata::Source::is_crates_io))
        .map(name)
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn every_licence_allows_what_ours_does() {
    let metadata = metadata();
    let wrong: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| !is_allowed(package))
        .map(|package| format!("{}: {:?}", name(package), package.license))
        .collect();
    assert!(wrong.is_empty(), "read the licence, and add it to LICENCES if it fits: {wrong:#?}");
}

#[test]
fn few_crates_come_twice() {
    let metadata = metadata();
    let built = reached_from(&metadata, "pilotlight");
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in metadata.packages.iter().filter(|package| built.contains(name(package))) {
        versions.entry(name(package)).or_default().insert(package.version.to_string());
    }
    let twice: Vec<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    assert!(twice.len() <= MOST_DUPLICATES, "{} of at most {MOST_DUPLICATES}: {twice:#?}", twice.len());
}

#[test]
fn the_queue_proxy_carries_the_crates_that_are_listed() {
    let metadata = metadata();
    let path = metadata.workspace_root.join(QUEUE_PROXY);
    let now: String = built_alone("pilotlight-queue-proxy").iter().map(|name| format!("{name}\n")).collect();
    if env::var_os("PILOTLIGHT_BLESS").is_some() {
        fs::write(&path, &now).expect("the list can be written");
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (now, listed) = (lines(&now), lines(&listed));
    assert!(
        now == listed,
        "new: {:?}, gone: {:?}; after reading: PILOTLIGHT_BLESS=1 cargo test -p pilotlight-tests --test architecture carries",
        now.difference(&listed).collect::<Vec<_>>(),
        listed.difference(&now).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_shipped_takes_back_each_level_that_the_first_build_lowers() {
    let manifest = fs::read_to_string(metadata().workspace_root.join("Cargo.toml")).expect("the workspace's");
    let levels = |profile: &str| -> BTreeMap<String, String> {
        let heading = format!("[profile.{profile}.package]\n");
        let (_, section) = manifest.split_once(heading.as_str()).expect("the profile has levels");
        let rows = section.lines().take_while(|line| !line.is_empty());
        let level =
            |row: &str| row.split_once(".opt-level = ").map(|(name, level)| (name.into(), level.into()));
        rows.map(|row| level(row).expect("a row is a level")).collect()
    };
    let (first, shipped) = (levels("release"), levels("dist"));
    assert!(first.keys().eq(shipped.keys()), "the two lists name other crates");
    assert!(shipped.values().all(|level| level == "3"), "{shipped:?}");
}

/// The names of all crates of a build of `root` alone, on any platform: features that other members of the workspace
/// switch on do not count.
fn built_alone(root: &str) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "tree",
        "--edges=normal,build",
        "--target=all",
        "--prefix=none",
        "--format={p}",
        "--package",
        root,
    ]);
    let output = cargo.arg("--manifest-path").arg(manifest).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("names are plain");
    lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Whether one alternative of the licence expression is made of [`LICENCES`] alone.
fn is_allowed(package: &Package) -> bool {
    let Some(expression) = &package.license else { return false };
    let alternatives = expression.replace(['(', ')'], " ").replace('/', " OR ");
    alternatives.split(" OR ").any(|alternative| {
        alternative.split(" AND ").all(|licence| {
            LICENCES.contains(&licence.split_whitespace().collect::<Vec<_>>().join(" ").as_str())
        })
    })
}
