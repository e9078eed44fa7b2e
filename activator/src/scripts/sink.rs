//! The connection to the autoscaler: when it is tried again, and what is told over it.

use pilotlight_core::Stat;
use pilotlight_net::Drain;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use super::*;
use crate::sink::{self, Outbox};

/// A sink by itself.
fn sink() -> (ScriptedAutoscaler, Arc<Outbox>, Drain) {
    let (dial, autoscaler) = ScriptedAutoscaler::new();
    let (outbox, stop) = (Arc::new(Outbox::new("act".to_owned())), Drain::default());
    tokio::spawn(sink::run(dial, Arc::clone(&outbox), stop.clone(), || {}));
    (autoscaler, outbox, stop)
}

fn stat(name: &str, count: f64) -> (RevisionId, Stat) {
    (id(name), Stat { request_count: count, ..Stat::default() })
}

/// Fails unless the next attempt comes so many milliseconds after `since`, and up to half of them more. Refuses it.
async fn expect_attempt(autoscaler: &mut ScriptedAutoscaler, since: Instant, after: u64) -> Instant {
    let at = autoscaler.refuse().await;
    // A timer may be late by a millisecond.
    assert!(
        (millis(after)..=millis(after * 3 / 2 + 1)).contains(&(at - since)),
        "{:?}, not {after}",
        at - since
    );
    at
}

#[tokio::test(start_paused = true)]
async fn attempts_come_later_each_time_and_soon_again_after_a_connection_that_lasted() {
    let (mut autoscaler, _outbox, _stop) = sink();
    let mut last = autoscaler.refuse().await;
    for after in [100, 200, 400, 800, 1600, 2000, 2000] {
        last = expect_attempt(&mut autoscaler, last, after).await;
    }
    // An autoscaler that hangs up at once is no better than none.
    drop(autoscaler.accept().await);
    last = expect_attempt(&mut autoscaler, Instant::now(), 2000).await;
    assert!(last <= Instant::now());
    let connection = autoscaler.accept().await;
    sleep(Duration::from_secs(1)).await;
    drop(connection);
    expect_attempt(&mut autoscaler, Instant::now(), 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_stat_without_a_connection_is_dropped_and_counted_and_never_told_late() {
    let (mut autoscaler, outbox, _stop) = sink();
    autoscaler.refuse().await;
    outbox.push([stat("hello", 1.0), stat("hello", 2.0)]);
    assert_eq!(outbox.dropped(), 2);
    let mut connection = autoscaler.accept().await;
    sleep(millis(1)).await;
    outbox.push([stat("hello", 3.0)]);
    connection.expect(&[("hello", 0.0, 3.0)]).await;
    drop(connection);
    sleep(millis(1)).await;
    outbox.push([stat("hello", 4.0)]);
    assert_eq!((outbox.dropped(), outbox.is_connected()), (3, false));
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_that_says_goodbye_is_called_again() {
    let (mut autoscaler, outbox, _stop) = sink();
    let mut connection = autoscaler.accept().await;
    sleep(Duration::from_secs(1)).await;
    connection.say(Message::text("hello")).await;
    outbox.push([stat("hello", 1.0)]);
    connection.expect(&[("hello", 0.0, 1.0)]).await;
    let restart = CloseFrame { code: CloseCode::Restart, reason: "".into() };
    connection.say(Message::Close(Some(restart))).await;
    expect_attempt(&mut autoscaler, Instant::now(), 100).await;
    assert!(!outbox.is_connected());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_frame_end_the_connection() {
    let (mut autoscaler, _outbox, _stop) = sink();
    let mut connection = autoscaler.accept().await;
    sleep(Duration::from_secs(1)).await;
    // An opcode that nobody has given a meaning (RFC 6455, 5.2).
    connection.0.get_mut().write_all(&[0x8f, 0]).await.unwrap();
    expect_attempt(&mut autoscaler, Instant::now(), 100).await;
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_that_answers_no_ping_is_given_up_after_ten_seconds() {
    let (mut autoscaler, outbox, _stop) = sink();
    let _unread = autoscaler.accept().await;
    let since = Instant::now();
    let at = autoscaler.refuse().await;
    assert!((millis(10_100)..=millis(10_151)).contains(&(at - since)), "{:?}", at - since);
    assert!(!outbox.is_connected());
}

#[tokio::test(start_paused = true)]
async fn pings_that_are_answered_keep_a_silent_connection() {
    let (mut autoscaler, outbox, _stop) = sink();
    let mut connection = autoscaler.accept().await;
    // Reading answers them.
    assert!(timeout(Duration::from_secs(60), connection.stats()).await.is_err());
    assert!(outbox.is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_answered_is_given_up_after_three_seconds() {
    let (mut autoscaler, _outbox, _stop) = sink();
    let _silent = autoscaler.accept_silently().await;
    let since = Instant::now();
    let at = autoscaler.refuse().await;
    assert!((millis(3100)..=millis(3151)).contains(&(at - since)), "{:?}", at - since);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_the_last_stats_go_out_before_the_close_frame() {
    let (mut autoscaler, outbox, stop) = sink();
    let mut connection = autoscaler.accept().await;
    sleep(millis(1)).await;
    outbox.push([stat("hello", 1.0)]);
    stop.start();
    connection.expect(&[("hello", 0.0, 1.0)]).await;
    assert_eq!(connection.stats().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_hears_first_of_those_who_wait_and_of_nobody_else() {
    let (activator, _feed, mut autoscaler) = start(&["a", "b"]).await;
    let connection = autoscaler.accept().await;
    let waiting = [request(&activator, "a"), request(&activator, "a"), request(&activator, "b")];
    sleep(millis(100)).await;
    drop(connection);
    let [_one, _other, leaving] = waiting;
    leave(leaving).await;
    // Two have waited all the time since: the average is 2, and nobody was told that they had arrived.
    let mut connection = autoscaler.accept().await;
    connection.expect(&[("a", 2.0, 2.0)]).await;
    // That was this second's sample of the one. The request to the other had been announced, and the next second has
    // none. Those that wait are told again each second.
    connection.expect(&[("b", 0.0, 0.0)]).await;
    connection.expect(&[("a", 2.0, 0.0), ("b", 0.0, 0.0)]).await;
    connection.expect(&[("a", 2.0, 0.0)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_revision_reports_from_its_first_request_to_a_second_without_any() {
    let (activator, _feed, mut autoscaler) = start(&["a", "b"]).await;
    let mut connection = autoscaler.accept().await;
    let waiting = request(&activator, "a");
    connection.expect(&[("a", 1.0, 1.0)]).await;
    // At half past: announced already.
    connection.expect(&[("a", 0.0, 0.0)]).await;
    sleep(millis(500)).await;
    leave(waiting).await;
    connection.expect(&[("a", 0.5, 0.0)]).await;
    connection.expect(&[("a", 0.0, 0.0)]).await;
    assert!(timeout(Duration::from_secs(60), connection.stats()).await.is_err(), "nothing is left to say");
    assert_eq!(activator.shared.reporting.len(), 0);
    let _waiting = request(&activator, "a");
    connection.expect(&[("a", 1.0, 1.0)]).await;
}
