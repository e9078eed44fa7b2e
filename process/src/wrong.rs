//! Settings that are wrong, and the words for an error and its causes.

use std::error::Error;
use std::fmt;

/// Everything that is wrong with the settings of a program, found before anything was started. One fault a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrongSettings {
    faults: Vec<String>,
}

impl WrongSettings {
    /// One fault.
    pub fn new(fault: impl Into<String>) -> Self {
        WrongSettings { faults: vec![fault.into()] }
    }

    /// The value; or `None`, and the fault is noted.
    pub fn check<T>(&mut self, parsed: Result<T, impl Into<Box<dyn Error + Send + Sync>>>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.push(chain(&*fault.into()));
                None
            }
        }
    }

    /// The value; or `None`, and the fault is noted with the name of the flag or variable in front.
    pub fn check_named<T>(
        &mut self,
        name: &str,
        parsed: Result<T, impl Into<Box<dyn Error + Send + Sync>>>,
    ) -> Option<T> {
        self.check(parsed.map_err(|fault| format!("{name}: {}", chain(&*fault.into()))))
    }

    /// The value; or `None`, and all faults are noted.
    pub fn check_all<T>(&mut self, parsed: Result<T, impl IntoIterator<Item: fmt::Display>>) -> Option<T> {
        parsed.map_err(|faults| self.faults.extend(faults.into_iter().map(|fault| fault.to_string()))).ok()
    }

    /// The settings made of the values that were checked; or all faults, if there are any. A value that is `None`
    /// because of a fault may end `settings` early.
    pub fn finish<T>(self, settings: impl FnOnce() -> Option<T>) -> Result<T, WrongSettings> {
        if !self.faults.is_empty() {
            return Err(self);
        }
        settings().ok_or(self)
    }
}

impl fmt::Display for WrongSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.faults.join("\n"))
    }
}

impl Error for WrongSettings {}

/// The words of an error and of its causes, each once: a cause whose words end those before it is not repeated.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen: {source}")]
    struct TellsItsCause {
        source: io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it")]
    struct LeavesItOut {
        source: TellsItsCause,
    }

    #[test]
    fn every_cause_is_told_once() {
        let taken = || TellsItsCause { source: io::Error::other("it is taken") };
        assert_eq!(chain(&taken()), "cannot listen: it is taken");
        assert_eq!(chain(&LeavesItOut { source: taken() }), "cannot read it: cannot listen: it is taken");
        let with_context = Err::<(), _>(taken()).context("--listen").unwrap_err();
        assert_eq!(chain(with_context.as_ref()), "--listen: cannot listen: it is taken");
    }

    #[test]
    fn all_faults_are_noted_and_the_values_that_are_right_are_kept() {
        let mut wrong = WrongSettings::default();
        assert_eq!(wrong.check(Ok::<_, io::Error>(1)), Some(1));
        assert_eq!(wrong.clone().finish(|| Some(2)), Ok(2));
        assert_eq!(wrong.check(Err::<(), _>("a is no number")), None);
        assert_eq!(wrong.check_all(Err::<(), _>(["b is missing", "c is empty"])), None);
        assert_eq!(wrong.check_named("--d", Err::<(), _>(io::Error::other("away"))), None);
        let all = wrong.finish(|| Some(2)).unwrap_err();
        assert_eq!(all.to_string(), "a is no number\nb is missing\nc is empty\n--d: away");
    }
}
