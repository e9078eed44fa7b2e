//! The end of connections: no response is lost, and neither side waits for ever.

use pilotlight_net::{Body, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::{Answer, App, Client, GET, OK, header, proxied, soon, start, start_proxy};

#[tokio::test]
async fn empty_lines_between_requests_are_nothing() {
    let server = start(Answer(|_| std::future::ready(Response::new(Body::full("hello"))))).await;
    let mut client = Client::connect(server.address).await;
    // Together, these are more bytes than a head may have.
    client.send(&"\r\n".repeat(1 << 20)).await;
    let response = client.send(&format!("{GET}\r\n")).await.read_message().await;
    assert!(response.ends_with("hello"), "{response}");
    server.drain.start();
    assert_eq!(client.read_to_end().await, "");
    soon("the end of the server", server.task).await.unwrap();
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";

#[tokio::test]
async fn a_request_that_outlives_its_response_arrives_whole_even_on_the_last_of_a_connection() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(&format!("{CHUNKED}Connection: close\r\n\r\n1\r\na\r\n")).await;
    let mut upstream = app.accept().await;
    upstream.read_until("1\r\na\r\n").await;
    let (begun, ended) = OK.split_at(OK.len() - 1);
    upstream.send(begun).await;
    client.read_until("\r\n\r\no").await;
    upstream.send(ended).await;
    client.read_until("k").await;
    for piece in ["b", "c", "d"] {
        let piece = format!("1\r\n{piece}\r\n");
        client.send(&piece).await;
        assert_eq!(upstream.read_until(&piece).await, piece);
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(upstream.read_until("0\r\n\r\n").await, "0\r\n\r\n");
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn two_tasks_that_write_to_one_client_do_not_take_its_attention_from_each_other() {
    let app = App::listen().await;
    let proxy = start_proxy(app.address).await;
    // A small receive buffer: the client takes little until it reads.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Client::of(socket.connect(proxy.address).await.unwrap());
    client.send(&format!("{CHUNKED}\r\n1\r\na\r\n")).await;
    let mut upstream = app.accept().await;
    upstream.read_until("1\r\na\r\n").await;
    // Eight hints are more than all buffers on the way take.
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(900 << 10));
    for _ in 0..8 {
        upstream.send(&hint).await;
    }
    upstream.send(OK).await;
    // Both tasks get so far that they wait for the socket.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    client.send("1\r\nb\r\n").await;
    let mut client = client.into_stream();
    let mut read = Vec::new();
    soon("the answer", async {
        while !read.ends_with(b"\r\n\r\nok") {
            assert!(client.read_buf(&mut read).await.unwrap() > 0);
        }
    })
    .await;
    upstream.read_until("1\r\nb\r\n").await;
}

// The clock is paused although the sockets are real: the limit is the only timer there is.
#[tokio::test(start_paused = true)]
async fn a_request_that_stalls_after_its_response_is_given_up() {
    let (client, app, _proxy) = proxied().await;
    let mut client = client.into_stream();
    client.write_all(format!("{CHUNKED}\r\n1\r\na\r\n").as_bytes()).await.unwrap();
    let (mut upstream, _) = app.into_listener().accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"1\r\na\r\n") {
        assert!(upstream.read_buf(&mut seen).await.unwrap() > 0);
    }
    let start = tokio::time::Instant::now();
    upstream.write_all(OK.as_bytes()).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("ok"), "{response}");
    assert!(start.elapsed().as_secs() >= 60);
    assert_eq!(upstream.read_to_end(&mut seen).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_is_told_at_once_that_its_connection_ends_with_a_refusal() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let response = client.read_message().await;
    assert_eq!(header(&response, "connection").as_deref(), Some("close"), "{response}");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_although_nobody_reads_its_request() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    // The app refuses the body in a response that it does not finish.
    upstream.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nn").await;
    client.read_until("\r\n\r\nn").await;
    drop(client);
    assert_eq!(upstream.read_to_end().await, "");
}

#[tokio::test]
async fn a_connection_that_was_said_to_be_kept_is_kept() {
    let server = start(Answer(|request: Request| async { Response::new(request.into_body()) })).await;
    let mut client = Client::connect(server.address).await;
    // The body is abandoned after the head of the response has been made, which says that the connection is kept.
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo").await;
    let head = client.read_head().await;
    assert_eq!(header(&head, "connection"), None, "{head}");
    assert!(client.send(&format!("dy{GET}")).await.read_message().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_taken_for_whole_by_an_old_client_either() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    client.read_until("\r\n\r\na").await;
    drop(upstream);
    let error = soon("the end", client.into_stream().read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_asks_for_more_than_is_read_ahead_gets_all_its_answers() {
    const REQUESTS: usize = 5000;
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    let mut client = client.into_stream();
    let (mut reader, mut writer) = client.split();
    let asking = async {
        writer.write_all(GET.repeat(REQUESTS).as_bytes()).await.unwrap();
    };
    let answering = async {
        for _ in 0..REQUESTS {
            upstream.send(OK).await;
            upstream.read_head().await;
        }
        upstream.send(OK).await;
    };
    let reading = async {
        let (mut read, mut answers) = (Vec::new(), 0);
        while answers <= REQUESTS {
            assert!(reader.read_buf(&mut read).await.unwrap() > 0);
            answers += read.windows(2).filter(|two| two == b"ok").count();
            let last = read.len().saturating_sub(1);
            read.drain(..last);
        }
    };
    soon("all of it", async { tokio::join!(asking, answering, reading) }).await;
}

#[tokio::test]
async fn a_client_that_half_closes_with_its_request_gets_its_answers() {
    for requests in [
        GET.to_owned(),
        GET.repeat(3),
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
    ] {
        let (client, app, proxy) = proxied().await;
        drop(client);
        // Request and FIN are there before the proxy looks.
        let mut client = std::net::TcpStream::connect(proxy.address).unwrap();
        std::io::Write::write_all(&mut client, requests.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = Client::of(tokio::net::TcpStream::from_std(client).unwrap());
        let mut upstream = app.accept().await;
        let number = requests.matches(" / HTTP").count();
        for _ in 0..number {
            upstream.read_message().await;
            // The app takes its time, in which the proxy looks at its client.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            upstream.send(OK).await;
        }
        let answers = client.read_to_end().await;
        assert_eq!(answers.matches("\r\n\r\nok").count(), number, "{requests:?}: {answers}");
    }
}

#[tokio::test]
async fn a_client_that_closes_while_it_waits_has_left() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    client.finish().await;
    assert_eq!(upstream.read_to_end().await, "", "the request is given up");
    assert_eq!(client.read_to_end().await, "");
}
