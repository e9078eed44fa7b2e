//! The one table of settings: for each key of the ConfigMap `config-autoscaler` and each annotation of a
//! revision its name, rule, default, documentation and an example.
//!
//! The parsers read through these entries, and the reference page and the example ConfigMap are written from
//! them, so that none of the three can say something else than the others.

use std::time::Duration;

use crate::duration;
use crate::number::{self, NotAnInt32};

pub mod annotation;
pub mod config_map;

/// One setting: how it is written, what it must obey, and what it means.
#[derive(Debug)]
pub struct Key<R> {
    /// The canonical name, with its prefix.
    pub name: &'static str,
    /// Another spelling, consulted only where the canonical one is absent.
    pub alias: Option<&'static str>,
    /// The rule for a value.
    pub rule: R,
    /// The value in force where nothing is written: a literal for ConfigMap keys, a description for annotations.
    pub default: &'static str,
    /// The annotation that overrides a ConfigMap key for one revision, or the ConfigMap key that holds an
    /// annotation's default.
    pub counterpart: Option<&'static str>,
    /// The effect, in one paragraph.
    pub doc: &'static str,
    /// A value someone may want.
    pub example: &'static str,
}

/// The rule for a value, and how it is read.
pub trait Rule {
    /// The type of a legal value.
    type Value;
    /// Reads a text; `Err` says in a few words what is wrong with it beyond breaking the rule, if there is more
    /// to say.
    fn read(&self, text: &str) -> Result<Self::Value, Option<String>>;
    /// The rule as a noun phrase: `a duration between 6s and 1h0m0s, in whole seconds`.
    fn text(&self) -> String;
    /// The name of the type in the documentation.
    fn type_name(&self) -> &'static str;
}

impl<R: Rule> Key<R> {
    /// Reads a value; `Err` is the rule it breaks, as a sentence whose subject is the value.
    pub fn read(&self, text: &str) -> Result<R::Value, String> {
        self.rule.read(text).map_err(|reason| {
            let rule = self.rule.text();
            match reason {
                Some(reason) => format!("is not {rule}: {reason}"),
                None => format!("is not {rule}"),
            }
        })
    }

    /// The default as a value.
    ///
    /// # Panics
    /// If the default of the table breaks the key's own rule. A test reads them all.
    pub(crate) fn default_value(&self) -> R::Value {
        match self.read(self.default) {
            Ok(value) => value,
            Err(rule) => unreachable!("the default of {}, {:?}, {rule}", self.name, self.default),
        }
    }
}

/// A [`Key`] with its type of value forgotten: what documentation needs.
pub trait Entry: Sync {
    /// The canonical name.
    fn name(&self) -> &'static str;
    /// The other spelling.
    fn alias(&self) -> Option<&'static str>;
    /// The name of the type.
    fn type_name(&self) -> &'static str;
    /// The rule as a noun phrase.
    fn rule(&self) -> String;
    /// The default, or its description.
    fn default(&self) -> &'static str;
    /// The annotation overriding it, or the ConfigMap key defaulting it.
    fn counterpart(&self) -> Option<&'static str>;
    /// One paragraph.
    fn doc(&self) -> &'static str;
    /// A value someone may want.
    fn example(&self) -> &'static str;
    /// Whether the key accepts `text`.
    fn accepts(&self, text: &str) -> bool;
}

impl<R: Rule + Sync> Entry for Key<R> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn alias(&self) -> Option<&'static str> {
        self.alias
    }
    fn type_name(&self) -> &'static str {
        self.rule.type_name()
    }
    fn rule(&self) -> String {
        self.rule.text()
    }
    fn default(&self) -> &'static str {
        self.default
    }
    fn counterpart(&self) -> Option<&'static str> {
        self.counterpart
    }
    fn doc(&self) -> &'static str {
        self.doc
    }
    fn example(&self) -> &'static str {
        self.example
    }
    fn accepts(&self, text: &str) -> bool {
        self.rule.read(text).is_ok()
    }
}

/// `true` or `false`, in Go's spellings.
#[derive(Debug)]
pub struct Truth;

impl Rule for Truth {
    type Value = bool;
    fn read(&self, text: &str) -> Result<bool, Option<String>> {
        number::parse_bool(text).ok_or(None)
    }
    fn text(&self) -> String {
        "true or false".to_owned()
    }
    fn type_name(&self) -> &'static str {
        "bool"
    }
}

/// Any text; outer whitespace does not count.
#[derive(Debug)]
pub struct Text {
    /// The expectation, as a noun phrase.
    pub expected: &'static str,
}

impl Rule for Text {
    type Value = String;
    fn read(&self, text: &str) -> Result<String, Option<String>> {
        Ok(text.trim().to_owned())
    }
    fn text(&self) -> String {
        self.expected.to_owned()
    }
    fn type_name(&self) -> &'static str {
        "string"
    }
}

/// A whole number of at least `min`.
#[derive(Debug)]
pub struct Whole {
    /// The least legal value.
    pub min: u32,
}

