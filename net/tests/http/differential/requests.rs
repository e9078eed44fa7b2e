//! Requests to our server and to hyper's.

use std::cell::Cell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, Version};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pilotlight_net::{Body, Drain};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{
    AT_ONCE, Content, config, fields, grammar, has_odd_bytes, is_stricter_about_chunks, is_too_long, read,
    runtime, values,
};
use crate::support::Answer;

#[test]
fn requests_are_what_hyper_takes_them_for() {
    let ours = Ours::start();
    let accepted = Cell::new(0);
    proptest!(config(), |(input in grammar::requests())| {
        let (expected, mine) = (hypers(&ours.runtime, &input), ours.serve(&input));
        accepted.set(accepted.get() + expected.seen.len());
        if let Err(difference) = compare(&expected, &mine, &input) {
            prop_assert!(false, "{difference}\n{input:?}\nhyper: {expected:#?}\nours: {mine:#?}");
        }
    });
    assert!(accepted.get() > 0, "nothing was ever accepted, and this test shows nothing");
}

/// The requests of one connection as a handler saw them, and their responses.
#[derive(Debug, Default)]
struct Verdict {
    seen: Vec<Seen>,
    /// The status of each answer.
    answers: Vec<u16>,
}

/// A request as a handler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    target: String,
    version: Version,
    fields: Vec<(String, Bytes)>,
    content: Content,
}

/// Compares the verdicts. All differences that are allowed are here.
fn compare(hyper: &Verdict, ours: &Verdict, input: &[u8]) -> Result<(), &'static str> {
    let mut seen = ours.seen.iter();
    let mut answers = ours.answers.iter();
    for expected in &hyper.seen {
        // The same length as another text ("5" and "05") may be another length for the next hop; even beside `chunked`,
        // where hyper looks only at those in front of it, each must be a length, and the same.
        if seen.len() == 0 && *answers.as_slice() == [400] && has_unclear_length(input) {
            return Ok(());
        }
        // Nothing behind a CONNECT is a request.
        if expected.method == Method::CONNECT {
            return if answers.next() == Some(&501) {
                end(seen.len(), answers.len())
            } else {
                Err("connected")
            };
        }
        // We are stricter with requests that two readers could take for two things: see `refusal.rs`.
        if let Some(status) = stricter(expected) {
            if answers.next() != Some(&status) {
                return Err("not refused as it should be");
            }
            // Nothing follows a body that is broken off; and a body that its client sends after `100 Continue` is not
            // waited for.
            let asks_first =
                values(&expected.fields, "expect").iter().any(|e| e.eq_ignore_ascii_case(b"100-continue"));
            let may_be_last = asks_first || expected.content.is_broken_off || has_odd_bytes(input);
            let is_last = (may_be_last && has_body(expected)) || asks_to_upgrade(expected);
            if is_last && seen.len() + answers.len() == 0 {
                return Ok(());
            }
            continue;
        }
        let Some(mine) = seen.next() else { return Err("refused") };
        if is_stricter_about_chunks(&expected.content, &mine.content, input) {
            return end(seen.len(), 0);
        }
        if mine != expected {
            return Err("another request");
        }
        if mine.content.is_broken_off {
            // Any answer to a broken-off body will do.
            return end(seen.len(), 0);
        }
        if answers.next() != Some(&ANSWER) {
            return Err("not answered");
        }
        // Nothing behind an upgrade that is not taken up is a request.
        if asks_to_upgrade(expected) && seen.len() + answers.len() == 0 {
            return Ok(());
        }
    }
    // hyper refuses the next request for its target, and reads no further.
    if has_odd_target(input) && hyper.answers.len() > hyper.seen.len() {
        return Ok(());
    }
    if seen.next().is_some() {
        return Err("more requests");
    }
    // A fault that comes later than the beginning of its head is noticed at the end of the head, which may never come.
    let comes_at_once = input.len() < 8 * 1024;
    let refused = hyper.answers.get(hyper.seen.len()).is_some();
    if refused != answers.next().is_some() && comes_at_once {
        return Err("only one of the two refuses the last");
    }
    end(seen.len(), answers.len())
}

fn end(requests_left: usize, answers_left: usize) -> Result<(), &'static str> {
    if requests_left + answers_left == 0 { Ok(()) } else { Err("more after the last") }
}

/// The status with which we refuse a request that hyper lets through.
fn stricter(seen: &Seen) -> Option<u16> {
    let hosts = values(&seen.fields, "host");
    let is_host = |host: &[u8]| {
        host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte))
    };
    let needs_host = seen.version == Version::HTTP_11;
    let is_named = match hosts[..] {
        [] => !needs_host,
        [host] => is_host(host),
        _ => false,
    };
    let target = &seen.target[..];
    let authority =
        target.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    let is_target = match (authority, target) {
        (Some(authority), _) if !target.starts_with('/') => !authority.contains('@'),
        (_, "*") => seen.method == Method::OPTIONS,
        _ => target.starts_with('/') || target.starts_with('?'),
    };
    let only_chunks = match values(&seen.fields, "transfer-encoding")[..] {
        [] => true,
        [coding] => coding.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    match (is_named && is_target, only_chunks) {
        (false, _) => Some(400),
        (true, false) => Some(501),
        (true, true) => None,
    }
}

