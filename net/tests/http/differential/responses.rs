//! Responses to our client half and to hyper's.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pilotlight_net::{Body, Client, Request, UpstreamParams, Upstreams};
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{
    AT_ONCE, Content, config, fields, grammar, is_stricter_about_chunks, is_too_long, read, runtime, values,
};

#[test]
fn responses_are_what_hyper_takes_them_for() {
    let ours = Ours::start();
    let (accepted, keeping) = (Cell::new(0), Cell::new(0));
    let method = select(&[Method::GET, Method::GET, Method::GET, Method::POST, Method::HEAD][..]);
    proptest!(config(), |(method in method, input in grammar::response())| {
        let (expected, mine) = (hypers(&ours.runtime, &method, &input), ours.send(&method, &input));
        accepted.set(accepted.get() + usize::from(expected.is_some()));
        if let Err(difference) = compare(expected.clone(), mine.clone(), &input) {
            prop_assert!(false, "{difference}\n{method} {input:?}\nhyper: {expected:#?}\nours: {mine:#?}");
        }
        // Where hyper breaks off what we mend, it keeps nothing.
        let is_mended = expected.as_ref().is_some_and(|expected| expected.content.is_broken_off);
        if !is_mended && mine.as_ref().is_some_and(|mine| mine.ends_by_itself(&method)) {
            let kept = (hyper_keeps(&ours.runtime, &method, &input), ours.keeps(&method, &input));
            let is_doubted = expected.as_ref().is_some_and(Seen::says_two_ends);
            prop_assert_eq!(kept.0 && !is_doubted, kept.1, "kept by hyper, by us: {} {:?}", method, input);
            keeping.set(keeping.get() + u32::from(kept.0));
        }
    });
    assert!(
        accepted.get() > 0 && keeping.get() > 0,
        "nothing was ever accepted, and this test shows nothing"
    );
}

/// A response as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: StatusCode,
    reason: Option<Bytes>,
    fields: Vec<(String, Bytes)>,
    content: Content,
}

impl Seen {
    /// Whether the framing fields contradict each other, so that the bytes behind the body may be no response.
    fn says_two_ends(&self) -> bool {
        let lengths = values(&self.fields, "content-length");
        if !values(&self.fields, "transfer-encoding").is_empty() {
            return !lengths.is_empty() || matches!(self.status.as_u16(), 204 | 304);
        }
        self.status == StatusCode::NO_CONTENT && lengths.iter().any(|length| *length != b"0")
    }

    fn ends_by_itself(&self, asked: &Method) -> bool {
        let is_framed =
            ["content-length", "transfer-encoding"].iter().any(|name| !values(&self.fields, name).is_empty());
        !self.content.is_broken_off
            && (is_framed || *asked == Method::HEAD || matches!(self.status.as_u16(), 204 | 304))
    }
}

/// Compares the responses. All differences that are allowed are here.
fn compare(hyper: Option<Seen>, ours: Option<Seen>, input: &[u8]) -> Result<(), &'static str> {
    let (mut expected, mut mine) = match (hyper, ours) {
        (None, None) => return Ok(()),
        (Some(expected), Some(mine)) => (expected, mine),
        (Some(expected), None) => {
            let codings = values(&expected.fields, "transfer-encoding");
            // Other codings than `chunked` are refused.
            let is_coded =
                codings.len() > 1 || !codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            // An upgrade was not asked for.
            let has_switched = expected.status == StatusCode::SWITCHING_PROTOCOLS;
            // Lengths such as "5, 5" and "05" mean 5 to some readers and nothing to others, some of which cannot count
            // very far either.
            let lengths = values(&expected.fields, "content-length");
            let is_odd = lengths.iter().any(|length| {
                let text = String::from_utf8_lossy(length);
                text.contains(',') || is_too_long(&text) || *length != lengths[0]
            });
            return if is_coded || has_switched || is_odd { Ok(()) } else { Err("refused") };
        }
        (None, Some(_)) => return Err("accepted"),
    };
    // A repeated length is passed on once, and an overridden one not at all.
    let is_chunked = !values(&expected.fields, "transfer-encoding").is_empty();
    for seen in [&mut expected, &mut mine] {
        let mut is_first = true;
        seen.fields
            .retain(|(name, _)| name != "content-length" || (!is_chunked && std::mem::take(&mut is_first)));
    }
    // A line is unfolded to one blank or to several (RFC 9112, 5.2).
    for (_, value) in expected.fields.iter_mut().chain(&mut mine.fields) {
        let mut is_blank = false;
        *value = value
            .iter()
            .copied()
            .filter(|byte| !std::mem::replace(&mut is_blank, *byte == b' ') || !is_blank)
            .collect();
    }
    if is_chunked && is_stricter_about_chunks(&expected.content, &mine.content, input) {
        mine.content = expected.content.clone();
    }
    // Trailers are mended as the head is, folded lines and blanks before a colon. To hyper both are an error.
    let is_mended = expected.content.is_broken_off
        && !mine.content.is_broken_off
        && expected.content.data == mine.content.data
        && [&b" :"[..], b"\t:", b"\n ", b"\n\t"]
            .iter()
            .any(|what| input.windows(2).any(|pair| pair == *what));
    if is_chunked && is_mended {
        mine.content = expected.content.clone();
    }
    if mine == expected { Ok(()) } else { Err("another response") }
}

