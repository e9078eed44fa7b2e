//! Connections that are not HTTP: held with their first bytes, then passed through.

use std::io::ErrorKind;
use std::time::Duration;

use pilotlight_activator::{PortProtocol, PortSettings};
use pilotlight_core::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::*;
use crate::ports::read_until;

pub(crate) fn speaking(protocol: PortProtocol) -> PortSettings {
    PortSettings { protocol, ..PortSettings::default() }
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    soon(stream.read_to_end(&mut read)).await.unwrap();
    read
}

/// The connection's end, as its reader sees it.
async fn end(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    soon(stream.read(&mut [0; 1])).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn first_bytes_wait_for_a_pod_and_each_side_may_close_its_half() {
    let world = World::start(revision(1)).await;
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let mut client = port.connect().await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    eventually("it waits", || world.queued() == 1).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(read_all(&mut pod).await, b"hello");
    assert_eq!(world.active(), 1);
    pod.write_all(b"bye").await.unwrap();
    drop(pod);
    assert_eq!(read_all(&mut client).await, b"bye");
    eventually("all is over", || world.active() == 0).await;
    let ledger = world.activator.ledger().total;
    assert_eq!((ledger.requests, ledger.abandoned, ledger.broken), (1, 0, 0));
    assert_eq!(ledger.cold_starts.count, 1);
}

#[tokio::test]
async fn what_is_neither_http_nor_known_is_passed_on_as_it_came() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(PortSettings::default()).await;
    let hello = b"\x16\x03\x01\x00\x05hello";
    for said in [&hello[..], b"SET key value\r\n", b"\0\x01\x02", b"PING"] {
        let mut client = port.connect().await;
        client.write_all(said).await.unwrap();
        let (mut pod, _) = soon(listener.accept()).await.unwrap();
        let mut read = vec![0; said.len()];
        soon(pod.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, said);
        pod.write_all(b"answer").await.unwrap();
        read_until(&mut client, "answer").await;
    }
}

#[tokio::test]
async fn what_begins_as_http_is_http() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let mut client = port.connect().await;
    for piece in ["G", "ET /slow", " HTTP/1.1\r\nHost: web\r\n\r\n"] {
        client.write_all(piece.as_bytes()).await.unwrap();
        client.flush().await.unwrap();
    }
    assert!(read_until(&mut client, "pod").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(pod.header("x-forwarded-for"), "127.0.0.1");
}

#[tokio::test]
async fn a_port_of_bytes_reads_no_http() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let mut client = port.connect().await;
    let said = "GET / HTTP/1.1\r\nUser-Agent: kube-probe/1.36\r\n\r\n";
    client.write_all(said.as_bytes()).await.unwrap();
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(read_until(&mut pod, "\r\n\r\n").await, said);
}

#[tokio::test]
async fn a_silent_connection_is_kept_and_wakes_nothing_until_its_first_byte() {
    let world = World::start(revision(0)).await;
    for protocol in [PortProtocol::Tcp, PortProtocol::Detect] {
        let port = world.open_port(speaking(protocol)).await;
        let mut silent = port.connect().await;
        // A health check: it closes without a byte.
        let mut check = port.connect().await;
        check.shutdown().await.unwrap();
        assert_eq!(end(&mut check).await, Ok(0), "it has been seen");
        let requests = world.activator.ledger().total.requests;
        assert_eq!(world.queued(), 0);
        silent.write_all(b"\0").await.unwrap();
        eventually("it waits", || world.queued() == 1).await;
        assert_eq!(world.activator.ledger().total.requests, requests + 1);
        silent.set_zero_linger().unwrap();
        drop(silent);
        eventually("it has left", || world.queued() == 0).await;
    }
}

