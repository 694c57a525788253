//! `nuncio`: containers that find each other by name, on one host or on two hundred.

fn main() -> std::process::ExitCode {
    nuncio::main()
}
