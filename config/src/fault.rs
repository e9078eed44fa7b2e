//! Faults and warnings about what an operator wrote: a [`Fault`] stops a configuration,
//! a [`Warning`] goes with it. All faults are found in one pass; each is one line naming the key, the value and
//! the rule.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong. Shown as `file:line: object: key: "value" rule`, as far as these are known.
///
/// ```
/// use pilotlight_config::Fault;
/// let fault = Fault::new("stable-window", "5s", "is not a duration between 6s and 1h");
/// assert_eq!(
///     fault.in_file("config.yaml").to_string(),
///     r#"config.yaml: stable-window: "5s" is not a duration between 6s and 1h"#
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// The file it was found in, if it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The position in the file, if it is known.
    #[serde(flatten)]
    pub position: Option<Box<Position>>,
    /// The key as it was written, with its path inside the file; empty for the file as a whole.
    pub key: String,
    /// The value as it was written; `None` where no value is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The rule it breaks: a sentence whose subject is the value, or the key if there is no value.
    pub rule: String,
}

impl Fault {
    /// The value of `key` breaks a rule.
    pub fn new(key: impl Into<String>, value: impl Into<String>, rule: impl Into<String>) -> Self {
        Fault { value: Some(value.into()), ..Fault::without_value(key, rule) }
    }

    /// Something is wrong about `key` that is not in its value.
    pub fn without_value(key: impl Into<String>, rule: impl Into<String>) -> Self {
        Fault { file: None, position: None, key: key.into(), value: None, rule: rule.into() }
    }

    /// The same, found in `file`.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Fault { file: Some(file.into()), ..self }
    }

    /// The same, found at `position` in its file.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Fault { position: Some(Box::new(position)), ..self }
    }

    /// The same without a file: its key alone says where it is.
    #[must_use]
    pub fn named(self, key: impl Into<String>) -> Self {
        Fault { key: key.into(), file: None, position: None, ..self }
    }

    /// The same, with the key below `path`.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        Fault { key: join(path, &self.key), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.file.as_deref(), self.position.as_deref(), &self.key)?;
        match &self.value {
            Some(value) => write!(f, "{value:?} {}", self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

/// The position of a finding in its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The document, from 1, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<u32>,
    /// The object: kind, namespace and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

impl Position {
    /// A line of a file.
    pub fn line(line: u64) -> Self {
        Position { line, document: None, object: None }
    }
}

/// One thing that is legal and probably not meant, or that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// The file it was found in, if it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The position in the file, if it is known.
    #[serde(flatten)]
    pub position: Option<Box<Position>>,
    /// The key it is about, with its path inside the file; empty for the file as a whole.
    pub key: String,
    /// The suspicion and, where there is one, what to write instead.
    pub advice: String,
}

impl Warning {
    /// Advice about `key`.
    pub fn new(key: impl Into<String>, advice: impl Into<String>) -> Self {
        Warning { file: None, position: None, key: key.into(), advice: advice.into() }
    }

    /// The same, found in `file`.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Warning { file: Some(file.into()), ..self }
    }

    /// The same, found at `position` in its file.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Warning { position: Some(Box::new(position)), ..self }
    }

    /// The same without a file: its key alone says where it is.
    #[must_use]
    pub fn named(self, key: impl Into<String>) -> Self {
        Warning { key: key.into(), file: None, position: None, ..self }
    }

    /// The same, with the key below `path`.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        Warning { key: join(path, &self.key), ..self }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.file.as_deref(), self.position.as_deref(), &self.key)?;
        f.write_str(&self.advice)
    }
}

/// Everything that is wrong, at least one thing; shown one to a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// All of `faults`; `None` if there is none.
    pub fn all(faults: Vec<Fault>) -> Option<Self> {
        (!faults.is_empty()).then_some(Faults(faults))
    }

    /// The faults in the order they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// The same faults, found in `file`.
    #[must_use]
    pub fn in_file(self, file: &str) -> Self {
        self.map(|fault| fault.in_file(file))
    }

    /// The same number of faults, each changed by `change`.
    #[must_use]
    pub fn map(self, change: impl FnMut(Fault) -> Fault) -> Self {
        Faults(self.0.into_iter().map(change).collect())
    }

    /// The faults themselves.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Faults(vec![fault])
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

/// The outcome of reading something an operator wrote: the value or all its faults, and the warnings either way.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// The value, if nothing is wrong.
    pub value: Result<T, Faults>,
    /// A warning: legal but suspicious.
    pub warnings: Vec<Warning>,
}

impl<T> Parsed<T> {
    /// `value`, unless there are faults.
    pub fn new(value: T, findings: Findings) -> Self {
        let Findings { faults, mut warnings, repeated } = findings;
        warnings.extend(repeated);
        Parsed { value: if faults.is_empty() { Ok(value) } else { Err(Faults(faults)) }, warnings }
    }
}

/// Faults and warnings while they are being collected.
#[derive(Debug, Default)]
pub struct Findings {
    /// Faults, in the order found.
    pub faults: Vec<Fault>,
    /// Warnings, in the order found.
    pub warnings: Vec<Warning>,
    /// Warnings that say the same of each object that has the field: one is told for all objects of a file.
    pub repeated: Vec<Warning>,
}

impl Findings {
    /// The value of `key` breaks a rule.
    pub fn fault(&mut self, key: &str, value: &str, rule: impl Into<String>) {
        self.faults.push(Fault::new(key, value, rule));
    }

    /// Advice about `key`.
    pub fn warn(&mut self, key: &str, advice: impl Into<String>) {
        self.warnings.push(Warning::new(key, advice));
    }

    /// Advice about `key` that is the same for every object.
    pub fn warn_once(&mut self, key: &str, advice: impl Into<String>) {
        self.repeated.push(Warning::new(key, advice));
    }

    /// Takes over what was found elsewhere, with each key renamed.
    pub(crate) fn absorb(&mut self, other: Findings, rename: impl Fn(&str) -> String) {
        let renamed = |warning: Warning| Warning { key: rename(&warning.key), ..warning };
        self.faults.extend(other.faults.into_iter().map(|fault| Fault { key: rename(&fault.key), ..fault }));
        self.warnings.extend(other.warnings.into_iter().map(renamed));
        self.repeated.extend(other.repeated.into_iter().map(renamed));
    }
}

fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}

/// Writes `file:line: document 2, Service shop/web: key: `, as far as these are known.
fn write_place(
    f: &mut fmt::Formatter<'_>,
    file: Option<&str>,
    position: Option<&Position>,
    key: &str,
) -> fmt::Result {
    match (file, position) {
        (Some(file), Some(Position { line, .. })) => write!(f, "{file}:{line}: ")?,
        (Some(file), None) => write!(f, "{file}: ")?,
        (None, _) => {}
    }
    match position.map(|position| (position.document, position.object.as_deref())) {
        Some((Some(document), Some(object))) => write!(f, "document {document}, {object}: ")?,
        Some((Some(document), None)) => write!(f, "document {document}: ")?,
        Some((None, Some(object))) => write!(f, "{object}: ")?,
        Some((None, None)) | None => {}
    }
    if !key.is_empty() {
        write!(f, "{key}: ")?;
    }
    Ok(())
}
