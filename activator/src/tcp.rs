//! Connections that are not HTTP: held with their first bytes until a pod has room, then passed through as they are.

use std::pin::pin;
use std::time::Duration;

use pilotlight_net::{Broken, Carried, ClientConnection, Drain, Error, Relay, Transport, hold_bytes_while};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::ports::{PortConnection, TcpTimes};
use crate::revision::{Demand, Passage};
use crate::routes::Unroutable;
use crate::throttler::{Obstacle, PlaceInLine, Refusal, Slot};

/// Passes a connection on to a pod, until either side closes it or the drain is forced. One that finds no pod before the
/// revision's time limit ends with a reset.
pub(crate) async fn pass(at: &PortConnection, connection: ClientConnection, drain: &Drain) {
    let (peer, listening) = (connection.client(), connection.local().port());
    let mut client = connection.into_transport();
    let mut forced = pin!(drain.forced());
    let reached = tokio::select! {
        biased;
        () = &mut forced => Err(Unreached::Stopping),
        reached = reach(at, listening, &mut client) => reached,
    };
    let (upstream, _slot, mut passage) = match reached {
        Ok(reached) => reached,
        Err(why) => {
            debug!(%peer, revision = %at.revision(), ?why, "Connection found no pod");
            client.break_off();
            return;
        }
    };
    let mut relay = Relay::new(client, upstream);
    let is_over = tokio::select! {
        biased;
        () = &mut forced => false,
        () = carry(&mut relay, &mut passage, at.tcp_times()) => true,
    };
    if !is_over {
        relay.break_off();
    }
}

/// The reason why a connection was not passed on.
#[derive(Debug)]
#[expect(dead_code, reason = "what it holds is for the log")]
enum Unreached {
    NoRevision(Unroutable),
    Client(Error),
    Refused(Refusal),
    TimedOut(Obstacle),
    /// The connection was handed on to this activator, which does not own the pods any more.
    NotOwned,
    Stopping,
}

/// A connection to a pod, as soon as one has room and accepts it.
async fn reach(
    at: &PortConnection,
    listening: u16,
    client: &mut Transport,
) -> Result<(Transport, Slot, Passage), Unreached> {
    let shared = &at.shared;
    let known = shared.routes.revision_or_wait(at.revision());
    let route = hold_bytes_while(client, &shared.body_bytes, known).await.map_err(Unreached::Client)?;
    let route = route.map_err(Unreached::NoRevision)?;
    // A header would be no part of the bytes: the sender's address alone says that it is an activator.
    let demand = if at.is_from_peer() { Demand::HandedOn } else { Demand::Counted };
    let (mut passage, announcement) = route.revision.begin_passage(shared.params.clock, demand);
    if let Some(stat) = announcement {
        shared.announce(&route.revision, stat);
    }
    let place = route.revision.throttler().arrive(at.port());
    let connected = timeout(route.timeouts.total, connect(at, listening, client, &place, &passage)).await;
    let (upstream, mut slot) = connected.map_err(|_| Unreached::TimedOut(place.obstacle()))??;
    slot.pod_answered();
    let woke = slot.take_wake();
    passage.reached(&slot.pod, woke);
    Ok((upstream, slot, passage))
}

async fn connect(
    at: &PortConnection,
    listening: u16,
    client: &mut Transport,
    place: &PlaceInLine,
    passage: &Passage,
) -> Result<(Transport, Slot), Unreached> {
    loop {
        let slot = match place.try_slot() {
            Some(slot) => slot,
            None => {
                let waiting = hold_bytes_while(client, passage.passing_bytes(), place.slot());
                waiting.await.map_err(Unreached::Client)?
            }
        };
        let slot = slot.map_err(Unreached::Refused)?;
        if !passage.is_counted() && slot.pod.owner.is_some() {
            return Err(Unreached::NotOwned);
        }
        match at.shared.upstreams.connect(slot.pod.address_for(at.port(), listening)).await {
            Ok(upstream) => return Ok((upstream, slot)),
            Err(error) => {
                passage.refused(&error.to_string());
                slot.pod_refused();
            }
        }
    }
}

/// Carries bytes both ways, and counts the connection by when the last one moved.
async fn carry(relay: &mut Relay, passage: &mut Passage, times: TcpTimes) {
    let mut moved = Instant::now();
    // Looked at when it goes off, not set anew with each piece.
    let mut timer = pin!(sleep_until(after(moved, times.idle)));
    let mut is_timed = true;
    loop {
        tokio::select! {
            biased;
            carried = relay.carry() => match carried {
                Ok(Carried::Bytes) => {
                    moved = Instant::now();
                    if passage.is_idle() {
                        passage.resume();
                        timer.as_mut().reset(after(moved, times.idle));
                        is_timed = true;
                    }
                }
                Ok(Carried::All) | Err(Broken::Client) => return,
                Err(Broken::Upstream) => return passage.broken(),
            },
            () = &mut timer, if is_timed => {
                let next = match Silence::of(moved.elapsed(), times) {
                    Silence::Short { until } => Some(until),
                    Silence::Long { until } => {
                        passage.idle();
                        until
                    }
                    Silence::Over => return,
                };
                is_timed = next.is_some();
                if let Some(next) = next {
                    timer.as_mut().reset(after(moved, next));
                }
            }
        }
    }
}

/// A connection's silence, and how long it must last to become something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// The connection is in use. // Short => Long | Over
    Short { until: Duration },
    /// The connection is idle. // Long => Over
    Long { until: Option<Duration> },
    /// The connection is to be closed.
    Over,
}

impl Silence {
    fn of(lasts: Duration, times: TcpTimes) -> Silence {
        let TcpTimes { idle, idle_timeout } = times;
        if idle_timeout.is_some_and(|limit| lasts >= limit) {
            Silence::Over
        } else if lasts >= idle {
            Silence::Long { until: idle_timeout }
        } else {
            Silence::Short { until: idle_timeout.map_or(idle, |limit| limit.min(idle)) }
        }
    }
}

fn after(moved: Instant, time: Duration) -> Instant {
    moved.checked_add(time).unwrap_or_else(|| moved + FAR_FUTURE)
}

/// A time that no connection lives to see.
const FAR_FUTURE: Duration = Duration::from_secs(86_400 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_short_then_long_and_ends_at_its_limit_if_there_is_one() {
        let secs = Duration::from_secs;
        let told = |lasts, idle, limit: Option<u64>| {
            Silence::of(secs(lasts), TcpTimes { idle: secs(idle), idle_timeout: limit.map(secs) })
        };
        assert_eq!(told(0, 60, None), Silence::Short { until: secs(60) });
        assert_eq!(told(60, 60, None), Silence::Long { until: None });
        assert_eq!(told(59, 60, Some(300)), Silence::Short { until: secs(60) });
        assert_eq!(told(61, 60, Some(300)), Silence::Long { until: Some(secs(300)) });
        assert_eq!(told(300, 60, Some(300)), Silence::Over);
        assert_eq!(told(0, 60, Some(30)), Silence::Short { until: secs(30) });
        assert_eq!(told(30, 60, Some(30)), Silence::Over, "closed before it would be idle");
    }
}
