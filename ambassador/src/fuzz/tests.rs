//! Each parser, and the files that are tried on it.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

use corpus::try_all;

#[test]
fn configurations_are_taken_or_refused() {
    try_all("config", super::config);
}

#[test]
fn environments_are_taken_or_refused() {
    try_all("environment", super::environment);
}

#[test]
fn proxy_headers_are_taken_or_refused() {
    try_all("proxy_header", super::proxy_header);
}

#[test]
fn server_names_are_read_or_refused() {
    try_all("server_name", super::server_name);
}
