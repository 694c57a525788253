#!/usr/bin/env bash
# Says how to get a Rust toolchain that builds nuncio, if there is none. Installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -1)
how="get it from https://rustup.rs: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt"

if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    echo "nuncio needs Rust $need or later, and there is no cargo on PATH; $how" >&2
    exit 1
fi
have=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$need" "${have%%-*}" | sort -V | head -1)" != "$need" ]; then
    echo "nuncio needs Rust $need or later, this is $have; with rustup: rustup update stable; without, $how" >&2
    exit 1
fi
