//! `system-internal-tls`: the activator's certificate, and the authorities of pods, from objects of the cluster.

use std::net::SocketAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pilotlight_knative::activator::start;
use pilotlight_net::tls::PodTls;
use pilotlight_tests::cluster::api::ApiServer;
use pilotlight_tests::{SOON, eventually};
use rcgen::{CertifiedKey, KeyPair};
use serde_json::json;
use tokio::net::TcpStream;

use crate::activator::{cluster, config_map, params};

type Pair = CertifiedKey<KeyPair>;

fn pair() -> Pair {
    let names = ["kn-user-anywhere", "data-plane.knative.dev"].map(str::to_owned);
    rcgen::generate_simple_self_signed(names).expect("a certificate")
}

fn secret(pair: &Pair, authority: Option<&str>) -> serde_json::Value {
    let base64 = |pem: String| serde_json::to_value(ByteString(pem.into_bytes())).expect("JSON");
    let mut data =
        json!({"tls.crt": base64(pair.cert.pem()), "tls.key": base64(pair.signing_key.serialize_pem())});
    if let Some(authority) = authority {
        data["ca.crt"] = base64(authority.to_owned());
    }
    let metadata = json!({"name": "routing-serving-certs", "namespace": "knative-serving"});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
}

/// A cluster that wants TLS.
async fn cluster_with_tls() -> ApiServer {
    let server = ApiServer::start().await;
    server.allow(|_, _| true);
    server.add(config_map("config-network", &json!({"system-internal-tls": "Enabled"})));
    server
}

/// Whether the server shows a certificate that this one vouches for.
async fn shows(at: SocketAddr, pair: &Pair) -> bool {
    let tls = PodTls::of(vec![("test".to_owned(), pair.cert.pem().into_bytes())]).expect("an authority");
    let stream = TcpStream::connect(at).await.expect("a connection");
    tls.connect(stream, "anywhere").await.is_ok()
}

#[tokio::test]
async fn the_certificate_is_the_secrets_and_follows_it() {
    let server = cluster_with_tls().await;
    let (first, second) = (pair(), pair());
    server.add(secret(&first, Some(&first.cert.pem())));
    let running = start(params(&server, ([127, 0, 0, 1], 1).into())).await.expect("a start");
    assert!(running.is_over_tls());
    let at = running.addresses().https;
    assert!(shows(at, &first).await && !shows(at, &second).await);
    let secrets: Api<Secret> = Api::namespaced(server.client(), "knative-serving");
    let patch = Patch::Merge(secret(&second, None));
    secrets.patch("routing-serving-certs", &PatchParams::default(), &patch).await.expect("a patch");
    eventually("the new certificate is shown", SOON, async || shows(at, &second).await.then_some(())).await;
}

#[tokio::test]
async fn without_a_certificate_or_an_authority_there_is_no_activator() {
    let server = cluster_with_tls().await;
    let refused = start(params(&server, ([127, 0, 0, 1], 1).into())).await.expect_err("no secret");
    assert!(
        refused.to_string().contains("Secret knative-serving/routing-serving-certs cannot be read"),
        "{refused}"
    );
    server.add(secret(&pair(), None));
    let refused = start(params(&server, ([127, 0, 0, 1], 1).into())).await.expect_err("no authority");
    assert!(refused.to_string().contains("nothing says which authority"), "{refused}");
    let mut bundle = config_map("roots", &json!({"ca": pair().cert.pem()}));
    bundle["metadata"]["labels"] = json!({"networking.knative.dev/trust-bundle": "true"});
    server.add(bundle);
    start(params(&server, ([127, 0, 0, 1], 1).into())).await.expect("an authority of a ConfigMap is enough");
}

#[tokio::test]
async fn in_the_clear_nothing_is_read_of_secrets() {
    let server = cluster().await;
    let running = start(params(&server, ([127, 0, 0, 1], 1).into())).await.expect("a start");
    assert!(!running.is_over_tls());
    assert_eq!(server.log().count(|request| request.resource == "secrets"), 0);
}
