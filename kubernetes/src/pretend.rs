//! An API server for tests, within the process and without sockets: it keeps objects of any kind by their paths, merges
//! patches, refuses writes of an old version, tells watches of each change, and fails or keeps silent where a test says so.
//!
//! Its answers take no time, so it goes with paused clocks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

/// The API server. Clones are the same one.
#[derive(Clone, Default)]
pub struct PretendApi {
    store: Arc<Mutex<Store>>,
    changed: Arc<watch::Sender<()>>,
    asked: Arc<Notify>,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    /// Every change: the path, the type of the event, the object. Its number is its version.
    log: Vec<(String, &'static str, Value)>,
    /// Answers at paths that are no objects.
    raw: BTreeMap<String, Value>,
    reads: Vec<Asked>,
    writes: Vec<Asked>,
    fault: Option<FaultOf>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query; empty: none.
    pub query: String,
    /// Its `Content-Type`; empty: none.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

/// The body of an answer.
type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// The way some requests fail.
type FaultOf = Arc<dyn Fn(&Asked) -> Option<Failure> + Send + Sync>;

/// The way a request fails.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// With this status.
    Status(u16),
    /// No answer ever comes.
    Silence,
}

impl Asked {
    /// Method and path, as in `PUT /api/v1/nodes/a`.
    pub fn target(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The request in a few words: `create metrics`, `change scale of deployments`.
    pub fn line(&self) -> String {
        let (path, part) = split(&self.path);
        let mut parts = path.rsplit('/');
        let last = parts.next().unwrap_or_default();
        let kind = parts.next().unwrap_or_default();
        match (&self.method, part) {
            (&Method::POST, _) => format!("create {last}"),
            (_, "") => format!("change {kind}"),
            (_, part) => format!("change {part} of {kind}"),
        }
    }

    /// The body.
    ///
    /// # Panics
    ///
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body of JSON")
    }
}

impl PretendApi {
    /// A new one, and a client of it.
    pub fn start() -> (PretendApi, Client) {
        let api = PretendApi::default();
        let client = api.client();
        (api, client)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request).await) }
        });
        Client::new(service, "default")
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.store.lock().objects.get(path).cloned()
    }

    /// Every object below a path.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let store = self.store.lock();
        let below = |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        store.objects.iter().filter(|(known, _)| below(known)).map(|(_, object)| object.clone()).collect()
    }

    /// Writes an object, whatever there is.
    pub fn put(&self, path: &str, object: Value) {
        self.store.lock().put(path, object);
        self.changed.send_replace(());
    }

    /// Deletes an object.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn delete(&self, path: &str) {
        let mut store = self.store.lock();
        let object = store.objects.remove(path).expect("an object to delete");
        store.tell(path, "DELETED", object);
        drop(store);
        self.changed.send_replace(());
    }

    /// Changes with each object that does.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Answers at a path with this, whatever it is asked.
    pub fn raw(&self, path: &str, answer: Value) {
        self.store.lock().raw.insert(path.to_owned(), answer);
    }

    /// From now on requests fail as this says. Watches that are open go on.
    pub fn fail(&self, fault: impl Fn(&Asked) -> Option<Failure> + Send + Sync + 'static) {
        self.store.lock().fault = Some(Arc::new(fault));
    }

    /// From now on nothing fails.
    pub fn mend(&self) {
        self.store.lock().fault = None;
    }

    /// The writes so far, those that failed among them.
    pub fn writes(&self) -> Vec<Asked> {
        self.store.lock().writes.clone()
    }

    /// How often this path was read.
    pub fn reads_of(&self, path: &str) -> usize {
        self.store.lock().reads.iter().filter(|read| read.path == path).count()
    }

    /// Waits until the writes so far are as they should be.
    pub async fn until(&self, is_so: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        loop {
            let asked = self.asked.notified();
            let writes = self.writes();
            if is_so(&writes) {
                return writes;
            }
            asked.await;
        }
    }

    async fn handle(&self, request: Request<kube::client::Body>) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
        let asked = Asked {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let fault = {
            let mut store = self.store.lock();
            let log = if asked.method == Method::GET { &mut store.reads } else { &mut store.writes };
            log.push(asked.clone());
            store.fault.clone()
        };
        let answer = match fault.and_then(|fault| fault(&asked)) {
            Some(failure) => Err(failure),
            None => Ok(self.answer(&asked)),
        };
        self.asked.notify_waiters();
        match answer {
            Ok(answer) => answer,
            Err(Failure::Silence) => std::future::pending().await,
            Err(Failure::Status(code)) => reply(code, &refusal(code, "so the test says")),
        }
    }

    fn answer(&self, asked: &Asked) -> Response<Answer> {
        let is_watch = asked.query.contains("watch=true");
        let mut store = self.store.lock();
        if is_watch && !store.raw.contains_key(&asked.path) {
            let from = asked.query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
            let from = from.and_then(|from| from.parse().ok()).unwrap_or(0);
            drop(store);
            return self.follow(asked.path.clone(), from);
        }
        let before = store.log.len();
        let (code, value) = store.answer(asked);
        let has_changed = store.log.len() != before;
        drop(store);
        if has_changed {
            self.changed.send_replace(());
        }
        reply(code, &value)
    }

    fn follow(&self, collection: String, from: usize) -> Response<Answer> {
        let start = (Arc::clone(&self.store), self.changed.subscribe(), from);
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
                        return Some((
                            Ok::<_, Infallible>(Frame::data(Bytes::from(line))),
                            (store, changed, next),
                        ));
                    }
                }
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

