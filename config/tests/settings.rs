//! What is accepted, what is refused with which words, and what it resolves to. The tables are Knative's own
//! numeric cases.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_config::{AutoscalerConfig, Faults, Origin, Parsed, Resolved, Verdict, resolve};
use pilotlight_core::{ConcurrencyLimit, Reachability, TargetBurstCapacity};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Annotations by their short names.
fn annotated(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (format!("autoscaling.knative.dev/{key}"), value.to_owned())).collect()
}

fn config(pairs: &[(&str, &str)]) -> AutoscalerConfig {
    AutoscalerConfig::from_map(&map(pairs)).value.unwrap()
}

fn parsed(config: &AutoscalerConfig, annotations: &[(&str, &str)], limit: u32) -> Parsed<Verdict> {
    resolve(config, &annotated(annotations), limit.into(), Reachability::Reachable)
}

fn resolved(config: &AutoscalerConfig, annotations: &[(&str, &str)], limit: u32) -> Resolved {
    match parsed(config, annotations, limit).value.unwrap() {
        Verdict::Resolved(resolved) => *resolved,
        Verdict::OtherClass(class) => panic!("left to {class}"),
    }
}

fn refusal(config: &AutoscalerConfig, annotations: &[(&str, &str)]) -> String {
    parsed(config, annotations, 0).value.unwrap_err().to_string()
}

fn config_refusal(pairs: &[(&str, &str)]) -> String {
    AutoscalerConfig::from_map(&map(pairs)).value.unwrap_err().to_string()
}

#[test]
fn targets_resolve_as_in_the_table() {
    const CONCURRENCY: &str = "concurrency";
    const RPS: &str = "rps";
    // Limit, metric, target, utilization annotation, ConfigMap; target and total.
    type Case<'a> = (u32, &'a str, Option<&'a str>, Option<&'a str>, &'a [(&'a str, &'a str)], f64, f64);
    let full: &[(&str, &str)] = &[("container-concurrency-target-percentage", "100")];
    let percentage = |p| [("container-concurrency-target-percentage", p)];
    let (p80, p75, p01) = (percentage("80"), percentage("75"), percentage("0.001"));
    let small =
        [("container-concurrency-target-percentage", "30"), ("container-concurrency-target-default", "2")];
    let cases: &[Case<'_>] = &[
        (0, CONCURRENCY, None, None, full, 100.0, 100.0),
        (0, CONCURRENCY, None, None, &p80, 80.0, 100.0),
        (0, CONCURRENCY, None, None, &small, 0.6, 2.0),
        (1, CONCURRENCY, None, None, &p80, 0.8, 1.0),
        (0, CONCURRENCY, Some("1"), None, &p01, 0.01, 1.0),
        (1, RPS, None, None, full, 140.0, 200.0),
        (0, RPS, None, Some("75"), full, 150.0, 200.0),
        (12, CONCURRENCY, None, Some("75"), full, 9.0, 12.0),
        (10, CONCURRENCY, Some("1"), None, full, 1.0, 1.0),
        (1, CONCURRENCY, Some("10"), None, full, 1.0, 1.0),
        (0, CONCURRENCY, Some("500"), None, full, 500.0, 500.0),
        (0, CONCURRENCY, Some("10"), None, &p75, 7.5, 10.0),
        (0, RPS, Some("1"), None, full, 0.7, 1.0),
        (0, RPS, Some("300"), None, full, 210.0, 300.0),
        (10, RPS, Some("300"), None, full, 210.0, 300.0),
    ];
    for &(limit, metric, target, utilization, data, expected, total) in cases {
        let mut annotations = vec![("metric", metric)];
        annotations.extend(target.map(|value| ("target", value)));
        annotations.extend(utilization.map(|value| ("target-utilization-percentage", value)));
        let spec = resolved(&config(data), &annotations, limit).spec;
        assert_eq!((spec.target, spec.total), (expected, total), "{limit} {annotations:?} {data:?}");
    }
}

#[test]
fn panic_windows_are_whole_seconds_with_halves_up() {
    for (window, percentage, seconds) in [
        ("60s", "10", 6),
        ("10s", "10", 1),
        ("25s", "10", 3),
        ("15s", "10", 2),
        ("60s", "51", 31),
        ("6s", "1", 1),
        ("1h", "100", 3_600),
    ] {
        let spec =
            resolved(&config(&[]), &[("window", window), ("panic-window-percentage", percentage)], 0).spec;
        assert_eq!(spec.panic_window, Duration::from_secs(seconds), "{window} {percentage}");
    }
}

