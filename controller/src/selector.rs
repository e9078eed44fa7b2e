//! Label selectors as text, and the search for whatever selects a pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;

use crate::sets::remove;

/// A label selector: every requirement must hold. The default has none, and selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    NotExists,
}

/// The text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a label selector, such as app=web,tier in (a,b)")]
pub struct SelectorError(String);

impl Selector {
    /// Reads the form that scale subresources and `kubectl -l` have: `app=web,tier in (a,b),!old`. Empty text selects
    /// nothing.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        let wrong = || SelectorError(text.to_owned());
        let parts = split(text).ok_or_else(wrong)?;
        let parsed: Option<Vec<_>> = parts.into_iter().map(requirement).collect();
        parsed.map(Selector).ok_or_else(wrong)
    }

    /// The selector of a Service: every pair must be there.
    pub fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Selector {
        let equal = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            rule: Rule::In(BTreeSet::from([value.clone()])),
        };
        Selector(pairs.into_iter().map(equal).collect())
    }

    /// Whether it has no requirement, and so selects nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a pod with these labels is selected.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.is_empty() && self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// The labels that every selected pod has with just this value.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let fixed = self.0.iter().filter_map(|requirement| match &requirement.rule {
            Rule::In(values) if values.len() == 1 => Some((requirement.key.clone(), values.first()?.clone())),
            _ => None,
        });
        fixed.collect()
    }

    /// Labels of which every selected pod has one, as short as there is; `None`: there are none.
    fn anchors(&self) -> Option<(&String, &BTreeSet<String>)> {
        let fixed = self.0.iter().filter_map(|requirement| match &requirement.rule {
            Rule::In(values) => Some((&requirement.key, values)),
            _ => None,
        });
        fixed.min_by_key(|(_, values)| values.len())
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.rule {
            Rule::In(values) => value.is_some_and(|value| values.contains(value)),
            Rule::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Rule::Exists => value.is_some(),
            Rule::NotExists => value.is_none(),
        }
    }
}

/// Splits at the commas that are not within parentheses.
fn split(text: &str) -> Option<Vec<&str>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (depth == 0).then_some(parts)
}

fn requirement(text: &str) -> Option<Requirement> {
    let text = text.trim();
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    let (key, rule) = if let Some(key) = text.strip_prefix('!') {
        (key, Rule::NotExists)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Rule::NotIn(one(value)))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Rule::In(one(value)))
    } else if let Some((key, values)) = text.split_once(" notin ") {
        (key, Rule::NotIn(list(values)?))
    } else if let Some((key, values)) = text.split_once(" in ") {
        (key, Rule::In(list(values)?))
    } else {
        (text, Rule::Exists)
    };
    let key = key.trim();
    let is_key =
        !key.is_empty() && !key.contains(|letter: char| letter.is_whitespace() || "()=!,".contains(letter));
    is_key.then(|| Requirement { key: key.to_owned(), rule })
}

