//! Ten minutes of overload: memory held must not grow, and nothing may be left over.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use pilotlight_core::{PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId};
use pilotlight_feed::Change;
use pilotlight_net::{Clock, Ending, Target};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::activator::{ActivatorParams, ActivatorState};
use crate::revision::RevisionTraffic;

const ARRIVALS_PER_SECOND: u32 = 200;
const MINUTES: u32 = 10;
const SERVICE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);

/// Sizes of everything that could grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// Requests that wait, as the queue and as the limit over all queues count them.
    queued: usize,
    backlog: usize,
    /// Requests at pods, and pods that are listed or still have requests.
    active: usize,
    pods: usize,
    /// Requests between arrival and end, as reports count them.
    in_flight: usize,
    /// Entries in the books.
    statuses: usize,
    cold_starts: usize,
    tasks: usize,
}

impl Sizes {
    fn of(shared: &ActivatorState, revision: &RevisionTraffic) -> Sizes {
        let (queued, active) = revision.throttler().queued_and_active();
        let ledger = revision.ledger();
        Sizes {
            queued,
            backlog: shared.backlog.waiting(),
            active: active as usize,
            pods: revision.throttler().in_flight_by_pod().len(),
            in_flight: revision.in_flight() as usize,
            statuses: ledger.statuses.len(),
            cold_starts: ledger.cold_starts.recent.len(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    fn each(self) -> [usize; 8] {
        let Sizes { queued, backlog, active, pods, in_flight, .. } = self;
        let Sizes { statuses, cold_starts, tasks, .. } = self;
        [queued, backlog, active, pods, in_flight, statuses, cold_starts, tasks]
    }
}

/// One client. It gives up when it has waited too long for its turn; every other one also when the answer does not
/// come in that time.
async fn client(shared: Arc<ActivatorState>, revision: Arc<RevisionTraffic>, is_patient_with_pods: bool) {
    let gives_up = Instant::now() + PATIENCE;
    let (mut exchange, announcement) = revision.begin(shared.params.clock, Method::GET);
    if let Some(stat) = announcement {
        shared.announce(&revision, stat);
    }
    let place = revision.throttler().arrive(&None);
    let Ok(slot) = timeout_at(gives_up, place.slot()).await else { return };
    let slot = slot.expect("neither full nor deleted");
    let service = sleep(SERVICE);
    if is_patient_with_pods {
        service.await;
    } else if timeout_at(gives_up, service).await.is_err() {
        return;
    }
    exchange.answered(StatusCode::OK);
    drop(slot);
    exchange.ended(Ending::Complete);
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_overload_leave_nothing_behind() {
    let autoscaler = Target::ws("ws://127.0.0.1:1").expect("a URL");
    let shared = Arc::new(ActivatorState::new(ActivatorParams::new("act", Clock::start(), autoscaler)));
    let id = RevisionId::new("default", "hello");
    let pod = PodEndpoint {
        name: "pod-1".to_owned(),
        address: ([10, 0, 0, 1], 8012).into(),
        tls_address: None,
        ports: Arc::default(),
        timeline: PodTimeline::default(),
    };
    let hello = RevisionEndpoints {
        container_concurrency: 2.into(),
        ready: vec![pod],
        ..RevisionEndpoints::default()
    };
    let id = Arc::new(id);
    shared.apply(Change::Set(Arc::clone(&id), Arc::new(hello)));
    let revision = shared.all_revisions().pop().expect("the revision");
    let at_rest = Sizes::of(&shared, &revision);

    let start = Instant::now();
    let (mut early, mut late) = ([0; 8], [0; 8]);
    for second in 0..MINUTES * 60 {
        for arrival in 0..ARRIVALS_PER_SECOND {
            let at = Duration::from_secs(1) / ARRIVALS_PER_SECOND * (second * ARRIVALS_PER_SECOND + arrival);
            sleep_until(start + at).await;
            tokio::spawn(client(Arc::clone(&shared), Arc::clone(&revision), arrival % 2 == 0));
        }
        let sizes = Sizes::of(&shared, &revision).each();
        let most = if second < 120 { &mut early } else { &mut late };
        most.iter_mut().zip(sizes).for_each(|(most, size)| *most = size.max(*most));
        shared.report();
    }
    assert!(late.iter().zip(early).all(|(late, early)| *late <= early), "grew from {early:?} to {late:?}");
    assert!(early[0] > 150, "there was a crowd: {early:?}");

    sleep(SERVICE + PATIENCE).await;
    assert_eq!(shared.reporting.len(), 1);
    // The last requests, the second without any, and nothing to say.
    for _ in 0..3 {
        sleep(Duration::from_secs(1)).await;
        shared.report();
    }
    assert_eq!(shared.reporting.len(), 0, "at rest, it costs nothing");
    let ledger = revision.ledger();
    assert_eq!(ledger.requests, u64::from(MINUTES * 60 * ARRIVALS_PER_SECOND));
    let served = ledger.statuses[&200];
    assert!(served >= 20, "two at a time, half a minute each: {served}");
    assert_eq!(served + ledger.abandoned, ledger.requests, "every request is accounted for");
    assert_eq!(Sizes::of(&shared, &revision), Sizes { statuses: 1, ..at_rest });

    // And when the revision goes, so does all that is known of it.
    shared.apply(Change::Gone(id));
    shared.retire();
    assert!(shared.all_revisions().is_empty());
}
