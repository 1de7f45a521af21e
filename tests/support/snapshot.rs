//! Whole outputs, compared with what a test expects. What differs from run to run is replaced by a word in brackets.

use std::sync::LazyLock;

use snapbox::data::Inline;
use snapbox::{Assert, Redactions};

/// The patterns, each after the word that replaces its group `redacted`, or all of the match if it has no such group.
const PATTERNS: [(&str, &str); 8] = [
    (
        "[PORT]",
        r"(?:localhost|test|[0-9\]]):(?<redacted>\d{4,5})\b",
    ),
    ("[DIRECTORY]", r"(?<redacted>/[^ ]*/getcrt-test-\w+)"),
    ("[TIME]", r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT"),
    ("[SECONDS]", r"\b(?<redacted>\d+) s\b"),
    ("[TOKEN]", r"(?<redacted>tOkEn-_+)\d"),
    ("[TOKEN]", r"(?:^|[^\w-])(?<redacted>[\w-]{43})(?:[^\w-]|$)"),
    (
        "[ID]",
        r"Pebble (?:Intermediate|Root) CA (?<redacted>[0-9a-f]{6})",
    ),
    (
        "[ID]",
        r"/(?:my-account|my-order|authZ|chalZ|certZ|finalize-order)/(?<redacted>[A-Za-z0-9_-]+)",
    ),
];

static REDACTIONS: LazyLock<Redactions> = LazyLock::new(|| {
    let mut redactions = Redactions::new();
    for (word, pattern) in PATTERNS {
        let pattern = regex::Regex::new(pattern).unwrap();
        redactions.insert(word, pattern).unwrap();
    }
    redactions
});

/// Compares an output with a snapshot. With `SNAPSHOTS=overwrite` in the environment, it puts the output into the
/// test instead.
#[track_caller]
pub fn assert_is(actual: &str, expected: Inline) {
    let assert = Assert::new()
        .action_env("SNAPSHOTS")
        .redact_with(REDACTIONS.clone())
        .normalize_paths(false);
    assert.eq(actual.to_owned(), expected);
}
