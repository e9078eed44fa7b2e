//! The rounds to all activators, once a second: each answer is its heartbeat, and says what it has bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_net::once::{self, Get, GetError};
use pilotlight_net::{Clock, Error};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::roll::Roll;
use crate::peers::{ActivatorStatus, STATUS_PATH};

/// Asks every activator of the roll at its admin port, for ever, and calls `changed` after each round in which somebody's
/// state or ports have changed.
pub(crate) async fn go_round(
    roll: Arc<Mutex<Roll>>,
    clock: Clock,
    admin_port: u16,
    changed: impl Fn() + Send,
) {
    let mut rounds = interval(BETWEEN);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = roll.lock().peers(clock.now());
    loop {
        rounds.tick().await;
        let addresses: Vec<_> = roll.lock().addresses().map(|(name, ip)| (name.clone(), ip)).collect();
        let mut asked = JoinSet::new();
        for (name, ip) in addresses {
            asked.spawn(async move { (name, ask(SocketAddr::new(ip, admin_port)).await) });
        }
        while let Some(answer) = asked.join_next().await {
            let Ok((name, answer)) = answer else { continue };
            let mut roll = roll.lock();
            match answer {
                Ok(status) => roll.answered(clock.now(), &name, status),
                Err(is_unreached) => roll.silent(&name, is_unreached),
            }
        }
        let now = roll.lock().peers(clock.now());
        if now == before {
            continue;
        }
        for (name, peer) in &now {
            if before.get(name).is_none_or(|before| before.state != peer.state) {
                info!(activator = name, state = ?peer.state, "Activator is in another state");
            }
        }
        before = now;
        changed();
    }
}

/// The status of one activator; `Err`: none, and whether not even a connection could be made.
async fn ask(address: SocketAddr) -> Result<ActivatorStatus, bool> {
    let get = Get::new(STATUS_PATH).within(LIMIT).at_most(MAX_BYTES);
    let answer = once::get(address, &get).await.and_then(once::Answer::success);
    let told = |error: &dyn std::fmt::Display| debug!(%address, %error, "Activator does not answer");
    let body = answer.map_err(|error| {
        told(&error);
        // A time limit says nothing of the connection by itself.
        matches!(error, GetError::Failed(Error::Connect { .. }))
    });
    let body = match body {
        Err(false) => {
            // Whoever takes a connection is there, however busy.
            let dialled = tokio::time::timeout(LIMIT, pilotlight_net::connect(address)).await;
            return Err(!matches!(dialled, Ok(Ok(_))));
        }
        body => body?,
    };
    serde_json::from_slice(&body).map_err(|error| {
        told(&error);
        false
    })
}

/// From one round to the next.
const BETWEEN: Duration = Duration::from_secs(1);
/// For one answer. Short of a round, so that a node that is gone holds no other up.
const LIMIT: Duration = Duration::from_millis(900);
/// The most that an answer may have: 5,000 busy workloads with 20 pods each.
const MAX_BYTES: usize = 8 << 20;
