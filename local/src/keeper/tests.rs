//! A keeper and pods that do what the script says, under paused time.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_config::workload::{self, Manifest};
use pilotlight_core::RevisionId;
use pilotlight_net::Clock;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, sleep};

use super::*;

/// One workload, its keeper at work, and every pod it has launched.
struct Script {
    known: Arc<Known>,
    id: RevisionId,
    orders: Option<mpsc::UnboundedSender<Order>>,
    keeper: JoinHandle<()>,
    pods: Arc<Mutex<Fakes>>,
}

#[derive(Default)]
struct Fakes {
    launched: BTreeMap<PodName, Launch>,
    no_address: bool,
}

impl Script {
    fn new() -> Script {
        Script::among(&Arc::new(Known::new(Clock::start())), "default")
    }

    fn among(known: &Arc<Known>, namespace: &str) -> Script {
        let workload = Arc::new(hello(namespace));
        let pods = Arc::<Mutex<Fakes>>::default();
        let fakes = Arc::clone(&pods);
        let launch = move |launch: Launch| {
            let mut fakes = fakes.lock();
            if fakes.no_address {
                return Err(io::Error::other("all are taken"));
            }
            let ip = [127, 0, 0, fakes.launched.len() as u8 + 1].into();
            fakes.launched.insert(Arc::clone(&launch.name), launch);
            Ok(PodAddress { ip, serving: 8012, stats: 9090, metrics: 9091, admin: 8022 })
        };
        let (orders, inbox) = mpsc::unbounded_channel();
        let id = workload.id.clone();
        let keeper = tokio::spawn(Keeper::new(Arc::clone(known), workload, launch).run(inbox));
        Script { known: Arc::clone(known), id, orders: Some(orders), keeper, pods }
    }

    async fn order(&self, order: Order) -> &Self {
        self.orders.as_ref().expect("the cluster is there").send(order).expect("the keeper is at work");
        self.settle().await
    }

    async fn scale(&self, pods: u32) -> &Self {
        self.order(Order::Scale { pods, decided: self.known.clock.now() }).await
    }

    async fn load(&self, pod: &str, requests: f64) -> &Self {
        self.order(Order::Load { pod: pod.into(), requests }).await
    }

    async fn pod(&self, pod: &str, event: Event) -> &Self {
        let events = self.pods.lock().launched[pod].events.clone();
        events.send((pod.into(), event)).expect("the keeper is at work");
        self.settle().await
    }

    async fn fails(&self, pod: &str, reason: TroubleReason) -> &Self {
        let failure = Failure {
            reason,
            message: format!("{pod} is broken"),
            exit_code: Some(3),
            log_tail: vec!["no database".to_owned()],
        };
        self.pod(pod, Event::Ended(Ending::Failed(failure))).await
    }

    /// Lets the keeper hear what was said, and a millisecond pass.
    async fn settle(&self) -> &Self {
        yield_now().await;
        advance(Duration::from_millis(1)).await;
        self
    }

    fn launched(&self) -> usize {
        self.pods.lock().launched.len()
    }

    fn told(&self, pod: &str) -> Stop {
        *self.pods.lock().launched[pod].stop.borrow()
    }

    fn endpoints(&self) -> RevisionEndpoints {
        self.known.endpoints.get(&self.id).map(|endpoints| (*endpoints).clone()).expect("published")
    }

    fn listed(&self) -> Vec<String> {
        self.endpoints().ready.iter().map(|pod| pod.name.clone()).collect()
    }

    fn seen(&self) -> Arc<RevisionView> {
        self.known.revisions.get(&self.id).expect("a keeper makes its workload known at once")
    }

    fn phases(&self) -> Vec<(String, PodPhase)> {
        let view = self.seen();
        view.pods.iter().map(|pod| (pod.name.clone(), pod.phase)).collect()
    }

    fn leaving(&self) -> Vec<String> {
        let leaving = self.phases().into_iter().filter(|(_, phase)| *phase == PodPhase::Terminating);
        leaving.map(|(name, _)| name).collect()
    }

