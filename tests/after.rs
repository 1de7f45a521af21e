//! Run after all other tests: whether they have seen every line of `messages.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use std::collections::BTreeSet;
use std::fs;

#[path = "support/messages.rs"]
mod messages;

#[test]
fn every_message_is_produced_by_its_test() {
    let record = messages::record();
    let seen = fs::read_to_string(&record);
    let seen = seen.expect("this is for after a run of all tests: sh tests/run.sh");
    // What was seen this time says nothing of the next.
    fs::remove_file(record).unwrap();
    let seen: BTreeSet<&str> = seen.lines().collect();
    let mut rows = messages::rows();
    assert!(rows.len() > 150, "{} rows", rows.len());
    rows.retain(|(_, line, test)| !seen.contains(format!("{test}\t{line}").as_str()));
    assert!(
        rows.is_empty(),
        "never seen in the test beside it: {rows:#?}"
    );
}
