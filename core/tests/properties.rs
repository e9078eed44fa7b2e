//! Rules that hold in every life a revision can have: legal settings, any facts in any order, over a long time.
//! A failure prints the shortest life that breaks the rule.

use std::time::Duration;

use pilotlight_core::{
    ActivatorPath, Aggregation, Bound, Decision, Evaluation, Input, Plan, PodCounts, Reachability, Revision,
    RevisionSpec, Rule, ScalingMetric, Stat, TargetBurstCapacity, Time, Trigger,
};
use proptest::prelude::*;

/// A whole life: how it starts, and what happens after how long.
#[derive(Clone, Debug)]
struct Life {
    spec: RevisionSpec,
    pods: PodCounts,
    events: Vec<(Duration, Input)>,
}

/// One step of a life, as it came out.
struct Moment {
    now: Time,
    /// Just after the step.
    revision: Revision,
    plan: Plan,
}

impl Moment {
    fn evaluation(&self) -> &Evaluation {
        self.revision.evaluation().expect("a plan comes of an evaluation")
    }

    fn decision(&self) -> Option<&Decision> {
        self.evaluation().new_decision()
    }
}

impl Life {
    /// Lives it, and calls `check` after each step that came to a plan.
    fn live(&self, mut check: impl FnMut(&Moment) -> Result<(), TestCaseError>) -> Result<(), TestCaseError> {
        let mut now = START;
        let mut revision = Revision::new(now, self.spec.clone(), self.pods);
        for (elapsed, input) in &self.events {
            now += *elapsed;
            if let Some(plan) = revision.step(now, input.clone()) {
                check(&Moment { now, revision: revision.clone(), plan })?;
            }
        }
        Ok(())
    }

    fn evaluations(&self) -> Vec<Evaluation> {
        let mut all = Vec::new();
        let lived = self.live(|moment| {
            all.push(moment.evaluation().clone());
            Ok(())
        });
        lived.expect("nothing is checked");
        all
    }
}

const START: Time = Time::from_secs(1_000_000);

// ---- Random lives ----

fn seconds(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

prop_compose! {
    fn demand_side()(
        scaling_metric in prop_oneof![Just(ScalingMetric::Concurrency), Just(ScalingMetric::Rps)],
        aggregation in prop_oneof![Just(Aggregation::Linear), Just(Aggregation::WeightedExponential)],
        total in 0.01..200.0,
        utilization in 0.01..=1.0,
        target_burst_capacity in prop_oneof![
            Just(TargetBurstCapacity::Off),
            Just(TargetBurstCapacity::Unlimited),
            (0.1..500.0).prop_map(TargetBurstCapacity::Of),
        ],
        panic_threshold in 1.1..10.0,
        max_scale_up_rate in prop_oneof![1.01..3.0, Just(1000.0)],
        max_scale_down_rate in 1.01..5.0,
        stable_s in prop_oneof![4 => 6u64..=60, 1 => 60u64..=3600],
        panic_share in 0.01..=1.0f64,
        activation_scale in prop::option::of(2u32..=10),
        scaled_down_late in prop_oneof![Just(Duration::ZERO), seconds(1..=60)],
    ) -> RevisionSpec {
        RevisionSpec {
            scaling_metric, aggregation, total, target_burst_capacity, panic_threshold,
            max_scale_up_rate, max_scale_down_rate, activation_scale,
            target: f64::max(0.01, total * utilization),
            stable_window: Duration::from_secs(stable_s),
            panic_window: Duration::from_secs(((stable_s as f64 * panic_share).round() as u64).max(1)),
            scale_down_delay: scaled_down_late,
            ..RevisionSpec::default()
        }
    }
}

prop_compose! {
    fn any_spec()(
        demand_side in demand_side(),
        reachability in prop_oneof![
            4 => Just(Reachability::Reachable), 1 => Just(Reachability::Unknown), 1 => Just(Reachability::Unreachable),
        ],
        scraped in prop::bool::weighted(0.8),
        min_scale in prop_oneof![2 => Just(0u32), 1 => 0u32..=5],
        room in prop::option::of(0u32..=20),
        initial_scale in 0u32..=5,
        enable_scale_to_zero in prop::bool::weighted(0.8),
        scale_to_zero_grace_period in seconds(1..=40),
        pod_retention in prop_oneof![Just(Duration::ZERO), seconds(1..=90)],
        activation_timeout in seconds(30..=200),
    ) -> RevisionSpec {
        // Resolution leaves an unreachable revision no minimum.
        let min_scale = if reachability == Reachability::Unreachable { 0 } else { min_scale };
        RevisionSpec {
            reachability, scraped, min_scale, initial_scale, enable_scale_to_zero,
            scale_to_zero_grace_period, pod_retention, activation_timeout,
            max_scale: room.map(|room| (min_scale + room).max(1)),
            ..demand_side
        }
    }
}

/// Mostly nothing or a little, now and then a flood; proxied traffic is never more than all of it.
fn any_stat() -> impl Strategy<Value = Stat> {
    let amount = || prop_oneof![3 => Just(0.0), 4 => 0.0..50.0, 1 => 0.0..5000.0];
    (amount(), 0.0..=1.0, amount(), 0.0..=1.0).prop_map(
        |(concurrency, proxied, requests, proxied_requests)| Stat {
            average_concurrent_requests: concurrency,
            average_proxied_concurrent_requests: concurrency * proxied,
            request_count: requests,
            proxied_request_count: requests * proxied_requests,
            ..Stat::default()
        },
    )
}

fn any_pods() -> impl Strategy<Value = PodCounts> {
    let some = || prop_oneof![Just(0u32), 1u32..=3, 0u32..=100];
    (some(), some(), some()).prop_map(|(ready, starting, terminating)| PodCounts {
        ready,
        starting,
        pending: starting / 2,
        terminating,
    })
}

fn any_path() -> impl Strategy<Value = ActivatorPath> {
    let populated = prop::option::of(seconds(0..=500).prop_map(|later| START + later));
    (populated, any::<bool>()).prop_map(|(populated_since, probed)| ActivatorPath { populated_since, probed })
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => any_stat().prop_map(Input::Scraped),
        4 => any_stat().prop_map(Input::Pushed),
        3 => any_pods().prop_map(Input::Pods),
        2 => any_path().prop_map(Input::Path),
        1 => any_spec().prop_map(|spec| Input::Spec(Box::new(spec))),
        12 => Just(Input::Tick),
        2 => Just(Input::Wake),
    ]
}

