//! Lines of logs, written by a thread of their own: a caller never waits for a reader that is slow or stuck.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A bounded queue of lines in front of a writer that may block. When it is full, lines are dropped and counted.
/// All clones are the same queue.
#[derive(Clone, Debug)]
pub struct Lines {
    shared: Arc<LineQueue>,
}

#[derive(Debug, Default)]
struct LineQueue {
    state: Mutex<QueueState>,
    // Notified when a line is pushed.
    filled: Condvar,
    // Notified when all lines are written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Vec<u8>>,
    is_writing: bool,
    dropped: u64,
}

impl Lines {
    /// Starts the thread, which ends with the process. `lost` makes a line of the number of lines that were dropped, which
    /// is written once there is room again.
    pub fn start(name: &str, out: impl Write + Send + 'static, lost: fn(u64) -> String) -> io::Result<Lines> {
        let shared = Arc::<LineQueue>::default();
        let writing = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || writing.write_to(out, lost))?;
        Ok(Lines { shared })
    }

    /// Queues a line, line feed included, or drops it. Never waits.
    pub fn push(&self, line: Vec<u8>) {
        let mut state = self.shared.state.lock();
        if state.waiting.len() >= MAX_LINES {
            state.dropped += 1;
            return;
        }
        state.waiting.push_back(line);
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.state.lock().dropped
    }

    /// Waits until all lines are written, but no longer than this.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock();
        while !state.waiting.is_empty() || state.is_writing {
            if self.shared.emptied.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

impl LineQueue {
    fn write_to(&self, mut out: impl Write, lost: fn(u64) -> String) {
        let mut told = 0;
        loop {
            let (lines, dropped) = self.next();
            for line in lines {
                // Each line is one write, so that lines of several writers do not mix. An error is no reason to stop:
                // with a reader that has gone for good, the queue must not stay full for ever.
                let _ = out.write_all(&line);
            }
            if dropped > told {
                let _ = out.write_all(lost(dropped - told).as_bytes());
                told = dropped;
            }
            let _ = out.flush();
        }
    }

    /// All waiting lines, as soon as there is one, and the number dropped so far.
    fn next(&self) -> (VecDeque<Vec<u8>>, u64) {
        let mut state = self.state.lock();
        state.is_writing = false;
        while state.waiting.is_empty() {
            self.emptied.notify_all();
            self.filled.wait(&mut state);
        }
        state.is_writing = true;
        (std::mem::take(&mut state.waiting), state.dropped)
    }
}

/// Lines that wait at most.
const MAX_LINES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A writer whose every write needs a permit.
    struct Gated {
        may_write: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may_write.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (Lines, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (let_write, may_write) = channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let out = Gated { may_write, written: Arc::clone(&written) };
        (Lines::start("test", out, |lost| format!("{lost} lost\n")).unwrap(), let_write, written)
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn lines_come_out_in_their_order() {
        let (lines, let_write, written) = start();
        for line in ["a\n", "b\n", "c\n"] {
            lines.push(line.into());
            let_write.send(()).unwrap();
        }
        lines.flush(LONG);
        assert_eq!(*written.lock(), b"a\nb\nc\n");
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_lost_is_counted_and_told() {
        let (lines, let_write, written) = start();
        // The thread may have taken the first lines already, or not.
        let pushed = 3 * MAX_LINES;
        for _ in 0..pushed {
            lines.push(b"x\n".to_vec());
        }
        let dropped = lines.dropped();
        assert!((MAX_LINES..pushed).contains(&(dropped as usize)), "{dropped}");
        lines.flush(Duration::from_millis(1));
        for _ in 0..=pushed {
            let_write.send(()).unwrap();
        }
        lines.flush(LONG);
        let text = String::from_utf8(written.lock().clone()).unwrap();
        assert_eq!(text.matches("x\n").count(), pushed - dropped as usize);
        let told: u64 = text.lines().filter_map(|line| line.strip_suffix(" lost")?.parse::<u64>().ok()).sum();
        assert_eq!(told, dropped);
    }

    #[test]
    fn a_reader_that_has_gone_does_not_stop_anybody() {
        let (lines, let_write, _) = start();
        drop(let_write);
        for _ in 0..10 {
            lines.push(b"x\n".to_vec());
        }
        lines.flush(LONG);
        assert_eq!(lines.dropped(), 0);
    }
}
