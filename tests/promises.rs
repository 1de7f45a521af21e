//! What the project promises of itself.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The promise that the source can be read in one sitting. A bound, so that growth is noticed: what
/// goes beyond it takes the place of something else, or argues for more in the commit that raises it.
const MAX_LINES: usize = 3000;
const MAX_GET_CRT: usize = 120;

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
fn the_source_is_short() {
    let files = fs::read_dir("src")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let counts: Vec<_> = files
        .map(|path| (code(&fs::read_to_string(&path).unwrap()).len(), path))
        .collect();
    let total: usize = counts.iter().map(|(count, _)| count).sum();
    assert!(total <= MAX_LINES, "{total} lines of code: {counts:#?}");
    the_readme_says(&format!("has at most {MAX_LINES} lines of code"));
}

#[track_caller]
fn the_readme_says(told: &str) {
    let readme = fs::read_to_string("README.md").unwrap();
    let words: Vec<&str> = readme.split_whitespace().collect();
    assert!(words.join(" ").contains(told), "README.md lacks `{told}`");
}

#[test]
fn get_crt_fits_on_two_screens() {
    let text = fs::read_to_string("src/get_crt.rs").unwrap();
    let lines = code(&text)
        .into_iter()
        .skip_while(|line| !line.starts_with("pub fn get_crt("));
    let count = lines.take_while(|line| *line != "}").count() + 1;
    assert!(
        (10..=MAX_GET_CRT).contains(&count),
        "get_crt has {count} lines"
    );
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

#[test]
fn rustfmt_is_not_bent() {
    assert!(!fs::exists("rustfmt.toml").unwrap() && !fs::exists(".rustfmt.toml").unwrap());
    assert!(!fs::exists("build.rs").unwrap());
    for entry in fs::read_dir("src").unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("rustfmt::skip") && !text.contains("include!"));
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

#[test]
fn the_readme_counts_the_dependencies() {
    let tree = [
        "tree",
        "--locked",
        "--offline",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}",
    ];
    let output = Command::new(env!("CARGO")).args(tree).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<&str> = tree
        .lines()
        .filter(|line| !line.starts_with("getcrt "))
        .collect();
    the_readme_says(&format!(
        "Its dependencies, and theirs, are {} packages;",
        packages.len()
    ));
}

/// What stands in the source like a message and is none, or only if the program is wrong.
const NO_MESSAGES: [&str; 8] = [
    "no directory has been read",
    "no reply from",
    "cannot sign with the account key",
    "no reason given",
    // Of a step that is given up; the failure that it is given up for is told instead.
    "the run has failed by now",
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
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        // What -v shows is somebody else's.
        if path.ends_with("trace.rs") {
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
