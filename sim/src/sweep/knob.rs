//! One setting and the values it is to take: `window=30s,60s,120s`, `target=5..50:5`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pilotlight_config::duration;
use pilotlight_config::keys::{annotation, config_map};
use pilotlight_config::spelling::nearest;

/// A setting and the values it takes in turn.
///
/// Settings go by their public names: an annotation's without its prefix (`window`, `min-scale`), or a key of
/// `config-autoscaler` (`stable-window`, `max-scale-up-rate`). Where both are called the same, it is the annotation.
///
/// ```
/// use pilotlight_sim::sweep::Knob;
/// let knob: Knob = "target=5..20:5".parse()?;
/// assert_eq!(knob.to_string(), "target=5,10,15,20");
/// assert_eq!("window=30s,default".parse::<Knob>()?.values().len(), 2);
/// # Ok::<(), pilotlight_sim::sweep::KnobError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Knob {
    name: &'static str,
    place: KnobPlace,
    /// `None`: as it is written without the knob.
    values: Vec<Option<String>>,
}

/// The place where a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnobPlace {
    Annotation(&'static str),
    Config(&'static str),
}

/// Why a text is not a knob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnobError {
    /// No `=` in the text, or nothing on one of its sides.
    #[error("{0:?} is not NAME=VALUE,VALUE,... or NAME=FIRST..LAST:STEP")]
    Form(String),
    /// Unknown setting.
    #[error("unknown setting {name:?}; {advice}")]
    Unknown {
        /// The name as it was written.
        name: String,
        /// The advice: what to write instead.
        advice: String,
    },
    /// A range that leads nowhere.
    #[error("{name}: {range:?} {rule}")]
    Range {
        /// The setting.
        name: &'static str,
        /// The range as it was written.
        range: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A value that is there already.
    #[error("{name}: the value {value} comes twice")]
    Twice {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
    },
}

impl Knob {
    /// The setting's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The values as they are written; `None`: as the setting is without the knob (`default`).
    pub fn values(&self) -> &[Option<String>] {
        &self.values
    }

    /// A setting that takes `values`.
    pub fn new(name: &str, values: Vec<Option<String>>) -> Result<Self, KnobError> {
        let (name, place) = find(name).ok_or_else(|| unknown(name))?;
        for (at, value) in values.iter().enumerate() {
            if values[..at].contains(value) {
                return Err(KnobError::Twice { name, value: shown(value).to_owned() });
            }
        }
        Ok(Knob { name, place, values })
    }

    pub(crate) fn place(&self) -> KnobPlace {
        self.place
    }
}

impl FromStr for Knob {
    type Err = KnobError;
    fn from_str(text: &str) -> Result<Self, KnobError> {
        let form = || KnobError::Form(text.to_owned());
        let (name, list) = text.split_once('=').ok_or_else(form)?;
        let (name, _) = find(name.trim()).ok_or_else(|| unknown(name.trim()))?;
        let mut values = Vec::new();
        for item in list.split(',').map(str::trim) {
            match item.split_once("..") {
                _ if item.is_empty() => return Err(form()),
                _ if item == DEFAULT => values.push(None),
                Some((first, rest)) => values.extend(range(name, item, first, rest)?.into_iter().map(Some)),
                None => values.push(Some(item.to_owned())),
            }
        }
        Knob::new(name, values)
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<&str> = self.values.iter().map(shown).collect();
        write!(f, "{}={}", self.name, values.join(","))
    }
}

/// A value as it is written in a knob.
pub(crate) fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or(DEFAULT)
}

/// The word for leaving a setting as it is.
const DEFAULT: &str = "default";

/// The most values a range may come to.
const MOST: usize = 10_000;

fn find(name: &str) -> Option<(&'static str, KnobPlace)> {
    known().find(|&(known, place)| {
        let (KnobPlace::Annotation(key) | KnobPlace::Config(key)) = place;
        known == name || key == name
    })
}

/// All settings by the names they go by here.
fn known() -> impl Iterator<Item = (&'static str, KnobPlace)> {
    let annotations = annotation::ALL.iter().map(|key| key.name());
    let annotations = annotations
        .map(|key| (key.rsplit_once('/').map_or(key, |(_, name)| name), KnobPlace::Annotation(key)));
    annotations.chain(config_map::ALL.iter().map(|key| (key.name(), KnobPlace::Config(key.name()))))
}

fn unknown(name: &str) -> KnobError {
    let names = || known().map(|(known, _)| known);
    // Or the name is a part of one.
    let containing = || names().find(|known| !name.is_empty() && known.contains(name));
    let advice = match nearest(name, names()).or_else(containing) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            let mut names: Vec<&str> = names().collect();
            names.dedup();
            format!("there are {}", names.join(", "))
        }
    };
    KnobError::Unknown { name: name.to_owned(), advice }
}

