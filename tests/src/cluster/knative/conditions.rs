//! Conditions of Knative's objects, with times that change only if they do.

use pilotlight_kubernetes::knative::Condition;

use crate::cluster::objects::now;

/// A condition as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) type_: &'static str,
    pub(super) status: &'static str,
    pub(super) severity: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Said {
    pub(super) fn is_true(type_: &'static str) -> Said {
        Said { type_, status: "True", severity: "", reason: String::new(), message: String::new() }
    }

    pub(super) fn is_false(type_: &'static str, reason: &str, message: &str) -> Said {
        Said {
            status: "False",
            reason: reason.to_owned(),
            message: message.to_owned(),
            ..Said::is_true(type_)
        }
    }

    pub(super) fn is_unknown(type_: &'static str, reason: &str, message: &str) -> Said {
        Said { status: "Unknown", ..Said::is_false(type_, reason, message) }
    }

    /// The same, but as one that does not count for `Ready`.
    pub(super) fn as_info(self) -> Said {
        Said { severity: "Info", ..self }
    }
}

/// These conditions and the `Ready` that follows from those that count: False before Unknown before True.
pub(super) fn conditions(before: &[Condition], said: Vec<Said>) -> Vec<Condition> {
    let counted = |status| said.iter().find(|each| each.severity.is_empty() && each.status == status);
    let ready = match counted("False").or_else(|| counted("Unknown")) {
        Some(first) => Said { type_: "Ready", ..first.clone() },
        None => Said::is_true("Ready"),
    };
    said.iter().chain([&ready]).map(|said| keep_time(before, said)).collect()
}

fn keep_time(before: &[Condition], said: &Said) -> Condition {
    let earlier = before.iter().find(|each| each.type_ == said.type_).filter(|each| {
        each.status == said.status && each.reason == said.reason && each.message == said.message
    });
    Condition {
        type_: said.type_.to_owned(),
        status: said.status.to_owned(),
        severity: said.severity.to_owned(),
        last_transition_time: Some(
            earlier.and_then(|each| each.last_transition_time.clone()).unwrap_or_else(now),
        ),
        reason: said.reason.clone(),
        message: said.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_follows_the_worst_that_counts() {
        let ready = |said: Vec<Said>| {
            let all = conditions(&[], said);
            let ready = all.iter().find(|each| each.type_ == "Ready").unwrap();
            format!("{} {}", ready.status, ready.reason)
        };
        let (good, bad) = (Said::is_true("A"), Said::is_false("B", "Broken", ""));
        let unsure = Said::is_unknown("C", "Waiting", "");
        assert_eq!(ready(vec![good.clone(), unsure.clone(), bad.clone()]), "False Broken");
        assert_eq!(ready(vec![good.clone(), unsure]), "Unknown Waiting");
        assert_eq!(ready(vec![good, bad.as_info()]), "True ");
    }
}
