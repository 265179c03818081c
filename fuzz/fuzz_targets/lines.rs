//! See [`hodei_fuzz::lines`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hodei_fuzz::lines(data));
