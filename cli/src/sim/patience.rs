//! How far it is, for who waits at a terminal; and an end when they do not want to wait any longer.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pilotlight_sim::parallel::{Progress, Workers};

use crate::run::INTERRUPTED;

/// A line on standard error that says how far some work is, once it has taken a second. It goes when this is dropped.
/// Where standard error is no terminal, lines stay, one every few seconds.
pub(super) struct Patience {
    shared: Arc<Shared>,
}

struct Shared {
    begun: Instant,
    is_over: AtomicBool,
    /// The text; its lock also keeps writers apart.
    line: Mutex<String>,
}

impl Patience {
    /// Begins to wait for `what`, which follows "simulating".
    pub(super) fn with(what: &str) -> Patience {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            line: Mutex::new(what.to_owned()),
        });
        let telling = shared.clone();
        let is_terminal = std::io::stderr().is_terminal();
        thread::spawn(move || if is_terminal { telling.tell() } else { telling.log() });
        Patience { shared }
    }

    /// The same, for work that can be left half done: the first Ctrl-C asks for what there is, the next one ends.
    pub(super) fn workers_until_interrupted(&self) -> Workers<'static> {
        let stop = Arc::new(AtomicBool::new(false));
        *STOP.lock() = Some(stop.clone());
        self.workers().stopped_by(stop)
    }

    /// All cores; how far they are is said here.
    pub(super) fn workers(&self) -> Workers<'static> {
        let shared = self.shared.clone();
        Workers::all().on_progress(move |Progress { stage, done, total }| {
            *shared.line.lock() = format!("{stage}: {done} of {total}");
        })
    }
    /// Does something that writes where the line is.
    pub(super) fn aside<T>(&self, act: impl FnOnce() -> T) -> T {
        let _line = self.shared.line.lock();
        clear_line();
        act()
    }
}

impl Shared {
    fn tell(&self) {
        let mut is_shown = false;
        loop {
            thread::sleep(BEAT);
            let line = self.line.lock();
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            if is_shown || self.begun.elapsed() > QUIET {
                is_shown = true;
                let seconds = self.begun.elapsed().as_secs();
                let _ = write!(std::io::stderr(), "\r\x1b[2K{line} ({seconds} s)");
            }
        }
    }
}

impl Shared {
    fn log(&self) {
        let mut due = LINE_EVERY;
        loop {
            thread::sleep(BEAT);
            let line = self.line.lock();
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            if self.begun.elapsed() >= due {
                due += LINE_EVERY;
                let _ = writeln!(std::io::stderr(), "{line} ({} s)", self.begun.elapsed().as_secs());
            }
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        let _line = self.shared.line.lock();
        self.shared.is_over.store(true, Ordering::Release);
        clear_line();
    }
}

/// Ends the process at Ctrl-C as a shell expects it, unless there is work that can be left half done and has not been
/// asked to end. Files are written whole at the end, so that none is left half written.
pub(super) fn stop_on_interrupt() {
    let wait = async || {
        while tokio::signal::ctrl_c().await.is_ok() {
            clear_line();
            let stop = STOP.lock().clone();
            if stop.is_none_or(|stop| stop.swap(true, Ordering::Relaxed)) {
                std::process::exit(i32::from(INTERRUPTED));
            }
            eprintln!("stopping: the best so far follows; Ctrl-C once more ends at once");
        }
    };
    thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            runtime.block_on(wait());
        }
    });
}

fn clear_line() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}

/// Set by the first Ctrl-C, where some work comes to an end by that.
static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

const BEAT: Duration = Duration::from_millis(200);

/// Work that takes no longer is not talked about.
const QUIET: Duration = Duration::from_secs(1);

/// From line to line where they stay.
const LINE_EVERY: Duration = Duration::from_secs(5);
