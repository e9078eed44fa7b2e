//! The requests that reached the server, in their order.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::call::{Call, Verb};

/// The requests so far. Clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Log {
    requests: Arc<Mutex<Vec<Request>>>,
}

/// One request for objects, answered or refused.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it was to do.
    pub verb: Verb,
    /// The kind, such as `deployments.apps`; `pods` for the core group.
    pub resource: String,
    /// Empty: all namespaces, or none.
    pub namespace: String,
    /// Empty for lists and for new objects with a generated name.
    pub name: String,
    /// Such as `status` or `scale`; empty for the main resource.
    pub subresource: String,
    /// When the request had been read.
    pub at: Instant,
    /// The client's `User-Agent`.
    pub user_agent: String,
    /// The client's `Content-Type`: the kind of a patch.
    pub content_type: String,
    /// What was sent.
    pub body: Bytes,
    /// The status of the answer; 0 while there is none.
    pub status: u16,
}

impl Log {
    /// All requests, reads and refused ones too.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// Requests that were to change objects, refused ones too.
    pub fn writes(&self) -> Vec<Request> {
        self.requests.lock().iter().filter(|request| request.verb.is_write()).cloned().collect()
    }

    /// The number of requests so far that meet a condition.
    pub fn count(&self, is_meant: impl Fn(&Request) -> bool) -> usize {
        self.requests.lock().iter().filter(|request| is_meant(request)).count()
    }

    /// Forgets all requests that have been answered.
    pub fn clear(&self) {
        self.requests.lock().clear();
    }

    /// Notes a request, and returns where it stands.
    pub(crate) fn push(&self, call: &Call, name: &str, body: &Bytes) -> Instant {
        let at = Instant::now();
        self.requests.lock().push(Request {
            verb: call.verb,
            resource: call.id(),
            namespace: call.target.namespace.clone(),
            name: name.into(),
            subresource: call.target.subresource.clone(),
            at,
            user_agent: call.user_agent.clone(),
            content_type: call.content_type.clone(),
            body: body.clone(),
            status: 0,
        });
        at
    }

    /// Notes the answer to the request that was pushed at this moment.
    pub(crate) fn answered(&self, at: Instant, status: u16) {
        let mut requests = self.requests.lock();
        let request = requests.iter_mut().rev().find(|request| request.at == at && request.status == 0);
        if let Some(request) = request {
            request.status = status;
        }
    }
}

impl Request {
    /// What was sent, as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The request in one line: `patch deployments.apps/scale default/app`.
    pub fn line(&self) -> String {
        let Self { verb, resource, subresource, namespace, name, .. } = self;
        let slash = |text: &str| if text.is_empty() { String::new() } else { format!("/{text}") };
        let name = if namespace.is_empty() { name.clone() } else { format!("{namespace}{}", slash(name)) };
        format!("{verb} {resource}{} {name}", slash(subresource)).trim_end().to_owned()
    }
}
