//! The activator's side: pods, and their namespaces.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use pilotlight_net::tls::{PodTls, Renewable, TlsWords};
use pilotlight_net::{Body, Client, Request, Response, SendError, UpstreamParams, Upstreams, message};
use tokio::net::TcpListener;

use crate::support::*;

fn upstreams(bundles: Vec<PathBuf>, namespace: &str) -> (Upstreams, Arc<PodTls>) {
    let params = UpstreamParams {
        max_idle_per_host: 10,
        idle_timeout: Duration::from_secs(90),
        connect_timeout: Duration::from_secs(5),
    };
    let tls = Arc::new(PodTls::load(bundles).unwrap());
    (Upstreams::over_tls(params, Arc::clone(&tls), namespace), tls)
}

fn post(body: impl Into<bytes::Bytes>) -> Request {
    let mut request = Request::new(Body::full(body));
    *request.method_mut() = http::Method::POST;
    request
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The outcome of a request that is sent to a pod of this namespace, and meets a server with a certificate for these names.
async fn outcome(names: &[&str], namespace: &str) -> Result<String, String> {
    let authority = Authority::new();
    let folder = Folder::with(&authority, names);
    let server = start(folder.load(TlsWords::default())).await;
    let (upstreams, _) = upstreams(vec![folder.write("ca.crt", &authority.pem)], namespace);
    match soon("the outcome", upstreams.send(&Client::ourselves(), server.address, &mut post("hello"))).await
    {
        Ok(response) => Ok(text(response).await),
        Err(SendError::Failed { source }) => {
            let response = message::respond(&source);
            assert_eq!(response.status(), 502);
            Err(text(response).await)
        }
        Err(failure) => panic!("another pod would be no better: {failure}"),
    }
}

#[tokio::test]
async fn a_pod_that_names_its_namespace_is_spoken_with() {
    assert_eq!(outcome(&POD, "default").await, Ok("hello".to_owned()));
    assert_eq!(outcome(&POD, "Default").await, Ok("hello".to_owned()));
}

#[tokio::test]
async fn a_pod_of_another_namespace_is_refused_with_the_names_it_has() {
    let expected =
        "san \"kn-user-other\" does not have a matching name in [kn-user-default data-plane.knative.dev]\n";
    assert_eq!(outcome(&POD, "other").await, Err(expected.to_owned()));
    assert!(outcome(&["*.knative.dev"], "default").await.unwrap_err().starts_with("san "));
}

#[tokio::test]
async fn a_namespace_alone_is_not_enough() {
    let failure = outcome(&["kn-user-default"], "default").await.unwrap_err();
    assert!(failure.starts_with("tls: invalid peer certificate"), "{failure}");
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let folder = Folder::with(&Authority::new(), &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let (upstreams, _) = upstreams(vec![folder.write("ca.crt", &Authority::new().pem)], "default");
    let failure = upstreams.send(&Client::ourselves(), server.address, &mut post("")).await.unwrap_err();
    assert!(matches!(&failure, SendError::Failed { .. }), "{failure}");
}

#[tokio::test]
async fn a_pod_that_speaks_only_tls_1_2_is_refused() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let words = TlsWords { min_version: "1.2", max_version: "1.2", ..TlsWords::default() };
    let server = start(folder.load(words)).await;
    let (upstreams, _) = upstreams(vec![folder.write("ca.crt", &authority.pem)], "default");
    let failure = upstreams.send(&Client::ourselves(), server.address, &mut post("")).await.unwrap_err();
    assert!(matches!(&failure, SendError::Failed { .. }), "{failure}");
}

#[tokio::test]
async fn a_request_comes_back_whole_from_a_pod_that_hangs_up_during_the_handshake() {
    let authority = Authority::new();
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let (upstreams, _) = upstreams(vec![folder.write("ca.crt", &authority.pem)], "default");
    let mut request = post("all of it");
    let failure =
        soon("the failure", upstreams.send(&Client::ourselves(), address, &mut request)).await.unwrap_err();
    assert!(matches!(failure, SendError::NotSent { .. }), "it may go elsewhere: {failure}");
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "all of it");
}

#[tokio::test]
async fn each_request_is_spoken_as_it_came() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let (upstreams, _) = upstreams(vec![folder.write("ca.crt", &authority.pem)], "default");
    for version in [http::Version::HTTP_11, http::Version::HTTP_2].repeat(2) {
        let mut request = post("hello");
        *request.version_mut() = version;
        *request.uri_mut() = "http://pod/".parse().unwrap();
        let response =
            soon("the response", upstreams.send(&Client::ourselves(), server.address, &mut request))
                .await
                .unwrap();
        assert_eq!(response.headers()["spoken"], format!("{version:?}"));
        assert_eq!(text(response).await, "hello");
    }
}

#[tokio::test]
async fn megabytes_go_both_ways() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let (upstreams, _) = upstreams(vec![folder.write("ca.crt", &authority.pem)], "default");
    // The period of the content is that of no record and no buffer.
    let body: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
    let response =
        upstreams.send(&Client::ourselves(), server.address, &mut post(body.clone())).await.unwrap();
    let echoed = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
    assert!(echoed == body, "{} bytes that differ", echoed.len());
}

#[tokio::test]
async fn bad_bundles_are_passed_over_as_long_as_one_is_good() {
    let authority = Authority::new();
    let folder = Folder::with(&authority, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let bundles = vec![
        folder.write("bad.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        folder.path("absent.crt"),
        folder.write("two.crt", &format!("{}{}", Authority::new().pem, authority.pem)),
    ];
    let (upstreams, _) = upstreams(bundles.clone(), "default");
    assert!(upstreams.send(&Client::ourselves(), server.address, &mut post("")).await.is_ok());
    let error = PodTls::load(bundles[..2].to_vec()).unwrap_err().to_string();
    assert!(error.contains("bad.crt") && error.contains("absent.crt"), "{error}");
    assert!(PodTls::load(vec![]).is_err());
}

#[tokio::test]
async fn a_new_authority_is_trusted_as_soon_as_its_bundle_is_there() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = Folder::with(&new, &POD);
    let server = start(folder.load(TlsWords::default())).await;
    let (upstreams, tls) = upstreams(vec![folder.write("ca.crt", &old.pem)], "default");
    assert!(upstreams.send(&Client::ourselves(), server.address, &mut post("")).await.is_err());
    folder.write("ca.crt", "nothing");
    assert!(tls.renew().is_err(), "the old one stays");
    folder.write("ca.crt", &new.pem);
    assert!(tls.renew().unwrap());
    assert!(upstreams.send(&Client::ourselves(), server.address, &mut post("")).await.is_ok());
}
