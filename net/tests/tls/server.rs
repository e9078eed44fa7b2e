//! The server's side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_net::tls::{Renewable, ServerTls, TlsPolicy, TlsWords, keep_renewed};
use pilotlight_net::{Body, Handler, Request, Response};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::*;

const OFTEN: Duration = Duration::from_millis(2);

fn older() -> TlsWords<'static> {
    TlsWords { min_version: "1.2", ..TlsWords::default() }
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_is_answered_again_and_again() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let mut client = connect(server.address, &authority).await;
    echo(&mut client, "once").await;
    echo(&mut client, "twice").await;
}

/// Answers with the request's body, as it comes.
struct Stream;

impl Handler for Stream {
    async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
        Response::new(request.into_body())
    }
}

#[tokio::test]
async fn what_tls_has_read_ahead_of_us_is_not_waited_for() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start_with(folder.load(TlsWords::default()), Stream).await;
    let client = connect(server.address, &authority).await;
    let (mut reader, mut writer) = tokio::io::split(client);
    // Some records hold many requests, and some requests take many records.
    let sizes = [1, 9_000, 1, 1, 300_000, 20_000, 1, 70_000, 16_384, 1];
    let requests: String = sizes
        .iter()
        .map(|&size| {
            let last = if size == 16_384 { "Connection: close\r\n" } else { "" };
            format!("POST / HTTP/1.1\r\nHost: h\r\n{last}Content-Length: {size}\r\n\r\n{}", "x".repeat(size))
        })
        .collect();
    let mut answers = String::new();
    let talk =
        async { tokio::join!(writer.write_all(requests.as_bytes()), reader.read_to_string(&mut answers)) };
    let (written, read) = soon("the end", talk).await;
    written.unwrap();
    // An end without close_notify would be an error.
    read.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 9);
    assert_eq!(answers.matches('x').count(), sizes[..9].iter().sum::<usize>());
}

#[tokio::test]
async fn a_client_in_the_clear_is_sent_away() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", client.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    echo(&mut connect(server.address, &authority).await, "others are served").await;
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_if_asked_for() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let strict = start(folder.load(TlsWords::default())).await;
    assert!(handshake(strict.address, &authority, &[&TLS12], &[]).await.is_err());
    let lax = start(folder.load(older())).await;
    let mut client = handshake(lax.address, &authority, &[&TLS12], &[]).await.unwrap();
    echo(&mut client, "older").await;
    let client = handshake(lax.address, &authority, &[&TLS12, &TLS13], &[]).await.unwrap();
    assert_eq!(client.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn the_list_of_suites_and_the_curves_decide_what_is_agreed_on() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let words = TlsWords {
        cipher_suites: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        curve_preferences: "P-384",
        ..older()
    };
    let server = start(folder.load(words)).await;
    let client = handshake(server.address, &authority, &[&TLS12], &[]).await.unwrap();
    let session = client.get_ref().1;
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::secp384r1);
}

#[tokio::test]
async fn http_2_is_preferred_by_those_who_negotiate_and_nobody_must() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let expected: [(&[&str], Option<&[u8]>); 3] =
        [(&["http/1.1", "h2"], Some(b"h2")), (&["http/1.1"], Some(b"http/1.1")), (&[], None)];
    for (offered, agreed) in expected {
        let client = handshake(server.address, &authority, &[&TLS13], offered).await.unwrap();
        assert_eq!(client.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
    }
}

#[tokio::test]
async fn http_2_may_begin_with_or_without_having_been_negotiated() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    for offered in [&["h2"][..], &[]] {
        let client = handshake(server.address, &authority, &[&TLS13], offered).await.unwrap();
        let (mut sender, connection) =
            http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        for text in ["one", "two"] {
            let request = http::Request::post("https://h/").body(Body::full(text)).unwrap();
            let response = soon("the response", sender.send_request(request)).await.unwrap();
            assert_eq!(response.headers()["spoken"], "HTTP/2.0");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
        }
    }
}

#[tokio::test]
async fn a_new_pair_is_shown_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let tls = folder.load(TlsWords::default());
    let server = start(Arc::clone(&tls)).await;
    let mut early = connect(server.address, &authority).await;
    tokio::spawn(keep_renewed(&tls, OFTEN));
    let next = authority.certify(&POD);
    assert_ne!(pem_of(&early), printed(&next.0));
    folder.replace(&next);
    until("the new certificate", async || shown(server.address, &authority).await == printed(&next.0)).await;
    echo(&mut early, "still here").await;
}

