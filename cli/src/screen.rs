//! The terminal: lines that scroll by, and a block below them that stays and is redrawn.
//!
//! A thread of its own writes. Standard error may be a terminal somebody has stopped with Ctrl-S, or a pipe whose
//! reader has gone to sleep: that must cost log lines, never requests.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pilotlight_process::is_dumb_terminal;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::columns::cut;

/// Standard error, queue by the log and the live view. Clones are the same screen.
#[derive(Clone, Debug)]
pub struct Screen {
    queue: Arc<ScreenQueue>,
}

#[derive(Debug, Default)]
struct ScreenQueue {
    pending: Mutex<Pending>,
    /// Signals that there is something to write.
    work: Condvar,
    /// Signals that something has been written.
    progress: Condvar,
}

/// Work that is left for the writing thread.
#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    block: Option<Vec<String>>,
    is_writing: bool,
    /// A line has waited for room in vain, and nothing has been written since.
    is_stalled: bool,
    /// Log events that found no room.
    dropped: u64,
}

/// Fate of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Taken,
    Dropped,
    DroppedAfterAWait,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.block.is_none()
    }
}

impl Screen {
    /// Standard error. Once a process: two of them would draw over each other.
    pub fn stderr() -> io::Result<Screen> {
        Screen::start(io::stderr())
    }

    fn start(out: impl Write + Send + 'static) -> io::Result<Screen> {
        let queue = Arc::new(ScreenQueue::default());
        let screen = Screen { queue: Arc::clone(&queue) };
        let painter = Painter { out, block: Vec::new(), drawn: Vec::new() };
        thread::Builder::new().name("pl-screen".into()).spawn(move || queue.write_all(painter))?;
        Ok(screen)
    }

    /// Whether standard error is a terminal on which rows can be redrawn.
    pub fn is_terminal() -> bool {
        io::stderr().is_terminal() && !is_dumb_terminal()
    }

    /// Columns and rows of standard error.
    pub fn size() -> (usize, usize) {
        terminal_size(io::stderr()).unwrap_or((80, 24))
    }

    /// Replaces the block below the lines.
    pub fn show(&self, block: Vec<String>) {
        self.queue.pending.lock().block = Some(block);
        self.queue.work.notify_one();
    }

    /// Takes the block away for good.
    pub fn clear(&self) {
        self.show(Vec::new());
    }

    /// Returns when everything is written, or when that takes too long.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_PATIENCE;
        let mut pending = self.queue.pending.lock();
        while pending.is_writing || !pending.is_empty() {
            if self.queue.progress.wait_until(&mut pending, deadline).timed_out() {
                return;
            }
        }
    }

    /// Adds a line below those there are. A burst waits for room; a reader that has stopped is waited for once, until
    /// it goes on.
    fn add(&self, line: &[u8]) -> Added {
        let mut pending = self.queue.pending.lock();
        let deadline = Instant::now() + ROOM_PATIENCE;
        while pending.lines.len() + line.len() > MAX_PENDING_BYTES {
            let was_stalled = pending.is_stalled;
            if was_stalled || self.queue.progress.wait_until(&mut pending, deadline).timed_out() {
                pending.is_stalled = true;
                pending.dropped += 1;
                return if was_stalled { Added::Dropped } else { Added::DroppedAfterAWait };
            }
        }
        pending.lines.extend_from_slice(line);
        self.queue.work.notify_one();
        Added::Taken
    }
}

impl ScreenQueue {
    fn write_all(&self, mut painter: Painter<impl Write>) {
        loop {
            let mut pending = self.pending.lock();
            while pending.is_empty() {
                self.work.wait(&mut pending);
            }
            let (lines, block) = (std::mem::take(&mut pending.lines), pending.block.take());
            pending.is_writing = true;
            drop(pending);
            // A terminal that cannot be written to is no reason to stop serving requests.
            let _ = painter.draw(&lines, block);
            if painter.has_block() {
                thread::sleep(FRAME_PAUSE);
            }
            let dropped = {
                let mut pending = self.pending.lock();
                pending.is_writing = false;
                pending.is_stalled = false;
                std::mem::take(&mut pending.dropped)
            };
            self.progress.notify_all();
            if dropped > 0 {
                warn!(lines = dropped, "Log lines dropped: standard error is not read fast enough");
            }
        }
    }
}

/// Draws lines and the block below them.
struct Painter<Out> {
    out: Out,
    block: Vec<String>,
    /// The rows of the block that are on the screen now, by length.
    drawn: Vec<usize>,
}

