//! See [`hodei_fuzz::rows`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hodei_fuzz::rows(data));
