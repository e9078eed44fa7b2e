//! The Service of each bucket that is held, which leads to this pod.
//!
//! Activators of Knative do not use them; autoscalers do that cannot reach a holder at its address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use pilotlight_net::Backoff;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::buckets::Buckets;

/// Where the Services of held buckets lead.
#[derive(Clone)]
pub struct BucketEndpoints {
    /// The API server.
    pub client: Client,
    /// The namespace of the Services.
    pub namespace: String,
    /// The address of this pod.
    pub ip: IpAddr,
    /// The port of its stat server.
    pub port: u16,
}

impl BucketEndpoints {
    /// Has the Services of all buckets that are held lead here, until nobody tells what is held any more. What is right
    /// already is not written; what fails is tried again for as long as the bucket is held.
    pub async fn run(self, mut buckets: watch::Receiver<Arc<Buckets>>) {
        let this = Arc::new(self);
        let mut pointing: BTreeMap<String, AbortHandle> = BTreeMap::new();
        loop {
            let held = buckets.borrow_and_update().held.clone();
            pointing.retain(|bucket, task| {
                held.contains(bucket) || {
                    task.abort();
                    false
                }
            });
            for bucket in held {
                let start = || tokio::spawn(Arc::clone(&this).insist(bucket.clone())).abort_handle();
                pointing.entry(bucket.clone()).or_insert_with(start);
            }
            if buckets.changed().await.is_err() {
                pointing.values().for_each(AbortHandle::abort);
                return;
            }
        }
    }

    async fn insist(self: Arc<Self>, bucket: String) {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        let mut is_told = false;
        loop {
            match self.point(&bucket).await {
                Ok(()) => return info!(bucket, "The bucket's Service leads here"),
                Err(error) if std::mem::replace(&mut is_told, true) => {
                    debug!(bucket, %error, "Still cannot have the bucket's Service lead here");
                }
                Err(error) => {
                    warn!(bucket, %error, "Cannot have the bucket's Service lead here; trying again");
                }
            }
            sleep(backoff.next(Duration::ZERO, 0.0)).await;
        }
    }

    async fn point(&self, bucket: &str) -> kube::Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        if services.get_opt(bucket).await?.is_none() {
            services.create(&PostParams::default(), &self.service(bucket)).await?;
        }
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let wanted = self.slice(bucket);
        let Some(there) = slices.get_opt(bucket).await? else {
            return slices.create(&PostParams::default(), &wanted).await.map(drop);
        };
        if there.address_type != wanted.address_type {
            // The type of a slice cannot be changed.
            slices.delete(bucket, &DeleteParams::default()).await?;
            return slices.create(&PostParams::default(), &wanted).await.map(drop);
        }
        let is_labelled = wanted.labels().iter().all(|label| there.labels().get(label.0) == Some(label.1));
        if is_labelled && (&there.endpoints, &there.ports) == (&wanted.endpoints, &wanted.ports) {
            return Ok(());
        }
        let mut metadata = there.metadata;
        metadata.labels.get_or_insert_default().extend(wanted.labels().clone());
        slices.replace(bucket, &PostParams::default(), &EndpointSlice { metadata, ..wanted }).await.map(drop)
    }

    /// Without a selector: nobody else fills its endpoints in.
    fn service(&self, bucket: &str) -> Service {
        let port = ServicePort {
            name: Some(PORT_NAME.to_owned()),
            port: self.port.into(),
            ..ServicePort::default()
        };
        Service {
            metadata: self.metadata(bucket, false),
            spec: Some(ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() }),
            status: None,
        }
    }

    fn slice(&self, bucket: &str) -> EndpointSlice {
        let conditions =
            EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
        let endpoint = Endpoint {
            addresses: vec![self.ip.to_string()],
            conditions: Some(conditions),
            ..Endpoint::default()
        };
        let port = EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(self.port.into()),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        };
        EndpointSlice {
            address_type: if self.ip.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
            endpoints: vec![endpoint],
            metadata: self.metadata(bucket, true),
            ports: Some(vec![port]),
        }
    }

    fn metadata(&self, bucket: &str, is_slice: bool) -> ObjectMeta {
        let label = || [("kubernetes.io/service-name".to_owned(), bucket.to_owned())].into();
        ObjectMeta {
            name: Some(bucket.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: is_slice.then(label),
            ..ObjectMeta::default()
        }
    }
}

