//! Traffic cut into pieces at random: a message must not depend on its pieces.

use http_body_util::BodyExt;
use pilotlight_net::{Body, Request, Response, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Server, header, soon, start, start_proxy};

/// Sends the request's body back: as it comes, when it is complete, or not at all.
async fn echo() -> Server {
    start(Answer(|request: Request| async {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/stream" => Response::new(body),
            "/whole" => match body.collect().await {
                Ok(body) => Response::new(Body::full(body.to_bytes())),
                Err(error) => plain(error.status(), error.to_string()),
            },
            _ => Response::new(Body::full("early")),
        }
    }))
    .await
}

/// Numbers that look random, by the seed that a failure prints.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    pub(crate) fn size(&mut self) -> usize {
        let limit = [1, 3, 100, 9_000, 20_000, 100_000][self.below(6)];
        self.below(limit)
    }
}

/// A request and the body of its response.
fn request(dice: &mut Dice, number: usize) -> (String, String) {
    let method = ["GET", "HEAD", "POST", "PUT"][dice.below(4)];
    let path = ["/stream", "/whole", "/early"][dice.below(3)];
    let body: String = format!("{number},").chars().cycle().take(dice.size()).collect();
    let answer = match (method, path) {
        ("HEAD", _) => String::new(),
        (_, "/early") => "early".to_owned(),
        _ => body.clone(),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n");
    if dice.below(2) == 0 {
        return (format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()), answer);
    }
    let mut request = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at((1 + dice.size()).min(rest.len()));
        let extension = ["", ";a=b"][dice.below(2)];
        request.push_str(&format!("{:x}{extension}\r\n{chunk}\r\n", chunk.len()));
        rest = after;
    }
    request.push_str(["0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n"][dice.below(2)]);
    (request, answer)
}

/// One response: its head, its body, and the rest of `read` behind it.
fn response(read: &str, is_head: bool) -> Option<(&str, String, &str)> {
    let (head, mut rest) = read.split_at(read.find("\r\n\r\n")? + 4);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{read}");
    if is_head {
        return Some((head, String::new(), rest));
    }
    if let Some(length) = header(head, "content-length") {
        let (body, rest) = rest.split_at_checked(length.parse().unwrap())?;
        return Some((head, body.to_owned(), rest));
    }
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            let rest = after.strip_prefix("\r\n").or_else(|| Some(after.split_once("\r\n\r\n")?.1));
            return Some((head, body, rest?));
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}

async fn converse(proxy: &Server, seed: u64) {
    let mut dice = Dice(seed);
    let requests: Vec<_> = (0..30).map(|number| request(&mut dice, number)).collect();
    let all: String = requests.iter().map(|(request, _)| request.as_str()).collect();
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let asking = async {
        let mut rest = all.as_bytes();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + dice.size()).min(rest.len()));
            // An error says that the server reads no more.
            let _ = writer.write_all(piece).await;
            rest = after;
            for _ in 0..dice.below(5) {
                tokio::task::yield_now().await;
            }
        }
    };
    let hearing = async {
        let mut read = String::new();
        for (number, (request, expected)) in requests.iter().enumerate() {
            let (head, body, rest) = loop {
                if let Some(response) = response(&read, request.starts_with("HEAD")) {
                    break response;
                }
                let mut piece = vec![0; 64 << 10];
                let len = reader.read(&mut piece).await.unwrap();
                assert!(len > 0, "closed, seed {seed}, request {number}: {read}");
                read.push_str(std::str::from_utf8(&piece[..len]).unwrap());
            };
            assert!(body == *expected, "seed {seed}, request {number}");
            if header(head, "connection").is_some() {
                assert!(request.contains(" /early "), "seed {seed}, request {number}: {head}");
                return;
            }
            read = rest.to_owned();
        }
        assert_eq!(read, "", "seed {seed}");
    };
    tokio::join!(asking, hearing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_answers_come_whole_and_in_order() {
    let app = echo().await;
    let proxy = start_proxy(app.address).await;
    for seed in 0..SEEDS {
        soon(&format!("the end of seed {seed}"), converse(&proxy, seed)).await;
    }
}

/// Requests with a few faults in them.
fn nonsense(dice: &mut Dice) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..4).flat_map(|number| request(dice, number).0.into_bytes()).collect();
    bytes.truncate(30_000);
    for _ in 0..=dice.below(3) {
        let limit = [100, 400, 30_000][dice.below(3)];
        let at = dice.below(bytes.len().min(limit));
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n").map_or(at, |end| at + end + 2);
        let fault = FAULTS[dice.below(FAULTS.len())].bytes();
        match dice.below(4) {
            0 => bytes[at] = dice.below(256) as u8,
            1 => drop(bytes.remove(at)),
            2 => drop(bytes.splice(at..at, fault)),
            _ => drop(bytes.splice(line..line, fault)),
        }
    }
    bytes
}

const FAULTS: [&str; 13] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    ";",
    "HTTP/1.0",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\nUpgrade: x\r\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_comes_to_an_end() {
    let app = echo().await;
    let proxy = start_proxy(app.address).await;
    for seed in 0..10 * SEEDS {
        let mut dice = Dice(seed);
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let asking = async {
            // An error says that the server reads no more.
            let _ = writer.write_all(&nonsense(&mut dice)).await;
            let _ = writer.shutdown().await;
        };
        let mut heard = Vec::new();
        let talk = async { tokio::join!(asking, reader.read_to_end(&mut heard)) };
        soon(&format!("the end of seed {seed}"), talk).await.1.ok();
    }
    for server in [proxy, app] {
        server.drain.start();
        soon("the end of the server", server.task).await.unwrap();
    }
}

const SEEDS: u64 = 50;
