//! See `pilotlight_tests::properties::forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotlight_tests::properties::forwarded(bytes));
