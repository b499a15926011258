#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rehome_fuzz::check("amqp_front", input));
