//! The decision journal: every decision as one JSON line, with all that led to it. The simulator replays it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use pilotlight_core::Record;
use tokio::sync::oneshot;
use tracing::error;

/// An open journal. A thread of its own writes, so that a slow disk does not delay decisions.
pub struct Journal {
    lines: SyncSender<Vec<u8>>,
    closed: oneshot::Receiver<()>,
}

impl Journal {
    /// Creates the file, or empties it: a journal begins with the start of each revision, or it could not be
    /// replayed.
    pub fn create(path: &Path) -> io::Result<Journal> {
        let file = File::create(path)?;
        let (lines, queue) = sync_channel(LINES_WAITING);
        let (done, closed) = oneshot::channel();
        let path = path.to_owned();
        thread::Builder::new().name("pl-journal".into()).spawn(move || {
            if let Err(error) = write_all(file, &queue) {
                error!(%error, path = %path.display(), "Journal stopped");
            }
            let _ = done.send(());
        })?;
        Ok(Journal { lines, closed })
    }

    /// Writes one line. Waits when the disk is thousands of lines behind; after an error, which is logged once,
    /// nothing is written any more.
    pub(crate) fn write(&mut self, record: &Record) {
        let mut line = serde_json::to_vec(record).expect("a record has only string keys");
        line.push(b'\n');
        #[expect(clippy::disallowed_methods, reason = "not yet: it stops decisions when the disk is slow")]
        let _ = self.lines.send(line);
    }

    /// Returns once everything is on disk.
    pub(crate) async fn close(self) {
        drop(self.lines);
        let _ = self.closed.await;
    }
}

/// Where a journal could not be created, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal {path}")]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

fn write_all(file: File, lines: &Receiver<Vec<u8>>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    while let Ok(line) = lines.recv() {
        out.write_all(&line)?;
        // Whole lines reach the file as they come; a reader never waits for a full buffer.
        while let Ok(line) = lines.try_recv() {
            out.write_all(&line)?;
        }
        out.flush()?;
    }
    out.flush()?;
    out.get_ref().sync_data()
}

/// Lines that may wait for the disk before decisions have to.
const LINES_WAITING: usize = 8192;
