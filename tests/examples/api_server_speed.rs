//! What the API server of the tests manages: creates, patches, a list, and changes through ten watches.
//!
//! ```sh
//! cargo run --release -p pilotlight-tests --example api_server_speed
//! ```

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use pilotlight_tests::cluster::api::ApiServer;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = ApiServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let start = Instant::now();
    stream::iter(0..OBJECTS)
        .for_each_concurrent(CONNECTIONS, |number| {
            let maps = maps.clone();
            async move {
                let object = json!({"metadata": {"name": format!("m{number}")}, "data": {"k": "v"}});
                let object = serde_json::from_value(object).expect("a map");
                maps.create(&PostParams::default(), &object).await.expect("created");
            }
        })
        .await;
    told("creates", OBJECTS, start);
    let start = Instant::now();
    let list = maps.list(&ListParams::default()).await.expect("a list");
    told("objects of one list", list.items.len(), start);
    let version = list.metadata.resource_version.expect("a version");
    let follow = async || {
        let events = maps.watch(&WatchParams::default(), &version).await.expect("a watch");
        let changes = events.try_filter(|event| std::future::ready(matches!(event, WatchEvent::Modified(_))));
        changes.take(OBJECTS).try_for_each(|_| std::future::ready(Ok(()))).await.expect("no failure");
    };
    let start = Instant::now();
    let patch = async || {
        stream::iter(0..OBJECTS)
            .for_each_concurrent(CONNECTIONS, |number| {
                let maps = maps.clone();
                async move {
                    let patch = Patch::Merge(json!({"data": {"k": "w"}}));
                    maps.patch(&format!("m{number}"), &PatchParams::default(), &patch)
                        .await
                        .expect("patched");
                }
            })
            .await;
    };
    patch().await;
    told("patches", OBJECTS, start);
    let start = Instant::now();
    futures_util::future::join_all((0..WATCHES).map(|_| follow())).await;
    told("events of ten watches", OBJECTS * WATCHES, start);
}

fn told(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.2} s, {:.0} a second", count as f64 / seconds);
}

const OBJECTS: usize = 5000;
const WATCHES: usize = 10;
const CONNECTIONS: usize = 8;
