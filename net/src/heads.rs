//! The memory of large heads: of those that arrive, and of requests that wait for their response, wherever they do.
//!
//! A head stays whole until the response begins: it may have to be sent again. Heads up to [`USUAL_BYTES`] are not counted,
//! so that a usual request touches no budget; the limits on connections and streams bound those.

use std::sync::LazyLock;

use crate::Error;
use crate::budget::{ByteBudget, Charge};
use crate::fields::FIELD_BYTES;

/// A head, charged to the budget of all large heads until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct HeldHead {
    // None: it is not large.
    charge: Option<Charge>,
}

impl HeldHead {
    /// Counts an incomplete head of so many bytes. The error is [`Error::NoRoom`].
    pub(crate) fn arrives(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= USUAL_BYTES {
            return Ok(());
        }
        if BUDGET.is_spent() {
            return Err(Error::NoRoom);
        }
        self.charge.get_or_insert_with(|| BUDGET.open()).grow_to(bytes);
        Ok(())
    }

    /// Counts a complete head with so many bytes of text and so many fields. It is refused with [`Error::NoRoom`] unless it
    /// was counted already.
    pub(crate) fn is_complete(&mut self, text: usize, fields: usize) -> Result<(), Error> {
        let bytes = text + fields * FIELD_BYTES;
        match &mut self.charge {
            Some(charge) => charge.grow_to(bytes),
            None => self.arrives(bytes)?,
        }
        Ok(())
    }
}

/// All large heads of the process.
static BUDGET: LazyLock<ByteBudget> = LazyLock::new(|| ByteBudget::new(MAX_BYTES));

/// Bytes of all large heads together. A client that sends more is told to come back.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of a head that is not counted.
const USUAL_BYTES: usize = 16 * 1024;
