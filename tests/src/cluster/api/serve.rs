//! Requests become answers.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::call::{Call, Verb};
use super::definition::Definition;
use super::delete::{DeleteOptions, Deleted};
use super::discovery;
use super::failure::{Failure, Result};
use super::faults::Faults;
use super::list;
use super::log::Log;
use super::merge::managers::Writer;
use super::openapi;
use super::patch::Patch;
use super::proxy;
use super::scale;
use super::selector::Selection;
use super::shape::{self, Shape};
use super::store::{Key, Object, Store};
use super::watch::Watch;
use super::write::{Writing, Written};

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    /// What is answered to SelfSubjectAccessReviews: whether a verb on a resource such as `deployments.apps` is allowed.
    pub(crate) access: Arc<Mutex<Access>>,
}

/// Whether a verb is allowed on a kind ([`Definition::id`]).
pub(crate) type Access = Box<dyn Fn(&str, &str) -> bool + Send>;
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Service {
    /// Answers a request. An error ends the connection without an answer.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let Some(call) = Call::read(request.method(), request.uri(), request.headers()) else {
            return Ok(self.about(&request));
        };
        let (head, body) = request.into_parts();
        if call.target.subresource.split('/').next() == Some("proxy") {
            let answer = proxy::forward(&self.store, &call, head, body).await;
            return Ok(answer.unwrap_or_else(|failure| refused(&failure)));
        }
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let name = name_of(&call, &body);
        let at = self.log.push(&call, &name, &body);
        let met = self.faults.meet(&call);
        if !met.delay.is_zero() {
            // Nothing can come before the time is over.
            let _ = tokio::time::timeout(met.delay, std::future::pending::<()>()).await;
        }
        let answer = match met.failure {
            Some(failure) => refused(&failure),
            None => self.carry_out(call, &body).unwrap_or_else(|failure| refused(&failure)),
        };
        self.log.answered(at, answer.status().as_u16());
        if met.loses_answer {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "a test lost this answer"));
        }
        Ok(answer)
    }

    /// Answers about the server itself.
    fn about(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let plain = |text: &'static str| {
            let mut answer = Response::new(whole(Bytes::from_static(text.as_bytes())));
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            answer
        };
        if request.method() != Method::GET {
            return refused(&Failure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ));
        }
        match path.trim_end_matches('/') {
            "/healthz" | "/readyz" | "/livez" => return plain("ok"),
            "/version" => return json(StatusCode::OK, &version()),
            _ => {}
        }
        let accept =
            request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2;");
        let is_aggregated =
            is_aggregated || accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2,");
        let store = self.store.lock();
        let found = discovery::find(&store, path, is_aggregated).or_else(|| openapi::find(&store, path));
        let Some(found) = found else { return refused(&Failure::no_such_page()) };
        let mut answer = json(StatusCode::OK, &found);
        if found["kind"] == "APIGroupDiscoveryList" {
            let kind = HeaderValue::from_static(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            );
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        answer
    }

    fn carry_out(&self, call: Call, body: &Bytes) -> Result<Response<Body>> {
        if call.id() == "selfsubjectaccessreviews.authorization.k8s.io" && call.verb == Verb::Create {
            return self.review(body);
        }
        let definition = self.definition(&call)?;
        check_subresource(&definition, &call)?;
        let key = Key::new(&call.target.namespace, &call.target.name);
        match call.verb {
            Verb::Get => self.get(&call, &definition, &key),
            Verb::List => Ok(sent(StatusCode::OK, list::list(&self.store, &call)?)),
            Verb::Watch => {
                let events = Watch::open(&self.store, call, self.faults.watch_faults())?;
                let frames = futures_util::TryStreamExt::map_ok(events, Frame::data);
                Ok(answer(StatusCode::OK, StreamBody::new(frames).boxed_unsync()))
            }
            Verb::Create | Verb::Update | Verb::Patch => self.write(&call, &definition, &key, body),
            Verb::Delete => self.delete(&call, &definition, &key, body),
            Verb::DeleteCollection => self.delete_all(&call, &definition, body),
        }
    }

    fn get(&self, call: &Call, definition: &Definition, key: &Key) -> Result<Response<Body>> {
        let object = self.store.lock().get(&call.id(), key);
        let object = object.ok_or_else(|| Failure::not_found(definition, &key.name))?;
        self.one(call, definition, &object, StatusCode::OK)
    }

    fn write(
        &self,
        call: &Call,
        definition: &Arc<Definition>,
        key: &Key,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let subresource = call.target.subresource.as_str();
        let patch = if call.verb == Verb::Patch { Some(read_patch(call, body)?) } else { None };
        let object = if patch.is_none() { read_json(call, body)? } else { Value::Null };
        let written = {
            let mut store = self.store.lock();
            let mut writing = self.writing(&mut store, call, Arc::clone(definition));
            match (call.verb, patch) {
                (_, Some(patch)) => writing.patch(key, patch)?,
                (Verb::Create, _) if subresource == "binding" => return bind(&mut writing, key, &object),
                (Verb::Create, _) if subresource == "eviction" => {
                    let options = DeleteOptions::read(&object["deleteOptions"]);
                    writing.delete(key, &options)?;
                    return Ok(json(StatusCode::CREATED, &success(definition, None)));
                }
                (Verb::Create, _) => writing.create(&key.namespace, object)?,
                _ => writing.update(key, object)?,
            }
        };
        let status =
            if matches!(written, Written::Created(_)) { StatusCode::CREATED } else { StatusCode::OK };
        self.one(call, definition, written.object(), status)
    }

    fn delete(
        &self,
        call: &Call,
        definition: &Arc<Definition>,
        key: &Key,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let options = read_options(call, body)?;
        let mut store = self.store.lock();
        let deleted = self.writing(&mut store, call, Arc::clone(definition)).delete(key, &options)?;
        match deleted {
            // Kubernetes shows pods a last time, and says of other kinds that they are gone.
            Deleted::Gone(object) if definition.id() != "pods" => {
                Ok(json(StatusCode::OK, &success(definition, Some(&object))))
            }
            Deleted::Gone(object) | Deleted::Begun(object) => {
                self.one(call, definition, &object, StatusCode::OK)
            }
        }
    }

    fn delete_all(&self, call: &Call, definition: &Arc<Definition>, body: &Bytes) -> Result<Response<Body>> {
        let options = read_options(call, body)?;
        let shape = Shape::read(&call.accept)?;
        let mut store = self.store.lock();
        let selection: Selection = list::selection(&store, call)?;
        let table = store.table(&call.id())?;
        let all = table.objects(&call.target.namespace, None);
        let meant: Vec<_> = all
            .filter(|(_, object)| selection.matches(&object.value))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let mut writing = self.writing(&mut store, call, Arc::clone(definition));
        for (key, _) in &meant {
            writing.delete(key, &options)?;
        }
        let meta = json!({"resourceVersion": store.revision().to_string()});
        let objects = meant.iter().map(|(_, object)| &**object);
        Ok(sent(StatusCode::OK, shape.list(definition, &meta, objects)))
    }

    /// One object, or the subresource of it that was asked for.
    fn one(
        &self,
        call: &Call,
        definition: &Definition,
        object: &Object,
        status: StatusCode,
    ) -> Result<Response<Body>> {
        if call.target.subresource == "scale" {
            let scale = scale::of(definition, &object.value).ok_or_else(Failure::no_such_page)?;
            return Ok(json(status, &scale));
        }
        Ok(sent(status, Shape::read(&call.accept)?.object(definition, object)))
    }

    fn definition(&self, call: &Call) -> Result<Arc<Definition>> {
        let definition = Arc::clone(&self.store.lock().table(&call.id())?.definition);
        if definition.version != call.target.version {
            return Err(Failure::no_such_page());
        }
        Ok(definition)
    }

    fn writing<'a>(&self, store: &'a mut Store, call: &'a Call, definition: Arc<Definition>) -> Writing<'a> {
        Writing {
            store,
            definition,
            id: call.id(),
            writer: Writer { manager: call.manager(), subresource: &call.target.subresource },
            is_dry_run: call.params.get("dryRun").is_some(),
        }
    }

    fn review(&self, body: &Bytes) -> Result<Response<Body>> {
        let mut review: Value =
            serde_json::from_slice(body).map_err(|error| Failure::bad_request(error.to_string()))?;
        let asked = &review["spec"]["resourceAttributes"];
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let id = super::definition::id(text("group"), text("resource"));
        let is_allowed = (self.access.lock())(text("verb"), &id);
        review["status"] = json!({"allowed": is_allowed});
        Ok(json(StatusCode::CREATED, &review))
    }
}

