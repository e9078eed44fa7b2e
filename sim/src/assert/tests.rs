use super::*;

fn outcome() -> Outcome {
    let mut outcome = Outcome { requests: 1_000, lost: 2, ..Outcome::default() };
    outcome.statuses.extend([(200, 999), (503, 1)]);
    outcome.latency.p99 = 0.412;
    outcome.latency.p99_9 = 1.5;
    outcome.wait.p95 = 0.3;
    outcome.pods.pod_seconds = 12_000.0;
    outcome
}

fn holds(text: &str) -> bool {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).evaluate(&outcome()).holds
}

fn refused(text: &str) -> String {
    Expression::parse(text).expect_err(text).to_string()
}

#[test]
fn comparisons_read_metrics_of_every_unit() {
    for text in [
        "p99<413ms",
        "p99 >= 0.412s",
        "p99.9 == 1s500ms",
        "wait-p95 <= 5m",
        "success>=99.9%",
        "success == 0.999",
        "requests == 1k",
        "requests < 1M",
        "503 == 1",
        "504 == 0",
        "pod-seconds < 12.1k",
        "pod-seconds < 4h",
        "lost != 0",
        "cold-max == 0",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in ["p99<412ms", "success>99.9%", "requests > 1k", "lost == 0"] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn and_binds_tighter_than_or_and_not_tighter_than_both() {
    let (yes, no) = ("lost==2", "lost==3");
    assert!(holds(&format!("{yes} || {no} && {no}")));
    assert!(!holds(&format!("({yes} || {no}) && {no}")));
    assert!(holds(&format!("!{no} && {yes}")));
    assert!(!holds(&format!("!({no} || {yes})")));
    assert!(holds(&format!("!!{yes}&&!({no})")));
}

#[test]
fn a_failed_expectation_says_what_was_found() {
    let failures = |text| Expression::parse(text).unwrap().evaluate(&outcome()).failures();
    assert_eq!(
        failures("p99<300ms && lost==0 && requests>10"),
        ["p99 is 412 ms, not below 300 ms", "lost is 2, not equal to 0"]
    );
    assert_eq!(failures("!(lost==2)"), ["lost is 2, equal to 2"]);
    assert_eq!(failures("p99<0.41199s"), ["p99 is 0.412, not below 0.41199"]);
    assert_eq!(failures("p99<1s"), [""; 0]);
}

#[test]
fn what_was_not_measured_keeps_nothing_from_failing() {
    assert!(!holds("slo > 0.5"));
    assert!(!holds("!(slo > 0.5)"));
    assert!(holds("slo > 0.5 || lost == 2"));
    assert!(!holds("slo > 0.5 && lost == 2"));
    let verdict = Expression::parse("slo>0.5").unwrap().evaluate(&outcome());
    assert_eq!(verdict.failures(), ["slo was not measured"]);
}

#[test]
fn errors_point_at_the_column_and_say_what_to_write() {
    for (text, message) in [
        ("p9<1s", "column 1: unknown metric \"p9\"; did you mean p90?"),
        ("lost==0 && wait-p59<1s", "column 12: unknown metric \"wait-p59\"; did you mean wait-p50?"),
        ("p99<300", "column 5: p99 is a time: write 300ms or 300s, not 300"),
        ("p99<300mm", "column 5: \"mm\" is not a unit of time: use h, m, s, ms, us or ns"),
        ("success>99.9", "column 9: success is a share: write 99.9% or 0.999, not 99.9"),
        ("lost<3ms", "column 6: lost is a count: write 20, 20k or 20M, not 3ms"),
        ("lost<-1", "column 6: lost is a count: write 20, 20k or 20M, not -1"),
        ("lost=0", "column 5: = compares nothing; did you mean ==?"),
        ("lost==0 & p99<1s", "column 9: did you mean &&?"),
        ("lost==0 and p99<1s", "column 9: write && for and"),
        ("lost==0 p99<1s", "column 9: expected && or ||"),
        ("(lost==0", "column 9: a ) is missing for the ( in column 1"),
        ("lost==0)", "column 8: there is no ( for this )"),
        ("300ms>p99", "column 1: a comparison starts with a metric, as in p99<300ms; \"300ms\" is none"),
        ("p99<1s<2s", "column 7: a comparison has two sides: write p99>1ms && p99<2ms for a range"),
        ("", "column 1: expected a comparison such as p99<300ms"),
        ("lost", "column 5: expected one of < <= > >= == != after the name"),
        ("lost<", "column 6: expected a number"),
        ("größe<1", "column 1: unknown metric \"größe\"; there are "),
        ("p99≤1s", "column 4: write <= for ≤"),
    ] {
        let found = refused(text);
        assert!(found.starts_with(message), "{text}: {found}");
    }
}

#[test]
fn nesting_has_an_end() {
    assert!(refused(&"(".repeat(100_000)).contains("too many parentheses"));
    assert!(refused(&"!".repeat(100_000)).contains("too many parentheses"));
}

#[test]
fn an_objective_for_latency_is_a_quantile_and_a_threshold() {
    let slo: Slo = " p99.9 <= 1.5s ".parse().unwrap();
    assert_eq!(
        slo,
        Slo { quantile: 0.999, threshold: Duration::from_millis(1_500), includes_threshold: true }
    );
    assert_eq!(slo.to_string(), "p99.9<=1.5s");
    assert_eq!("p97<500ms".parse::<Slo>().unwrap().to_string(), "p97<500ms");
    assert_eq!(slo.is_kept(&outcome()), None);
    assert_eq!(slo.is_kept(&Outcome { slo_fraction: Some(0.999), ..outcome() }), Some(true));
    for wrong in ["mean<1s", "p95>1s", "p95<1", "p100<1s", "p95<1s && p99<2s", "wait-p95<1s"] {
        assert!(wrong.parse::<Slo>().is_err(), "{wrong}");
    }
}

#[test]
fn a_metric_goes_by_its_name() {
    assert_eq!(metric("wait-p99.9").unwrap().name, "wait-p95", "the entry of its family");
    let unknown = metric("pod-second").unwrap_err().to_string();
    assert_eq!(unknown, "column 1: unknown metric \"pod-second\"; did you mean pod-seconds?");
}