/// `5..50:5`, `10s..1m:10s`, or by a factor: `1..64:x2`. Both ends belong to it, the last if a step hits it.
fn range(name: &'static str, text: &str, first: &str, rest: &str) -> Result<Vec<String>, KnobError> {
    let fault = |rule| KnobError::Range { name, range: text.to_owned(), rule };
    let (last, step) = rest.split_once(':').ok_or_else(|| fault("has no step, as in 5..50:5 or 1..64:x2"))?;
    let quantity =
        |text| KnobQuantity::parse(text).ok_or_else(|| fault("is not made of numbers or durations"));
    let (first, last) = (quantity(first)?, quantity(last)?);
    let (factor, step) = match step.strip_prefix('x') {
        Some(factor) => (KnobQuantity::parse(factor).map_or(f64::NAN, |factor| factor.value), None),
        None => (1.0, Some(quantity(step)?)),
    };
    if [Some(last), step].into_iter().flatten().any(|other| other.is_time != first.is_time) {
        return Err(fault("mixes numbers with durations"));
    }
    let step = step.map_or(0.0, |step| step.value);
    let grows = step > 0.0 || factor > 1.0 && first.value > 0.0;
    if !grows || last.value < first.value {
        return Err(fault("does not lead from its first value up to its last"));
    }
    let mut values = Vec::new();
    let mut number = first.value;
    // A step that misses the end by rounding only has hit it.
    while number <= last.value * (1.0 + 1e-9) {
        if values.len() == MOST {
            return Err(fault("comes to more than 10,000 values"));
        }
        values.push(KnobQuantity { value: number, is_time: first.is_time }.to_string());
        // From the beginning, not from the last: rounding must not add up.
        let steps = values.len() as f64;
        number = if step > 0.0 { first.value + steps * step } else { first.value * factor.powf(steps) };
    }
    Ok(values)
}

/// A number, or a duration in nanoseconds.
#[derive(Clone, Copy)]
struct KnobQuantity {
    value: f64,
    is_time: bool,
}

impl KnobQuantity {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(value) = text.parse::<f64>() {
            return value.is_finite().then_some(KnobQuantity { value, is_time: false });
        }
        let time = duration::parse(text).ok()?;
        Some(KnobQuantity { value: time.as_nanos() as f64, is_time: true })
    }
}

impl fmt::Display for KnobQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_time {
            return f.write_str(&duration::format(Duration::from_nanos(self.value.round() as u64)));
        }
        // Nine digits behind the point are more than any setting has use for, and hide 0.1 + 0.2.
        write!(f, "{}", (self.value * 1e9).round() / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Knob>().unwrap().values().iter().map(|value| shown(value).to_owned()).collect()
    }

    fn error(text: &str) -> String {
        text.parse::<Knob>().unwrap_err().to_string()
    }

    #[test]
    fn lists_and_ranges_are_written_out() {
        assert_eq!(values("window=30s,60s,120s"), ["30s", "60s", "120s"]);
        assert_eq!(values("target=5..20:5"), ["5", "10", "15", "20"]);
        assert_eq!(values("target=0.1..0.4:0.1"), ["0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(values("target=1..40:x2,100"), ["1", "2", "4", "8", "16", "32", "100"]);
        assert_eq!(values("window=default,6s..1m30s:28s"), ["default", "6s", "34s", "1m2s", "1m30s"]);
        assert_eq!(values("scale-down-delay=0s..1m:30s"), ["0s", "30s", "1m0s"]);
    }

    #[test]
    fn a_setting_is_known_by_its_short_name_and_its_whole_key() {
        let knob: Knob = "autoscaling.knative.dev/min-scale=1".parse().unwrap();
        assert_eq!(
            (knob.name(), knob.place()),
            ("min-scale", KnobPlace::Annotation("autoscaling.knative.dev/min-scale"))
        );
        let knob: Knob = "max-scale-up-rate=2,10".parse().unwrap();
        assert_eq!(
            (knob.name(), knob.place()),
            ("max-scale-up-rate", KnobPlace::Config("max-scale-up-rate"))
        );
        let knob: Knob = "stable-window=30s".parse().unwrap();
        assert_eq!(knob.place(), KnobPlace::Config("stable-window"));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write_instead() {
        assert_eq!(error("windw=30s"), r#"unknown setting "windw"; did you mean window?"#);
        assert_eq!(
            error("aggregation=linear"),
            r#"unknown setting "aggregation"; did you mean metric-aggregation-algorithm?"#
        );
        assert!(
            error("colour=red").starts_with(r#"unknown setting "colour"; there are class, metric, target,"#)
        );
        assert_eq!(error("window"), r#""window" is not NAME=VALUE,VALUE,... or NAME=FIRST..LAST:STEP"#);
        assert_eq!(
            error("window=30s,"),
            r#""window=30s," is not NAME=VALUE,VALUE,... or NAME=FIRST..LAST:STEP"#
        );
        assert_eq!(error("target=1..5"), r#"target: "1..5" has no step, as in 5..50:5 or 1..64:x2"#);
        assert_eq!(
            error("target=5..1:1"),
            r#"target: "5..1:1" does not lead from its first value up to its last"#
        );
        assert_eq!(
            error("target=1..5:0"),
            r#"target: "1..5:0" does not lead from its first value up to its last"#
        );
        assert_eq!(
            error("target=1..5:x1"),
            r#"target: "1..5:x1" does not lead from its first value up to its last"#
        );
        assert_eq!(error("window=10s..20s:5"), r#"window: "10s..20s:5" mixes numbers with durations"#);
        assert_eq!(error("target=a..5:1"), r#"target: "a..5:1" is not made of numbers or durations"#);
        assert_eq!(error("target=1..1e9:1"), r#"target: "1..1e9:1" comes to more than 10,000 values"#);
        assert_eq!(error("window=60s,30s,60s"), "window: the value 60s comes twice");
    }
}
