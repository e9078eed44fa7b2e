//! The end: everybody who has a connection is told to go elsewhere, and what is under way is seen through.

use std::sync::Arc;

use http::Request as HttpRequest;
use pilotlight_net::tls::{CertificateFiles, ClientTls, ServerTls, TlsPolicy};
use pilotlight_net::{Body, Drain, once};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

#[tokio::test]
async fn an_http_2_client_is_told_to_leave_and_keeps_the_stream_it_has() {
    let world = World::start(revision(1)).await;
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    let mut client = TcpStream::connect(world.address).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    // GET, http, /, and the host in a literal: HPACK's static table does for the rest.
    let head = [&[0x82, 0x86, 0x84, 0x41, HOST.len() as u8], HOST.as_bytes()].concat();
    client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await.unwrap();
    eventually("it runs", || world.active() == 1).await;

    world.activator.drain().await;
    world.drain.start();
    let mut seen = Vec::new();
    while seen.last() != Some(&(GOAWAY, 0)) {
        seen.push(next_frame(&mut client).await.expect("a frame"));
    }
    assert!(!world.serving.is_finished(), "a stream is open");
    pod.may_answer.add_permits(1);
    while let Some(frame) = next_frame(&mut client).await {
        seen.push(frame);
    }
    assert!(seen.contains(&(HEADERS, 1)) && seen.contains(&(DATA, 1)), "{seen:?}");
    soon(world.serving).await.unwrap();
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Kind and stream of the next frame; `None`: the connection has ended. Pings are answered.
async fn next_frame(client: &mut TcpStream) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    soon(client.read_exact(&mut head)).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    soon(client.read_exact(&mut payload)).await.ok()?;
    if head[3] == PING && head[4] & ACK == 0 {
        client.write_all(&frame(PING, ACK, 0, &payload)).await.ok()?;
    }
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[tokio::test]
async fn a_request_over_tls_outlives_the_drain_too() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["activator.example".to_owned()]).unwrap();
    let files = CertificateFiles::in_folder(folder.path());
    std::fs::write(&files.certificate, pair.cert.pem()).unwrap();
    std::fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    let client = ClientTls::to("activator.example", std::slice::from_ref(&files.certificate)).unwrap();
    let world = World::start(revision(1)).await;
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    let (address, listener) = listen().await;
    let tls = Arc::new(ServerTls::load(files, TlsPolicy::default()).unwrap());
    let (activator, drain) = (world.activator.clone(), Drain::default());
    let draining = drain.clone();
    let serving = tokio::spawn(async move { activator.serve_tls(listener, tls, draining).await });
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let client = client.clone();
        tokio::spawn(async move {
            let mut request = HttpRequest::get("/").header("host", HOST).body(Body::empty()).unwrap();
            *request.version_mut() = version;
            let answer = once::ask(address, Some(&client), request, 100).await.unwrap();
            assert_eq!((answer.status.as_u16(), &answer.body.unwrap()[..]), (200, &b"pod"[..]));
        });
    }
    eventually("one runs and one waits", || (world.active(), world.queued()) == (1, 1)).await;
    drain.start();
    eventually("nobody is accepted", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(!serving.is_finished());
    pod.may_answer.add_permits(2);
    soon(serving).await.unwrap();
    assert_eq!(pod.paths().len(), 2);
}