impl<Out: Write> Painter<Out> {
    fn has_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// Erases the block, writes the lines, and draws the block below them.
    fn draw(&mut self, lines: &[u8], block: Option<Vec<String>>) -> io::Result<()> {
        self.block = block.unwrap_or_else(|| std::mem::take(&mut self.block));
        if self.block.is_empty() && self.drawn.is_empty() {
            return self.out.write_all(lines);
        }
        // In one piece, so that nothing flickers. A terminal that knows of frames shows none that is half drawn.
        let mut frame = Vec::with_capacity(lines.len() + 1024);
        frame.extend_from_slice(FRAME_BEGINS);
        let (width, height) = Screen::size();
        let width = width.max(2);
        let up = height_of(&self.drawn, width).min(height - 1);
        if up > 0 {
            write!(frame, "\x1b[{up}A")?;
        }
        frame.extend_from_slice(ERASE_FROM_LINE_START);
        frame.extend_from_slice(lines);
        self.drawn.clear();
        for row in self.block.iter().take(height - 1) {
            let row = cut(row, width - 1);
            frame.extend_from_slice(row.as_bytes());
            frame.push(b'\n');
            self.drawn.push(row.chars().count());
        }
        frame.extend_from_slice(FRAME_ENDS);
        self.out.write_all(&frame)?;
        self.out.flush()
    }
}

/// Columns and rows of a terminal; `None` if `file` is none, or does not say.
pub(crate) fn terminal_size(file: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(file).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// How many rows of a terminal lines of these lengths take. More than one each if the terminal became narrower
/// since they were drawn: it has wrapped them.
fn height_of(lengths: &[usize], width: usize) -> usize {
    lengths.iter().map(|length| length.div_ceil(width).max(1)).sum()
}

/// One log event on its way to the screen.
pub struct Line {
    screen: Screen,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.screen.add(&self.bytes);
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { screen: self.clone(), bytes: Vec::new() }
    }
}

/// Cursor to the first column, everything from there erased (ECMA-48: CHA, ED).
const ERASE_FROM_LINE_START: &[u8] = b"\x1b[1G\x1b[J";
/// Begin and end of a frame (DEC private mode 2026, synchronized output); other terminals ignore them.
const FRAME_BEGINS: &[u8] = b"\x1b[?2026h";
const FRAME_ENDS: &[u8] = b"\x1b[?2026l";
/// Time between two frames while lines come without a pause: for most of it the block is on the screen.
const FRAME_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of lines that may wait to be written; more than any burst that anybody reads.
const MAX_PENDING_BYTES: usize = 1 << 20;
/// Time a line may wait for room, once a stall: its writer serves requests, too.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);
/// Time limit of the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Writes only while somebody reads, like a pipe that holds nothing.
    struct Pipe {
        bytes: Sender<Vec<u8>>,
        permits: Receiver<()>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.bytes.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pipe() -> (Screen, Sender<()>, Receiver<Vec<u8>>) {
        let (bytes, read) = channel();
        let (permit, permits) = channel();
        (Screen::start(Pipe { bytes, permits }).unwrap(), permit, read)
    }

    #[test]
    fn rows_that_a_narrower_terminal_has_wrapped_are_all_erased() {
        assert_eq!(height_of(&[0, 59, 12], 60), 3);
        assert_eq!(height_of(&[0, 59, 12], 40), 4);
        assert_eq!(height_of(&[0, 59, 12], 12), 1 + 5 + 1);
    }

    #[test]
    fn lines_arrive_in_order_and_whole() {
        let (screen, permit, read) = pipe();
        for number in 0..100 {
            screen.add(format!("{number}\n").as_bytes());
        }
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            permit.send(()).unwrap();
            seen.extend(read.recv().unwrap());
        }
        assert_eq!(String::from_utf8(seen).unwrap(), expected);
        screen.flush();
        assert!(screen.queue.pending.lock().is_empty());
    }

    #[test]
    fn a_reader_that_has_stopped_costs_lines_and_one_wait() {
        let (screen, permit, read) = pipe();
        let line = vec![b'x'; MAX_PENDING_BYTES / 4];
        let added: Vec<Added> = (0..1_000).map(|_| screen.add(&line)).collect();
        let count = |what| added.iter().filter(|&&it| it == what).count();
        assert_eq!(count(Added::DroppedAfterAWait), 1, "it is waited for once");
        let dropped = screen.queue.pending.lock().dropped;
        assert!(dropped >= 990, "{dropped}");
        assert!(screen.queue.pending.lock().lines.len() <= MAX_PENDING_BYTES);

        // The reader goes on, and so does the log.
        permit.send(()).unwrap();
        permit.send(()).unwrap();
        assert!(!read.recv().unwrap().is_empty());
        assert!(!read.recv().unwrap().is_empty());
        screen.flush();
        let pending = screen.queue.pending.lock();
        assert_eq!((pending.dropped, pending.is_stalled, pending.lines.len()), (0, false, 0));
    }
}
