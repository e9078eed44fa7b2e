//! The beginning of a waiting request's body, read ahead, and the budget that bounds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

/// A limit on the bytes of bodies that all waiting requests together keep in memory. Clones are the same budget.
///
/// A body that was read ahead draws on it until its reader takes the bytes, or the body is dropped.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    used: AtomicUsize,
    limit: usize,
}

impl ByteBudget {
    /// A budget of so many bytes, none of them used.
    pub fn new(limit: usize) -> Self {
        ByteBudget { account: Arc::new(Account { used: AtomicUsize::new(0), limit }) }
    }

    /// Bytes that are kept now. They exceed the limit by no more than one piece a thread: a piece that has arrived is not
    /// cut.
    pub fn used(&self) -> usize {
        self.account.used.load(Ordering::Relaxed)
    }

    fn is_spent(&self) -> bool {
        self.used() >= self.account.limit
    }
}

/// The beginning of one body, charged to a budget.
pub(crate) struct ReadAhead {
    // One buffer, however small the pieces: a piece of one byte must not cost a hundred.
    bytes: BytesMut,
    budget: ByteBudget,
}

impl ReadAhead {
    pub(crate) fn new(budget: &ByteBudget) -> Self {
        ReadAhead { bytes: BytesMut::new(), budget: budget.clone() }
    }

    /// Whether more may be read ahead.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < READ_AHEAD_BYTES && !self.budget.is_spent()
    }

    pub(crate) fn push(&mut self, piece: &Bytes) {
        self.bytes.extend_from_slice(piece);
        self.budget.account.used.fetch_add(piece.len(), Ordering::Relaxed);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes, for the reader of the body; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.give_back();
        let bytes = std::mem::take(&mut self.bytes);
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    fn give_back(&self) {
        self.budget.account.used.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Bytes of a waiting request's body that are kept in memory.
const READ_AHEAD_BYTES: usize = 64 * 1024;
