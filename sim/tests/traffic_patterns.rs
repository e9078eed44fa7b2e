//! Patterns and operators, from the text of a scenario to arrivals.

use std::path::Path;
use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::traffic::{
    Arrival, Format, Operator, Process, Source, TokenCost, TraceSpec, Traffic, TrafficSpec,
};

fn spec(yaml: &str) -> TrafficSpec {
    yaml.parse().unwrap_or_else(|faults| panic!("{yaml}: {faults}"))
}

fn traffic(yaml: &str) -> Traffic {
    spec(yaml).load(Path::new(".")).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

fn error(yaml: &str) -> String {
    match yaml.parse::<TrafficSpec>() {
        Ok(spec) => spec.load(Path::new(".")).expect_err(yaml).to_string(),
        Err(faults) => faults.to_string(),
    }
}

/// Milliseconds of all arrivals, which are whole.
fn millis(traffic: &Traffic) -> Vec<u64> {
    let whole = |arrival: Arrival| {
        assert_eq!(arrival.at.as_nanos() % 1_000_000, 0, "{arrival:?}");
        arrival.at.as_nanos() / 1_000_000
    };
    traffic.arrivals(1).map(whole).collect()
}

fn count(traffic: &Traffic, seed: u64) -> usize {
    traffic.arrivals(seed).count()
}

const SECOND: Duration = Duration::from_secs(1);

/// One of each, all ten minutes long, with the requests to expect.
const PATTERNS: [(&str, f64); 8] = [
    ("constant: {rate: 50, for: 10m}", 30_000.0),
    ("steps: {steps: [{rate: 10, for: 5m}, {rate: 90, for: 5m}]}", 30_000.0),
    ("ramp: {from: 0, to: 100, for: 10m}", 30_000.0),
    ("sine: {mean: 50, amplitude: 50, period: 2m, for: 10m}", 30_000.0),
    ("bursts: {base: 20, burst: 320, length: 6s, every: 60s, for: 10m}", 30_000.0),
    ("concurrent: {requests: 50, every: 1s, for: 10m}", 30_000.0),
    ("mmpp: {states: [{rate: 20, mean: 1s}, {rate: 80, mean: 1s}], for: 10m}", 30_000.0),
    // The mean of the hourly shape is 0.5375.
    ("diurnal: {trough: 0, peak: 100, day: 10m}", 32_250.0),
];

#[test]
fn every_pattern_has_the_requests_its_rates_add_up_to() {
    for (yaml, expected) in PATTERNS {
        let found = count(&traffic(yaml), 5) as f64;
        // Five standard deviations of Poisson; of the two-state process, whose rate itself varies, a little under
        // four times as much: counts disperse by 1 + 2 * 30^2 * 0.5 s / 50 = 19.
        let dispersion: f64 = if yaml.starts_with("mmpp") { 19.0 } else { 1.0 };
        let bound = 5.0 * (expected * dispersion).sqrt();
        assert!((found - expected).abs() < bound, "{yaml}: {found} instead of {expected}");
    }
}

#[test]
fn arrivals_are_in_order_before_the_end_and_the_same_for_the_same_seed() {
    for (yaml, _) in PATTERNS {
        for process in ["uniform", "poisson", "gamma:cv=3"] {
            let has_process = !yaml.starts_with("mmpp") && !yaml.starts_with("concurrent");
            let with = if has_process { format!(", arrivals: '{process}'}}") } else { "}".to_owned() };
            let source = format!("{}{with}", &yaml[..yaml.len() - 1]);
            let yaml = format!("[{{{source}}}, {{scale: 1.3}}, {{speed: 3}}, {{cut: {{from: 7s, to: 3m}}}}]");
            let traffic = traffic(&yaml);
            let all: Vec<Arrival> = traffic.arrivals(9).collect();
            assert!(all.len() > 1_000, "{yaml}: {}", all.len());
            assert!(all.is_sorted_by_key(|arrival| arrival.at), "{yaml}");
            assert!(all.last().unwrap().at < Time::EPOCH + traffic.duration(), "{yaml}");
            assert!(all.iter().copied().eq(traffic.arrivals(9)), "{yaml}");
        }
    }
}

#[test]
fn evenly_spaced_arrivals_can_be_checked_with_a_pencil() {
    let even = |yaml: &str| millis(&traffic(yaml));
    assert_eq!(even("constant: {rate: 4, for: 1s, arrivals: uniform}"), [0, 250, 500, 750]);
    assert_eq!(
        even(
            "steps: {steps: [{rate: 2, for: 1s}, {rate: 0, for: 1s}, {rate: 4, for: 500ms}], arrivals: uniform}"
        ),
        [0, 500, 2_000, 2_250]
    );
    // After t seconds 8 t^2 requests are due: the one after two of them at half a second.
    let ramp = traffic("ramp: {from: 0, to: 16, for: 1s, arrivals: uniform}");
    let at: Vec<Time> = ramp.arrivals(1).map(|arrival| arrival.at).collect();
    assert_eq!((at.len(), at[0], at[2]), (8, Time::EPOCH, Time::from_millis(500)));
    assert_eq!(
        even("bursts: {base: 1, burst: 10, length: 200ms, every: 1200ms, for: 2400ms, arrivals: uniform}"),
        [0, 1_000, 1_100, 1_200, 2_200, 2_300]
    );
    assert_eq!(even("concurrent: {requests: 2, every: 1s, for: 2500ms}"), [0, 0, 1_000, 1_000, 2_000, 2_000]);
    assert!(even("constant: {rate: 0, for: 1h}").is_empty());
}

#[test]
fn the_millionth_evenly_spaced_arrival_is_as_exact_as_the_first() {
    let traffic = traffic("constant: {rate: 10, for: 100h, arrivals: uniform}");
    assert_eq!(traffic.arrivals(1).last().unwrap().at, Time::from_millis(359_999_900));
    assert_eq!(count(&traffic, 1), 3_600_000);
}

#[test]
fn processes_have_the_burstiness_they_promise() {
    for (process, cv) in [("uniform", 0.0), ("poisson", 1.0), ("gamma:cv=0.5", 0.5), ("gamma:cv=3", 3.0)] {
        let traffic = traffic(&format!("constant: {{rate: 1000, for: 5m, arrivals: '{process}'}}"));
        let found = traffic.describe(11).gap_cv.unwrap();
        // 300,000 gaps: the cv's own deviation is below 1 % even for gamma with cv 3.
        assert!((found - cv).abs() < 0.04 * cv + 1e-6, "{process}: {found}");
    }
}

#[test]
fn a_bursty_process_has_its_rate_from_the_first_second_on() {
    // The first gap is met in the middle. Were it a whole one, a cv of 4 would bring far too many at the start.
    let traffic = traffic("constant: {rate: 1, for: 1s, arrivals: 'gamma:cv=4'}");
    let runs = 40_000;
    let total: usize = (0..runs).map(|seed| count(&traffic, seed)).sum();
    let mean = total as f64 / runs as f64;
    // Counts of one second disperse by less than cv^2 = 16: five deviations of the mean are 0.1.
    assert!((mean - 1.0).abs() < 0.1, "{mean}");
}

#[test]
fn a_curve_is_followed_through_time() {
    let traffic = traffic("[{sine: {mean: 1000, amplitude: 1000, period: 1m, for: 10m}}, {cut: {from: 1m}}]");
    let mut quarters = [0.0_f64; 4];
    for arrival in traffic.arrivals(3) {
        quarters[(arrival.at.whole_seconds() % 60 / 15) as usize] += 1.0;
    }
    // Per minute: 15 s * 1000/s, and the sine's area over half a period, 60 * 1000 / pi, split in two.
    let (level, swing) = (15_000.0 * 9.0, 60_000.0 / (2.0 * std::f64::consts::PI) * 9.0);
    for (found, expected) in quarters.into_iter().zip([1.0, 1.0, -1.0, -1.0].map(|sign| level + sign * swing))
    {
        assert!((found - expected).abs() < 5.0 * expected.sqrt(), "{quarters:?}");
    }
}

#[test]
fn states_last_as_long_as_they_should_and_make_traffic_bursty() {
    let traffic = traffic("mmpp: {states: [{rate: 0, mean: 10s}, {rate: 100, mean: 10s}], for: 6h}");
    let described = traffic.describe(4);
    assert!((described.mean_rate - 50.0).abs() < 3.0, "{}", described.mean_rate);
    assert!(described.dispersion[0].index > 20.0, "{:?}", described.dispersion);
    assert!(described.dispersion[1].index > described.dispersion[0].index);
}

#[test]
fn a_cut_of_something_even_is_exactly_that_part() {
    let whole = traffic("constant: {rate: 3, for: 1h, arrivals: uniform}");
    let part = whole.cut(SECOND * 600, SECOND * 601);
    assert_eq!(part.duration(), SECOND);
    let at: Vec<u64> = part.arrivals(1).map(|arrival| arrival.at.as_nanos()).collect();
    assert_eq!(at, [0, 333_333_333, 666_666_667]);
    let parts: usize = (0..60).map(|at| count(&whole.cut(SECOND * 60 * at, SECOND * 60 * (at + 1)), 1)).sum();
    assert_eq!(parts, 10_800, "every arrival is in one part");
}

#[test]
fn operators_apply_in_order() {
    let at = |operators: &str| {
        let base = "concurrent: {requests: 1, every: 1s, for: 4s}";
        millis(&traffic(&format!("[{{{base}}}, {operators}]")))
    };
    assert_eq!(at("{speed: 2}"), [0, 500, 1_000, 1_500]);
    assert_eq!(at("{stretch: 2}"), [0, 2_000, 4_000, 6_000]);
    assert_eq!(at("{shift: 10s}"), [10_000, 11_000, 12_000, 13_000]);
    assert_eq!(at("{cut: {from: 1s, to: 3s}}"), [0, 1_000]);
    assert_eq!(at("{cut: {from: 500ms}}"), [500, 1_500, 2_500]);
    assert_eq!(at("{cut: {to: 2s}}, {repeat: 2}"), [0, 1_000, 2_000, 3_000]);
    assert_eq!(
        at("{repeat: 3}, {cut: {from: 3s, to: 9s}}, {speed: 2}"),
        [0, 500, 1_000, 1_500, 2_000, 2_500]
    );
    assert_eq!(at("{shift: 2s}, {cut: {from: 1s, to: 4s}}"), [1_000, 2_000]);
    assert_eq!(at("{speed: 2}, {cut: {from: 500ms, to: 1500ms}}, {stretch: 4}"), [0, 2_000]);
}

#[test]
fn merged_traffic_arrives_in_order_and_a_sequence_one_after_the_other() {
    let parts = "[{concurrent: {requests: 1, every: 2s, for: 4s}}, \
                 [{concurrent: {requests: 2, every: 3s, for: 6s}}, {shift: 1s}]]";
    assert_eq!(millis(&traffic(&format!("merge: {parts}"))), [0, 1_000, 1_000, 2_000, 4_000, 4_000]);
    let sequence = traffic(&format!("sequence: {parts}"));
    assert_eq!(millis(&sequence), [0, 2_000, 5_000, 5_000, 8_000, 8_000]);
    assert_eq!(sequence.duration(), SECOND * 11);
    assert_eq!(millis(&sequence.cut(SECOND * 2, SECOND * 6)), [0, 3_000, 3_000]);
    let merged = traffic(&format!("merge: {parts}"));
    assert_eq!(millis(&merged.cut(SECOND, SECOND * 5)), [0, 0, 1_000, 3_000, 3_000]);
}

#[test]
fn scaling_multiplies_what_has_happened_by_keeping_or_repeating_it() {
    let base = traffic("concurrent: {requests: 10, every: 100ms, for: 10m}");
    for by in [0.1, 0.5, 1.5, 4.0] {
        let scaled = base.scale(by);
        let all: Vec<Time> = scaled.arrivals(2).map(|arrival| arrival.at).collect();
        let expected = 60_000.0 * by;
        // Each request is kept or repeated on its own: at most a quarter of variance for each.
        assert!(
            (all.len() as f64 - expected).abs() < 5.0 * (60_000.0_f64 * 0.25).sqrt(),
            "{by}: {}",
            all.len()
        );
        assert!(all.is_sorted());
        assert!(*all.last().unwrap() < Time::from_secs(600));
    }
    let once = traffic("concurrent: {requests: 1, every: 1h, for: 1h}").scale(1_000.0);
    let last = once.arrivals(1).last().unwrap().at;
    assert!(
        last > Time::from_millis(900) && last < Time::from_secs(1),
        "copies lag by up to a second: {last:?}"
    );
    assert_eq!(count(&once, 1), 1_000);
}

#[test]
fn repeated_random_traffic_is_random_anew() {
    let traffic = traffic("[{constant: {rate: 10, for: 10s}}, {repeat: 2}]");
    let all: Vec<Time> = traffic.arrivals(1).map(|arrival| arrival.at).collect();
    let (first, second): (Vec<Time>, Vec<Time>) = all.iter().partition(|at| **at < Time::from_secs(10));
    let second: Vec<Time> = second.into_iter().map(|at| at - SECOND * 10).collect();
    assert_ne!(first, second);
    assert!(first.len() > 60 && second.len() > 60);
}

#[test]
fn a_seed_yields_the_same_arrivals_for_ever() {
    let first = |yaml: &str| traffic(yaml).arrivals(7).next().unwrap().at.as_nanos() / 1_000;
    let found = PATTERNS.map(|(yaml, _)| first(yaml));
    assert_eq!(found, [5_452, 27_263, 1_808_753, 5_451, 13_631, 0, 77_182, 11_360]);
}

#[test]
fn what_is_written_is_what_is_meant() {
    let merged = spec(
        "merge: [{concurrent: {requests: 1, every: 1s, for: 2s}}, [{trace: {file: a.csv, format: azure-llm, column: 0, \
         tokens: {base: 1ms}}}, {speed: 2}, {cut: {from: 1s}}]]",
    );
    let trace = TraceSpec {
        file: "a.csv".to_owned(),
        format: Some(Format::AzureLlm),
        column: Some("0".to_owned()),
        tokens: Some(TokenCost { base: SECOND / 1_000, prompt: Duration::ZERO, generated: Duration::ZERO }),
        ..TraceSpec::default()
    };
    let trace = TrafficSpec {
        source: Source::Trace(trace),
        then: vec![Operator::Speed(2.0), Operator::Cut { from: SECOND, to: None }],
    };
    let concurrent = Source::Concurrent { requests: 1, every: SECOND, length: SECOND * 2 };
    assert_eq!(merged, TrafficSpec::from(Source::Merge(vec![concurrent.into(), trace])));

    let days = spec("[{diurnal: {trough: 1, peak: 10, arrivals: 'gamma:cv=2'}}, {shift: 1s}, {repeat: 3}]");
    let (trough, peak, day, arrivals) = (1.0, 10.0, SECOND * 86_400, Process::Gamma { cv: 2.0 });
    assert_eq!(days.source, Source::Diurnal { trough, peak, day, length: None, arrivals });
    assert_eq!(days.then, [Operator::Shift(SECOND), Operator::Repeat(3)]);
}

#[test]
fn an_error_names_the_field_and_what_it_must_be() {
    assert_eq!(
        error("constant: {rate: -1, for: 1m}"),
        "constant.rate: \"-1\" is not a rate: 0 to 1e9 requests per second"
    );
    assert_eq!(
        error("sine: {mean: 1, amplitude: 2, period: 1m, for: 1m}"),
        "sine.amplitude: \"2\" must not be above the mean"
    );
    assert!(error("constant: {rate: 1, for: 0s}").starts_with("constant.for: \"0s\" must be above zero"));
    assert!(error("constant: {rate: .nan, for: 1s}").starts_with("is not valid YAML: "));
    assert!(error("constant: {rate: NaN, for: 1s}").starts_with("constant.rate: \"NaN\" is not a rate"));
    assert!(error("constant: {rate: 1, for: 60}").contains("a number needs a unit, such as 60s"));
    assert_eq!(
        error("constant: {rate: 1, for: 1m, arivals: poisson}"),
        "constant.arivals: unknown field; did you mean `arrivals`?"
    );
    assert_eq!(error("constnt: {rate: 1, for: 1m}"), "constnt: unknown field; did you mean `constant`?");
    assert!(
        error("constant: {rate: 1, for: 1m, arrivals: possion}").contains("use uniform, poisson or gamma")
    );
    assert_eq!(
        error("{constant: {rate: 1, for: 1m}, ramp: {from: 1, to: 2, for: 1m}}"),
        "has both `constant` and `ramp`; several go into `merge: [..]`"
    );
    assert!(error("5").contains("a pattern or trace"));
    assert!(error("[{constant: {rate: 1, for: 1m}}, {cut: {from: 2m}}]").contains("beyond the end"));
    assert_eq!(
        error("[{constant: {rate: 1, for: 1m}}, {cut: {from: 20s, to: 10s}}]"),
        "[1].cut.to: \"10s\" must be after where the cut begins"
    );
    assert_eq!(
        error("[{constant: {rate: 1, for: 1m}}, {scale: 0}]"),
        "[1].scale: \"0\" is not a factor above zero"
    );
    assert_eq!(error("steps: {steps: []}"), "steps.steps: must have at least one entry");
    assert!(Operator::Repeat(0).apply(&traffic("constant: {rate: 1, for: 1m}")).is_err());
}

#[test]
fn all_faults_of_traffic_come_at_once() {
    assert_eq!(
        error(
            "[{merge: [{constant: {rate: -1, for: 1x}}, {ramp: {from: 1, to: ten}}, {mmpp: {states: [{rate: 1}]}}]}, \
             {cut: {form: 1s}}, {stretch: 2, repeat: 0}]"
        ),
        "[0].merge[0].constant.rate: \"-1\" is not a rate: 0 to 1e9 requests per second\n\
         [0].merge[0].constant.for: \"1x\" is not a duration: \"x\" is not a unit of time: use h, m, s, ms, us or ns\n\
         [0].merge[1].ramp.to: \"ten\" is not a number\n\
         [0].merge[1].ramp.for: is missing\n\
         [0].merge[2].mmpp.states[0].mean: is missing\n\
         [0].merge[2].mmpp.for: is missing\n\
         [1].cut.form: unknown field; did you mean `from`?\n\
         [2]: has both `stretch` and `repeat`; each is an entry of the list by itself"
    );
    assert_eq!(
        error(
            "sequence: [{constant: {rate: 1, for: 1m}}, {sine: {mean: 1, amplitude: 2, period: 1m, for: 1m}}]"
        ),
        "sequence[1].sine.amplitude: \"2\" must not be above the mean"
    );
}

#[test]
fn a_description_can_be_checked_with_a_pencil() {
    // Two requests every 100 s, for 1,000 s.
    let described = traffic("concurrent: {requests: 2, every: 100s, for: 1000s}").describe(1);
    assert_eq!(described.requests, 20);
    assert_eq!((described.peak_per_second, described.peak_per_minute), (2, 2));
    assert_eq!((described.silence.times, described.silence.time_fraction), (10, 1.0));
    assert_eq!(described.longest_gaps.len(), 5);
    assert_eq!((described.longest_gaps[0].length_s, described.longest_gaps[0].start_s), (100.0, 0.0));
    // Gaps: ten of 0 s, nine of 100 s; p = 9/19, so the cv is the root of (1 - p) / p.
    assert!((described.gap_cv.unwrap() - (10.0_f64 / 9.0).sqrt()).abs() < 1e-12);
    // Counts by the second: 10 of 1,000 are 2: variance 0.04 - 0.0004 over a mean of 0.02.
    assert!((described.dispersion[0].index - 1.98).abs() < 1e-12);
    assert!(described.to_string().contains("scale to zero will happen"), "{described}");
    let busy = traffic("constant: {rate: 100, for: 10m}").describe(1);
    assert!(busy.to_string().contains("scale to zero will not happen"), "{busy}");
    let dispersion = busy.dispersion[0].index;
    // 600 counts of a Poisson process: five deviations of the index are 5 * sqrt(2 / 600).
    assert!((dispersion - 1.0).abs() < 0.29, "{dispersion}");
}
