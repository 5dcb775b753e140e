#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let mut lines = k3k_expose_proto::line::Lines::default();
    while let Ok(Some(line)) = lines.next(&mut rest) {
        let _ = k3k_expose_proto::line::decode::<k3k_expose_proto::FromAgent>(line);
        let _ = k3k_expose_proto::line::decode::<k3k_expose_proto::FromHost>(line);
    }
});
