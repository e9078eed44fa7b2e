//! An API server for tests, inside the process: it keeps objects by their paths, merges patches, refuses old versions, and
//! fails or keeps silent where a test says so. Its watches never tell anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// The API server. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct PretendApi {
    state: Arc<Mutex<Store>>,
    asked: Arc<Notify>,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<Asked>,
    reads: Vec<Asked>,
    fault: Option<FaultOf>,
    /// Answers at paths that are no objects.
    raw: BTreeMap<String, Value>,
}

/// A write that the API server was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// The path, without a query.
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

/// The way some requests fail: by their paths.
type FaultOf = Arc<dyn Fn(&Asked) -> Option<Failure> + Send + Sync>;

/// The way a request fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// With this status.
    Status(u16),
    /// No answer ever comes.
    Silence,
}

impl Asked {
    /// The request in a word or two: `PATCH .../status`, by the last parts of its path.
    pub(crate) fn line(&self) -> String {
        let parts: Vec<&str> = self.path.rsplit('/').take(3).collect();
        let is_part_of_an_object = matches!(parts[0], "status" | "scale");
        let [kind, part] = if is_part_of_an_object { [parts[2], parts[0]] } else { [parts[1], ""] };
        match (&self.method, part) {
            (&Method::POST, _) => format!("create {}", parts[0]),
            (_, "") => format!("change {kind}"),
            (_, part) => format!("change {part} of {kind}"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl PretendApi {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Client::new(service, "default")
    }

    /// Puts an object where it belongs.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().put(path, object);
    }

    /// The object at a path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// Answers at a path with this, whatever it is asked.
    pub(crate) fn raw(&self, path: &str, answer: Value) {
        self.state.lock().raw.insert(path.to_owned(), answer);
    }

    /// From now on requests fail as this says.
    pub(crate) fn fail(&self, fault: impl Fn(&Asked) -> Option<Failure> + Send + Sync + 'static) {
        self.state.lock().fault = Some(Arc::new(fault));
    }

    /// From now on nothing fails.
    pub(crate) fn mend(&self) {
        self.state.lock().fault = None;
    }

    /// The writes so far, those that failed among them.
    pub(crate) fn writes(&self) -> Vec<Asked> {
        self.state.lock().writes.clone()
    }

    /// How often this path was read.
    pub(crate) fn reads_of(&self, path: &str) -> usize {
        self.state.lock().reads.iter().filter(|read| read.path == path).count()
    }

    /// Waits until the writes so far are as they should be.
    pub(crate) async fn until(&self, is_so: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        loop {
            let asked = self.asked.notified();
            let writes = self.writes();
            if is_so(&writes) {
                return writes;
            }
            asked.await;
        }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
        let asked = Asked {
            method: head.method,
            path: head.uri.path().to_owned(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        if head.uri.query().is_some_and(|query| query.contains("watch=true")) {
            return std::future::pending().await;
        }
        let (fault, answer) = {
            let mut state = self.state.lock();
            if asked.method != Method::GET {
                state.writes.push(asked.clone());
            } else {
                state.reads.push(asked.clone());
            }
            let fault = state.fault.clone();
            let failure = fault.and_then(|fault| fault(&asked));
            let answer = failure.is_none().then(|| state.answer(&asked));
            (failure, answer)
        };
        self.asked.notify_waiters();
        let (code, value) = match (fault, answer) {
            (Some(Failure::Silence), _) => std::future::pending().await,
            (Some(Failure::Status(code)), _) => (code, failure(code)),
            (None, answer) => answer.unwrap(),
        };
        let response = Response::builder().status(code).header("content-type", "application/json");
        Ok(response.body(Body::from(value.to_string().into_bytes())).unwrap())
    }
}

impl Store {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        let Asked { method, path, .. } = asked;
        if let Some(answer) = self.raw.get(path) {
            return (200, answer.clone());
        }
        let (object_path, part) = match path.rsplit_once('/') {
            Some((object, part @ ("status" | "scale"))) => (object, part),
            _ => (path.as_str(), ""),
        };
        if method == Method::POST {
            let object = asked.json();
            let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            return match self.objects.contains_key(&path) {
                true => (409, failure(409)),
                false => (201, self.put(&path, object)),
            };
        }
        let Some(object) = self.objects.get(object_path).cloned() else {
            return if method == Method::GET { (200, self.list(path)) } else { (404, failure(404)) };
        };
        if method == Method::GET {
            return (200, if part == "scale" { scale(&object) } else { object });
        }
        let patch = asked.json();
        let version = &patch["metadata"]["resourceVersion"];
        if version.is_string() && *version != object["metadata"]["resourceVersion"] {
            return (409, failure(409));
        }
        if part == "scale" {
            let mut object = object;
            object["spec"]["replicas"] = patch[0]["value"].clone();
            return (200, scale(&self.put(object_path, object)));
        }
        let mut object = object;
        merge(&mut object, &patch);
        if object.get("spec") != self.objects[object_path].get("spec") {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        (200, self.put(object_path, object))
    }

    /// Everything of a kind, in all namespaces.
    fn list(&self, path: &str) -> Value {
        let kind = path.rsplit('/').next().unwrap();
        let items = self.objects.iter().filter(|(path, _)| path.rsplit('/').nth(1) == Some(kind));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }
}

fn scale(object: &Value) -> Value {
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": object["metadata"],
        "spec": {"replicas": object["spec"]["replicas"]}})
}

fn failure(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "so the test says",
        "reason": "Test"})
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
