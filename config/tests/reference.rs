//! The reference page and the example ConfigMap say what the table of settings says.

use std::path::Path;

use pilotlight_config::keys::{Entry, annotation, config_map};
use pilotlight_config::process::variables;
use pilotlight_config::{AutoscalerConfig, reference};

/// Compares with the file in the repository, or writes it if `PILOTLIGHT_BLESS` is set.
fn expect_file(path: &str, content: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == content,
        "{} differs from the table of settings; write it anew with PILOTLIGHT_BLESS=1",
        path.display()
    );
}

#[test]
fn the_reference_page_is_written_from_the_table() {
    expect_file("../docs/configuration.md", &reference::markdown());
}

#[test]
fn the_variables_of_the_programs_are_written_from_their_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/processes.md");
    let mut page = std::fs::read_to_string(path).unwrap();
    for (name, tables) in [
        ("logs", &[variables::LOGS][..]),
        ("knative autoscaler", &[variables::KNATIVE_AUTOSCALER, variables::CLUSTER]),
        ("queue-proxy", &[variables::QUEUE_PROXY]),
        ("queue-proxy places", &[variables::QUEUE_PROXY_PLACES]),
        ("telemetry", &[variables::TELEMETRY]),
    ] {
        let start = page.find(&format!("<!-- {name}: ")).unwrap();
        let start = start + page[start..].find("-->\n").unwrap() + "-->\n".len();
        let end = start + page[start..].find("<!-- end -->").unwrap();
        page.replace_range(start..end, &format!("\n{}\n", variables::markdown(tables)));
    }
    expect_file("../docs/processes.md", &page);
}

#[test]
fn the_example_config_map_is_written_from_the_table() {
    expect_file("deploy/config-autoscaler.yaml", &reference::example_config_map());
}

#[test]
fn the_example_config_map_changes_nothing_and_shows_the_defaults() {
    let manifest = reference::example_config_map();
    let parsed = AutoscalerConfig::from_yaml(&manifest);
    assert_eq!(parsed.warnings, []);
    assert_eq!(parsed.value.unwrap(), AutoscalerConfig::default());

    // What its _example holds is the defaults, all of them, and legal as it stands.
    let (_, example) = manifest.split_once("  _example: |\n").unwrap();
    let shown = AutoscalerConfig::from_yaml(example);
    assert_eq!(shown.warnings, []);
    let shown = shown.value.unwrap();
    for entry in config_map::ALL {
        assert!(shown.is_written(entry.name()), "{} is missing", entry.name());
    }
    let default = AutoscalerConfig::default();
    assert_eq!(shown.stable_window, default.stable_window);
    assert_eq!(shown.target_burst_capacity, default.target_burst_capacity);
    assert_eq!(shown.pod_autoscaler_class, default.pod_autoscaler_class);
}

#[test]
fn every_example_and_every_default_obeys_its_own_rule() {
    for entry in config_map::ALL {
        assert!(entry.accepts(entry.default()), "{} = {}", entry.name(), entry.default());
    }
    for entry in config_map::ALL.iter().chain(annotation::ALL) {
        assert!(entry.accepts(entry.example()), "{} = {}", entry.name(), entry.example());
        assert!(!entry.doc().contains("  "), "{} has a double space", entry.name());
    }
}

#[test]
fn no_name_stands_for_two_settings() {
    let mut seen = std::collections::BTreeSet::new();
    for entry in config_map::ALL.iter().chain(annotation::ALL) {
        for name in [Some(entry.name()), entry.alias()].into_iter().flatten() {
            assert!(seen.insert(name), "{name} occurs twice");
        }
    }
}

#[test]
fn each_counterpart_is_a_setting_of_the_other_side() {
    let is_in = |all: &[&dyn Entry], name| all.iter().any(|entry| entry.name() == name);
    for entry in config_map::ALL {
        assert!(entry.counterpart().is_none_or(|name| is_in(annotation::ALL, name)), "{}", entry.name());
    }
    for entry in annotation::ALL {
        assert!(entry.counterpart().is_none_or(|name| is_in(config_map::ALL, name)), "{}", entry.name());
    }
}
