//! What the project promises of itself.

use std::fs;
use std::process::Command;

use crate::support::files::sources;

/// A file's lines of code: no blank lines, no comments, and nothing from the tests at its end.
fn code(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .collect()
}

#[test]
fn openssl_is_the_only_crypto() {
    let lock = fs::read_to_string("Cargo.lock").unwrap();
    assert!(lock.contains("name = \"openssl\""));
    for other in [
        "rustls",
        "ring",
        "native-tls",
        "aws-lc-rs",
        "sha2",
        "rsa",
        "p256",
    ] {
        assert!(
            !lock.contains(&format!("name = \"{other}\"")),
            "{other} is in the binary"
        );
    }
}

/// Shell scripts are ones that every shell reads.
#[test]
fn the_scripts_parse() {
    for script in [
        "examples/quickstart.sh",
        "examples/lib.sh",
        "examples/renew.sh",
        "tests/run.sh",
        "tests/bench.sh",
    ] {
        let status = Command::new("sh").args(["-n", script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

/// Each row of the table of faults names a test, and says what that test asserts.
#[test]
fn the_table_of_faults_is_true() {
    let files = ["tests/faults.rs", "tests/pebble.rs", "tests/scale.rs"];
    let code = files.map(|path| fs::read_to_string(path).unwrap()).concat();
    let page = fs::read_to_string("tests/README.md").unwrap();
    let table = page
        .split("| fault | what the user sees | test |")
        .nth(1)
        .unwrap();
    let mut count = 0;
    for row in table.lines().filter(|row| row.ends_with("` |")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, seen, test] = cells[..] else {
            panic!("{row}")
        };
        let head = format!("fn {}() {{", test.trim_matches('`'));
        let body = code
            .split(&head)
            .nth(1)
            .unwrap_or_else(|| panic!("no test {test}"));
        let body = body.split("\n}\n").next().unwrap();
        let is_asserted = match seen {
            "the certificate" => body.contains(".issues()") || body.contains(".issued()"),
            text => body.contains(text),
        };
        assert!(is_asserted, "{test} does not assert `{seen}`");
        count += 1;
    }
    assert!(count >= 60, "{count} rows");
}

/// What stands in the source like a message and is none, or only if the program is wrong.
const NO_MESSAGES: [&str; 10] = [
    "no directory has been read",
    "the outcome is unclear",
    "cannot sign with the account key",
    "no reason given",
    // Of a step that is given up; the failure that it is given up for is told instead.
    "the run has failed by now",
    // Only on a file system that knows no modes.
    "the web server may be unable to read",
    "whose mode cannot be changed",
    // OpenSSL's own, by which they are known.
    "unexpected eof while reading",
    "wrong version number",
    // The end of the help.
    "Example:",
];

/// Every text in the source that has words in it is on the list of messages.
#[test]
fn every_message_is_listed() {
    let list = fs::read_to_string("tests/messages.md").unwrap();
    let mut count = 0;
    for path in sources() {
        // What -v shows is not on the list word for word.
        if path.ends_with("trace.rs") || path.ends_with("purpose.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_code = |line: &&&str| !line.contains("reason = ");
        let lines: Vec<&str> = code(&text).iter().filter(is_code).copied().collect();
        for literal in literals(&lines.join("\n")) {
            // What is put in stands in braces.
            let pieces = literal.split('{').map(|piece| match piece.split_once('}') {
                Some((_, after)) => after,
                None => piece,
            });
            for piece in pieces {
                let piece = piece.trim_matches(|c: char| !c.is_alphanumeric() && c != '-');
                let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
                let is_prose = piece.split(' ').filter(is_word).count() > 1;
                if !is_prose || NO_MESSAGES.iter().any(|none| piece.starts_with(none)) {
                    continue;
                }
                assert!(
                    list.contains(piece),
                    "{path:?}: not in messages.md: {piece}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 150, "{count} pieces");
}

/// The string literals of a source, as they are read.
fn literals(code: &str) -> Vec<String> {
    let (mut literals, mut rest) = (Vec::new(), code.replace("'\"'", ""));
    while let Some((_, after)) = rest.split_once('"') {
        let (mut literal, mut chars) = (String::new(), after.chars());
        loop {
            match chars.next() {
                Some('\\') => match chars.next() {
                    // A line that goes on in the next one.
                    Some('\n') => chars = chars.as_str().trim_start().chars(),
                    Some('n') | None => literal.push('\n'),
                    Some(other) => literal.push(other),
                },
                Some('"') | None => break,
                Some(other) => literal.push(other),
            }
        }
        literals.push(literal);
        rest = chars.as_str().to_owned();
    }
    literals
}
