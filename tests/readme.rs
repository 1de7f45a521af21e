//! The README, taken at its word: what it quotes is what a run prints, and what it tells to type works.
//! (Its six steps are followed in `recipes.rs`, with a real web server.)

use crate::faults::self_check::to_getcrt;
use crate::support::files::sources;
use crate::support::prelude::*;

/// The part of the README under this heading.
pub fn section(heading: &str) -> String {
    let readme = text(Path::new("README.md"));
    let (_, rest) = readme
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("there is no `{heading}`"));
    let end = rest.find("\n## ").unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// The indented lines of a section, without their indent.
fn quoted(section: &str) -> Vec<&str> {
    let lines = section.lines();
    lines.filter_map(|line| line.strip_prefix("    ")).collect()
}

/// Whether a line of the README is the same as one that was printed, but for what no two runs have in
/// common: names, paths, numbers, and what a CA or web server says.
fn is_same(quoted: &str, printed: &str) -> bool {
    let differs = |word: &str| {
        word.contains(['/', '.', '`', '+', '_']) || word.contains(|c: char| c.is_ascii_digit())
    };
    let words = |line: &str| -> Vec<String> {
        let line = line.replace(" (private: the CA may reach another server)", "");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (quoted, printed) = (words(quoted), words(printed));
    quoted.len() == printed.len()
        && quoted
            .iter()
            .zip(&printed)
            .all(|(one, other)| one == other || (differs(one) && differs(other)))
}

#[track_caller]
fn is_printed(quoted: &str, outcome: &Outcome) {
    let is_there = outcome.stderr.lines().any(|line| is_same(quoted, line));
    outcome.check(
        &format!("the README's line is not in it: {quoted}"),
        is_there,
    );
}

#[test]
fn lines_are_compared_word_by_word() {
    assert!(is_same(
        "error: order https://a/1: gone",
        "error: order https://b/2: gone"
    ));
    assert!(!is_same(
        "error: order https://a/1: gone",
        "error: order https://b/2: here"
    ));
    assert!(!is_same("a b", "a"));
    assert!(!is_same("Found domains: a.test", "Found domains: none"));
}

/// A setup whose names are the README's.
fn setup_with_the_names_of_the_readme() -> Setup<Pebble> {
    let setup = Setup::with_pebble();
    setup.csr("/", &["example.org", "www.example.org"]);
    setup
}

#[test]
fn the_transcript_is_what_one_sees() {
    let readme = text(Path::new("README.md"));
    let (first_screen, _) = readme.split_once("Two commands").unwrap();
    let lines = quoted(first_screen);
    let command = lines[0].strip_prefix("$ getcrt ").unwrap();
    let setup = setup_with_the_names_of_the_readme();
    fs::create_dir_all(setup.path("acme")).unwrap();
    let outcome = shell(&setup, command);
    outcome.exits(0);
    let printed: Vec<&str> = outcome.stderr.lines().collect();
    let same = printed.iter().zip(&lines[1..]);
    let same = same.filter(|(printed, quoted)| {
        is_same(quoted, printed)
            || quoted.starts_with("This agrees to")
            || quoted.starts_with("Valid until")
    });
    outcome.check("the transcript is another", same.count() == lines.len() - 1);
    outcome.check("it is longer", printed.len() == lines.len() - 1);
    let said = |start: &str| printed.iter().any(|line| line.starts_with(start));
    assert!(said("This agrees to the CA's terms of service: "));
    assert!(
        said("Valid until ")
            && outcome.stderr.contains(", issued by ")
            && outcome.stderr.contains(", 2 names\n")
    );
    setup.verify_pem(
        &text(&setup.path("signed.crt")),
        &["example.org", "www.example.org"],
    );
}

/// What stands behind `getcrt` in a command of the README, typed in the directory of `setup`, with the
/// CA that is there.
fn shell(setup: &Setup<Pebble>, arguments: &str) -> Outcome {
    let arguments = arguments.replace("/var/www/acme-challenge/", "acme/");
    let run = Run::of("sh").args(&["-c"]).arg(format!(
        "{} --directory-url {} --ca-bundle ca.pem --check-port {} {arguments}",
        getcrt_for_a_shell(),
        setup.ca.directory_url(),
        setup.web.port,
    ));
    setup.here(run).outcome()
}

#[test]
fn the_renewal_is_not_due_the_second_time() {
    let section = section("Renewal");
    let command = quoted(&section)[0].strip_prefix("getcrt ").unwrap();
    let setup = setup_with_the_names_of_the_readme();
    shell(&setup, command)
        .exits(0)
        .says("\nRenewing: there is no usable certificate yet\n");
    shell(&setup, command).exits(3).says("Not due before ");
}

/// A setup with a CSR for one name.
fn alone(setup: Setup<FakeCa>) -> Setup<FakeCa> {
    let path = |name: &str| setup.path(name);
    csr(&path("domain.csr"), &path("domain.key"), "/", &["a.test"]);
    setup
}

/// What must be done to see this message.
fn reproduced(message: &str) -> Outcome {
    let known = |part: &str| message.contains(part);
    let misled = |status: &str| {
        alone(Setup::with_fake_ca_and_web(
            |ca| ca,
            to_getcrt(response(status, b"not found")),
        ))
    };
    if known("HTTP 404 with the body") || known("lead to the directory of --acme-dir") {
        return misled("404 Not Found").getcrt().outcome();
    }
    if known("let the web server read the files") {
        return misled("403 Forbidden").getcrt().outcome();
    }
    if known("the CA decides") {
        // Nobody but the CA knows the name.
        let setup = alone(Setup::with_fake_ca(|ca| ca));
        fs::write(setup.path("hosts"), "").unwrap();
        return setup.getcrt().outcome();
    }
    if known("Timeout during connect") {
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("authorization", |reply, count| {
                if count > 0 {
                    let detail = "192.0.2.7: Fetching http://a.test/.well-known/acme-challenge/t: \
                                  Timeout during connect (likely firewall problem)";
                    let error =
                        json!({"type": "urn:ietf:params:acme:error:connection", "detail": detail});
                    reply.edit(|authorization| {
                        authorization["status"] = json!("invalid");
                        authorization["challenges"][0]["status"] = json!("invalid");
                        authorization["challenges"][0]["error"] = error;
                    });
                }
            })
            .tamper("order", |reply, _| {
                reply.edit(|order| order["status"] = json!("invalid"))
            })
        });
        return alone(setup).getcrt().outcome();
    }
    if known("run getcrt again after") {
        let limited = Setup::with_fake_ca(|ca| {
            ca.tamper("newOrder", |reply, _| {
                reply.problem(429, "rateLimited", "too many certificates");
                reply.header("Retry-After", "86400");
            })
        });
        return limited.getcrt().outcome();
    }
    if known("--eab-kid") {
        let elsewhere = Setup::with_fake_ca(|ca| {
            ca.tamper("directory", |reply, _| {
                reply.edit(|directory| directory["meta"]["website"] = json!("https://ca.test/eab"))
            })
            .tamper("newAccount", |reply, _| {
                reply.problem(403, "externalAccountRequired", "who?")
            })
        });
        return elsewhere.getcrt().outcome();
    }
    if known("--ca-bundle") {
        // The root of another CA.
        let (setup, other) = (Setup::with_fake_ca(|ca| ca), https());
        let other = other.root.to_str().unwrap();
        return setup.getcrt().args(&["--ca-bundle", other]).outcome();
    }
    let setup = Setup::with_silent_ca();
    if known("key") && known("certificate") || known("a known account") {
        return setup
            .getcrt()
            .args(&["--account-key", "domain.key"])
            .outcome();
    }
    if known("it looks like a CSR") || known("are swapped") {
        return setup
            .getcrt()
            .args(&["--account-key", "domain.csr"])
            .outcome();
    }
    assert!(
        known("Permission denied"),
        "nothing is known to say: {message}"
    );
    set_mode(setup.directory(), 0o555);
    setup
        .getcrt_without_privileges()
        .args(&["-o", "tls.crt"])
        .outcome()
}

