//! The beginning of a waiting request's body, read ahead.

use bytes::{Bytes, BytesMut};

use crate::budget::{ByteBudget, Charge};

/// The beginning of one body, charged to a budget until its reader takes it.
pub(crate) struct ReadAhead {
    // One buffer, however small the pieces: a piece of one byte must not cost a hundred.
    bytes: BytesMut,
    charge: Charge,
}

impl ReadAhead {
    pub(crate) fn new(budget: &ByteBudget) -> Self {
        ReadAhead { bytes: BytesMut::new(), charge: budget.open() }
    }

    /// Whether enough has been read ahead, as long as the rest can wait elsewhere.
    pub(crate) fn is_enough(&self) -> bool {
        self.bytes.len() >= READ_AHEAD_BYTES || self.is_full()
    }

    /// Whether the budget has no room for more.
    pub(crate) fn is_full(&self) -> bool {
        self.charge.budget().is_spent()
    }

    pub(crate) fn push(&mut self, piece: &Bytes) {
        self.bytes.extend_from_slice(piece);
        self.charge.grow(piece.len());
    }

    /// Counts bytes that are kept elsewhere.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.charge.grow(bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes, for the reader of the body; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.charge.clear();
        let bytes = std::mem::take(&mut self.bytes);
        (!bytes.is_empty()).then(|| bytes.freeze())
    }
}

/// Bytes of a waiting request's body that are kept in memory, unless its connection has no room for the rest.
const READ_AHEAD_BYTES: usize = 64 * 1024;
