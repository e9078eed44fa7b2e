//! An app that leaves at any moment, or sends more than it was asked for: each client gets its own response or an error, and
//! no request that changes something is served twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pieces::Dice;
use crate::support::{Client, header, soon, start_proxy};

type Seen = Arc<Mutex<HashMap<String, usize>>>;

/// Answers some requests with their names, and leaves.
async fn serve(mut stream: TcpStream, mut dice: Dice, seen: Seen) -> Option<()> {
    let mut read = Vec::new();
    loop {
        if dice.below(8) == 0 {
            return None;
        }
        let head = loop {
            let text = std::str::from_utf8(&read).unwrap();
            if let Some(at) = text.find("\r\n\r\n") {
                break text[..at + 4].to_owned();
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        };
        if dice.below(8) == 0 {
            return None;
        }
        let name = header(&head, "x-name").unwrap();
        *seen.lock().entry(name.clone()).or_default() += 1;
        let length = head.len() + header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let is_early = dice.below(4) == 0;
        if !is_early {
            hear(&mut stream, &mut read, length).await?;
        }
        let is_head = head.starts_with("HEAD");
        let body = if is_head { "" } else { &name };
        let extra = ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "evil", "\r\n"][dice.below(3)];
        let response =
            format!("HTTP/1.1 200 OK\r\nX-Name: {name}\r\nContent-Length: {}\r\n\r\n{body}", name.len());
        let fate = dice.below(8);
        let is_part = fate == 0;
        let response = match fate {
            0 => response[..dice.below(response.len())].to_owned(),
            1 => format!("{response}{extra}"),
            _ => response,
        };
        stream.write_all(response.as_bytes()).await.ok()?;
        if is_part || dice.below(8) == 0 {
            return None;
        }
        hear(&mut stream, &mut read, length).await?;
        assert!(read[head.len()..length].iter().all(|byte| *byte == b'b'), "{head}");
        read.drain(..length);
    }
}

/// Reads until there are so many bytes.
async fn hear(stream: &mut TcpStream, read: &mut Vec<u8>, length: usize) -> Option<()> {
    while read.len() < length {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}

/// Sends requests. Returns how many got a response, and how many an error.
async fn ask(address: SocketAddr, seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let mut client = Client::connect(address).await;
    let (mut good, mut bad) = (0, 0);
    for number in 0..200 {
        let name = format!("{seed}-{number}");
        let method = ["GET", "HEAD", "POST"][dice.below(3)];
        let body = if method == "POST" { "b".repeat(dice.size()) } else { String::new() };
        let head = format!("{method} / HTTP/1.1\r\nHost: h\r\nX-Name: {method}-{name}\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let (first, second) = request.split_at(dice.below(request.len()));
        for part in [first, second] {
            // An error shows when the response is read.
            let _ = client.try_send(part.as_bytes()).await;
            for _ in 0..dice.below(20) {
                tokio::task::yield_now().await;
            }
        }
        let response = soon(&name, client.try_read_message(method == "HEAD")).await;
        let said = response.as_ref().map(|response| header(response, "connection"));
        let is_last = said.is_none_or(|said| said.as_deref() == Some("close"));
        match response {
            Some(response) if response.starts_with("HTTP/1.1 200 ") => {
                assert_eq!(header(&response, "x-name"), Some(format!("{method}-{name}")), "{response}");
                assert!(
                    method == "HEAD" || response.ends_with(&format!("\r\n\r\n{method}-{name}")),
                    "{response}"
                );
                good += 1;
            }
            Some(response) => {
                assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
                bad += 1;
            }
            // The response breaks off, as that of the app did, but never in front of its first byte.
            None => {
                assert!(!client.has_heard_nothing(), "{method} {name}");
                bad += 1;
            }
        }
        if is_last {
            client = Client::connect(address).await;
        }
    }
    (good, bad)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_what_is_theirs_and_nothing_is_done_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(listener.local_addr().unwrap()).await;
    let seen = Seen::default();
    let app = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            for seed in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Dice(seed), Arc::clone(&seen)));
            }
        }
    });
    let clients: Vec<_> = (0..CLIENTS).map(|seed| tokio::spawn(ask(proxy.address, seed))).collect();
    let (mut good, mut bad) = (0, 0);
    for client in clients {
        let (g, b) = client.await.unwrap();
        good += g;
        bad += b;
    }
    app.abort();
    assert!(good > bad, "{good} good answers, {bad} bad ones");
    for (name, times) in &*seen.lock() {
        assert!(*times == 1 || !name.starts_with("POST"), "{name}: {times} times");
    }
}

const CLIENTS: u64 = 8;
