//! Clients of servers that are no pods: certificates on either side.

use std::time::Duration;

use http::Version;
use pilotlight_net::tls::{ClientTls, ServerTls, TlsPolicy, TlsWords};
use pilotlight_net::{Body, Handler, Request, Response, once};

use crate::support::{Authority, DATA_PLANE, Folder, POD, soon, start, start_with};

fn request(version: Version) -> Request {
    let mut request = Request::new(Body::full("hello"));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = version;
    request
}

#[tokio::test]
async fn a_client_speaks_either_protocol_with_the_server_it_trusts() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &["collector.example"]);
    let server = start(folder.load(TlsWords::default())).await;
    let bundle = folder.write("ca.pem", &authority.pem);
    let tls = ClientTls::to("collector.example", &[bundle, folder.path("is not there")]).unwrap();
    for (version, spoken) in [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_2, "HTTP/2.0")] {
        let asked = once::ask(server.address, Some(&tls), request(version), 100);
        let answer = soon("an answer", asked).await.unwrap();
        assert_eq!(answer.headers["spoken"].to_str().unwrap(), spoken);
        assert_eq!(answer.body.unwrap(), "hello");
    }
}

/// Answers with the port that the request came in at.
struct Port;

impl Handler for Port {
    async fn handle(&self, client: &pilotlight_net::Client, _: Request) -> Response {
        Response::new(Body::full(client.local().unwrap().port().to_string()))
    }
}

#[tokio::test]
async fn a_handler_knows_the_port_that_a_request_came_in_at_over_tls_too() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start_with(folder.load(TlsWords::default()), Port).await;
    let anybody = ClientTls::unverified().unwrap();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let asked = once::ask(server.address, Some(&anybody), request(version), 100);
        let port = soon("an answer", asked).await.unwrap().body.unwrap();
        assert_eq!(port, server.address.port().to_string());
    }
}

#[tokio::test]
async fn a_server_of_another_name_or_authority_is_refused_unless_anybody_will_do() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &["collector.example"]);
    let server = start(folder.load(TlsWords::default())).await;
    let (ours, other) =
        (folder.write("ca.pem", &authority.pem), folder.write("other.pem", &Authority::new().pem));
    for tls in [
        ClientTls::to("else.example", &[ours]).unwrap(),
        ClientTls::to("collector.example", &[other]).unwrap(),
    ] {
        let asked = once::ask(server.address, Some(&tls), request(Version::HTTP_11), 100);
        let error = soon("an end", asked).await.unwrap_err().to_string();
        assert!(error.starts_with("tls: invalid peer certificate"), "{error}");
    }
    let anybody = ClientTls::unverified().unwrap();
    let asked = once::ask(server.address, Some(&anybody), request(Version::HTTP_11), 100);
    assert_eq!(soon("an answer", asked).await.unwrap().body.unwrap(), "hello");
    assert!(ClientTls::to("collector.example", &[folder.path("is not there")]).is_err());
}

#[tokio::test]
async fn a_server_that_wants_certificates_turns_away_who_has_none_unless_that_is_fine() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &[DATA_PLANE]);
    let bundle = folder.write("ca.pem", &authority.pem);
    for (optional, comes_in) in [(true, true), (false, false)] {
        let policy = TlsPolicy::parse(TlsWords::default()).unwrap().with_clients(&bundle, optional).unwrap();
        let tls = std::sync::Arc::new(ServerTls::load(folder.files(), policy).unwrap());
        let server = start(tls).await;
        let client = ClientTls::to(DATA_PLANE, std::slice::from_ref(&bundle)).unwrap();
        let asked = once::ask(server.address, Some(&client), request(Version::HTTP_11), 100);
        let answer = tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
        assert_eq!(answer.is_ok(), comes_in, "{answer:?}");
    }
    assert!(TlsPolicy::default().with_clients(&folder.path("is not there"), true).is_err());
    assert!(TlsPolicy::default().with_clients(&folder.write("empty.pem", ""), true).is_err());
}