fn list(text: &str) -> Option<BTreeSet<String>> {
    let inside = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inside.split(',').map(|value| value.trim().to_owned()).collect())
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Requirement { key, rule }) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let listed = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
            match rule {
                Rule::In(values) if values.len() == 1 => write!(f, "{comma}{key}={}", listed(values))?,
                Rule::NotIn(values) if values.len() == 1 => write!(f, "{comma}{key}!={}", listed(values))?,
                Rule::In(values) => write!(f, "{comma}{key} in ({})", listed(values))?,
                Rule::NotIn(values) => write!(f, "{comma}{key} notin ({})", listed(values))?,
                Rule::Exists => write!(f, "{comma}{key}")?,
                Rule::NotExists => write!(f, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

/// Selectors by one label that they need, so that a pod finds those that select it without a walk over all.
#[derive(Debug)]
pub struct SelectorIndex<K> {
    selectors: HashMap<K, (String, Selector)>,
    by_label: HashMap<Anchor, BTreeSet<K>>,
    /// By namespace: selectors that need no label with a certain value. There are few.
    others: HashMap<String, BTreeSet<K>>,
}

/// Namespace, key and value of a label.
type Anchor = (String, String, String);

impl<K> Default for SelectorIndex<K> {
    fn default() -> Self {
        SelectorIndex { selectors: HashMap::new(), by_label: HashMap::new(), others: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> SelectorIndex<K> {
    /// Sets a selector of a namespace; an empty one selects nothing, and is removed.
    pub fn set(&mut self, key: K, namespace: &str, selector: Selector) {
        self.remove(&key);
        if selector.is_empty() {
            return;
        }
        match selector.anchors() {
            Some((label, values)) => values.iter().for_each(|value| {
                let anchor = (namespace.to_owned(), label.clone(), value.clone());
                self.by_label.entry(anchor).or_default().insert(key.clone());
            }),
            None => {
                self.others.entry(namespace.to_owned()).or_default().insert(key.clone());
            }
        }
        self.selectors.insert(key, (namespace.to_owned(), selector));
    }

    /// Removes a selector.
    pub fn remove(&mut self, key: &K) {
        let Some((namespace, selector)) = self.selectors.remove(key) else { return };
        let anchors = selector.anchors().map(|(label, values)| (label.clone(), values.clone()));
        match anchors {
            Some((label, values)) => values.into_iter().for_each(|value| {
                let anchor = (namespace.clone(), label.clone(), value);
                remove(&mut self.by_label, &anchor, key);
            }),
            None => remove(&mut self.others, &namespace, key),
        }
    }

    /// Everything that selects a pod of this namespace with these labels, in order.
    pub fn selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> BTreeSet<K> {
        let by_label = labels.iter().filter_map(|(key, value)| {
            self.by_label.get(&(namespace.to_owned(), key.clone(), value.clone()))
        });
        let others = self.others.get(namespace);
        let candidates = by_label.chain(others).flatten();
        let selects =
            |key: &&K| self.selectors.get(*key).is_some_and(|(_, selector)| selector.selects(labels));
        candidates.filter(selects).cloned().collect()
    }

    /// The selector of a key.
    pub fn get(&self, key: &K) -> Option<&Selector> {
        self.selectors.get(key).map(|(_, selector)| selector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn requirements_are_those_of_kubernetes() {
        let table = [
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier = front", true),
            ("app=other", false),
            ("app!=other", true),
            ("missing!=x", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("missing notin (x)", true),
            ("app", true),
            ("!app", false),
            ("!missing,app", true),
            ("", false),
        ];
        let pod = labels(&[("app", "web"), ("tier", "front")]);
        for (text, expected) in table {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.selects(&pod), expected, "{text}");
            assert_eq!(Selector::parse(&selector.to_string()).as_ref(), Ok(&selector), "{text}");
        }
        for text in ["app=web,", "=x", "app in web", "app in (a", "a b", ",app"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pod_finds_all_that_select_it_and_nothing_of_other_namespaces() {
        let mut index = SelectorIndex::default();
        for (key, namespace, text) in [
            ("a", "shop", "app=web"),
            ("b", "shop", "app in (web,api),tier=front"),
            ("c", "shop", "!old"),
            ("d", "shop", "app=api"),
            ("e", "other", "app=web"),
            ("f", "shop", ""),
        ] {
            index.set(key, namespace, Selector::parse(text).unwrap());
        }
        let pod = labels(&[("app", "web"), ("tier", "front")]);
        assert_eq!(index.selecting("shop", &pod), BTreeSet::from(["a", "b", "c"]));
        index.remove(&"b");
        index.set("a", "shop", Selector::parse("app=api").unwrap());
        assert_eq!(index.selecting("shop", &pod), BTreeSet::from(["c"]));
        index.remove(&"c");
        index.remove(&"a");
        assert_eq!(index.selecting("shop", &pod), BTreeSet::new());
        index.remove(&"d");
        index.remove(&"e");
        assert!(index.by_label.is_empty() && index.others.is_empty() && index.selectors.is_empty());
    }
}
