//! See `pilotlight_tests::properties::http1_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotlight_tests::properties::http1_response(bytes));
