//! See `pilotlight_tests::properties::request_headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pilotlight_tests::properties::request_headers(bytes));
