//! Files that change while a process runs: certificates are replaced long before they expire.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{error, info};

use super::error::TlsError;

/// Something made of files that can be read again.
pub trait Renewable: Send + Sync + 'static {
    /// The log line for files that had changed.
    const CHANGED: &str;

    /// Reads the files again. True: they have changed since they were last read, and their content is in force. An error
    /// leaves the last content in force, and is reported once for each change.
    fn renew(&self) -> Result<bool, TlsError>;
}

/// Reads the files again and again, until the last user of their content is gone.
///
/// The files are polled, not watched: Kubernetes replaces mounted secrets by renaming a link one folder up, and nothing is
/// lost by a minute.
pub fn keep_renewed<R: Renewable>(
    files: &Arc<R>,
    every: Duration,
) -> impl Future<Output = ()> + Send + use<R> {
    keep(Arc::downgrade(files), every)
}

async fn keep<R: Renewable>(files: Weak<R>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(files) = files.upgrade() else { return };
        match files.renew() {
            Ok(true) => info!("{}", R::CHANGED),
            Ok(false) => {}
            Err(error) => error!(%error, "Cannot reload certificates, keeping the last good ones"),
        }
    }
}

/// The contents of files when they were last read, or the errors in reading them.
///
/// Contents are compared as they are, without a hash: these files are small.
#[derive(Default)]
pub(super) struct Seen(Mutex<Vec<FileContent>>);

pub(super) type FileContent = Result<Vec<u8>, String>;

impl Seen {
    /// Reads the files; `None`: they have not changed.
    pub(super) fn read(&self, files: &[PathBuf]) -> Option<Vec<FileContent>> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| error.to_string());
        self.note(files.iter().map(read).collect())
    }

    /// Contents that have been seen.
    pub(super) fn of(contents: Vec<FileContent>) -> Self {
        Seen(Mutex::new(contents))
    }

    /// Takes note of contents; `None`: they have not changed.
    pub(super) fn note(&self, now: Vec<FileContent>) -> Option<Vec<FileContent>> {
        let mut seen = self.0.lock();
        if *seen == now {
            return None;
        }
        seen.clone_from(&now);
        Some(now)
    }
}

pub(super) fn bytes_of<'a>(path: &Path, content: &'a FileContent) -> Result<&'a [u8], TlsError> {
    let unreadable = |reason: &String| TlsError::Read { path: path.to_owned(), reason: reason.clone() };
    content.as_deref().map_err(unreadable)
}
