//! The name of what is scaled.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A revision's name: `namespace/name`. What Knative calls a revision is, without Knative, the one running
/// version of a workload. In JSON it is the string `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RevisionId {
    /// The namespace it lives in.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl RevisionId {
    /// Names the revision `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        RevisionId { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for RevisionId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(format!("`{text}` is not of the form namespace/name")),
        }
    }
}

impl TryFrom<String> for RevisionId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RevisionId> for String {
    fn from(id: RevisionId) -> String {
        id.to_string()
    }
}