#[test]
fn the_config_map_accepts_what_knative_accepts() {
    let accepted: &[&[(&str, &str)]] = &[
        &[],
        &[("container-concurrency-target-percentage", "55")],
        &[("container-concurrency-target-percentage", ".5")],
        &[("max-scale-up-rate", "1.001")],
        &[("max-scale-limit", "10"), ("max-scale", "10")],
        &[("min-scale", "4"), ("max-scale", "0")],
        &[("initial-scale", "0"), ("allow-zero-initial-scale", "true")],
        &[("enable-scale-to-zero", "TRUE")],
        &[("target-burst-capacity", "-1")],
        &[("target-burst-capacity", "0x1p8")],
        &[("stable-window", "1h")],
        &[("panic-threshold-percentage", "-3")],
        &[("pod-autoscaler-class", " hpa.autoscaling.knative.dev ")],
        &[("_example", "stable-window: 5s"), ("tick-interval", "2s"), ("panic-window", "6s")],
    ];
    for pairs in accepted {
        let parsed = AutoscalerConfig::from_map(&map(pairs));
        assert_eq!(parsed.value.err(), None, "{pairs:?}");
        assert_eq!(parsed.warnings, [], "{pairs:?}");
    }
    assert_eq!(
        config(&[("container-concurrency-target-percentage", "55")]).container_concurrency_target_fraction,
        0.55
    );
    assert_eq!(config(&[("pod-autoscaler-class", " x ")]).pod_autoscaler_class, "x");
}

#[test]
fn the_config_map_refuses_what_knative_refuses() {
    let refused: &[(&[(&str, &str)], &str)] = &[
        (
            &[("container-concurrency-target-percentage", "142.4")],
            "container-concurrency-target-percentage: \"142.4\" is not a percentage above 1 and up to 100, or a \
             fraction above 0 and up to 1",
        ),
        (&[("container-concurrency-target-percentage", "-42")], "\"-42\" is not a percentage"),
        (&[("container-concurrency-target-percentage", " 80 ")], "\" 80 \" is not a percentage"),
        (
            &[
                ("container-concurrency-target-percentage", "1"),
                ("container-concurrency-target-default", ".001"),
            ],
            "container-concurrency-target-default: \".001\" comes to less than 0.01 when multiplied by \
             container-concurrency-target-percentage",
        ),
        (
            &[("stable-window", "1s")],
            "stable-window: \"1s\" is not a duration between 6s and 1h0m0s, in whole seconds",
        ),
        (&[("stable-window", "1h1s")], "\"1h1s\" is not"),
        (&[("stable-window", "61984ms")], "\"61984ms\" is not"),
        (
            &[("stable-window", "60")],
            "\"60\" is not a duration between 6s and 1h0m0s, in whole seconds: a number \
             needs a unit, such as 60s",
        ),
        (&[("stable-window", "")], "\"\" is not a duration"),
        (&[("scale-down-delay", "-1m23s")], "\"-1m23s\" is not a duration of at least 0s, in whole seconds"),
        (&[("scale-down-delay", "61984ms")], "\"61984ms\" is not"),
        (&[("scale-to-zero-grace-period", "0s")], "\"0s\" is not a duration above 0s"),
        (&[("panic-window-percentage", ".1")], "\".1\" is not a number between 1 and 100"),
        (&[("panic-window-percentage", "110")], "\"110\" is not"),
        (&[("max-scale-up-rate", "1")], "\"1\" is not a number above 1"),
        (&[("activator-capacity", ".95")], "\".95\" is not a number of at least 1"),
        (&[("target-burst-capacity", "-11")], "\"-11\" is not a number of at least 0, or -1"),
        (&[("panic-threshold-percentage", "NaN")], "\"NaN\" is not a number"),
        (&[("target-burst-capacity", "nan")], "\"nan\" is not a number"),
        (
            &[("max-scale-limit", "11"), ("max-scale", "0")],
            "max-scale: \"0\" is not between 1 and the max-scale-limit of 11",
        ),
        (
            &[("max-scale-limit", "11")],
            "max-scale: the default, 0, is not between 1 and the max-scale-limit of 11",
        ),
        (&[("max-scale-limit", "9"), ("max-scale", "10")], "max-scale: \"10\" is not between 1 and"),
        (&[("min-scale", "4"), ("max-scale", "3")], "min-scale: \"4\" is above the max-scale of 3"),
        (&[("min-scale", "1.5")], "\"1.5\" is not a whole number between 0 and 2147483647"),
        (&[("min-scale", "2147483648")], "\"2147483648\" is not a whole number between 0 and 2147483647"),
        (
            &[("initial-scale", "0")],
            "initial-scale: \"0\" is allowed only with allow-zero-initial-scale: \"true\"",
        ),
        (&[("enable-scale-to-zero", "yes")], "\"yes\" is not true or false"),
    ];
    for (pairs, words) in refused {
        let said = config_refusal(pairs);
        assert!(
            said.contains(words) && !said.contains('\n'),
            "{pairs:?}\n  said     {said}\n  expected {words}"
        );
    }
}

