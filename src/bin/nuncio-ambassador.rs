//! The ambassador alone, for an image of its own.

fn main() -> std::process::ExitCode {
    nuncio::sidecar()
}
