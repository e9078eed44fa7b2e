//! Placeholder charter, replaced below.
