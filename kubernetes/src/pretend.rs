//! An API server for tests, over real sockets: it keeps objects of any kind by their paths, merges patches, refuses writes of
//! an old version, and tells watches of each change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use pilotlight_net::{Body, Client, Drain, Handler, Request, Response, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The API server. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct PretendApi {
    store: Arc<Mutex<Store>>,
    changed: Arc<watch::Sender<()>>,
    broken: Arc<AtomicBool>,
    drain: Drain,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    /// Every change: the path, the type of the event, the object. Its number is its version.
    log: Vec<(String, &'static str, Value)>,
    /// Answers at paths that are no objects.
    raw: BTreeMap<String, Value>,
    /// Every request that was no `GET`, as `PUT /path`.
    writes: Vec<String>,
    config: Option<kube::Config>,
}

impl PretendApi {
    /// Starts it, and returns a client of it.
    pub(crate) async fn start() -> (PretendApi, kube::Client) {
        let api = PretendApi::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(serve(listener, Arc::new(api.clone()), api.drain.clone()));
        let config = kube::Config::new(url);
        api.store.lock().config = Some(config.clone());
        (api, kube::Client::try_from(config).unwrap())
    }

    /// The way to it, for clients with connections of their own.
    pub(crate) fn config(&self) -> kube::Config {
        self.store.lock().config.clone().expect("it has started")
    }

    /// The object at a path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.store.lock().objects.get(path).cloned()
    }

    /// The objects of a collection.
    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        let store = self.store.lock();
        let items = store.objects.iter().filter(|(path, _)| is_in(collection, path));
        items.map(|(_, object)| object.clone()).collect()
    }

    /// Writes an object, whatever there is.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let kind = if self.get(path).is_some() { "MODIFIED" } else { "ADDED" };
        self.store.lock().change(path, kind, object);
        self.changed.send_replace(());
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, path: &str) {
        let object = self.get(path).expect("it is there");
        let mut store = self.store.lock();
        store.change(path, "DELETED", object);
        store.objects.remove(path);
        drop(store);
        self.changed.send_replace(());
    }

    /// Changes with each object that does.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Answers at a path with this, whatever it is.
    pub(crate) fn raw(&self, path: &str, answer: Value) {
        self.store.lock().raw.insert(path.to_owned(), answer);
    }

    /// The writes so far.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.store.lock().writes.clone()
    }

    /// From now on every request fails, or none.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response {
        let mut store = self.store.lock();
        if method != Method::GET {
            store.writes.push(format!("{method} {path}"));
        }
        if let Some(answer) = store.raw.get(path) {
            return reply(StatusCode::OK, answer);
        }
        let (path, part) = match path.rsplit_once('/') {
            Some((object, part @ ("status" | "scale"))) => (object, part),
            _ => (path, ""),
        };
        let there = store.objects.get(path).cloned();
        let is_collection = path.trim_start_matches('/').split('/').count() % 2
            == if path.starts_with("/apis/") { 0 } else { 1 };
        match *method {
            Method::GET if !is_collection => match there {
                Some(object) if part == "scale" => reply(StatusCode::OK, &scale(&object)),
                Some(object) => reply(StatusCode::OK, &object),
                None => refusal(StatusCode::NOT_FOUND),
            },
            Method::GET if query.contains("watch=true") => {
                let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
                self.follow(path.to_owned(), from.and_then(|from| from.parse().ok()).unwrap_or(0))
            }
            Method::GET => {
                let items: Vec<_> = store.objects.iter().filter(|(it, _)| is_in(path, it)).collect();
                let items: Vec<_> = items.into_iter().map(|(_, object)| object.clone()).collect();
                let version = store.log.len().to_string();
                reply(
                    StatusCode::OK,
                    &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
                )
            }
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if store.objects.contains_key(&path) {
                    return refusal(StatusCode::CONFLICT);
                }
                let object = store.change(&path, "ADDED", object);
                self.changed.send_replace(());
                reply(StatusCode::CREATED, &object)
            }
            Method::PUT => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let Some(there) = there else { return refusal(StatusCode::NOT_FOUND) };
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                if !version(&object).is_null() && version(&object) != version(&there) {
                    return refusal(StatusCode::CONFLICT);
                }
                let object = store.change(path, "MODIFIED", object);
                self.changed.send_replace(());
                reply(StatusCode::OK, &object)
            }
            Method::PATCH => {
                let Some(mut object) = there else { return refusal(StatusCode::NOT_FOUND) };
                let patch: Value = serde_json::from_slice(body).unwrap();
                let version = &patch["metadata"]["resourceVersion"];
                if version.is_string() && *version != object["metadata"]["resourceVersion"] {
                    return refusal(StatusCode::CONFLICT);
                }
                match (part, patch.get(0)) {
                    // A JSON patch of the number of pods.
                    ("scale", Some(operation)) => object["spec"]["replicas"] = operation["value"].clone(),
                    ("status", _) => merge(&mut object["status"], &patch["status"]),
                    _ => merge(&mut object, &patch),
                }
                let object = store.change(path, "MODIFIED", object);
                self.changed.send_replace(());
                reply(StatusCode::OK, &if part == "scale" { scale(&object) } else { object })
            }
            Method::DELETE => {
                let Some(object) = there else { return refusal(StatusCode::NOT_FOUND) };
                let params: Value = serde_json::from_slice(body).unwrap_or_default();
                let wanted = &params["preconditions"]["resourceVersion"];
                if wanted.is_string() && *wanted != object["metadata"]["resourceVersion"] {
                    return refusal(StatusCode::CONFLICT);
                }
                let object = store.change(path, "DELETED", object);
                store.objects.remove(path);
                self.changed.send_replace(());
                reply(StatusCode::OK, &object)
            }
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn follow(&self, collection: String, from: usize) -> Response {
        let start = (self.store.clone(), self.changed.subscribe(), from);
        let lines = unfold(start, move |(store, mut changed, mut next)| {
            let collection = collection.clone();
            async move {
                loop {
                    let event = store.lock().log.get(next).cloned();
                    let Some((path, kind, object)) = event else {
                        changed.changed().await.ok()?;
                        continue;
                    };
                    next += 1;
                    if is_in(&collection, &path) {
                        let line = format!("{}\n", json!({ "type": kind, "object": object }));
                        return Some((Ok(Frame::data(Bytes::from(line))), (store, changed, next)));
                    }
                }
            }
        });
        Response::new(Body::stream(StreamBody::new(lines)))
    }
}

