//! What the project promises of itself.

use std::fs;
use std::process::Command;

/// The promise that the source can be read in one sitting.
const MAX_LINES: usize = 2050;
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
    for script in ["examples/quickstart.sh", "examples/lib.sh", "tests/run.sh"] {
        let status = Command::new("sh").args(["-n", script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}
