//! Certificates of the activator, and the authorities of pods' certificates: objects of the system namespace, put in force
//! as they change. In force with `system-internal-tls`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use pilotlight_feed::{Change, Feed};
use pilotlight_kubernetes::{WatchParams, watch};
use pilotlight_net::tls::{CertificateFiles, PemPair, PodTls, ServerTls, TlsError, TlsPolicy};
use tracing::{error, info};

/// The certificate shown to clients, and the authorities that pods are held to.
#[derive(Clone)]
pub(crate) struct InternalTls {
    pub(crate) server: Arc<ServerTls>,
    pub(crate) pods: Arc<PodTls>,
    bundles: Bundles,
}

/// The certificate's secret.
#[derive(Clone, PartialEq, Eq)]
struct Certificate {
    pair: PemPair,
    authority: Option<Vec<u8>>,
}

/// Bundles of authorities, by the object they are from.
type Bundles = BTreeMap<String, Vec<u8>>;

impl InternalTls {
    /// Reads the objects. Without a certificate, or without an authority, there is no activator.
    pub(crate) async fn read(client: &Client, namespace: &str, policy: TlsPolicy) -> anyhow::Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = secrets.get(SECRET).await.with_context(|| {
            format!("system-internal-tls is enabled, and Secret {namespace}/{SECRET} cannot be read")
        })?;
        let (_, certificate) = certificate(&secret)
            .with_context(|| format!("Secret {namespace}/{SECRET} has no tls.crt or no tls.key"))?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let maps = maps.list(&ListParams::default().labels(TRUST_BUNDLE)).await;
        let maps = maps.context("cannot list the ConfigMaps of trusted authorities")?;
        let mut bundles: Bundles = maps.iter().flat_map(|map| bundles_of(map).1).collect();
        bundles.extend(certificate.authority.map(|pem| (SECRET_BUNDLE.to_owned(), pem)));
        let names = CertificateFiles {
            certificate: format!("Secret {namespace}/{SECRET}, tls.crt").into(),
            key: format!("Secret {namespace}/{SECRET}, tls.key").into(),
        };
        let server = ServerTls::of(names, certificate.pair, policy)?;
        let pods = PodTls::of(bundles.clone().into_iter().collect()).context(
            "system-internal-tls is enabled, and nothing says which authority pods' certificates have: neither ca.crt \
             of the Secret nor a ConfigMap with the label networking.knative.dev/trust-bundle",
        )?;
        Ok(InternalTls { server: Arc::new(server), pods: Arc::new(pods), bundles })
    }

    /// Follows the objects, until the task is aborted.
    pub(crate) async fn follow(self, client: Client, namespace: String) {
        let (certificates, maps) = (Feed::default(), Feed::default());
        let (mut new_certificates, mut new_maps) = (certificates.follow(), maps.follow());
        let secret = WatchParams { fields: format!("metadata.name={SECRET}"), ..WatchParams::default() };
        let labelled = WatchParams { labels: TRUST_BUNDLE.to_owned(), ..WatchParams::default() };
        let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
        let listed = Api::<ConfigMap>::namespaced(client, &namespace);
        let watches = async {
            tokio::join!(
                watch(secrets, secret, certificates, certificate),
                watch(listed, labelled, maps, |map| Some(bundles_of(map))),
            )
        };
        let InternalTls { server, pods, mut bundles } = self;
        let follow = async {
            // Until all is listed, what was read at the start may be more than what has been told.
            let (mut has_certificate, mut has_maps) = (false, false);
            loop {
                tokio::select! {
                    Some(change) = new_certificates.next() => match change {
                        Change::Set(_, certificate) => {
                            tell(server.replace(certificate.pair.clone()), "Certificate was replaced");
                            bundles.remove(SECRET_BUNDLE);
                            let authority = certificate.authority.clone();
                            bundles.extend(authority.map(|pem| (SECRET_BUNDLE.to_owned(), pem)));
                        }
                        // The last certificate stays in force.
                        Change::Gone(_) => error!("Secret of the certificate is gone; the last one stays in force"),
                        Change::Complete => has_certificate = true,
                    },
                    Some(change) = new_maps.next() => match change {
                        Change::Set(map, content) => {
                            bundles.retain(|name, _| !is_of(name, &map));
                            bundles.extend(Bundles::clone(&content));
                        }
                        Change::Gone(map) => bundles.retain(|name, _| !is_of(name, &map)),
                        Change::Complete => has_maps = true,
                    },
                    else => return,
                }
                if has_certificate && has_maps {
                    let all = bundles.clone().into_iter().collect();
                    tell(pods.replace(all), "Certificate authorities were replaced");
                }
            }
        };
        tokio::select! {
            _ = watches => {}
            () = follow => {}
        }
    }
}

fn tell(replaced: Result<bool, TlsError>, done: &'static str) {
    match replaced {
        Ok(true) => info!("{done}"),
        Ok(false) => {}
        Err(error) => error!(%error, "Cannot use new certificates, keeping the last good ones"),
    }
}

fn certificate(secret: &Secret) -> Option<(String, Certificate)> {
    let data = secret.data.as_ref()?;
    let file = |name: &str| data.get(name).map(|bytes| bytes.0.clone()).filter(|bytes| !bytes.is_empty());
    let pair = PemPair { certificate: file("tls.crt")?, key: file("tls.key")? };
    Some((secret.name_any(), Certificate { pair, authority: file("ca.crt") }))
}

/// The name of a ConfigMap, and its bundles.
fn bundles_of(map: &ConfigMap) -> (String, Bundles) {
    let name = map.name_any();
    let values = map.data.iter().flatten();
    let bundles =
        values.map(|(key, pem)| (format!("ConfigMap {name}, {key}"), pem.clone().into_bytes())).collect();
    (name, bundles)
}

fn is_of(bundle: &str, map: &str) -> bool {
    bundle
        .strip_prefix("ConfigMap ")
        .and_then(|rest| rest.split_once(", "))
        .is_some_and(|(name, _)| name == map)
}

const SECRET: &str = "routing-serving-certs";
const SECRET_BUNDLE: &str = "Secret routing-serving-certs, ca.crt";
const TRUST_BUNDLE: &str = "networking.knative.dev/trust-bundle";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_needs_a_certificate_and_a_key_and_may_have_an_authority() {
        let secret = |data: serde_json::Value| {
            let secret: Secret =
                serde_json::from_value(json!({"metadata": {"name": SECRET}, "data": data})).unwrap();
            certificate(&secret).map(|(_, certificate)| certificate.authority)
        };
        assert_eq!(
            secret(json!({"tls.crt": "YQ==", "tls.key": "Yg==", "ca.crt": "Yw=="})),
            Some(Some(b"c".to_vec()))
        );
        assert_eq!(secret(json!({"tls.crt": "YQ==", "tls.key": "Yg=="})), Some(None));
        assert_eq!(secret(json!({"tls.crt": "YQ==", "tls.key": ""})), None);
        assert_eq!(secret(json!({})), None);
    }

    #[test]
    fn every_value_of_a_map_is_a_bundle_of_that_map() {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "roots"}, "data": {"a": "1", "b": "2"}}))
                .unwrap();
        let (name, bundles) = bundles_of(&map);
        let names: Vec<&String> = bundles.keys().collect();
        assert_eq!(names, ["ConfigMap roots, a", "ConfigMap roots, b"]);
        assert!(bundles.keys().all(|bundle| is_of(bundle, &name) && !is_of(bundle, "root")));
        assert!(!is_of(SECRET_BUNDLE, "roots"));
    }
}