impl Store {
    fn change(&mut self, path: &str, kind: &'static str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = (self.log.len() + 1).to_string().into();
        object["metadata"]["name"] = path.rsplit('/').next().into();
        self.log.push((path.to_owned(), kind, object.clone()));
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

impl Handler for PretendApi {
    async fn handle(&self, _: &Client, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if self.broken.load(Ordering::Relaxed) {
            return refusal(StatusCode::INTERNAL_SERVER_ERROR);
        }
        self.answer(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), &body)
    }
}

/// Whether an object belongs to a collection: of its namespace, or of its kind in all namespaces.
fn is_in(collection: &str, path: &str) -> bool {
    let Some((of_object, _)) = path.rsplit_once('/') else { return false };
    let parts: Vec<&str> = of_object.split('/').collect();
    let everywhere = match parts.iter().position(|part| *part == "namespaces") {
        Some(at) if parts.len() > at + 2 => [&parts[..at], &parts[at + 2..]].concat().join("/"),
        _ => String::new(),
    };
    of_object == collection || everywhere == collection
}

fn scale(object: &Value) -> Value {
    let labels = object["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": object["metadata"],
        "spec": {"replicas": object["spec"]["replicas"]}, "status": {"selector": pairs.join(","), "replicas": 0}})
}

/// A merge patch (RFC 7396).
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(key)),
            value => merge(&mut object[key.as_str()], value),
        }
    }
}

fn reply(status: StatusCode, object: &Value) -> Response {
    let mut response = Response::new(Body::full(object.to_string()));
    *response.status_mut() = status;
    response
}

fn refusal(status: StatusCode) -> Response {
    let code = status.as_u16();
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    reply(
        status,
        &json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason }),
    )
}
