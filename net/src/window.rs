//! The flow-control window of a client's HTTP/2 connection (RFC 9113, 5.2): how large it is, and who may leave bytes in it.
//!
//! All streams of a connection share its window. Bytes that nobody reads stay in it, and once it is full no stream gets a
//! byte any more: if requests that wait for their turn filled it, the body of the one whose turn it is could not be read
//! to its end, a deadlock. Therefore a waiting request may leave its stream's window unread only while a part of the
//! connection's remains for the others. Otherwise its body is read ahead on and on, within the budget of what waits, and
//! beyond that the request is refused: see [`hold_while`](crate::hold_while).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use crate::budget::{ByteBudget, Charge};
use crate::h2::{CONNECTION_WINDOW_BYTES, MIN_CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// The window of one client's connection, charged to the budget of all of them.
#[derive(Debug)]
pub(crate) struct ClientWindow {
    bytes: u32,
    /// Waiting requests whose stream's window is left unread.
    unread: AtomicUsize,
    _charge: Charge,
}

impl ClientWindow {
    /// A window for a new connection: the more there are, the smaller, so that all together stay within the budget.
    pub(crate) fn open() -> Arc<Self> {
        ClientWindow::open_in(&WINDOWS)
    }

    fn open_in(windows: &ByteBudget) -> Arc<Self> {
        let share = u32::try_from(windows.free() / SHARES).unwrap_or(u32::MAX);
        let bytes = share.clamp(MIN_CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES);
        let mut charge = windows.open();
        charge.grow(bytes as usize);
        Arc::new(ClientWindow { bytes, unread: AtomicUsize::new(0), _charge: charge })
    }

    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Leaves one stream's window unread; `None`: too many are.
    pub(crate) fn leave_unread(self: &Arc<Self>) -> Option<Unread> {
        // A quarter is for the streams that are read.
        let most = (self.bytes / 4 * 3 / STREAM_WINDOW_BYTES) as usize;
        let one_more = |unread| (unread < most).then_some(unread + 1);
        self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Unread { window: Arc::clone(self) })
    }
}

/// A stream whose window is left unread. Dropped when its body is read again.
#[derive(Debug)]
pub(crate) struct Unread {
    window: Arc<ClientWindow>,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.window.unread.fetch_sub(1, Ordering::Relaxed);
    }
}

static WINDOWS: LazyLock<ByteBudget> = LazyLock::new(|| ByteBudget::new(MAX_WINDOW_BYTES));

/// Bytes of the windows of all clients' connections together, but for the smallest window, which each gets in any case.
const MAX_WINDOW_BYTES: usize = 48 << 20;

/// Part of what is left of them that a new connection gets.
const SHARES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_share_the_budget_and_each_gets_a_window() {
        let windows = ByteBudget::new(MAX_WINDOW_BYTES);
        let open: Vec<_> = (0..1000).map(|_| ClientWindow::open_in(&windows)).collect();
        assert_eq!(open[0].bytes(), CONNECTION_WINDOW_BYTES);
        assert!(open.iter().all(|window| window.bytes() >= MIN_CONNECTION_WINDOW_BYTES));
        assert!(open[15].bytes() > 1 << 20, "as much as Knative's with 15 connections");
        let smallest = 1000 * MIN_CONNECTION_WINDOW_BYTES as usize;
        assert!(windows.used() <= MAX_WINDOW_BYTES + smallest, "{}", windows.used());
        drop(open);
        assert_eq!(windows.used(), 0);
    }

    #[test]
    fn streams_that_are_read_keep_a_part_of_the_window() {
        let window = ClientWindow::open_in(&ByteBudget::new(MAX_WINDOW_BYTES));
        let mut unread: Vec<_> = std::iter::from_fn(|| window.leave_unread()).take(1000).collect();
        let left = window.bytes() as usize - unread.len() * STREAM_WINDOW_BYTES as usize;
        assert!((1..1000).contains(&unread.len()) && left >= 8 * STREAM_WINDOW_BYTES as usize);
        unread.pop();
        assert!(window.leave_unread().is_some(), "a stream that is read again makes room");
        let smallest = ClientWindow::open_in(&ByteBudget::new(0));
        assert!(smallest.leave_unread().is_none());
    }
}