#[test]
fn all_faults_of_a_config_map_come_at_once() {
    let said = config_refusal(&[("stable-window", "5s"), ("max-scale-up-rate", "x"), ("min-scale", "-1")]);
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_name() {
    let parsed = AutoscalerConfig::from_map(&map(&[("stabel-window", "5s"), ("colour", "green")]));
    assert!(parsed.value.is_ok());
    let said: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "colour: unknown key; it has no effect",
            "stabel-window: unknown key; did you mean `stable-window`?"
        ]
    );
}

#[test]
fn a_percentage_that_reads_like_a_fraction_is_pointed_out() {
    for (value, meaning) in [("1", "1 means 100 %"), ("1.0", "1.0 means 100 %"), ("1.5", "1.5 means 1.5 %")] {
        let parsed = AutoscalerConfig::from_map(&map(&[("container-concurrency-target-percentage", value)]));
        assert!(parsed.warnings[0].advice.starts_with(meaning), "{:?}", parsed.warnings);
    }
}

#[test]
fn infinity_counts_as_the_largest_number() {
    let config = config(&[("max-scale-up-rate", "Inf"), ("target-burst-capacity", "+inf")]);
    assert_eq!(config.max_scale_up_rate, f64::MAX);
    assert_eq!(config.target_burst_capacity, TargetBurstCapacity::Of(f64::MAX));
}

#[test]
fn annotations_are_refused_as_in_knative() {
    let zero = ("initial-scale", "0");
    let refused: &[(&[(&str, &str)], &str)] = &[
        (
            &[("max-scale", "2147483648")],
            "autoscaling.knative.dev/max-scale: \"2147483648\" is not a whole number between 0 and 2147483647",
        ),
        (&[("maxScale", "ten")], "autoscaling.knative.dev/maxScale: \"ten\" is not a whole number"),
        (
            &[("min-scale", ""), ("minScale", "1")],
            "autoscaling.knative.dev/min-scale: \"\" is not a whole number",
        ),
        (&[("panic-threshold-percentage", "109")], "\"109\" is not a number between 110 and 1000"),
        (&[("panicThresholdPercentage", "10009")], "\"10009\" is not"),
        (&[("window", "1s")], "\"1s\" is not a duration between 6s and 1h0m0s, in whole seconds"),
        (&[("window", "1m9s82ms")], "\"1m9s82ms\" is not"),
        (
            &[("scale-to-zero-pod-retention-period", "311m")],
            "\"311m\" is not a duration between 0s and 1h0m0s",
        ),
        (&[("scale-down-delay", "42.5s")], "\"42.5s\" is not"),
        (&[("metric", "cpu")], "\"cpu\" is not one of concurrency, rps"),
        (&[("metric", "")], "\"\" is not one of concurrency, rps"),
        (
            &[("activation-scale", "2"), ("min-scale", "3")],
            "activation-scale: \"2\" is less than the min-scale of 3",
        ),
        (
            &[("activation-scale", "2"), ("max-scale", "1")],
            "activation-scale: \"2\" is above the max-scale of 1",
        ),
        (&[("activation-scale", "1")], "\"1\" is not a whole number between 2 and 2147483647"),
        (&[("max-scale", "1"), ("minScale", "2")], "max-scale: \"1\" is less than the min-scale of 2"),
        (&[zero], "\"0\" is allowed only where config-autoscaler sets allow-zero-initial-scale"),
        (&[("initial-scale", "-1")], "\"-1\" is not a whole number"),
        (&[("target", "0.009")], "\"0.009\" is not a number of at least 0.01"),
        (&[("target", "NaN")], "\"NaN\" is not a number"),
        (&[("class", "foo.knative.dev")], "\"foo.knative.dev\" is not kpa.autoscaling.knative.dev, hpa"),
        (
            &[("class", "kpa.autoscaling.knative.dev"), ("metric-aggregation-algorithm", "median")],
            "\"median\" is not one of linear, weighted-exponential, weightedExponential",
        ),
    ];
    for (pairs, words) in refused {
        let said = refusal(&config(&[]), pairs);
        assert!(
            said.contains(words) && !said.contains('\n'),
            "{pairs:?}\n  said     {said}\n  expected {words}"
        );
    }
    let limited = config(&[("max-scale", "5"), ("max-scale-limit", "6")]);
    assert!(refusal(&limited, &[("max-scale", "7")]).contains("is above the max-scale-limit of 6"));
    assert!(refusal(&limited, &[("max-scale", "0")]).contains("means unlimited; the max-scale-limit is 6"));
    assert_eq!(resolved(&limited, &[("max-scale", "6")], 0).spec.max_scale, Some(6));
    let allowing = config(&[("allow-zero-initial-scale", "true")]);
    assert_eq!(resolved(&allowing, &[zero], 0).spec.initial_scale, 0);
    assert_eq!(
        resolved(&config(&[]), &[("scaleToZeroPodRetentionPeriod", "0")], 0).spec.pod_retention,
        Duration::ZERO
    );
}