/// Mostly about a second, now and then a silence of minutes.
fn any_pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        12 => 0u64..=2_000,
        2 => 2_000u64..=30_000,
        1 => 30_000u64..=400_000,
    ]
    .prop_map(Duration::from_millis)
}

prop_compose! {
    fn any_life()(
        spec in any_spec(),
        pods in any_pods(),
        events in prop::collection::vec((any_pause(), any_input()), 1..250),
    ) -> Life {
        Life { spec, pods, events }
    }
}

// ---- The rules ----

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_applied_lies_within_the_bounds(life in any_life()) {
        life.live(|moment| {
            let spec = moment.revision.spec();
            let bound = moment.evaluation().outcome.bound;
            let Some(scale) = moment.plan.scale else { return Ok(()) };
            prop_assert!(scale >= spec.min_scale, "{scale} below the minimum");
            prop_assert!(scale > 0 || spec.enable_scale_to_zero, "the last pod is gone");
            // A revision that never had its initial scale may exceed the maximum to get there.
            if let Some(max) = spec.max_scale.filter(|_| bound != Some(Bound::InitialScale)) {
                prop_assert!(scale <= max, "{scale} above the maximum");
            }
            Ok(())
        })?;
    }

    #[test]
    fn there_is_never_nothing_while_there_is_load(life in any_life()) {
        life.live(|moment| {
            let Some(decision) = moment.decision() else { return Ok(()) };
            if decision.stable > 0.0 || decision.is_panicking() && decision.panic > 0.0 {
                prop_assert!(decision.desired >= 1);
                prop_assert!(moment.evaluation().outcome.want.is_some_and(|pods| pods > 0));
                prop_assert!(moment.plan.scale.is_some_and(|pods| pods > 0));
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_number_does_not_fall_in_panic(life in any_life()) {
        let mut before: Option<Decision> = None;
        life.live(|moment| {
            let Some(decision) = moment.decision() else { return Ok(()) };
            // What the scale-down delay held from before the panic may still expire in it.
            if let Some(before) = before.as_ref().filter(|before| before.rule != Rule::ScaleDownDelay)
                && before.is_panicking() && decision.is_panicking()
            {
                prop_assert!(decision.desired >= before.desired, "{before:?} then {decision:?}");
            }
            before = Some(decision.clone());
            Ok(())
        })?;
    }

    #[test]
    fn the_rule_that_is_named_explains_the_number(life in any_life()) {
        life.live(|moment| {
            let Some(decision) = moment.decision() else { return Ok(()) };
            let spec = moment.revision.spec();
            let desired = decision.desired;
            let highest_demand = decision.stable_demand.max(decision.panic_demand);
            prop_assert!(match decision.rule {
                Rule::StableDemand => desired == decision.stable_demand,
                Rule::PanicDemand => desired == decision.panic_demand && decision.is_panicking(),
                Rule::PanicHold => decision.is_panicking(),
                Rule::ScaleUpRate => desired == decision.up_limit && desired < highest_demand,
                Rule::ScaleDownRate => desired == decision.down_limit && desired > decision.stable_demand,
                Rule::ActivationScale => Some(desired) == spec.activation_scale && highest_demand > 0,
                Rule::ScaleDownDelay => spec.is_reachable(),
            }, "{decision:?}");
            Ok(())
        })?;
    }

    #[test]
    fn thinking_twice_at_the_same_moment_decides_the_same(life in any_life()) {
        life.live(|moment| {
            let mut again = moment.revision.clone();
            if moment.evaluation().trigger != Trigger::Change {
                again.step(moment.now, Input::Tick);
                let decision = again.evaluation().expect("a tick is evaluated").new_decision();
                prop_assert_eq!(decision, moment.decision());
            }
            // The way down has steps (initialized, no longer active, gone); after them it rests.
            for _ in 0..3 {
                again.step(moment.now, Input::Tick);
            }
            let plan = again.step(moment.now, Input::Tick);
            prop_assert_eq!(again.step(moment.now, Input::Tick), plan);
            Ok(())
        })?;
    }

    #[test]
    fn without_data_the_last_decision_stands(life in any_life()) {
        let mut stands: Option<Decision> = None;
        life.live(|moment| {
            if let Some(decision) = moment.decision() {
                prop_assert!(moment.evaluation().trigger != Trigger::Change);
                stands = Some(decision.clone());
            }
            prop_assert_eq!(moment.revision.decision(), stands.as_ref());
            Ok(())
        })?;
    }

    #[test]
    fn every_wake_up_call_lies_in_the_future(life in any_life()) {
        life.live(|moment| {
            prop_assert!(moment.plan.wake_at.is_none_or(|wake_at| wake_at > moment.now));
            Ok(())
        })?;
    }

    #[test]
    fn the_same_facts_lead_to_the_same_evaluations_even_when_read_from_json(life in any_life()) {
        let first = life.evaluations();
        prop_assert_eq!(&life.evaluations(), &first);
        let json = |value: &Input| serde_json::to_string(value).unwrap();
        let events = life.events.iter().map(|(pause, input)| (*pause, serde_json::from_str(&json(input)).unwrap()));
        let spec = serde_json::from_str(&serde_json::to_string(&life.spec).unwrap()).unwrap();
        let reread = Life { spec, pods: life.pods, events: events.collect() };
        prop_assert_eq!(reread.evaluations(), first);
    }

    #[test]
    fn a_restart_at_any_moment_with_the_whole_history_changes_no_plan(life in any_life(), at in any::<prop::sample::Index>()) {
        // Aggregation and delay are fixed at creation: a restart is what makes new ones count.
        let events: Vec<_> = life.events.iter().filter(|(_, input)| !matches!(input, Input::Spec(_))).collect();
        let at = at.index(events.len() + 1);
        let (mut now, mut pods) = (START, life.pods);
        let mut lasting = Revision::new(now, life.spec.clone(), pods);
        let mut restarted = lasting.clone();
        for (index, (pause, input)) in events.iter().enumerate() {
            if index == at {
                let history = serde_json::to_string(&lasting.history()).unwrap();
                restarted = Revision::resume(now, life.spec.clone(), pods, serde_json::from_str(&history).unwrap());
            }
            now += *pause;
            if let Input::Pods(counts) = input {
                pods = *counts;
            }
            prop_assert_eq!(restarted.step(now, input.clone()), lasting.step(now, input.clone()));
        }
    }

    #[test]
    fn an_evaluation_survives_json_exactly(life in any_life()) {
        life.live(|moment| {
            let text = serde_json::to_string(moment.evaluation()).unwrap();
            let read: Evaluation = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, moment.evaluation());
            Ok(())
        })?;
    }

    #[test]
    fn every_evaluation_can_be_told_in_a_sentence(life in any_life()) {
        life.live(|moment| {
            let why = moment.evaluation().why(moment.revision.spec());
            prop_assert!(!why.is_empty() && !why.contains('\n') && !why.contains("NaN"), "{}", why);
            Ok(())
        })?;
    }
}
