#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = nuncio_runtime::image::fuzz::layer(bytes);
});
