//! A limit on what runs at once, with a bounded queue in front.
