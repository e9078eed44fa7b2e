//! Budgets of memory: limits on the bytes that wait, kept by whoever holds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on the bytes that all waiting requests together keep in memory: beginnings of their bodies, and large heads.
/// Clones are the same budget; a [share](ByteBudget::share) has a limit of its own within the limit of the whole.
///
/// Bytes are counted until their reader takes them, or the request is dropped.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    used: AtomicUsize,
    limit: usize,
    whole: Option<ByteBudget>,
}

impl ByteBudget {
    /// A budget of so many bytes, none of them used.
    pub fn new(limit: usize) -> Self {
        ByteBudget::within(limit, None)
    }

    /// A budget of so many bytes whose bytes count against this one, too.
    pub fn share(&self, limit: usize) -> Self {
        ByteBudget::within(limit, Some(self.clone()))
    }

    fn within(limit: usize, whole: Option<ByteBudget>) -> Self {
        ByteBudget { account: Arc::new(Account { used: AtomicUsize::new(0), limit, whole }) }
    }

    /// Bytes that are kept now. They exceed the limit by no more than one piece a thread: a piece that has arrived is not
    /// cut.
    pub fn used(&self) -> usize {
        self.account.used.load(Ordering::Relaxed)
    }

    /// The most bytes, as it was given.
    pub fn limit(&self) -> usize {
        self.account.limit
    }

    /// Whether no more may be kept, here or in the whole.
    pub(crate) fn is_spent(&self) -> bool {
        self.free() == 0
    }

    /// Bytes that may still be kept.
    pub(crate) fn free(&self) -> usize {
        let whole = self.account.whole.as_ref().map_or(usize::MAX, ByteBudget::free);
        self.account.limit.saturating_sub(self.used()).min(whole)
    }

    /// An entry of no bytes, which grows with what is kept.
    pub(crate) fn open(&self) -> Charge {
        Charge { bytes: 0, budget: self.clone() }
    }

    /// Counts bytes that are here already, be there room for them or not.
    pub(crate) fn add(&self, bytes: usize) {
        self.account.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.account.whole {
            whole.add(bytes);
        }
    }

    /// Ends the count of bytes. Returns those that were counted before.
    pub(crate) fn sub(&self, bytes: usize) -> usize {
        if let Some(whole) = &self.account.whole {
            whole.sub(bytes);
        }
        self.account.used.fetch_sub(bytes, Ordering::Relaxed)
    }
}

/// Bytes that are charged to a budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    budget: ByteBudget,
}

impl Charge {
    /// The budget it is charged to.
    pub(crate) fn budget(&self) -> &ByteBudget {
        &self.budget
    }

    /// Counts more bytes, be there room for them or not.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.add(bytes);
    }

    /// Counts so many bytes in all, or what is counted if that is more.
    pub(crate) fn grow_to(&mut self, bytes: usize) {
        self.grow(bytes.saturating_sub(self.bytes));
    }

    /// Counts no bytes any more.
    pub(crate) fn clear(&mut self) {
        self.budget.sub(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_share_keeps_counts_against_the_whole_and_is_bounded_by_both() {
        let whole = ByteBudget::new(10);
        let (one, other) = (whole.share(6), whole.share(6));
        let mut kept = one.open();
        kept.grow(6);
        assert!(one.is_spent() && !other.is_spent() && !whole.is_spent());
        assert_eq!((one.used(), other.used(), whole.used(), other.free()), (6, 0, 6, 4));
        let mut more = other.open();
        more.grow(4);
        assert!(other.is_spent(), "the whole is spent");
        drop((kept, more));
        assert_eq!((one.used(), other.used(), whole.used()), (0, 0, 0));
    }
}
