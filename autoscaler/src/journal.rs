//! The decision journal: every decision as one JSON line, with all that led to it. The simulator replays it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use pilotlight_core::{Gap, Record};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, warn};

/// An open journal. A thread of its own writes. Decisions never wait for the disk: lines it cannot take in time are
/// dropped and counted, and the journal says so where they are missing.
pub struct Journal {
    path: PathBuf,
    lines: SyncSender<Vec<u8>>,
    /// Lines dropped since the last one that was taken.
    dropped: u64,
    /// The same when the journal is closed; the writer's last line tells it.
    dropped_at_end: Arc<AtomicU64>,
    closed: oneshot::Receiver<()>,
}

impl Journal {
    /// Creates the file, or empties it: a journal begins with the start of each revision, or it could not be
    /// replayed.
    pub fn create(path: &Path) -> Result<Journal, JournalError> {
        let failed = |source| JournalError { path: path.to_owned(), source };
        let file = File::create(path).map_err(failed)?;
        let to_disk = file.try_clone().map_err(failed)?;
        Self::start(file, move || to_disk.sync_data(), path, LINES_WAITING).map_err(failed)
    }

    fn start(
        out: impl Write + Send + 'static,
        sync: impl FnOnce() -> io::Result<()> + Send + 'static,
        path: &Path,
        waiting: usize,
    ) -> io::Result<Journal> {
        let (lines, queue) = sync_channel(waiting);
        let (done, closed) = oneshot::channel();
        let dropped_at_end = Arc::new(AtomicU64::new(0));
        let (path, last) = (path.to_owned(), Arc::clone(&dropped_at_end));
        let journal = Journal { path: path.clone(), lines, dropped: 0, dropped_at_end, closed };
        thread::Builder::new().name("pl-journal".into()).spawn(move || {
            if let Err(error) = write_all(out, &queue, &last).and_then(|()| sync()) {
                error!(%error, path = %path.display(), "Journal stopped");
            }
            let _ = done.send(());
        })?;
        Ok(journal)
    }

    /// Writes one line, unless the disk is thousands of lines behind. After an error, which is logged once, nothing is
    /// written any more.
    pub(crate) fn write(&mut self, record: &Record) {
        let (path, dropped) = (self.path.display(), self.dropped);
        if dropped > 0 {
            if self.is_full(line(&Gap { dropped })) {
                self.dropped += 1;
                return;
            }
            warn!(%path, dropped, "Journal goes on after a gap; it cannot be replayed");
        }
        self.dropped = u64::from(self.is_full(line(record)));
        if self.dropped > 0 {
            warn!(%path, "Journal is too far behind: decisions are missing from it");
        }
    }

    fn is_full(&self, line: Vec<u8>) -> bool {
        matches!(self.lines.try_send(line), Err(TrySendError::Full(_)))
    }

    /// Returns once everything is on disk, or the disk has taken nothing for a while.
    pub(crate) async fn close(self) {
        self.dropped_at_end.store(self.dropped, Ordering::Release);
        drop(self.lines);
        if timeout(CLOSE_TIMEOUT, self.closed).await.is_err() {
            error!(path = %self.path.display(), "Journal is incomplete: its end could not be written in time");
        }
    }
}

/// A journal that could not be created, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal {path}")]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

fn line(content: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(content).expect("a journal's line has only string keys");
    line.push(b'\n');
    line
}

fn write_all(out: impl Write, lines: &Receiver<Vec<u8>>, dropped_at_end: &AtomicU64) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    while let Ok(line) = lines.recv() {
        out.write_all(&line)?;
        // Whole lines reach the file as they come; a reader never waits for a full buffer.
        while let Ok(line) = lines.try_recv() {
            out.write_all(&line)?;
        }
        out.flush()?;
    }
    match dropped_at_end.load(Ordering::Acquire) {
        0 => {}
        dropped => out.write_all(&line(&Gap { dropped }))?,
    }
    out.flush()
}

/// Lines that may wait for the disk before more are dropped.
const LINES_WAITING: usize = 8192;
/// How long the end of a journal may take. A pipe that nobody reads takes for ever.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use pilotlight_core::{Input, PodCounts, Revision, RevisionId, RevisionSpec, Time};

    use super::*;

    /// A disk that takes a line only when it is let, and shows what it took.
    struct SlowDisk {
        lets: Receiver<()>,
        took: std::sync::mpsc::Sender<String>,
    }

    impl Write for SlowDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.lets.recv();
            let _ = self.took.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(second: u64) -> Record {
        let now = Time::from_secs(second);
        let mut revision = Revision::new(now, RevisionSpec::default(), PodCounts::default());
        revision.step(now, Input::Tick);
        Record {
            revision: RevisionId::new("default", "hello"),
            start: None,
            inputs: Vec::new(),
            evaluation: revision.evaluation().unwrap().clone(),
            why: String::new(),
        }
    }

    fn second_or_gap(line: &str) -> Result<u64, u64> {
        match serde_json::from_str::<Gap>(line) {
            Ok(gap) => Err(gap.dropped),
            Err(_) => Ok(serde_json::from_str::<Record>(line).unwrap().evaluation.at.whole_seconds()),
        }
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_costs_lines_and_the_journal_says_how_many() {
        let ((let_go, lets), (took, taken)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let disk = SlowDisk { lets, took };
        let mut journal = Journal::start(disk, || Ok(()), Path::new("slow"), 2).unwrap();
        // The writer holds the first, which it was handed before there was anything to wait for; two wait.
        for second in 1..=9 {
            journal.write(&record(second));
        }
        let dropped = journal.dropped;
        assert!((6..=7).contains(&dropped), "{dropped}: none of these waited for the disk");
        drop(let_go);
        let first: String = std::iter::from_fn(|| taken.recv().ok()).take(1).collect();
        assert!(first.starts_with('{'));
        // Room again: the gap is told before the next line, and the end is whole.
        while journal.dropped > 0 {
            journal.write(&record(10));
        }
        journal.close().await;
        let text: String = first + &taken.iter().collect::<String>();
        let told: Vec<_> = text.lines().map(second_or_gap).collect();
        let kept = told.iter().filter(|line| line.is_ok()).count() as u64;
        let missing: u64 = told.iter().filter_map(|line| line.err()).sum();
        assert!(missing >= dropped, "{told:?}");
        assert_eq!(told.last(), Some(&Ok(10)), "{told:?}");
        assert!(kept >= 3, "{told:?}");
    }

    #[tokio::test]
    async fn what_is_dropped_at_the_end_is_told_at_the_end() {
        let ((let_go, lets), (took, taken)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
        let mut journal = Journal::start(SlowDisk { lets, took }, || Ok(()), Path::new("slow"), 1).unwrap();
        for second in 1..=9 {
            journal.write(&record(second));
        }
        let dropped = journal.dropped;
        drop(let_go);
        journal.close().await;
        let text: String = taken.iter().collect();
        assert_eq!(text.lines().last().map(second_or_gap), Some(Err(dropped)), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_nobody_reads_does_not_hold_up_the_end() {
        let ((_let_go, lets), (took, _taken)) =
            (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
        let mut journal = Journal::start(SlowDisk { lets, took }, || Ok(()), Path::new("pipe"), 1).unwrap();
        journal.write(&record(1));
        journal.close().await;
    }
}