    fn trouble(&self) -> Trouble {
        self.endpoints().trouble.expect("pods do not come up")
    }
}

fn hello(namespace: &str) -> LocalWorkload {
    let text = format!(
        "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: hello, namespace: {namespace}}}
spec: {{template: {{spec: {{containers: [{{command: [sh]}}]}}}}}}"
    );
    let read = workload::read(&[Manifest { file: "hello.yaml", text: &text }], None);
    let workload = &read.value.expect("a legal manifest").workloads[0];
    LocalWorkload::new(workload, Duration::from_secs(60)).expect("there is a shell")
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_listed_once_it_is_ready_with_the_steps_of_its_start() {
    let script = Script::new();
    let decided = script.known.clock.now();
    script.scale(1).await;
    assert_eq!((script.endpoints().starting, script.listed().len()), (1, 0));
    assert_eq!(script.phases(), [("hello-1".to_owned(), PodPhase::Starting)]);
    script.pod("hello-1", Event::Spawned).await.pod("hello-1", Event::Ready).await;
    assert_eq!((script.endpoints().starting, script.listed()), (0, vec!["hello-1".to_owned()]));
    let timeline = script.endpoints().ready[0].timeline;
    let after = |millis| Some(decided + Duration::from_millis(millis));
    assert_eq!((timeline.decided, timeline.spawned, timeline.ready), (after(0), after(1), after(2)));
}

#[tokio::test(start_paused = true)]
async fn the_same_wish_again_changes_nothing() {
    let script = Script::new();
    let decided = script.known.clock.now();
    script.scale(1).await.scale(1).await.pod("hello-1", Event::Ready).await.scale(1).await;
    assert_eq!((script.launched(), script.endpoints().ready[0].timeline.decided), (1, Some(decided)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_left_out_of_the_endpoints_before_it_is_told_to_stop() {
    let script = Script::new();
    script.scale(1).await.pod("hello-1", Event::Ready).await;
    let mut stop = script.pods.lock().launched["hello-1"].stop.clone();
    let known = Arc::clone(&script.known);
    let id = script.id.clone();
    let listed_when_told = tokio::spawn(async move {
        stop.wait_for(|stop| *stop != Stop::No).await.expect("the keeper is at work");
        known.endpoints.get(&id).map_or(0, |endpoints| endpoints.ready.len())
    });
    script.scale(0).await;
    assert_eq!(listed_when_told.await.unwrap(), 0);
    assert_eq!(script.told("hello-1"), Stop::Gently);
    assert_eq!(script.phases(), [("hello-1".to_owned(), PodPhase::Terminating)]);
    script.pod("hello-1", Event::Ended(Ending::Stopped)).await;
    assert!(script.phases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_told_with_its_cause_given_up_after_three_and_tried_on() {
    let script = Script::new();
    script.scale(1).await.fails("hello-1", TroubleReason::Exited).await;
    let trouble = script.trouble();
    assert_eq!((trouble.failures, trouble.give_up, trouble.exit_code), (1, false, Some(3)));
    assert_eq!(
        (trouble.message.as_str(), trouble.log_tail),
        ("hello-1 is broken", vec!["no database".into()])
    );

    // 100 ms after the failure, of which one has passed.
    sleep(Duration::from_millis(98)).await;
    assert_eq!(script.launched(), 1);
    sleep(Duration::from_millis(2)).await;
    assert_eq!(script.launched(), 2);
    script.fails("hello-2", TroubleReason::Exited).await;
    sleep(Duration::from_millis(200)).await;
    script.fails("hello-3", TroubleReason::Exited).await;
    let trouble = script.trouble();
    assert_eq!((trouble.failures, trouble.give_up, script.launched()), (3, true, 3));
    sleep(Duration::from_millis(400)).await;
    // Requests that come now wait for this one.
    assert_eq!((script.launched(), script.trouble().give_up), (4, false));
    assert_eq!(script.seen().trouble.as_deref(), Some(&script.trouble()), "the autoscaler is told the same");

    script.pod("hello-4", Event::Ready).await;
    assert_eq!((script.endpoints().trouble, script.listed()), (None, vec!["hello-4".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_failed_is_left_out_at_once_replaced_and_waited_for() {
    let script = Script::new();
    script.scale(1).await.pod("hello-1", Event::Ready).await;
    let failure = Failure::cannot_start("it was killed".to_owned());
    script.pod("hello-1", Event::Failed(failure)).await;
    assert_eq!((script.listed().len(), script.leaving()), (0, vec!["hello-1".to_owned()]));
    sleep(Duration::from_millis(100)).await;
    script.pod("hello-2", Event::Ready).await;
    assert_eq!((script.launched(), script.listed()), (2, vec!["hello-2".to_owned()]));
    script.order(Order::Stop).await.pod("hello-2", Event::Ended(Ending::Stopped)).await;
    assert!(!script.keeper.is_finished(), "the first pod still drains");
    script.pod("hello-1", Event::Ended(Ending::Stopped)).await;
    assert!(script.keeper.is_finished());
    assert_eq!(script.known.meters.lock()[&script.id].read(script.known.clock.now()).failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_a_pod_that_failed_and_still_drains() {
    let script = Script::new();
    script.scale(1).await.pod("hello-1", Event::Ready).await;
    script.pod("hello-1", Event::Failed(Failure::cannot_start("it was killed".to_owned()))).await;
    script.order(Order::Kill).await;
    assert_eq!(script.told("hello-1"), Stop::Now);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_a_crash_loop_has_a_start_tried_at_once() {
    let script = Script::new();
    script.scale(1).await;
    for pod in 1..=6 {
        script.fails(&format!("hello-{pod}"), TroubleReason::Exited).await;
        sleep(Duration::from_millis(100 << (pod - 1))).await;
    }
    script.fails("hello-7", TroubleReason::Exited).await;
    // The next start would come in 6.4 s.
    script.order(Order::Demand).await;
    assert_eq!(script.launched(), 7, "a second has not passed");
    sleep(Duration::from_secs(1)).await;
    assert!(!script.trouble().refuses(script.known.clock.now()));
    script.order(Order::Demand).await;
    assert_eq!(script.launched(), 8);
    script.pod("hello-8", Event::Ready).await;
    assert_eq!(script.endpoints().trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_long_says_why_until_it_is_ready() {
    let script = Script::new();
    let waits_for = || script.seen().pods[0].waits_for.clone();
    script.scale(1).await.pod("hello-1", Event::Waits("nothing listens".to_owned())).await;
    assert_eq!(waits_for().as_deref(), Some("nothing listens"));
    script.pod("hello-1", Event::Ready).await;
    assert_eq!(waits_for(), None);
}

#[tokio::test(start_paused = true)]
async fn pods_that_fail_together_are_one_failure() {
    let script = Script::new();
    script.scale(3).await;
    for pod in ["hello-1", "hello-2", "hello-3"] {
        script.fails(pod, TroubleReason::Exited).await;
    }
    assert_eq!((script.trouble().failures, script.trouble().give_up), (1, false));
    assert_eq!(script.known.meters.lock()[&script.id].read(script.known.clock.now()).failed, 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_no_trouble() {
    let script = Script::new();
    script.scale(1).await.fails("hello-1", TroubleReason::NeverReady).await;
    assert!(script.trouble().give_up);
    script.scale(0).await;
    assert_eq!(script.endpoints().trouble, None);
    script.scale(1).await;
    assert_eq!(script.launched(), 2, "at once");
}

#[tokio::test(start_paused = true)]
async fn without_an_address_a_pod_does_not_come_up_and_is_tried_again() {
    let script = Script::new();
    script.pods.lock().no_address = true;
    script.scale(2).await;
    let trouble = script.trouble();
    assert_eq!(trouble.message, "no address for a pod: all are taken");
    assert_eq!((trouble.reason, trouble.failures, trouble.give_up), (TroubleReason::CannotStart, 1, true));
    script.pods.lock().no_address = false;
    sleep(Duration::from_millis(100)).await;
    // One at a time until one comes up. Names are never used twice.
    assert_eq!(script.phases(), [("hello-3".to_owned(), PodPhase::Starting)]);
    script.pod("hello-3", Event::Ready).await;
    assert_eq!((script.launched(), script.endpoints().trouble), (2, None));
}

#[tokio::test(start_paused = true)]
async fn the_pod_that_reports_least_goes_first() {
    let script = Script::new();
    script.scale(3).await;
    for (pod, requests) in [("hello-1", 2.0), ("hello-2", 0.5), ("hello-3", 1.0)] {
        script.pod(pod, Event::Ready).await.load(pod, requests).await;
    }
    script.scale(2).await;
    assert_eq!(script.leaving(), ["hello-2"]);
    assert_eq!([script.told("hello-1"), script.told("hello-3")], [Stop::No; 2]);
}

#[tokio::test(start_paused = true)]
async fn pods_of_one_name_in_two_namespaces_are_two_pods() {
    let known = Arc::new(Known::new(Clock::start()));
    let [one, other] = ["one", "other"].map(|namespace| Script::among(&known, namespace));
    one.scale(2).await.pod("hello-1", Event::Ready).await.pod("hello-2", Event::Ready).await;
    one.load("hello-1", 5.0).await.load("hello-2", 1.0).await;
    // Loads were kept by bare name once: the other namespace's pod overwrote them.
    other.scale(1).await.pod("hello-1", Event::Ready).await.load("hello-1", 0.0).await;
    other.scale(0).await.pod("hello-1", Event::Ended(Ending::Stopped)).await;
    one.scale(1).await;
    assert_eq!((one.leaving(), other.phases()), (vec!["hello-2".to_owned()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_is_stopped_waits_for_its_pods() {
    let script = Script::new();
    script.scale(2).await.pod("hello-1", Event::Ready).await.order(Order::Stop).await;
    assert_eq!([script.told("hello-1"), script.told("hello-2")], [Stop::Gently; 2]);
    script.scale(5).await.pod("hello-2", Event::Ended(Ending::Stopped)).await;
    assert_eq!((script.launched(), script.keeper.is_finished()), (2, false));
    script.pod("hello-1", Event::Ended(Ending::Stopped)).await;
    assert!(script.keeper.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_kill_overtakes_a_stop() {
    let script = Script::new();
    script.scale(2).await.pod("hello-1", Event::Ready).await;
    script.order(Order::Stop).await.order(Order::Kill).await;
    assert_eq!([script.told("hello-1"), script.told("hello-2")], [Stop::Now; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_keeper_whose_cluster_is_gone_kills_its_pods_and_ends_with_them() {
    let mut script = Script::new();
    script.scale(1).await.pod("hello-1", Event::Ready).await;
    script.orders = None;
    script.settle().await;
    assert_eq!((script.told("hello-1"), script.keeper.is_finished()), (Stop::Now, false));
    script.pod("hello-1", Event::Ended(Ending::Stopped)).await;
    assert!(script.keeper.is_finished());
}

#[tokio::test(start_paused = true)]
async fn usage_counts_pods_from_their_start_to_their_end() {
    let script = Script::new();
    script.scale(2).await;
    sleep(Duration::from_secs(10)).await;
    script.pod("hello-1", Event::Ready).await.scale(1).await;
    sleep(Duration::from_secs(5)).await;
    script.pod("hello-2", Event::Ended(Ending::Stopped)).await;
    sleep(Duration::from_secs(1)).await;
    let usage = script.known.meters.lock()[&script.id].read(script.known.clock.now());
    // The script itself takes some milliseconds.
    assert_eq!(usage.pod_time.as_secs(), 10 + 10 + 5 + 5 + 1);
    assert_eq!((usage.started, usage.peak, usage.failed), (2, 2, 0));
}
