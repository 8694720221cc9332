//! The target `dns` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skiff_fuzz::run("dns", data));