impl Rule for Whole {
    type Value = u32;
    fn read(&self, text: &str) -> Result<u32, Option<String>> {
        match number::parse_int32(text) {
            Ok(value) => u32::try_from(value).ok().filter(|&v| v >= self.min).ok_or(None),
            Err(NotAnInt32::Syntax | NotAnInt32::Range) => Err(None),
        }
    }
    fn text(&self) -> String {
        format!("a whole number between {} and {}", self.min, i32::MAX)
    }
    fn type_name(&self) -> &'static str {
        "int"
    }
}

/// A number within a range. Infinity counts as the largest finite number, so that what is configured can be
/// written down again; what is not a number is refused.
#[derive(Debug)]
pub struct Float(pub Range);

/// A range of numbers.
#[derive(Debug)]
pub enum Range {
    /// Any number.
    Any,
    /// This or more.
    AtLeast(f64),
    /// More than this.
    Above(f64),
    /// From the first to the second, both included.
    Between(f64, f64),
    /// The first or more, or exactly the second.
    AtLeastOrExactly(f64, f64),
}

impl Range {
    fn contains(&self, value: f64) -> bool {
        match *self {
            Range::Any => true,
            Range::AtLeast(min) => value >= min,
            Range::Above(bound) => value > bound,
            Range::Between(min, max) => (min..=max).contains(&value),
            Range::AtLeastOrExactly(min, exactly) => value >= min || value == exactly,
        }
    }
}

impl Rule for Float {
    type Value = f64;
    fn read(&self, text: &str) -> Result<f64, Option<String>> {
        let value = number::parse_float(text).ok_or(None)?;
        if value.is_nan() || !self.0.contains(value) {
            return Err(None);
        }
        Ok(value.clamp(f64::MIN, f64::MAX))
    }
    fn text(&self) -> String {
        match self.0 {
            Range::Any => "a number".to_owned(),
            Range::AtLeast(min) => format!("a number of at least {min}"),
            Range::Above(bound) => format!("a number above {bound}"),
            Range::Between(min, max) => format!("a number between {min} and {max}"),
            Range::AtLeastOrExactly(min, exactly) => format!("a number of at least {min}, or {exactly}"),
        }
    }
    fn type_name(&self) -> &'static str {
        "float"
    }
}

/// A share, written in percent or as a fraction: what is above 1 is a percentage. Becomes the fraction.
#[derive(Debug)]
pub struct Fraction;

impl Rule for Fraction {
    type Value = f64;
    fn read(&self, text: &str) -> Result<f64, Option<String>> {
        let raw = number::parse_float(text).ok_or(None)?;
        let fraction = if raw > 1.0 { raw / 100.0 } else { raw };
        if fraction > 0.0 && fraction <= 1.0 { Ok(fraction) } else { Err(None) }
    }
    fn text(&self) -> String {
        "a percentage above 1 and up to 100, or a fraction above 0 and up to 1".to_owned()
    }
    fn type_name(&self) -> &'static str {
        "float"
    }
}

/// A Go duration within a range.
#[derive(Debug)]
pub struct Time {
    /// The least legal value; zero is legal only if `min` is zero.
    pub min: Duration,
    /// The greatest legal value, if there is one.
    pub max: Option<Duration>,
    /// Whether a fraction of a second is refused.
    pub whole_seconds: bool,
}

impl Rule for Time {
    type Value = Duration;
    fn read(&self, text: &str) -> Result<Duration, Option<String>> {
        let value = duration::parse(text).map_err(|error| match error {
            duration::DurationError::Negative => None,
            other => Some(other.to_string()),
        })?;
        let in_range = value >= self.min && self.max.is_none_or(|max| value <= max);
        if in_range && !(self.whole_seconds && value.subsec_nanos() != 0) { Ok(value) } else { Err(None) }
    }
    fn text(&self) -> String {
        let range = match (self.min, self.max) {
            (min, Some(max)) => {
                format!("a duration between {} and {}", duration::format(min), duration::format(max))
            }
            (Duration::ZERO, None) => "a duration of at least 0s".to_owned(),
            // The least Go duration above zero: the rule is "above zero", and reads better said so.
            (min, None) if min == NANOSECOND => "a duration above 0s".to_owned(),
            (min, None) => format!("a duration of at least {}", duration::format(min)),
        };
        if self.whole_seconds { format!("{range}, in whole seconds") } else { range }
    }
    fn type_name(&self) -> &'static str {
        "duration"
    }
}

/// One of a few words; an empty text may be one of them.
#[derive(Debug)]
pub struct OneOf(pub &'static [&'static str]);

impl Rule for OneOf {
    type Value = String;
    fn read(&self, text: &str) -> Result<String, Option<String>> {
        if self.0.contains(&text) { Ok(text.to_owned()) } else { Err(None) }
    }
    fn text(&self) -> String {
        let words: Vec<&str> = self.0.iter().copied().filter(|word| !word.is_empty()).collect();
        format!("one of {}", words.join(", "))
    }
    fn type_name(&self) -> &'static str {
        "string"
    }
}

const NANOSECOND: Duration = Duration::from_nanos(1);
const SIX_SECONDS: Duration = Duration::from_secs(6);
const HOUR: Duration = Duration::from_secs(3_600);