#[test]
fn messages_are_those_of_real_failures() {
    let section = section("When it fails");
    let messages = quoted(&section);
    assert!(messages.len() >= 12, "{messages:#?}");
    for message in messages {
        is_printed(message, &reproduced(message));
    }
}

#[test]
fn walkthrough_is_what_verbose_shows() {
    let section = section("How it works");
    let outcome = setup_with_the_names_of_the_readme()
        .getcrt()
        .arg("-v")
        .outcome();
    outcome.issued();
    let lines: Vec<&str> = quoted(&section);
    let lines: Vec<&str> = lines
        .into_iter()
        .filter(|line| {
            !line.contains("participant") && !line.contains(">>") && !line.starts_with("C->")
        })
        .collect();
    assert!(lines.len() >= 25, "{lines:#?}");
    for line in lines {
        // The beginning of a CSR is enough.
        let line = line.split_inclusive(": \"MII").next().unwrap();
        let is_there = outcome.stderr.lines().any(|printed| {
            is_same(line, printed)
                || (line.ends_with("\"MII") && printed.trim().starts_with("\"csr\": \"MI"))
        });
        outcome.check(&format!("the README's line is not in it: {line}"), is_there);
    }
}

#[test]
fn options_and_exit_statuses_are_those_of_the_help() {
    let help = Run::getcrt().arg("-h").outcome().stdout;
    let section = section("Options");
    let table: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let options = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
        let mut options: Vec<String> = words
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .map(str::to_owned)
            .collect();
        options.sort();
        options.dedup();
        options
    };
    let first_columns: String = table
        .iter()
        .filter_map(|row| row.split('|').nth(1))
        .collect::<Vec<_>>()
        .join(" ");
    let listed = help
        .lines()
        .filter(|line| line.starts_with("      --") || line.starts_with("  -"));
    let listed: String = listed
        .map(|line| line.trim().split("  ").next().unwrap())
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(options(&first_columns), options(&listed));
    let (_, statuses) = help.split_once("Exit status:\n").unwrap();
    for status in statuses.lines() {
        let (number, meaning) = status.trim().split_once("  ").unwrap();
        let row = format!("| {number} | {meaning} |");
        let is_there = table.iter().any(|line| line.replace('`', "") == row);
        assert!(is_there, "the README lacks {row}");
    }
}

