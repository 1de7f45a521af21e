//! The list in `messages.md` as it is written, and where it is noted which of it was seen.

use std::fs;
use std::path::PathBuf;

/// Each row: whether it is a cause, the line, and the test that produces it.
pub fn rows() -> Vec<(bool, String, String)> {
    let (mut rows, mut is_cause) = (Vec::new(), false);
    for line in fs::read_to_string("tests/messages.md").unwrap().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            is_cause = heading.starts_with("CAUSE");
        }
        // A line with a backtick in it stands between two of them and a space.
        let row = line.strip_prefix("| `").and_then(|row| {
            let (said, test) = row.strip_suffix("` |")?.rsplit_once("` | `")?;
            let apart = said.strip_prefix("` ").and_then(|s| s.strip_suffix(" `"));
            Some((apart.unwrap_or(said), test))
        });
        rows.extend(row.map(|(said, test)| (is_cause, said.to_owned(), test.to_owned())));
    }
    rows
}

/// A line for each line of the list that was seen: the test, a tab, and the line.
pub fn record() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("messages-seen")
}