impl Store {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["name"] = path.rsplit('/').next().into();
        let object = self.tell(path, kind, object);
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn tell(&mut self, path: &str, kind: &'static str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = self.version(1).into();
        self.log.push((path.to_owned(), kind, object.clone()));
        object
    }

    fn version(&self, more: usize) -> String {
        (self.log.len() + more).to_string()
    }

    fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        if let Some(answer) = self.raw.get(&asked.path) {
            return (200, answer.clone());
        }
        let (path, part) = split(&asked.path);
        match asked.method {
            Method::GET if is_collection(path) => (200, self.list(path)),
            Method::POST => self.create(path, asked.json()),
            _ => match self.objects.get(path).cloned() {
                None => (404, refusal(404, "NotFound")),
                Some(object) if asked.method == Method::GET => {
                    (200, if part == "scale" { scale(&object) } else { object })
                }
                Some(object) => self.change(path, part, &object, asked),
            },
        }
    }

    fn create(&mut self, collection: &str, object: Value) -> (u16, Value) {
        // Reviews have no name, and are not kept.
        let Some(name) = object["metadata"]["name"].as_str() else { return (201, object) };
        let path = format!("{collection}/{name}");
        if self.objects.contains_key(&path) {
            return (409, refusal(409, "AlreadyExists"));
        }
        (201, self.put(&path, object))
    }

    fn change(&mut self, path: &str, part: &str, before: &Value, asked: &Asked) -> (u16, Value) {
        let sent = asked.json();
        let version = &sent["metadata"]["resourceVersion"];
        if version.is_string() && *version != before["metadata"]["resourceVersion"] {
            return (409, refusal(409, "Conflict"));
        }
        let mut object = before.clone();
        match asked.method {
            Method::PUT => object = sent,
            Method::PATCH if part == "scale" => object["spec"]["replicas"] = sent[0]["value"].clone(),
            Method::PATCH => merge(&mut object, &sent),
            _ => return (405, refusal(405, "MethodNotAllowed")),
        }
        if part != "scale" && object.get("spec") != before.get("spec") {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        let object = self.put(path, object);
        (200, if part == "scale" { scale(&object) } else { object })
    }

    fn list(&self, collection: &str) -> Value {
        let items = self.objects.iter().filter(|(path, _)| is_in(collection, path));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let metadata = json!({"resourceVersion": self.version(0)});
        json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})
    }
}

/// The path of the object, and the subresource of it; empty: none.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some((object, part @ ("status" | "scale"))) => (object, part),
        _ => (path, ""),
    }
}

/// Whether a path is that of all objects of a kind: of a namespace, or of all.
fn is_collection(path: &str) -> bool {
    let parts = path.trim_start_matches('/').split('/').count();
    parts % 2 == if path.starts_with("/apis/") { 0 } else { 1 }
}

/// Whether an object at this path is in a collection.
fn is_in(collection: &str, path: &str) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    let without_namespace = || {
        let (root, rest) = parent.split_once("/namespaces/")?;
        Some(format!("{root}/{}", rest.split_once('/')?.1))
    };
    parent == collection || without_namespace().is_some_and(|parent| parent == collection)
}

fn scale(object: &Value) -> Value {
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": object["metadata"],
        "spec": {"replicas": object["spec"]["replicas"]}})
}

fn refusal(code: u16, message: &str) -> Value {
    let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default();
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": reason.replace(' ', "")})
}

fn reply(code: u16, value: &Value) -> Response<Answer> {
    let mut response = Response::new(Full::from(value.to_string()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
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
        if value.is_null() {
            object.as_object_mut().map(|fields| fields.remove(key));
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_in_them() {
        assert!(is_collection("/api/v1/pods") && is_collection("/apis/apps/v1/namespaces/ns/deployments"));
        assert!(
            !is_collection("/api/v1/namespaces/ns/pods/a")
                && !is_collection("/apis/apps/v1/namespaces/ns/deployments/a")
        );
        let pod = "/api/v1/namespaces/ns/pods/a";
        assert!(is_in("/api/v1/pods", pod) && is_in("/api/v1/namespaces/ns/pods", pod));
        assert!(!is_in("/api/v1/namespaces/other/pods", pod) && !is_in("/api/v1/services", pod));
    }
}
