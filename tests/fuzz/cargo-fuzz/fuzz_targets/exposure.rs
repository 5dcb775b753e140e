#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert_eq!(k3k_expose_host_api::fuzz::exposure(bytes), Ok(())));