const PORT_NAME: &str = "http";
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use pilotlight_kubernetes::pretend::{Failure, PretendApi};

    const BUCKET: &str = "autoscaler-bucket-00-of-01";

    fn slice(address: &str, extra: &Value) -> Value {
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": BUCKET, "namespace": "knative-serving",
                "labels": { "kubernetes.io/service-name": BUCKET },
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [address],
                "conditions": { "ready": true, "serving": true, "terminating": false },
            }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        });
        for (key, value) in extra.as_object().unwrap() {
            slice[key] = value.clone();
        }
        slice
    }

    async fn pointed(there: Option<Value>) -> (Vec<String>, Value) {
        let (api, client) = PretendApi::start();
        let paths = [
            format!("/api/v1/namespaces/knative-serving/services/{BUCKET}"),
            format!("/apis/discovery.k8s.io/v1/namespaces/knative-serving/endpointslices/{BUCKET}"),
        ];
        if let Some(there) = there {
            api.put(&paths[0], json!({ "metadata": {} }));
            api.put(&paths[1], there);
        }
        let ip = [10, 0, 0, 1].into();
        let endpoints = BucketEndpoints { client, namespace: "knative-serving".to_owned(), ip, port: 8080 };
        endpoints.point(BUCKET).await.unwrap();
        let methods = api.writes().iter().map(|it| it.method.to_string()).collect();
        let service = api.get(&paths[0]).unwrap();
        assert_eq!(service["spec"]["selector"], Value::Null);
        let mut slice = api.get(&paths[1]).unwrap();
        slice["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        (methods, slice)
    }

    #[tokio::test]
    async fn a_service_and_its_slice_are_made_corrected_and_left_alone() {
        let ours = slice("10.0.0.1", &json!({}));
        assert_eq!(pointed(None).await, (vec!["POST".to_owned(), "POST".to_owned()], ours.clone()));
        assert_eq!(pointed(Some(ours.clone())).await, (Vec::new(), ours.clone()));
        // The slice led to the holder before.
        let theirs = slice("10.0.0.2", &json!({}));
        assert_eq!(pointed(Some(theirs)).await, (vec!["PUT".to_owned()], ours.clone()));
        let wrong_port = slice("10.0.0.1", &json!({ "ports": [] }));
        assert_eq!(pointed(Some(wrong_port)).await, (vec!["PUT".to_owned()], ours));
    }

    #[tokio::test]
    async fn an_api_server_that_fails_is_asked_again_until_the_service_leads_here() {
        let (api, client) = PretendApi::start();
        api.fail(|_| Some(Failure::Status(500)));
        let held = |held: &[&str]| {
            let all = Arc::from([BUCKET.to_owned()]);
            Arc::new(Buckets { all, held: held.iter().map(|&it| it.to_owned()).collect() })
        };
        let (tell, buckets) = watch::channel(held(&[]));
        let ip = "fd00::1".parse().unwrap();
        let endpoints = BucketEndpoints { client, namespace: "knative-serving".to_owned(), ip, port: 8080 };
        let running = tokio::spawn(endpoints.run(buckets));
        tell.send_replace(held(&[BUCKET]));
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/knative-serving/endpointslices/{BUCKET}");
        let mut changes = api.changes();
        api.mend();
        let made = async {
            while api.get(&path).is_none() {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), made).await.expect("within half a minute");
        assert_eq!(api.get(&path).unwrap()["addressType"], "IPv6");
        drop(tell);
        running.await.unwrap();
    }
}
