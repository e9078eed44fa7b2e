//! A journal, decided again: every evaluation must come out as it was written.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use pilotlight_core::{Evaluation, Gap, Record, Revision, RevisionId};
use serde::Serialize;

/// The result of a replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replay {
    /// Evaluations that were decided again.
    pub evaluations: u64,
    /// Inputs they were decided from.
    pub inputs: u64,
    /// Revisions in the journal.
    pub revisions: usize,
    /// Evaluations that came out differently.
    pub differing: u64,
    /// The first of them.
    pub first_difference: Option<Box<Deviation>>,
}

/// An evaluation that came out differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deviation {
    /// The journal's line, from 1.
    pub line: u64,
    /// The revision whose decision it is.
    pub revision: RevisionId,
    /// As it was written.
    pub recorded: Evaluation,
    /// As it came out; `None`: it was not evaluated at all.
    pub replayed: Option<Evaluation>,
}

/// Why a journal cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Unreadable journal.
    #[error("line {line}")]
    Unreadable {
        /// The line, from 1.
        line: u64,
        /// The reason.
        source: io::Error,
    },
    /// A line is not a record.
    #[error("line {line}: not a record of a decision")]
    NotARecord {
        /// The line, from 1.
        line: u64,
        /// The reason.
        source: serde_json::Error,
    },
    /// Lines are missing: whoever wrote the journal could not keep up with the decisions.
    #[error("line {line}: {dropped} decisions are missing here, so what follows cannot be decided again")]
    Gap {
        /// The line, from 1.
        line: u64,
        /// How many.
        dropped: u64,
    },
    /// A revision's first record does not say how it started.
    #[error("line {line}: {revision} has no start in this journal; was its beginning cut off?")]
    NoStart {
        /// The line, from 1.
        line: u64,
        /// The revision.
        revision: RevisionId,
    },
}

/// Decides a journal again. Reads line by line: its length does not matter. A last line that was cut off in the
/// writing is passed over.
pub fn replay(journal: impl BufRead) -> Result<Replay, ReplayError> {
    let mut result = Replay::default();
    let mut revisions: BTreeMap<RevisionId, Revision> = BTreeMap::new();
    let mut lines = (1..).zip(journal.split(b'\n')).peekable();
    while let Some((line, bytes)) = lines.next() {
        let bytes = bytes.map_err(|source| ReplayError::Unreadable { line, source })?;
        if bytes.is_empty() {
            continue;
        }
        let record: Record = match serde_json::from_slice(&bytes) {
            Ok(record) => record,
            Err(error) if error.is_eof() && lines.peek().is_none() => break,
            Err(source) => {
                return Err(match serde_json::from_slice(&bytes) {
                    Ok(Gap { dropped }) => ReplayError::Gap { line, dropped },
                    Err(_) => ReplayError::NotARecord { line, source },
                });
            }
        };
        let Record { revision: id, start, inputs, evaluation: recorded, .. } = record;
        if let Some(start) = start {
            revisions.insert(id.clone(), Revision::resume(start.at, start.spec, start.pods, start.history));
        }
        let Some(revision) = revisions.get_mut(&id) else {
            return Err(ReplayError::NoStart { line, revision: id });
        };
        result.inputs += inputs.len() as u64;
        result.evaluations += 1;
        for (at, input) in inputs {
            revision.step(at, input);
        }
        if revision.evaluation() != Some(&recorded) {
            result.differing += 1;
            let replayed = revision.evaluation().cloned();
            result
                .first_difference
                .get_or_insert_with(|| Box::new(Deviation { line, revision: id, recorded, replayed }));
        }
    }
    result.revisions = revisions.len();
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilotlight_core::{History, Input, PodCounts, RevisionSpec, Start, Stat, Time};

    use super::*;

    /// A life of one minute, written down as the autoscaler does.
    fn journal() -> Vec<Record> {
        let spec = RevisionSpec { target: 7.0, total: 10.0, initial_scale: 0, ..RevisionSpec::default() };
        let start = Start {
            at: Time::from_secs(1_000),
            spec,
            pods: PodCounts::default(),
            history: History::default(),
        };
        let mut revision = Revision::new(start.at, start.spec.clone(), start.pods);
        let (mut records, mut inputs, mut next_start) = (Vec::new(), Vec::new(), Some(start));
        for second in 0..60_u64 {
            let at = Time::from_secs(1_000 + second) + Duration::from_millis(500);
            let stat = Stat { average_concurrent_requests: (second % 13) as f64 * 1.7, ..Stat::default() };
            let mut facts = vec![
                Input::Pushed(stat),
                Input::Pods(PodCounts { ready: second as u32 % 5, ..PodCounts::default() }),
            ];
            if second % 2 == 1 {
                facts.push(Input::Tick);
            }
            for input in facts {
                inputs.push((at, input.clone()));
                let ticked = input == Input::Tick;
                revision.step(at, input);
                if ticked {
                    records.push(Record {
                        revision: RevisionId::new("default", "hello"),
                        start: next_start.take(),
                        inputs: std::mem::take(&mut inputs),
                        evaluation: revision.evaluation().unwrap().clone(),
                        why: String::new(),
                    });
                }
            }
        }
        records
    }

    fn lines(records: &[Record]) -> String {
        records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
    }

    #[test]
    fn a_journal_comes_out_as_it_was_written() {
        let found = replay(lines(&journal()).as_bytes()).unwrap();
        assert_eq!((found.evaluations, found.revisions, found.differing), (30, 1, 0));
    }

    #[test]
    fn a_changed_number_is_found_and_named() {
        let mut records = journal();
        records[20].evaluation.plan.scale = Some(99);
        let found = replay(lines(&records).as_bytes()).unwrap();
        assert_eq!(found.differing, 1);
        assert_eq!(found.first_difference.unwrap().line, 21);
    }

    #[test]
    fn a_journal_without_its_beginning_is_refused() {
        let error = replay(lines(&journal()[1..]).as_bytes()).unwrap_err();
        assert!(matches!(error, ReplayError::NoStart { line: 1, .. }), "{error}");
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_passed_over_and_any_other_is_not() {
        let text = lines(&journal());
        assert_eq!(replay(&text.as_bytes()[..text.len() - 40]).unwrap().evaluations, 29);
        let broken = format!("{{\n{text}");
        assert!(matches!(replay(broken.as_bytes()).unwrap_err(), ReplayError::NotARecord { line: 1, .. }));
    }
}
