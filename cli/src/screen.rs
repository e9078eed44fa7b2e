//! The terminal: lines that scroll by, and a block below them that stays and is redrawn.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::terminal::{Clear, ClearType};
use crossterm::{QueueableCommand, terminal};
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// Standard error, shared by the log and the live view. Clones are the same screen.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    block: Vec<String>,
    /// Rows of the block that are on the screen now.
    drawn: u16,
}

impl Screen {
    /// Whether there is somebody to look at it.
    pub fn is_terminal() -> bool {
        io::stderr().is_terminal()
    }

    /// Replaces the block below the lines.
    pub fn show(&self, block: Vec<String>) {
        let mut state = self.state.lock();
        state.block = block;
        // A terminal that cannot be written to is no reason to stop serving requests.
        let _ = state.draw(b"");
    }

    /// Takes the block away for good.
    pub fn clear(&self) {
        self.show(Vec::new());
    }
}

impl State {
    /// Erases the block, writes the lines, and draws the block below them.
    fn draw(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = io::stderr().lock();
        if self.block.is_empty() && self.drawn == 0 {
            return out.write_all(lines);
        }
        // In one piece, so that nothing flickers.
        let mut frame = Vec::with_capacity(lines.len() + 1024);
        if self.drawn > 0 {
            frame.queue(MoveUp(self.drawn))?;
        }
        frame.queue(MoveToColumn(0))?.queue(Clear(ClearType::FromCursorDown))?;
        frame.extend_from_slice(lines);
        let (width, height) = terminal::size().unwrap_or((80, 24));
        self.drawn = 0;
        for row in self.block.iter().take(usize::from(height.saturating_sub(1))) {
            let row: String = row.chars().take(usize::from(width.saturating_sub(1))).collect();
            frame.extend_from_slice(row.as_bytes());
            frame.push(b'\n');
            self.drawn += 1;
        }
        out.write_all(&frame)?;
        out.flush()
    }
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
        let _ = self.screen.state.lock().draw(&self.bytes);
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { screen: self.clone(), bytes: Vec::new() }
    }
}