#[test]
fn all_faults_of_a_revision_come_at_once() {
    let annotations = [("min-scale", "x"), ("target", "0"), ("window", "1s"), ("class", "a.knative.dev")];
    assert_eq!(refusal(&config(&[]), &annotations).lines().count(), 4);
}

#[test]
fn other_classes_are_left_alone() {
    for (annotations, class) in [
        (&[("class", "custom.example.com"), ("metric", "anything")][..], "custom.example.com"),
        (&[("class", "hpa.autoscaling.knative.dev"), ("metric", "cpu")][..], "hpa.autoscaling.knative.dev"),
    ] {
        assert_eq!(parsed(&config(&[]), annotations, 0).value, Ok(Verdict::OtherClass(class.to_owned())));
    }
    // Under a default class of HPA, a metric that only HPA knows is legal, and says whose the revision is.
    let hpa = config(&[("pod-autoscaler-class", "hpa.autoscaling.knative.dev")]);
    let verdict = parsed(&hpa, &[("metric", "cpu")], 0).value;
    assert_eq!(verdict, Ok(Verdict::OtherClass("hpa.autoscaling.knative.dev".to_owned())));
}

#[test]
fn a_default_class_that_is_not_ours_is_pointed_out() {
    let hpa = config(&[("pod-autoscaler-class", "hpa.autoscaling.knative.dev")]);
    let parsed = parsed(&hpa, &[], 0);
    assert!(matches!(parsed.value, Ok(Verdict::Resolved(_))));
    assert!(parsed.warnings[0].advice.contains("the default class is hpa.autoscaling.knative.dev"));
}

#[test]
fn the_canonical_spelling_counts_before_its_alias() {
    let spec = resolved(&config(&[]), &[("min-scale", "1"), ("minScale", "5")], 0);
    assert_eq!(spec.spec.min_scale, 1);
    let warnings = parsed(&config(&[]), &[("min-scale", "1"), ("minScale", "5")], 0).warnings;
    assert_eq!(
        warnings[0].to_string(),
        "autoscaling.knative.dev/minScale: no effect: autoscaling.knative.dev/min-scale is set as well and counts"
    );
}

#[test]
fn an_unreachable_revision_keeps_no_pods() {
    let annotations = annotated(&[("min-scale", "3")]);
    for (reachability, min_scale) in
        [(Reachability::Reachable, 3), (Reachability::Unknown, 3), (Reachability::Unreachable, 0)]
    {
        let verdict =
            resolve(&config(&[]), &annotations, ConcurrencyLimit::UNLIMITED, reachability).value.unwrap();
        let Verdict::Resolved(resolved) = verdict else { panic!("the class is ours") };
        assert_eq!(resolved.spec.min_scale, min_scale, "{reachability:?}");
    }
}

#[test]
fn pods_are_scraped_unless_the_activator_is_always_in_the_path() {
    assert!(resolved(&config(&[]), &[], 0).spec.scraped);
    assert!(!resolved(&config(&[]), &[("target-burst-capacity", "-1")], 0).spec.scraped);
    assert!(
        resolved(&config(&[("target-burst-capacity", "-1")]), &[("targetBurstCapacity", "0")], 0)
            .spec
            .scraped
    );
}