fn asks_to_upgrade(seen: &Seen) -> bool {
    let lists_upgrade = |line: &&[u8]| String::from_utf8_lossy(line).to_ascii_lowercase().contains("upgrade");
    !values(&seen.fields, "upgrade").is_empty()
        && values(&seen.fields, "connection").iter().any(lists_upgrade)
}

fn has_body(seen: &Seen) -> bool {
    let counted =
        values(&seen.fields, "content-length").iter().any(|length| length.iter().any(|d| *d != b'0'));
    counted || !values(&seen.fields, "transfer-encoding").is_empty()
}

/// Whether the second word of a line has bytes that have no place in a URI.
fn has_odd_target(input: &[u8]) -> bool {
    let is_odd = |byte: &u8| !byte.is_ascii() || b"\"<>`".contains(byte);
    let mut targets =
        input.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(1));
    targets.any(|target| target.iter().any(is_odd))
}

fn has_unclear_length(input: &[u8]) -> bool {
    let input = String::from_utf8_lossy(input).to_ascii_lowercase();
    let lengths = input.split('\n').filter_map(|line| line.strip_prefix("content-length:")).map(str::trim);
    let lengths: HashSet<&str> = lengths.collect();
    let is_number = |length: &&str| length.bytes().all(|byte| byte.is_ascii_digit());
    let numbers: HashSet<u64> =
        lengths.iter().filter(|l| is_number(l)).filter_map(|l| l.parse().ok()).collect();
    let has_coding = input.contains("transfer-encoding:");
    let is_any_too_long = lengths.iter().any(|length| is_too_long(length));
    is_any_too_long || numbers.len() < lengths.len() || (has_coding && lengths.len() > 1)
}

/// Our server.
struct Ours {
    runtime: Runtime,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Ours {
    fn start() -> Ours {
        let (runtime, seen) = (runtime(), Arc::<Mutex<Vec<Seen>>>::default());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let recorded = Arc::clone(&seen);
        let handler = Answer(move |request: pilotlight_net::Request| {
            let seen = Arc::clone(&recorded);
            async move {
                let request = record(request).await;
                seen.lock().push(request);
                answer(Body::empty())
            }
        });
        runtime.spawn(pilotlight_net::serve(listener, Arc::new(handler), Drain::default()));
        Ours { runtime, address, seen }
    }

    fn serve(&self, input: &[u8]) -> Verdict {
        // All bytes are there before the server looks, so that nothing depends on when they arrive.
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        stream.write_all(input).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_nonblocking(true).unwrap();
        let said = self.runtime.block_on(async {
            let (mut stream, mut said) = (TcpStream::from_std(stream).unwrap(), Vec::new());
            let ended = timeout(AT_ONCE, stream.read_to_end(&mut said)).await;
            ended.unwrap_or_else(|_| panic!("never ended: {:?}", String::from_utf8_lossy(input))).unwrap();
            said
        });
        Verdict { seen: std::mem::take(&mut *self.seen.lock()), answers: answers(&said) }
    }
}

/// The verdict of hyper's server.
fn hypers(runtime: &Runtime, input: &[u8]) -> Verdict {
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let service = service_fn(|request| {
        let seen = Arc::clone(&seen);
        async move {
            let request = record(request).await;
            seen.lock().push(request);
            Ok::<_, Infallible>(answer(http_body_util::Empty::<Bytes>::new()))
        }
    });
    let said = runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(input).await.unwrap();
        client.shutdown().await.unwrap();
        // hyper gets our limit of fields.
        let mut http1 = http1::Builder::new();
        http1.half_close(true).max_headers(1000);
        let connection = http1.serve_connection(TokioIo::new(server), service);
        // An error comes behind the answer, if there is one.
        let _ = timeout(AT_ONCE, connection).await.expect("hyper's end");
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        said
    });
    Verdict { seen: std::mem::take(&mut *seen.lock()), answers: answers(&said) }
}

async fn record<B: http_body::Body<Data = Bytes>>(request: http::Request<B>) -> Seen {
    let (head, body) = request.into_parts();
    Seen {
        method: head.method,
        target: head.uri.to_string(),
        version: head.version,
        fields: fields(&head.headers),
        content: read(body).await,
    }
}

fn answer<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(ANSWER).unwrap();
    response
}

fn answers(said: &[u8]) -> Vec<u16> {
    let said = String::from_utf8_lossy(said);
    let statuses = said.split("HTTP/1.").skip(1).map(|answer| answer[2..5].parse().unwrap());
    statuses.filter(|status| *status != 100).collect()
}

/// The handler's status, which neither server would give of its own.
const ANSWER: u16 = 499;
