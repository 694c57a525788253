//! Each parser, and the files that are tried on it.

#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

use corpus::try_all;

#[test]
fn names_are_taken_or_refused() {
    try_all("reference", super::reference);
}

#[test]
fn manifests_are_taken_or_refused() {
    try_all("manifest", super::manifest);
}

#[test]
fn archives_are_taken_or_refused() {
    try_all("tar", super::tar);
}

#[test]
fn layers_are_taken_or_refused() {
    try_all("layer", super::layer);
}

#[test]
fn challenges_are_taken_or_refused() {
    try_all("challenge", super::challenge);
}

#[test]
fn accounts_are_taken_or_refused() {
    try_all("accounts", super::accounts);
}