#[tokio::test]
async fn no_request_fails_while_certificates_are_replaced_again_and_again() {
    let authority = Arc::new(Authority::new());
    let folder = Folder::with(&authority, &POD);
    let tls = folder.load(TlsWords::default());
    let to = start(Arc::clone(&tls)).await.address;
    tokio::spawn(keep_renewed(&tls, OFTEN));
    let done = Arc::new(AtomicBool::new(false));
    let (over, of) = (Arc::clone(&done), Arc::clone(&authority));
    let clients = tokio::spawn(async move {
        let mut kept = connect(to, &of).await;
        let stream = handshake(to, &of, &[&TLS13], &["h2"]).await.unwrap();
        let (mut sender, connection) =
            http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut shown = BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            echo(&mut kept, "kept").await;
            let request = http::Request::post("https://h/").body(Body::full("h2")).unwrap();
            let response = soon("the response", sender.send_request(request)).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "h2");
            let mut new = connect(to, &of).await;
            shown.insert(pem_of(&new));
            echo(&mut new, "new").await;
        }
        shown.len()
    });
    for _ in 0..20 {
        let next = authority.certify(&POD);
        // The two files are not replaced in one moment: for some time they do not fit.
        folder.replace(&next);
        until("the new certificate", async || shown(to, &authority).await == printed(&next.0)).await;
    }
    done.store(true, Ordering::Relaxed);
    let seen = soon("the last responses", clients).await.unwrap();
    assert!(seen > 1, "requests ran while certificates were replaced");
}

#[tokio::test]
async fn what_cannot_be_used_is_told_once_and_changes_nothing() {
    let authority = Authority::new();
    let (good, other) = (authority.certify(&POD), authority.certify(&POD));
    let folder = Folder::new();
    folder.replace(&good);
    let tls = folder.load(TlsWords::default());
    let server = start(Arc::clone(&tls)).await;
    assert!(!tls.renew().unwrap(), "nothing has changed");
    for (certificate, key, complaint) in [
        (&*other.0, &*good.1, "cannot use"),
        ("nonsense", &good.1, "holds no certificate"),
        (&good.0, "", "holds no private key"),
    ] {
        folder.write("tls.crt", certificate);
        folder.write("tls.key", key);
        let error = tls.renew().unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
        assert!(!tls.renew().unwrap(), "told already");
        assert_eq!(shown(server.address, &authority).await, printed(&good.0));
    }
    std::fs::remove_file(folder.path("tls.crt")).unwrap();
    let error = tls.renew().unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("tls.crt"), "{error}");
    folder.replace(&other);
    assert!(tls.renew().unwrap());
    assert_eq!(shown(server.address, &authority).await, printed(&other.0));
}

#[test]
fn without_a_usable_pair_there_is_no_start() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    assert!(folder.files().exist().unwrap());
    folder.write("tls.key", &authority.certify(&POD).1);
    let error = ServerTls::load(folder.files(), TlsPolicy::default()).unwrap_err().to_string();
    assert!(error.contains("tls.crt with") && error.contains("tls.key"), "{error}");
    std::fs::remove_file(folder.path("tls.key")).unwrap();
    assert!(!folder.files().exist().unwrap());
}

#[tokio::test]
async fn a_drain_waits_for_the_request_in_flight_but_not_for_a_silent_client() {
    struct Slow(Arc<Semaphore>, Arc<Semaphore>);
    impl Handler for Slow {
        async fn handle(&self, _: &pilotlight_net::Client, _: Request) -> Response {
            self.0.add_permits(1);
            self.1.acquire().await.unwrap().forget();
            Response::new(Body::full("done"))
        }
    }
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let (arrived, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = Slow(Arc::clone(&arrived), Arc::clone(&go));
    let server = start_with(folder.load(TlsWords::default()), handler).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let _idle = connect(server.address, &authority).await;
    let mut client = connect(server.address, &authority).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    soon("the request", arrived.acquire()).await.unwrap().forget();
    server.drain.start();
    go.add_permits(1);
    let mut answer = String::new();
    soon("the answer and a clean end", client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    soon("the end of the server", server.task).await.unwrap();
}
