//! See [`hodei_fuzz::operations`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hodei_fuzz::operations(data));
