//! The allocator of every program: jemalloc, since it gives memory back.
//!
//! A proxy holds hundreds of times its usual memory while many requests wait, in small pieces of all sizes. Afterwards glibc's
//! malloc keeps most of that for as long as the process lives: of 100 MiB, 70 to 100. jemalloc returns pages that have not
//! been used for a second, in a thread of its own, so that an idle process does so, too. `cargo bench -p pilotlight-tests
//! --bench memory` shows it, and ARCHITECTURE.md has the figures of all candidates.
//!
//! Its settings are compiled in, from `.cargo/config.toml`: two arenas, because each keeps free pages of its own and more
//! than two threads seldom allocate at a time here; a second until free pages are returned; the thread that returns them.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