#[tokio::test]
async fn where_the_server_speaks_first_a_connection_wakes_at_once() {
    let world = World::start(revision(0)).await;
    let port = world.open_port(speaking(PortProtocol::TcpServerFirst)).await;
    let mut client = port.connect().await;
    eventually("it waits", || world.queued() == 1).await;
    let gone = port.connect().await;
    eventually("it waits, too", || world.queued() == 2).await;
    drop(gone);
    eventually("it has left", || world.queued() == 1).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    pod.write_all(b"220 ready\r\n").await.unwrap();
    assert_eq!(read_until(&mut client, "\r\n").await, "220 ready\r\n");
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    for is_client in [true, false] {
        let mut client = port.connect().await;
        client.write_all(b"x").await.unwrap();
        let (mut pod, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(pod.read(&mut [0; 1]).await.unwrap(), 1);
        let (broken, mut other) = if is_client { (client, pod) } else { (pod, client) };
        broken.set_zero_linger().unwrap();
        drop(broken);
        assert_eq!(end(&mut other).await, Err(ErrorKind::ConnectionReset));
    }
    eventually("all is over", || world.active() == 0).await;
    assert_eq!(world.activator.ledger().total.broken, 1, "the pod broke one of them off");
}

#[tokio::test]
async fn a_refused_connection_keeps_its_place_in_line() {
    let world = World::start(revision(1)).await;
    let (address, listener) = listen().await;
    drop(listener);
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let mut first = port.connect().await;
    first.write_all(b"first!").await.unwrap();
    eventually("it has tried", || world.activator.activity()[&hello()].last_error.is_some()).await;
    let mut second = port.connect().await;
    second.write_all(b"second!").await.unwrap();
    eventually("both have come", || world.activator.ledger().total.requests == 2).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    for (client, said) in [(first, "first!"), (second, "second!")] {
        let (mut pod, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(read_until(&mut pod, "!").await, said);
        drop((client, pod));
    }
}

#[tokio::test]
async fn a_connection_that_finds_no_pod_in_time_is_reset() {
    let world = World::start(revision(0)).await;
    world.set(|revision| revision.timeouts = Timeouts::total(Duration::from_millis(100)));
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let mut client = port.connect().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
    eventually("it is over", || world.queued() == 0).await;
    assert_eq!(world.activator.ledger().total.abandoned, 1);
}

#[tokio::test]
async fn a_connection_that_waits_is_not_read_on_and_none_of_it_is_lost() {
    let world = World::start(revision(0)).await;
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let (mut reading, mut writing) = port.connect().await.into_split();
    let much: Vec<u8> = (0..16 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let expected = much.clone();
    let sending = tokio::spawn(async move {
        writing.write_all(&much).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    eventually("it waits", || world.queued() == 1).await;
    assert!(!sending.is_finished(), "the rest waits in the client's socket");
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    assert!(read_all(&mut pod).await == expected, "every byte, in order");
    soon(sending).await.unwrap();
    drop(pod);
    assert_eq!(soon(reading.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_load_balancer_may_tell_the_client_in_front() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings { proxy_protocol: true, ..PortSettings::default() }).await;
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x0a\0\0\x01\xd4\x31\0\x50";
    let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    let mut client = port.connect().await;
    client.write_all(&[&header[..], request].concat()).await.unwrap();
    read_until(&mut client, "pod").await;
    assert_eq!(pod.header("x-forwarded-for"), "198.51.100.7");
    let mut without = port.connect().await;
    without.write_all(request).await.unwrap();
    read_until(&mut without, "pod").await;
    let mut malformed = port.connect().await;
    malformed.write_all(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c").await.unwrap();
    let closed = timeout(Duration::from_secs(10), malformed.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn a_port_that_stops_keeps_what_it_carries_and_cuts_it_when_forced() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(speaking(PortProtocol::Tcp)).await;
    let mut silent = port.connect().await;
    let mut client = port.connect().await;
    client.write_all(b"one!").await.unwrap();
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "!").await;
    port.drain.start();
    assert_eq!(end(&mut silent).await, Ok(0), "it has nothing to lose");
    client.write_all(b"two!").await.unwrap();
    assert_eq!(read_until(&mut pod, "!").await, "two!");
    port.drain.force();
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut pod).await, Err(ErrorKind::ConnectionReset));
    soon(port.serving).await.unwrap();
}
