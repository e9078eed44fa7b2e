//! What a connection that is passed through counts as, and how many a revision may have.

use std::time::Duration;

use pilotlight_activator::{PortProtocol, PortSettings, TcpTimes};
use pilotlight_core::IDLE_CONCURRENCY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;
use crate::ports::read_until;
use crate::tcp::speaking;

#[tokio::test]
async fn a_connection_counts_while_bytes_move_and_then_only_keeps_zero_away() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    let times = TcpTimes { idle: Duration::from_millis(50), idle_timeout: None };
    let port = world.open_port(PortSettings { tcp: times, ..speaking(PortProtocol::Tcp) }).await;
    let (address, listener) = listen().await;
    let mut client = port.connect().await;
    client.write_all(b"one!").await.unwrap();
    eventually("it wakes", || autoscaler.heard().first() == Some(&(1.0, 1.0))).await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "!").await;
    let idle = (IDLE_CONCURRENCY, 0.0);
    eventually("it is idle", || autoscaler.heard().ends_with(&[idle, idle])).await;
    pod.write_all(b"two!").await.unwrap();
    read_until(&mut client, "!").await;
    let is_load = |heard: &(f64, f64)| heard.0 > IDLE_CONCURRENCY && heard.1 == 0.0;
    eventually("it is load again", || autoscaler.heard().last().is_some_and(is_load)).await;
    assert_eq!(world.activator.ledger().total.requests, 1, "and no other request");
    drop((client, pod));
    eventually("nothing is left", || autoscaler.heard().last() == Some(&(0.0, 0.0))).await;
}

#[tokio::test]
async fn a_connection_that_is_silent_for_too_long_is_closed_if_there_is_a_limit() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let times = TcpTimes { idle: Duration::from_millis(20), idle_timeout: Some(Duration::from_millis(60)) };
    let port = world.open_port(PortSettings { tcp: times, ..speaking(PortProtocol::Tcp) }).await;
    let mut client = port.connect().await;
    client.write_all(b"hello!").await.unwrap();
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "!").await;
    assert_eq!(soon(client.read(&mut [0; 1])).await.unwrap(), 0);
    assert_eq!(soon(pod.read(&mut [0; 1])).await.unwrap(), 0);
    eventually("all is over", || world.active() == 0).await;
}

#[tokio::test]
async fn a_connection_takes_a_place_at_its_pod() {
    let world = World::start(revision(1)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let mut first = port.connect().await;
    first.write_all(b"first!").await.unwrap();
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "!").await;
    let mut second = port.connect().await;
    second.write_all(b"second!").await.unwrap();
    eventually("it waits", || world.queued() == 1).await;
    drop((first, pod));
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(read_until(&mut pod, "!").await, "second!");
}

#[tokio::test]
async fn a_revision_that_has_its_most_connections_gets_no_more_until_one_ends() {
    let limited = |params: &mut pilotlight_activator::ActivatorParams| {
        params.limits.connections_per_revision = Some(2);
    };
    let world = World::start_with(revision(0), limited).await;
    let (bytes, http) =
        (world.open_port(speaking(PortProtocol::Tcp)).await, world.open_port(PortSettings::default()).await);
    let mut first = bytes.connect().await;
    first.write_all(b"x").await.unwrap();
    let waiting = http.send(get("/"));
    eventually("both wait", || world.queued() == 2).await;
    for port in [&bytes, &http] {
        let mut refused = port.connect().await;
        assert_eq!(soon(refused.read(&mut [0; 1])).await.unwrap(), 0, "it is closed at once");
    }
    first.set_zero_linger().unwrap();
    drop(first);
    eventually("one has left", || world.queued() == 1).await;
    let mut next = bytes.connect().await;
    next.write_all(b"x").await.unwrap();
    eventually("another waits", || world.queued() == 2).await;
    waiting.abort();
}