fn check_subresource(definition: &Definition, call: &Call) -> Result<()> {
    let is_there = match call.target.subresource.as_str() {
        "" => true,
        "status" => definition.has_status && call.verb != Verb::Create,
        "scale" => definition.scale.is_some() && call.verb != Verb::Create,
        "binding" | "eviction" => definition.id() == "pods" && call.verb == Verb::Create,
        _ => false,
    };
    let names_namespace = !call.target.namespace.is_empty();
    let needs_namespace =
        definition.is_namespaced && (!call.target.name.is_empty() || call.verb == Verb::Create);
    if !is_there || names_namespace && !definition.is_namespaced || needs_namespace && !names_namespace {
        return Err(Failure::no_such_page());
    }
    if call.verb == Verb::Create && call.target.subresource.is_empty() && !call.target.name.is_empty() {
        return Err(Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    Ok(())
}

/// Gives a pod to a node.
fn bind(writing: &mut Writing<'_>, key: &Key, binding: &Value) -> Result<Response<Body>> {
    let before = writing.existing(key)?;
    if before.value["spec"]["nodeName"].is_string() {
        let why =
            format!("pod {} is already assigned to node {}", key.name, before.value["spec"]["nodeName"]);
        return Err(Failure::conflict(&writing.definition, &key.name, &why));
    }
    writing.bind(key, &before, &binding["target"]["name"]);
    Ok(json(StatusCode::CREATED, &success(&writing.definition, None)))
}

fn read_json(call: &Call, body: &Bytes) -> Result<Value> {
    if !call.content_type.is_empty() && !call.content_type.contains("json") {
        return Err(unknown_format(&call.content_type));
    }
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))
}