/// Our client half, and an app that sends the bytes that it is given.
struct Ours {
    runtime: Runtime,
    upstreams: Upstreams,
    to: SocketAddr,
    says: Arc<Mutex<Says>>,
}

#[derive(Clone, Default)]
struct Says {
    input: Vec<u8>,
    stays: bool,
    connections: u32,
}

impl Ours {
    fn start() -> Ours {
        let (runtime, says) = (runtime(), Arc::<Mutex<Says>>::default());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let to = listener.local_addr().unwrap();
        let told = Arc::clone(&says);
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Says { input, stays, .. } = told.lock().clone();
                told.lock().connections += 1;
                tokio::spawn(say(stream, input, stays));
            }
        });
        let params = UpstreamParams { max_idle_per_host: 1, idle_timeout: AT_ONCE, connect_timeout: AT_ONCE };
        Ours { runtime, upstreams: Upstreams::new(params), to, says }
    }

    fn send(&self, method: &Method, input: &[u8]) -> Option<Seen> {
        *self.says.lock() = Says { input: input.to_vec(), stays: false, connections: 0 };
        // Connections of the last case are dropped.
        self.upstreams.forget(self.to);
        self.exchange(method)
    }

    /// Whether a second request goes over the same connection.
    fn keeps(&self, method: &Method, input: &[u8]) -> bool {
        *self.says.lock() = Says { input: input.to_vec(), stays: true, connections: 0 };
        self.upstreams.forget(self.to);
        self.exchange(method);
        self.exchange(method);
        self.says.lock().connections == 1
    }

    fn exchange(&self, method: &Method) -> Option<Seen> {
        let client = Client::new(self.to);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.clone();
        let exchange = async {
            let response = self.upstreams.send(&client, self.to, &mut request).await;
            Some(record(response.ok()?).await)
        };
        self.runtime.block_on(async { timeout(AT_ONCE, exchange).await.expect("our end") })
    }
}

/// The response as hyper's client sees it.
fn hypers(runtime: &Runtime, method: &Method, input: &[u8]) -> Option<Seen> {
    let exchange = async { Some(hypers_exchange(method, input, false).await?.0) };
    runtime.block_on(async { timeout(AT_ONCE, exchange).await.expect("hyper's end") })
}

/// Whether hyper would send a second request over the same connection.
fn hyper_keeps(runtime: &Runtime, method: &Method, input: &[u8]) -> bool {
    let exchange = async {
        let exchange = hypers_exchange(method, input, true).await;
        exchange.expect("the same as before").1.ready().await.is_ok()
    };
    runtime.block_on(async { timeout(AT_ONCE, exchange).await.expect("hyper's end") })
}

async fn hypers_exchange(
    method: &Method,
    input: &[u8],
    stays: bool,
) -> Option<(Seen, http1::SendRequest<Empty<Bytes>>)> {
    let (client, app) = tokio::io::duplex(1 << 20);
    tokio::spawn(say(app, with_known_version(input), stays));
    // hyper gets our limit of fields.
    let mut http1 = http1::Builder::new();
    http1
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    let (mut sender, connection) = http1.max_headers(1000).handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().method(method).body(Empty::new()).unwrap();
    Some((record(sender.send_request(request).await.ok()?).await, sender))
}

/// The same with HTTP/1.1 in place of later minor versions, which hyper does not take.
fn with_known_version(input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    for at in 0..input.len() {
        if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', b' ', ..] = &mut input[at..] {
            *minor = b'1';
        }
    }
    input
}

/// An app that answers each request with these bytes. It hangs up after the first, unless it `stays`.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, input: Vec<u8>, stays: bool) {
    let mut heard = Vec::new();
    while stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {
        if heard.ends_with(b"\r\n\r\n") {
            heard.clear();
            // A client that refuses the response may hang up first.
            let _ = stream.write_all(&input).await;
            if !stays {
                let _ = stream.shutdown().await;
            }
        }
    }
}

async fn record<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Seen {
    let (head, body) = response.into_parts();
    Seen {
        status: head.status,
        reason: head.extensions.get::<ReasonPhrase>().map(|reason| Bytes::copy_from_slice(reason.as_bytes())),
        fields: fields(&head.headers),
        content: read(body).await,
    }
}