#[test]
fn the_progress_deadline_bounds_the_waking() {
    let deadline = |value: &str| {
        let annotations = map(&[("serving.knative.dev/progress-deadline", value)]);
        resolve(
            &AutoscalerConfig::default(),
            &annotations,
            ConcurrencyLimit::UNLIMITED,
            Reachability::Reachable,
        )
        .value
    };
    let timeout = |value: Result<Verdict, Faults>| match value.unwrap() {
        Verdict::Resolved(resolved) => resolved.spec.activation_timeout,
        Verdict::OtherClass(class) => panic!("left to {class}"),
    };
    assert_eq!(timeout(deadline("5m")), Duration::from_secs(330));
    assert_eq!(timeout(deadline("")), Duration::from_secs(630));
    assert!(deadline("1500ms").is_err() && deadline("-1s").is_err());
}

#[test]
fn an_initial_scale_beyond_32_bits_falls_back_with_a_warning() {
    let parsed = parsed(&config(&[("initial-scale", "4")]), &[("initial-scale", "3000000000")], 0);
    assert_eq!(parsed.warnings.len(), 1);
    let Ok(Verdict::Resolved(resolved)) = parsed.value else { panic!("it is accepted") };
    assert_eq!(resolved.spec.initial_scale, 4);
    let setting = resolved.settings.iter().find(|setting| setting.name == "initial-scale").unwrap();
    assert_eq!(setting.from, Origin::Config("initial-scale"));
}

#[test]
fn annotations_without_effect_are_pointed_out() {
    // Annotations, containerConcurrency, what is said.
    type Case<'a> = (&'a [(&'a str, &'a str)], u32, &'a str);
    let cases: &[Case<'_>] = &[
        (
            &[("max-scale-down-rate", "3")],
            0,
            "autoscaling.knative.dev/max-scale-down-rate: no effect: max-scale-down-rate is set for all revisions at \
             once, in the ConfigMap config-autoscaler",
        ),
        (&[("stable-window", "3m")], 0, "the annotation is `autoscaling.knative.dev/window`"),
        (&[("min-scael", "3")], 0, "unknown annotation; did you mean `autoscaling.knative.dev/min-scale`?"),
        (&[("flavour", "mint")], 0, "unknown annotation; it has no effect"),
        (
            &[("min-scale", "1"), ("scale-to-zero-pod-retention-period", "5m")],
            0,
            "no effect: with min-scale 1 the last pod never goes",
        ),
        (&[("target", "20")], 10, "a pod takes no more than its containerConcurrency of 10; that counts"),
        (&[("initial-scale", "5"), ("max-scale", "2")], 0, "above the max-scale of 2, and still"),
        (
            &[("activation-scale", "3"), ("min-scale", "3")],
            0,
            "no effect: min-scale keeps 3 pods at all times",
        ),
        (
            &[("metric-aggregation-algorithm", "median")],
            0,
            "\"median\" is no known algorithm; linear is used",
        ),
        (&[("panic-window-percentage", "100")], 0, "the panic window is as long as the stable window"),
    ];
    for (pairs, limit, words) in cases {
        let warnings = parsed(&config(&[]), pairs, *limit).warnings;
        let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert!(matches!(said.as_slice(), [one] if one.contains(words)), "{pairs:?}: {said:?}");
    }
    let unrelated = map(&[("prometheus.io/scrape", "true"), ("serving.knative.dev/creator", "me")]);
    let parsed = resolve(
        &AutoscalerConfig::default(),
        &unrelated,
        ConcurrencyLimit::UNLIMITED,
        Reachability::Reachable,
    );
    assert_eq!(parsed.warnings, []);
}

#[test]
fn each_setting_says_where_it_came_from() {
    let config = config(&[("stable-window", "2m"), ("min-scale", "1")]);
    let settings = resolved(&config, &[("minScale", "2"), ("target", "50")], 10).settings;
    let from = |name: &str| settings.iter().find(|setting| setting.name == name).unwrap().from.clone();
    assert_eq!(from("stable-window"), Origin::Config("stable-window"));
    assert_eq!(from("min-scale"), Origin::Annotation("autoscaling.knative.dev/minScale"));
    assert_eq!(from("max-scale"), Origin::Default);
    assert_eq!(from("total"), Origin::Field("containerConcurrency".to_owned()));
}
