//! Compiles the programs of `bpf/`, which `src/direct` loads.

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "bpf/rewrite.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let object = Path::new(&variable("OUT_DIR")).join("rewrite.bpf.o");
    let target = match variable("CARGO_CFG_TARGET_ENDIAN").as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    // Where Debian keeps asm/types.h, which the kernel's headers include.
    let headers = format!(
        "/usr/include/{}-linux-gnu",
        variable("CARGO_CFG_TARGET_ARCH")
    );
    let mut command = Command::new(&clang);
    command
        .args([
            "-target", target, "-O2", "-g", "-Wall", "-Wextra", "-Werror",
        ])
        // The object must not tell where it was built.
        .arg("-fdebug-compilation-dir=.")
        .args(["-idirafter", &headers, "-c", SOURCE, "-o"])
        .arg(&object);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!(
            "{clang} cannot compile {SOURCE} ({status}, see above): it needs clang 11 or later and \
             libbpf's headers (Debian: clang, libbpf-dev, linux-libc-dev; packaging/deps.sh build)"
        ),
        Err(error) => panic!(
            "cannot run {clang} to compile {SOURCE}: {error}: install clang (Debian: clang, \
             libbpf-dev; packaging/deps.sh build), or name another one in CLANG"
        ),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