/// The tests that the list of harms names are there.
#[test]
fn tests_against_harms_exist() {
    let page = text(Path::new("tests/README.md"));
    let (_, section) = page.split_once("## What must not happen").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut code = String::new();
    for pattern in [
        "tests/*.rs",
        "tests/faults/*.rs",
        "src/*.rs",
        "src/acme/*.rs",
    ] {
        let folder = Path::new(pattern.strip_suffix("/*.rs").unwrap());
        for name in listing(folder) {
            if name.ends_with(".rs") {
                code += &text(&folder.join(name));
            }
        }
    }
    let names: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| harm"))
        .flat_map(|line| {
            line.rsplit_once("| `")
                .unwrap()
                .1
                .split(['`', ' ', ',', '|'])
        })
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() > 60, "{names:?}");
    for name in names {
        assert!(code.contains(&format!("fn {name}()")), "there is no {name}");
    }
}

/// Let's Encrypt's issuers since 2026. Those of a transcript are among them.
const ISSUERS_OF_TODAY: [&str; 4] = ["YE1", "YE2", "YR1", "YR2"];

#[test]
fn transcripts_have_issuers_of_today() {
    let mut count = 0;
    for page in ["README.md", "examples/README.md", "src/README.md"] {
        for line in text(Path::new(page)).lines() {
            if let Some((_, rest)) = line.split_once("Valid until ") {
                let (_, issuer) = rest.split_once("issued by ").unwrap();
                let issuer = issuer.split(',').next().unwrap();
                assert!(ISSUERS_OF_TODAY.contains(&issuer), "{page}: {line}");
                count += 1;
            }
        }
    }
    assert!(count > 0, "there is no transcript");
}

#[test]
fn every_file_is_mentioned() {
    let readme = text(Path::new("README.md"));
    for entry in fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        let path = path.to_str().unwrap();
        let is_mentioned =
            readme.contains(&format!("{path}`")) || readme.contains(&format!("{path} "));
        assert!(
            is_mentioned || path == "examples/lib.sh",
            "{path} is not mentioned"
        );
    }
    // What is named is there.
    for word in readme.split(|c: char| c.is_whitespace() || c == '`' || c == '(' || c == ')') {
        let is_file =
            word.starts_with("src/") || word.starts_with("examples/") || word.starts_with("tests/");
        let word = word.trim_end_matches([',', '.', ';', ':']);
        assert!(!is_file || Path::new(word).exists(), "{word} is not there");
    }
}

/// The guide to the source has a row for each file, and no row for a file that is not there.
#[test]
fn every_source_file_has_a_row_in_the_guide() {
    let guide = text(Path::new("src/README.md"));
    let mut rows: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let sources = sources();
    let mut files: Vec<&str> = sources
        .iter()
        .map(|path| path.strip_prefix("src").unwrap().to_str().unwrap())
        .collect();
    rows.sort_unstable();
    files.sort_unstable();
    assert_eq!(rows, files);
}

/// The builds that take minutes are those of tests/run.sh.
#[test]
fn the_static_build_is_the_one_that_is_tested() {
    let script = text(Path::new("tests/run.sh"));
    let words = |text: &str| -> Vec<String> {
        let text = text
            .replace("\\\n", " ")
            .replace("\"$musl\"", "x86_64-unknown-linux-musl");
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    for command in &quoted(&section("Install"))[1..] {
        let is_run = words(&script).iter().any(|line| line.contains(command));
        assert!(is_run, "tests/run.sh does not do `{command}`");
    }
}

#[test]
fn install_command_works() {
    let section = section("Install");
    let command = quoted(&section)[0].strip_prefix("cargo ").unwrap();
    let bin = directory();
    // With neither optimization nor a place among the user's own programs.
    let status = Command::new("cargo")
        .args(command.split(' '))
        .args(["--quiet", "--debug", "--root"])
        .arg(bin.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(bin.path().join("bin/getcrt").exists());
}
