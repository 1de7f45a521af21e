//! Writes the man page, and completions for bash, zsh and fish, all from the program's own options.
//!
//!     cargo run --example manual -- DIR

#[allow(dead_code, reason = "what the options mean is for the program")]
#[path = "../src/options.rs"]
mod options;

use std::env::args_os;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::options::Options;

/// The man page's sections of terms and their meanings, after those that the options make.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    (
        "EXIT STATUS",
        &[
            ("0", "A certificate was issued, or the dry run passed."),
            (
                "1",
                "It was not. Stdout is empty, a file at --output is as before, and the last lines on stderr \
                 say what failed and why.",
            ),
            ("2", "The command line is wrong."),
            ("3", "--renew found the certificate not due."),
        ],
    ),
    (
        "SIGNALS",
        &[(
            "SIGINT, SIGTERM, SIGHUP",
            "The challenge files and temporary files are removed, then getcrt dies of that signal. A SIGHUP \
             that is ignored at the start, as nohup(1) has it, stays so.",
        )],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "HTTPS_PROXY, ALL_PROXY",
                "The http or https proxy through which the CA is reached. The first that is not empty counts, and \
                 small letters come before capitals, as for curl(1). The look at the challenge files uses none.",
            ),
            (
                "NO_PROXY",
                "Hosts that are reached without it, with commas between them. Names below them are, too.",
            ),
            (
                "SSL_CERT_FILE, SSL_CERT_DIR",
                "A file and a directory of trusted roots, which replace the system's.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            (
                "account.key, domain.csr",
                "Read once each, so pipes will do. The account key must be readable for this user alone.",
            ),
            (
                "acme-dir/TOKEN",
                "A challenge file, for as long as the CA needs it. Foreign files are never touched.",
            ),
            (
                ".getcrt-*",
                "Beside the file at --output, the new chain before it takes that file's place.",
            ),
        ],
    ),
];

/// A line of the shell, and what it is for.
const EXAMPLES: [(&str, &str); 4] = [
    (
        "The account key, the certificate's own key, and a CSR with all names:",
        "openssl genpkey -algorithm RSA -out account.key \\\n  \
           -pkeyopt rsa_keygen_bits:4096\n\
         openssl genpkey -algorithm EC -out domain.key \\\n  \
           -pkeyopt ec_paramgen_curve:P-256\n\
         openssl req -new -key domain.key -subj / -out domain.csr \\\n  \
           -addext subjectAltName=DNS:example.org,DNS:www.example.org",
    ),
    (
        "A first try with a CA whose certificates nobody trusts:",
        "getcrt --account-key account.key --csr domain.csr \\\n  \
           --acme-dir /var/www/acme-challenge/ --staging --dry-run",
    ),
    (
        "A certificate:",
        "getcrt --account-key account.key --csr domain.csr \\\n  \
           --acme-dir /var/www/acme-challenge/ -o signed.crt",
    ),
    (
        "Its renewal by cron, all in one line of the crontab:",
        "17 1,7,13,19 * * * getcrt --renew --quiet --account-key account.key\n  \
           --csr domain.csr --acme-dir /var/www/acme-challenge/ -o signed.crt",
    ),
];

/// Other pages, with what stands after each.
const SEE_ALSO: [(&str, u8, &str); 4] = [
    ("openssl-req", 1, ","),
    ("openssl-genpkey", 1, ","),
    ("crontab", 5, ","),
    ("systemd.timer", 5, ""),
];

fn main() -> Result<()> {
    let directory = args_os().nth(1);
    let directory = directory.context("usage: cargo run --example manual -- DIR")?;
    fs::create_dir_all(&directory)?;
    fs::write(Path::new(&directory).join("getcrt.1"), man_page()?)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Options::command(), "getcrt", &directory)?;
    }
    Ok(())
}

fn man_page() -> Result<String> {
    let man = Man::new(Options::command());
    let mut page = head().to_roff().into_bytes();
    man.render_description_section(&mut page)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    page.extend(below_one_heading(&String::from_utf8(options)?).into_bytes());
    page.extend(tail().to_roff().into_bytes());
    Ok(String::from_utf8(page)?)
}

/// The options' sections as parts of one, and each option's paragraphs below its name.
fn below_one_heading(options: &str) -> String {
    let command = Options::command();
    let headings = command
        .get_arguments()
        .filter_map(|option| option.get_help_heading());
    let mut options = options.replace("\n\n", "\n.IP\n");
    for heading in headings {
        for quote in ["", "\""] {
            let section = format!(".SH {quote}{}{quote}\n", heading.to_uppercase());
            options = options.replace(&section, &format!(".SS \"{heading}\"\n"));
        }
    }
    format!(".SH OPTIONS\n{options}")
}

/// What the page begins with: its name for the index of all pages, and what must be given.
fn head() -> Roff {
    let command = Options::command();
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut roff = Roff::new();
    let version = format!("getcrt {}", env!("CARGO_PKG_VERSION"));
    // Without a date: it would be one of the build, and no two builds would be the same.
    roff.control("TH", ["GETCRT", "1", "\"\"", &version, "User Commands"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!(
        "getcrt - {}",
        about.replacen("Fetch", "fetch", 1)
    ))]);
    roff.control("SH", ["SYNOPSIS"]);
    let mut synopsis = vec![bold("getcrt"), roman(" ["), italic("OPTIONS"), roman("]")];
    for needed in command
        .get_arguments()
        .filter(|option| option.is_required_set())
    {
        let [name, value] = [
            needed.get_long(),
            needed.get_value_names().map(|names| names[0].as_str()),
        ]
        .map(Option::unwrap_or_default);
        synopsis.extend([
            roman(" "),
            bold(format!("--{name}")),
            roman(" "),
            italic(value),
        ]);
    }
    roff.text(synopsis);
    roff
}

/// What the options do not say.
fn tail() -> Roff {
    let mut roff = Roff::new();
    for (title, entries) in SECTIONS {
        roff.control("SH", [title]);
        for (term, meaning) in entries {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["EXAMPLES"]);
    for (i, (told, lines)) in EXAMPLES.into_iter().enumerate() {
        if i > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(told)]);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([roman(lines)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    for (page, section, end) in SEE_ALSO {
        roff.control("BR", [page, &format!("({section}){end}")]);
    }
    roff
}
