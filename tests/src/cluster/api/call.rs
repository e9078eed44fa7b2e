//! Requests, taken apart: what is asked for, of which kind and object.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use super::definition;

/// What a client wants to do, as Kubernetes' authorizers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One object.
    Get,
    /// All objects of a kind that a selector matches.
    List,
    /// Their changes.
    Watch,
    /// A new object.
    Create,
    /// An object as a whole.
    Update,
    /// An object in part; server-side apply is one.
    Patch,
    /// The end of an object.
    Delete,
    /// The end of all objects that a selector matches.
    DeleteCollection,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// Empty: all namespaces, or none.
    pub(crate) namespace: String,
    /// Empty for all objects.
    pub(crate) name: String,
    /// Empty for the main resource; a proxy's path comes along.
    pub(crate) subresource: String,
}

/// A request for objects.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) target: Target,
    pub(crate) params: Params,
    pub(crate) user_agent: String,
    pub(crate) accept: String,
    pub(crate) content_type: String,
}

/// Parameters of a query; the first of a name counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Verb {
    /// Whether objects may change.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        })
    }
}

impl Call {
    /// Reads a request's head; none if no objects are meant.
    pub(crate) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let target = Target::read(uri.path())?;
        let params = Params::read(uri.query().unwrap_or_default());
        let is_one = !target.name.is_empty();
        let verb = match *method {
            Method::GET if params.is_set("watch") => Verb::Watch,
            Method::GET if is_one => Verb::Get,
            Method::GET => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if is_one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        };
        let header = |name: http::HeaderName| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Some(Self {
            verb,
            target,
            params,
            user_agent: header(http::header::USER_AGENT),
            accept: header(http::header::ACCEPT),
            content_type: header(http::header::CONTENT_TYPE),
        })
    }

    /// `deployments.apps`; `pods` for the core group.
    pub(crate) fn id(&self) -> String {
        definition::id(&self.target.group, &self.target.plural)
    }

    /// Who owns what is written: the client says it, or its user agent does.
    pub(crate) fn manager(&self) -> &str {
        let agent = self.user_agent.split('/').next().unwrap_or_default();
        let default = if agent.is_empty() { "unknown" } else { agent };
        self.params.get("fieldManager").unwrap_or(default)
    }
}

impl Target {
    fn read(path: &str) -> Option<Self> {
        let decoded: Vec<_> = path
            .split('/')
            .skip(1)
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<_> = decoded.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts[..] {
            ["api", version, ref rest @ ..] => ("", version, rest),
            ["apis", group, version, ref rest @ ..] => (group, version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !["status", "finalize"].contains(plural) => {
                (*namespace, [&[*plural], rest].concat())
            }
            _ => ("", rest.to_vec()),
        };
        let (plural, name, subresource) = match rest[..] {
            [plural] => (plural, "", String::new()),
            [plural, name, ref rest @ ..] => (plural, name, rest.join("/")),
            [] => return None,
        };
        (!plural.is_empty()).then(|| Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            namespace: namespace.into(),
            name: name.into(),
            subresource,
        })
    }
}

impl Params {
    pub(crate) fn read(query: &str) -> Self {
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            params.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self(params)
    }

    /// A parameter that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Vec<String> {
        let target = Target::read(path).expect("a target");
        [target.group, target.version, target.namespace, target.plural, target.name, target.subresource]
            .to_vec()
    }

    #[test]
    fn paths_say_what_is_meant() {
        assert_eq!(target("/api/v1/pods"), ["", "v1", "", "pods", "", ""]);
        assert_eq!(target("/api/v1/namespaces/a"), ["", "v1", "", "namespaces", "a", ""]);
        assert_eq!(target("/api/v1/namespaces/a/status"), ["", "v1", "", "namespaces", "a", "status"]);
        assert_eq!(
            target("/api/v1/namespaces/a/pods/b%3A80/proxy/x/y"),
            ["", "v1", "a", "pods", "b:80", "proxy/x/y"]
        );
        let scale = target("/apis/apps/v1/namespaces/a/deployments/b/scale");
        assert_eq!(scale, ["apps", "v1", "a", "deployments", "b", "scale"]);
        assert!(
            ["/", "/healthz", "/apis/apps", "/apis/apps/v1", "/api/v1/"]
                .iter()
                .all(|path| Target::read(path).is_none())
        );
    }
}