fn read_patch(call: &Call, body: &Bytes) -> Result<Patch> {
    let wrong = |error: serde_json::Error| Failure::bad_request(format!("the patch cannot be read: {error}"));
    let value = || serde_json::from_slice::<Value>(body).map_err(wrong);
    match call.content_type.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(Patch::Json(serde_json::from_slice(body).map_err(wrong)?)),
        "application/merge-patch+json" => Ok(Patch::Merge(value()?)),
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(value()?)),
        "application/apply-patch+yaml" | "application/apply-patch+json" => {
            if call.params.get("fieldManager").is_none() {
                let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
                return Err(Failure::new(422, "Invalid", message));
            }
            Ok(Patch::Apply { object: value()?, is_forced: call.params.is_set("force") })
        }
        other => Err(unknown_format(other)),
    }
}

fn read_options(call: &Call, body: &Bytes) -> Result<DeleteOptions> {
    let mut options =
        if body.is_empty() { DeleteOptions::default() } else { DeleteOptions::read(&read_json(call, body)?) };
    if let Some(grace) = call.params.get("gracePeriodSeconds").and_then(|seconds| seconds.parse().ok()) {
        options.grace_seconds = Some(grace);
    }
    if let Some(policy) = call.params.get("propagationPolicy") {
        options.propagation = Some(policy.into());
    }
    Ok(options)
}

fn unknown_format(content_type: &str) -> Failure {
    let message = format!("the body of the request was in an unknown format: {content_type}");
    Failure::new(415, "UnsupportedMediaType", message)
}

/// The name of the object that a request is about; a new object says it itself.
fn name_of(call: &Call, body: &Bytes) -> String {
    if call.verb != Verb::Create || !call.target.name.is_empty() {
        return call.target.name.clone();
    }
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    object["metadata"]["name"].as_str().unwrap_or_default().into()
}

/// The `Status` that says that a deletion is done.
fn success(definition: &Definition, object: Option<&Object>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(object) = object {
        let metadata = &object.value["metadata"];
        status["details"] = json!({
            "name": metadata["name"], "group": definition.group, "kind": definition.plural, "uid": metadata["uid"]
        });
    }
    status
}

/// The version whose behaviour is followed.
fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64"
    })
}

pub(crate) fn refused(failure: &Failure) -> Response<Body> {
    let status = StatusCode::from_u16(failure.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(status, &failure.to_value());
    let after = failure.status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if after > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, after.into());
    }
    answer
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    sent(status, shape::write(value))
}

fn sent(status: StatusCode, bytes: Bytes) -> Response<Body> {
    answer(status, whole(bytes))
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
