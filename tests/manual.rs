//! The man page and the completions, made from the options, in the programs that they are for; and the
//! list of what a package has.

use crate::support::prelude::*;
use tempfile::TempDir;

use crate::cli::grouped;
use crate::support::is_skipped;

/// A directory with what the example program writes.
fn made() -> TempDir {
    let made = directory();
    let run = Run::of(env!("CARGO")).args(&["run", "--locked", "--offline", "--quiet"]);
    let run = run.args(&["--example", "manual", "--"]).arg(made.path());
    run.outcome().exits(0);
    made
}

/// Every long option, as the program itself tells them.
fn options() -> Vec<String> {
    let help = Run::getcrt().arg("--help").outcome().stdout;
    grouped(&help)
        .into_iter()
        .flat_map(|(_, names)| names)
        .collect()
}

/// What a shell offers where a tab follows `line`, by a script that prints it. It may read until it has
/// seen `last`.
fn offered(shell: &[&str], script: &str, made: &Path, [line, last]: [&str; 2]) -> Outcome {
    let run = Run::of("timeout").arg("60").args(shell);
    let run = run.args(&["-c", script]).env("MADE", made);
    // Not the user's own home, whose settings might complete something else.
    let mut run = run.env("HOME", made).env("LINE", line).env("LAST", last);
    run.command.current_dir(made);
    let outcome = run.outcome();
    outcome.exits(0);
    outcome
}

/// Completes an option, all options, and the name of a file.
fn completes(shell: &[&str], script: &str, made: &Path) {
    fs::write(made.join("my.csr"), "").unwrap();
    let offered = |line, last| offered(shell, script, made, [line, last]);
    let is_offered = |outcome: &Outcome, wanted: &str| {
        let mut words = outcome.stdout.split_whitespace();
        outcome.check(&format!("no {wanted}"), words.any(|word| word == wanted));
    };
    let outcome = offered("getcrt --acc", "--account-key");
    is_offered(&outcome, "--account-key");
    outcome.check("more than asked", !outcome.stdout.contains("--csr"));
    let outcome = offered("getcrt --", "--version");
    for option in options() {
        is_offered(&outcome, &option);
    }
    is_offered(&offered("getcrt --csr m", "my.csr"), "my.csr");
}

#[test]
fn the_man_page_tells_all() {
    let made = made();
    let page = fs::read_to_string(made.path().join("getcrt.1")).unwrap();
    let mut rest = page.as_str();
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "EXIT STATUS",
        "SIGNALS",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        let heads = [
            format!("\n.SH {section}\n"),
            format!("\n.SH \"{section}\"\n"),
        ];
        let head = heads.iter().find(|head| rest.contains(*head));
        let head = head.unwrap_or_else(|| panic!("no {section} there\n{page}"));
        rest = rest.split_once(head.as_str()).unwrap().1;
    }
    for group in ["Required", "Output", "CA", "Renewal", "Checks", "Messages"] {
        assert!(
            page.contains(&format!("\n.SS \"{group}\"\n")),
            "{group}\n{page}"
        );
    }
    for option in options() {
        let entry = format!("\\fB{}\\fR", option.replace('-', "\\-"));
        assert!(page.contains(&entry), "{option}\n{page}");
    }
}

/// What cargo-deb packs is here, or is made here, and no example for a user's machine is left out.
#[test]
fn the_package_has_all() {
    let made = made();
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let mut packed = Vec::new();
    for line in manifest.lines().filter(|line| line.starts_with("    [\"")) {
        let words: Vec<&str> = line.split('"').collect();
        let [_, from, _, to, _, mode, _] = words[..] else {
            panic!("{line}")
        };
        let is_there = match from.strip_prefix("target/manual/") {
            Some(name) => made.path().join(name).is_file(),
            None => from == "target/release/getcrt" || Path::new(from).is_file(),
        };
        assert!(is_there, "{line}");
        assert!(
            to.starts_with("usr/") && matches!(mode, "644" | "755"),
            "{line}"
        );
        packed.push(from);
    }
    for name in listing(made.path()) {
        assert!(
            packed.contains(&format!("target/manual/{name}").as_str()),
            "{name}"
        );
    }
    for name in listing(Path::new("examples")) {
        // These need the source.
        let is_ours = matches!(name.as_str(), "lib.sh" | "manual.rs" | "quickstart.sh");
        let is_packed = packed.contains(&format!("examples/{name}").as_str());
        assert!(is_ours != is_packed, "examples/{name}");
    }
}

#[test]
fn man_shows_the_page_without_complaint() {
    if is_skipped("the man page", &["man"]) {
        return;
    }
    let made = made();
    let page = made.path().join("getcrt.1");
    let man = |arguments: &[&str]| {
        let run = Run::of("man").args(arguments).arg("-l").arg(&page);
        let run = run.env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
        run.outcome()
    };
    let checked = man(&["--warnings", "-E", "UTF-8", "-Tutf8", "-Z"]);
    checked
        .exits(0)
        .check("a warning", checked.stderr.is_empty());
    let shown = man(&["-P", "cat"]);
    shown.exits(0);
    for text in [
        "getcrt - fetch a TLS certificate",
        "--account-key FILE --csr FILE --acme-dir DIR",
        "--eab-hmac-key <FILE>",
        "openssl-req(1)",
        "17 1,7,13,19 * * * getcrt --renew",
    ] {
        shown.check(&format!("no `{text}`"), shown.stdout.contains(text));
    }
    let wide = shown.stdout.lines().find(|line| line.chars().count() > 80);
    shown.check(&format!("too wide: {wide:?}"), wide.is_none());
}

#[test]
fn bash_completes() {
    let made = made();
    // What bash does at a tab: it calls the function with the word before the cursor.
    let script = r#"
        source "$MADE/getcrt.bash"
        read -ra COMP_WORDS <<<"$LINE"
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        COMP_LINE=$LINE COMP_POINT=${#LINE}
        function=$(complete -p getcrt | sed 's/.*-F \([^ ]*\) .*/\1/')
        "$function" getcrt "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    completes(&["bash", "--norc", "--noprofile"], script, made.path());
    let parsed = Run::of("bash")
        .arg("-n")
        .arg(made.path().join("getcrt.bash"));
    parsed.outcome().exits(0);
}

#[test]
fn zsh_completes() {
    if is_skipped("completion by zsh", &["zsh"]) {
        return;
    }
    let made = made();
    // zsh completes in its line editor alone, so one zsh types into another's terminal.
    let script = r#"
        zmodload zsh/zpty
        zpty shell env TERM=dumb zsh -f -i
        zpty -w shell 'PS1=; stty -echo; COLUMNS=200 LINES=200; bindkey "^I" list-choices'
        zpty -w shell 'fpath=("$MADE" $fpath); autoload -U compinit; compinit -u -D; print re""ady'
        zpty -r -m shell seen '*ready*'
        zpty -w -n shell "$LINE"$'\t'
        zpty -r -m shell seen "*${LAST}[[:space:]]*" && print -r -- "$seen"
    "#;
    completes(&["zsh", "-f"], script, made.path());
}

#[test]
fn fish_completes() {
    if is_skipped("completion by fish", &["fish"]) {
        return;
    }
    let made = made();
    let script = r#"source "$MADE/getcrt.fish"; and complete -C "$LINE""#;
    completes(&["fish", "--no-config"], script, made.path());
}
