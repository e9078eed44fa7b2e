//! How far it is, for who waits at a terminal; and an end when they do not want to wait any longer.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pilotlight_sim::parallel::{Progress, Workers};

use crate::run::INTERRUPTED;

/// A line on standard error that says how far some work is, once it has taken a second. Nothing where standard error
/// is no terminal. The line goes when this is dropped.
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
        if std::io::stderr().is_terminal() {
            let shared = shared.clone();
            thread::spawn(move || shared.tell());
        }
        Patience { shared }
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

impl Drop for Patience {
    fn drop(&mut self) {
        let _line = self.shared.line.lock();
        self.shared.is_over.store(true, Ordering::Release);
        clear_line();
    }
}

/// Ends the process at Ctrl-C as a shell expects it. Files are written whole at the end, so that none is left half
/// written.
pub(super) fn stop_on_interrupt() {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio::signal::ctrl_c())
    };
    thread::spawn(move || {
        if wait().is_ok() {
            clear_line();
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
}

fn clear_line() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}

const BEAT: Duration = Duration::from_millis(200);

/// Work that takes no longer is not talked about.
const QUIET: Duration = Duration::from_secs(1);
