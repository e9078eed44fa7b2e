//! See `pilotlight_tests::properties::stats`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotlight_tests::properties::stats(bytes));
