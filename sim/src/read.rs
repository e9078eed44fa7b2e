//! Single values as they are written in a scenario: times, numbers, shares, distributions, words.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use pilotlight_config::spelling::hint;
use pilotlight_config::workload::manifest::{Node, shown};
use pilotlight_config::{Findings, duration};

use crate::dist::{DistError, Distribution, DistributionSpec};

/// The text of a scalar, however YAML took it: `100ms`, `5`, `1.5`.
pub(crate) fn scalar(node: &Node<'_>, findings: &mut Findings) -> Option<String> {
    let value = node.value?;
    if value.is_array() || value.is_object() {
        node.fault("is not a single value", findings);
        return None;
    }
    Some(shown(value))
}

/// A value with a grammar of its own.
pub(crate) fn parsed<T: FromStr<Err: Display>>(node: &Node<'_>, findings: &mut Findings) -> Option<T> {
    let text = scalar(node, findings)?;
    text.parse().inspect_err(|error| findings.fault(&node.path, &text, format!("is wrong: {error}"))).ok()
}

/// A Go duration.
pub(crate) fn time(node: &Node<'_>, findings: &mut Findings) -> Option<Duration> {
    let text = scalar(node, findings)?;
    let parsed = duration::parse(&text);
    parsed.inspect_err(|error| findings.fault(&node.path, &text, format!("is not a duration: {error}"))).ok()
}

/// A Go duration above zero.
pub(crate) fn positive_time(node: &Node<'_>, findings: &mut Findings) -> Option<Duration> {
    let time = time(node, findings)?;
    if time.is_zero() {
        findings.fault(&node.path, "0s", "must be above 0s");
    }
    Some(time).filter(|time| !time.is_zero())
}

/// A distribution of a time. Its file, if it has one, lies below `base_dir`.
pub(crate) fn distribution(
    node: &Node<'_>,
    base_dir: &Path,
    findings: &mut Findings,
) -> Option<Distribution> {
    let text = scalar(node, findings)?;
    let loaded = text.parse::<DistributionSpec>().and_then(|spec| spec.load(base_dir));
    // The error quotes what is wrong by itself.
    loaded.inspect_err(|error: &DistError| node.fault(error.to_string(), findings)).ok()
}

/// A number from `least` to `most`.
pub(crate) fn number(node: &Node<'_>, least: f64, most: f64, findings: &mut Findings) -> Option<f64> {
    let text = scalar(node, findings)?;
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    if number.is_none() {
        findings.fault(&node.path, &text, format!("is not a number between {least} and {most}"));
    }
    number
}

/// A share of 1: `0.05` or `5%`.
pub(crate) fn share(node: &Node<'_>, findings: &mut Findings) -> Option<f64> {
    let text = scalar(node, findings)?;
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse().ok(),
    };
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    if share.is_none() {
        findings.fault(&node.path, &text, "is not a share, such as 0.05 or 5%");
    }
    share
}

/// A whole number from `least` to `most`.
pub(crate) fn whole(node: &Node<'_>, least: u32, most: u32, findings: &mut Findings) -> Option<u32> {
    let text = scalar(node, findings)?;
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    if number.is_none() {
        findings.fault(&node.path, &text, format!("is not a whole number between {least} and {most}"));
    }
    number
}

/// Cores, in thousandths: `2`, `0.5`, or as Kubernetes writes it, `500m`.
pub(crate) fn millicores(node: &Node<'_>, findings: &mut Findings) -> Option<u32> {
    let text = scalar(node, findings)?;
    let milli = match text.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().ok(),
        None => text.parse::<f64>().ok().map(|cores| cores * 1e3),
    };
    // Beyond a million cores nobody means it.
    let milli = milli.map(f64::round).filter(|milli| (1.0..=1e9).contains(milli));
    if milli.is_none() {
        findings.fault(&node.path, &text, "is not a number of cores, such as 2, 0.5 or 500m");
    }
    milli.map(|milli| milli as u32)
}

/// Yes or no.
pub(crate) fn flag(node: &Node<'_>, findings: &mut Findings) -> Option<bool> {
    word(node, &[("true", true), ("false", false)], findings)
}

/// One of a few words.
pub(crate) fn word<T: Copy>(node: &Node<'_>, known: &[(&str, T)], findings: &mut Findings) -> Option<T> {
    let text = scalar(node, findings)?;
    let found = known.iter().find(|(name, _)| *name == text).map(|&(_, value)| value);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|&(name, _)| name).collect();
        let rule = format!("is not one of {}{}", names.join(", "), hint(&text, names.iter().copied()));
        findings.fault(&node.path, &text, rule);
    }
    found
}
