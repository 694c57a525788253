//! Each parser, and the files that are tried on it.

use crate::corpus::try_all;

#[test]
fn requests_for_containers_are_taken_or_refused() {
    try_all("create_body", super::create_body);
}

#[test]
fn requests_for_updates_are_taken_or_refused() {
    try_all("update_body", super::update_body);
}

#[test]
fn requests_for_networks_are_taken_or_refused() {
    try_all("network_body", super::network_body);
}

#[test]
fn requests_to_connect_are_taken_or_refused() {
    try_all("connect_body", super::connect_body);
}

#[test]
fn requests_for_volumes_are_taken_or_refused() {
    try_all("volume_body", super::volume_body);
}

#[test]
fn filters_are_taken_or_refused() {
    try_all("filters", super::filters);
}

#[test]
fn queries_are_taken_or_refused() {
    try_all("query", super::query);
}

#[test]
fn accounts_are_taken_or_refused() {
    try_all("registry_auth", super::registry_auth);
}

#[test]
fn instructions_are_taken_or_refused() {
    try_all("changes", super::changes);
}

#[test]
fn words_are_taken_or_refused() {
    try_all("words", super::words);
}
