//! Where the lines go that apps write: into the log, into a file for each pod, or nowhere.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use pilotlight_core::RevisionId;

/// Where the lines of apps go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AppLogs {
    /// Into the log, behind the name of the pod.
    #[default]
    Screen,
    /// Nowhere.
    Off,
    /// Into this folder, as `NAMESPACE/POD.log`.
    Folder(PathBuf),
}

impl FromStr for AppLogs {
    type Err = Infallible;

    /// `screen`, `off`, or a folder.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "screen" => AppLogs::Screen,
            "off" => AppLogs::Off,
            folder => AppLogs::Folder(folder.into()),
        })
    }
}

impl AppLogs {
    /// Makes the folder, if there is to be one.
    pub fn prepare(&self) -> io::Result<()> {
        match self {
            AppLogs::Screen | AppLogs::Off => Ok(()),
            AppLogs::Folder(folder) => fs::create_dir_all(folder),
        }
    }
}

/// The file of one pod. A thread of its own writes it: a slow disk costs lines, never requests.
#[derive(Clone)]
pub(crate) struct PodLog {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl PodLog {
    /// Opens the file and starts the thread, which ends with the last clone. What is in the file already stays.
    pub(crate) fn open(folder: &Path, id: &RevisionId, pod: &str) -> io::Result<PodLog> {
        let folder = folder.join(&id.namespace);
        fs::create_dir_all(&folder)?;
        let file = File::options().append(true).create(true).open(folder.join(format!("{pod}.log")))?;
        let (lines, waiting) = sync_channel(LINES_WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let log = PodLog { lines, dropped: Arc::clone(&dropped) };
        let name = "pl-app-log".to_owned();
        thread::Builder::new().name(name).spawn(move || write_lines(file, &waiting, &dropped))?;
        Ok(log)
    }

    /// Queues a line, without its line feed, or drops it.
    pub(crate) fn push(&self, line: &str) {
        if self.lines.try_send(format!("{line}\n").into_bytes()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(file: File, waiting: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    let mut file = BufWriter::new(file);
    while let Ok(first) = waiting.recv() {
        // A full disk is no reason to stop: the queue must not stay full for ever.
        let _ = file.write_all(&first);
        for line in waiting.try_iter() {
            let _ = file.write_all(&line);
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(file, "[{lost} lines dropped: the disk is not fast enough]");
        }
        let _ = file.flush();
    }
}

/// Lines of one pod that wait for the disk at most.
const LINES_WAITING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_a_file_in_the_folder_of_its_namespace_that_is_added_to() {
        let folder = std::env::temp_dir().join(format!("pilotlight-app-logs-{}", std::process::id()));
        let path = folder.join("shop/cart-1.log");
        drop(PodLog::open(&folder, &RevisionId::new("shop", "cart"), "cart-1").unwrap());
        fs::write(&path, "of an earlier run\n").unwrap();

        let (lines, waiting) = sync_channel(2);
        let dropped = Arc::<AtomicU64>::default();
        let log = PodLog { lines, dropped: Arc::clone(&dropped) };
        for line in ["first", "second", "too much"] {
            log.push(line);
        }
        drop(log);
        let file = File::options().append(true).open(&path).unwrap();
        write_lines(file, &waiting, &dropped);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let lost = "[1 lines dropped: the disk is not fast enough]";
        assert_eq!(lines, ["of an earlier run", "first", "second", lost]);
    }

    #[test]
    fn screen_and_off_are_words_and_all_else_is_a_folder() {
        let parsed = |text: &str| text.parse::<AppLogs>();
        assert_eq!(parsed("screen"), Ok(AppLogs::Screen));
        assert_eq!(parsed("off"), Ok(AppLogs::Off));
        assert_eq!(parsed("./logs"), Ok(AppLogs::Folder("./logs".into())));
    }
}
