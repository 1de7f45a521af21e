//! The command line, and bad input: what is refused before anything is asked of a CA.

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use snapbox::data::Inline;

use crate::support::prelude::*;
use crate::support::setup::OLD_CERTIFICATE;
use crate::support::silent_ca::SilentCa;

/// The names of the options in a help text, by the headings over them.
pub fn grouped(help: &str) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for line in help.lines() {
        let is_option = line.starts_with("      --") || line.starts_with("  -");
        let name = line.split([' ', ',']).find(|word| word.starts_with("--"));
        match (line.strip_suffix(':'), name) {
            (Some(heading), _) if !line.starts_with(' ') => {
                groups.push((heading.to_owned(), Vec::new()));
            }
            (_, Some(name)) if is_option => {
                // What may be given twice is shown with dots.
                let name = name.trim_end_matches('.').to_owned();
                groups.last_mut().unwrap().1.push(name);
            }
            _ => (),
        }
    }
    groups.retain(|(_, names)| !names.is_empty());
    groups
}

#[test]
fn version_is_that_of_the_package() {
    let version = Run::getcrt().arg("-V").outcome();
    version.exits(0).check(
        "it is another version",
        version.stdout == format!("getcrt {}\n", env!("CARGO_PKG_VERSION")),
    );
}

#[test]
fn help_fits_a_terminal_and_shows_an_example() {
    let [short, long] = short_and_long_help();
    for outcome in [&short, &long] {
        for text in [
            "\nUsage: getcrt [OPTIONS] --account-key <FILE> --csr <FILE> --acme-dir <DIR>\n",
            "\n  getcrt --account-key account.key --csr domain.csr \\\n",
            "\nExit status:",
        ] {
            outcome.check(&format!("no `{text}`"), outcome.stdout.contains(text));
        }
        let wide = |line: &&str| line.chars().count() > 80;
        let wide = outcome.stdout.lines().find(wide);
        outcome.check(&format!("too wide: {wide:?}"), wide.is_none());
    }
    let is_shorter = short.stdout.lines().count() * 2 < long.stdout.lines().count();
    short.check("-h is not the short one", is_shorter);
    let cron = "\n  17 1,7,13,19 * * * getcrt --renew --quiet --account-key account.key\n";
    long.check("no cron line", long.stdout.contains(cron));
}

#[test]
fn short_and_long_help_list_the_same_options() {
    let [short, long] = short_and_long_help();
    let groups = grouped(&long.stdout);
    let headings: Vec<&str> = groups.iter().map(|(heading, _)| heading.as_str()).collect();
    let wanted = ["Required", "Output", "CA", "Renewal", "Checks", "Messages"];
    assert_eq!(headings, wanted, "{long}");
    assert_eq!(grouped(&short.stdout), groups);
    // Each option is listed once.
    let mut names: Vec<&String> = groups.iter().flat_map(|(_, names)| names).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert!(names.len() == count && count == 23, "{names:?}");
}

fn short_and_long_help() -> [Outcome; 2] {
    ["-h", "--help"].map(|option| {
        let help = Run::getcrt().arg(option).outcome();
        help.exits(0);
        help
    })
}

#[test]
fn verbose_may_be_given_more_than_once() {
    let setup = Setup::with_silent_ca();
    for verbose in [&["-v"][..], &["-vv"], &["-v", "--verbose"], &["-vvv"]] {
        let run = setup.getcrt().args(verbose);
        setup.run_fails(
            run.args(&["--account-key", "missing.key"]),
            str![[r#"
Parsing account key...
error: --account-key missing.key: No such file or directory (os error 2)

"#]],
        );
    }
}

#[test]
fn what_must_be_a_number_is_explained() {
    let setup = Setup::with_silent_ca();
    let is_wrong = |arguments: &[&str], stderr: Inline| {
        wrong_usage(setup.getcrt().args(arguments)).stderr_is(stderr);
    };
    is_wrong(
        &["--timeout", "abc"],
        str![[r#"
error: invalid value 'abc' for '--timeout <SECONDS>': this must be a number of seconds from 1 to 1000000

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--check-port", "http"],
        str![[r#"
error: invalid value 'http' for '--check-port <PORT>': this must be a port from 1 to 65535

For more information, try '--help'.

"#]],
    );
}

#[test]
fn wrong_usage_is_explained() {
    let setup = Setup::with_silent_ca();
    let is_wrong = |arguments: &[&str], stderr: Inline| {
        wrong_usage(setup.getcrt().args(arguments)).stderr_is(stderr);
    };
    is_wrong(
        &["--nonsense"],
        str![[r#"
error: unexpected argument '--nonsense' found

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["stray"],
        str![[r#"
error: unexpected argument 'stray' found

Usage: getcrt [OPTIONS] --account-key <FILE> --csr <FILE> --acme-dir <DIR>

For more information, try '--help'.

"#]],
    );
    // This one could be --directory-url or --disable-check.
    is_wrong(
        &["--di"],
        str![[r#"
error: unexpected argument '--di' found

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--ca", &setup.ca.base_url()],
        str![[r#"
error: the argument '--ca <URL>' cannot be used with '--directory-url'

Usage: getcrt [OPTIONS] --account-key <FILE> --csr <FILE> --acme-dir <DIR>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--staging"],
        str![[r#"
error: the argument '--directory-url <URL>' cannot be used with '--staging'

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--check-port", "0"],
        str![[r#"
error: invalid value '0' for '--check-port <PORT>': this must be a port from 1 to 65535

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--contact", ""],
        str![[r#"
error: invalid value '' for '--contact [<C>...]': the address is empty

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--contact", "a@a.test,b@b.test"],
        str![[r#"
error: invalid value 'a@a.test,b@b.test' for '--contact [<C>...]': one address each: write --contact a@example.org b@example.org

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--renew"],
        str![[r#"
error: the following required arguments were not provided:
  --output <FILE>

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --output <FILE> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --renew

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--is-due"],
        str![[r#"
error: the following required arguments were not provided:
  --output <FILE>

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --output <FILE> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --is-due

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--is-due", "-o", "x.crt", "--renew"],
        str![[r#"
error: the argument '--is-due' cannot be used with '--renew'

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --is-due --output <FILE>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--is-due", "-o", "x.crt", "--dry-run"],
        str![[r#"
error: the argument '--is-due' cannot be used with '--dry-run'

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --is-due --output <FILE>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--ca", &setup.ca.base_url(), "--staging"],
        str![[r#"
error: the argument '--directory-url <URL>' cannot be used with '--staging'

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --ca <URL>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--quiet", "-v"],
        str![[r#"
error: the argument '--quiet' cannot be used with '--verbose...'

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --quiet

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--quiet", "--verbose"],
        str![[r#"
error: the argument '--quiet' cannot be used with '--verbose...'

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE> --quiet

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--check-port", "65536"],
        str![[r#"
error: invalid value '65536' for '--check-port <PORT>': this must be a port from 1 to 65535

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--timeout", "0"],
        str![[r#"
error: invalid value '0' for '--timeout <SECONDS>': this must be a number of seconds from 1 to 1000000

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--timeout", "soon"],
        str![[r#"
error: invalid value 'soon' for '--timeout <SECONDS>': this must be a number of seconds from 1 to 1000000

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--contact", "mailto:a@a.test?subject=x"],
        str![[r#"
error: invalid value 'mailto:a@a.test?subject=x' for '--contact [<C>...]': one address each: write --contact a@example.org b@example.org

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--eab-kid", "kid-1"],
        str![[r#"
error: the following required arguments were not provided:
  --eab-hmac-key <FILE>

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --eab-kid <ID> --eab-hmac-key <FILE> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE>

For more information, try '--help'.

"#]],
    );
    is_wrong(
        &["--eab-hmac-key", "domain.key"],
        str![[r#"
error: the following required arguments were not provided:
  --eab-kid <ID>

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR> --eab-hmac-key <FILE> --eab-kid <ID> --directory-url <URL> --check-port <PORT> --timeout <SECONDS> --ca-bundle <FILE>

For more information, try '--help'.

"#]],
    );
    wrong_usage(Run::getcrt()).stderr_is(str![[r#"
error: the following required arguments were not provided:
  --account-key <FILE>
  --csr <FILE>
  --acme-dir <DIR>

Usage: getcrt --account-key <FILE> --csr <FILE> --acme-dir <DIR>

For more information, try '--help'.

"#]]);
    assert!(!setup.ca.was_asked());
}

#[track_caller]
fn wrong_usage(run: Run) -> Outcome {
    let outcome = run.outcome();
    outcome
        .exits(2)
        .check("stdout is not empty", outcome.stdout.is_empty());
    outcome
}

#[test]
fn account_key_that_cannot_be_read_is_refused() {
    let setup = Setup::with_silent_ca();
    let account = setup.path("account.key");
    let is_refused = |stderr: Inline| setup.fails(stderr);

    set_mode(&account, 0o000);
    setup.run_fails(
        setup.getcrt_without_privileges(),
        str![[r#"
Parsing account key...
error: --account-key account.key: Permission denied (os error 13)
hint: getcrt runs as the user with the id [..]: run it as another one, or change the permissions

"#]],
    );
    fs::remove_file(&account).unwrap();
    is_refused(str![[r#"
Parsing account key...
error: --account-key account.key: No such file or directory (os error 2)

"#]]);
    fs::create_dir(&account).unwrap();
    is_refused(str![[r#"
Parsing account key...
error: --account-key account.key: Is a directory (os error 21)

"#]]);
    fs::remove_dir(&account).unwrap();
    fs::write(&account, "").unwrap();
    is_refused(str![[r#"
Parsing account key...
error: --account-key account.key: the file is empty

"#]]);
    fs::write(&account, vec![b'x'; 5 << 20]).unwrap();
    is_refused(str![[r#"
Parsing account key...
error: --account-key account.key: the file is too large, with 4 MiB or more

"#]]);
}

#[test]
fn file_without_an_account_key_is_refused() {
    let setup = Setup::with_silent_ca();
    let is_refused = |content: &str, stderr: Inline| {
        fs::write(setup.path("account.key"), content).unwrap();
        setup.fails(stderr);
    };
    let domain_key = setup.path("domain.key");
    let public = openssl(&["pkey", "-in", domain_key.to_str().unwrap(), "-pubout"]);
    let certificate = self_signed(setup.directory(), "/CN=x", &["x.test"], "2");
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    is_refused(
        "nonsense",
        str![[r#"
Parsing account key...
error: --account-key account.key: there is no PEM in it

"#]],
    );
    is_refused(
        &public,
        str![[r#"
Parsing account key...
error: --account-key account.key: no usable private key in it; it looks like a public key

"#]],
    );
    is_refused(
        &text(&setup.path("domain.csr")),
        str![[r#"
Parsing account key...
error: --account-key account.key: no usable private key in it; it looks like a CSR
hint: check whether --account-key and --csr are swapped

"#]],
    );
    is_refused(
        &text(&certificate),
        str![[r#"
Parsing account key...
error: --account-key account.key: no usable private key in it; it looks like a certificate

"#]],
    );
    is_refused(
        &with_a_wrong_byte(&text(&domain_key)),
        str![[r#"
Parsing account key...
error: --account-key account.key: the private key in it is damaged, or of a kind that OpenSSL does not know

"#]],
    );
    is_refused(
        &pem("OPENSSH PRIVATE KEY"),
        str![[r#"
Parsing account key...
error: --account-key account.key: no usable private key in it; it looks like a key in OpenSSH's own format

"#]],
    );
    is_refused(
        &pem("X509 CRL"),
        str![[r#"
Parsing account key...
error: --account-key account.key: this file holds no private key, but PEM of another kind

"#]],
    );
}

/// Damages what a PEM file holds.
fn with_a_wrong_byte(pem: &str) -> String {
    pem.replacen("\nM", "\nA", 1)
}

#[test]
fn account_key_of_an_unsuitable_kind_is_refused() {
    let setup = Setup::with_silent_ca();
    let is_refused = |kind: &str, stderr: Inline| {
        key(&setup.path("account.key"), kind);
        setup.fails(stderr);
    };
    is_refused(
        "RSA:1024",
        str![[r#"
Parsing account key...
error: --account-key account.key: this RSA key has 1024 bits, and CAs take 2048 to 4096

"#]],
    );
    is_refused(
        "RSA:4224",
        str![[r#"
Parsing account key...
error: --account-key account.key: this RSA key has 4224 bits, and CAs take 2048 to 4096

"#]],
    );
    is_refused(
        "EC:secp256k1",
        str![[r#"
Parsing account key...
error: --account-key account.key: this EC key is on another curve than P-256, P-384 and P-521

"#]],
    );
    is_refused(
        "X25519",
        str![[r#"
Parsing account key...
error: --account-key account.key: this private key is neither RSA, P-256, P-384, P-521 nor Ed25519

"#]],
    );
    is_refused(
        "ED448",
        str![[r#"
Parsing account key...
error: --account-key account.key: this private key is neither RSA, P-256, P-384, P-521 nor Ed25519

"#]],
    );
}

#[test]
fn encrypted_account_key_is_refused_without_a_prompt() {
    let setup = Setup::with_silent_ca();
    let account = setup.path("account.key");
    for format in ["pkcs8", "traditional"] {
        let plain = setup.path("plain.key");
        openssl(&["genrsa", "-out", plain.to_str().unwrap(), "2048"]);
        let mut arguments = vec![
            "rsa",
            "-aes128",
            "-passout",
            "pass:secret",
            "-in",
            plain.to_str().unwrap(),
        ];
        arguments.extend(["-out", account.to_str().unwrap()]);
        if format == "traditional" {
            arguments.push("-traditional");
        }
        openssl(&arguments);
        set_mode(&account, 0o600);
        setup.fails(str![[r#"
Parsing account key...
error: --account-key account.key: this key is encrypted, and getcrt never asks for a passphrase
hint: decrypt it with `openssl pkey -in KEY -out PLAINKEY`

"#]]);
    }
}

/// A user whose CSR was made by these options of `openssl req`.
fn with_csr_by(options: &str) -> Setup<SilentCa> {
    let setup = Setup::with_silent_ca();
    let csr = setup.path("domain.csr");
    let mut arguments = vec![
        "req",
        "-new",
        "-nodes",
        "-keyout",
        "/dev/null",
        "-subj",
        "/",
    ];
    arguments.extend(["-out", csr.to_str().unwrap()]);
    arguments.extend(options.split(' '));
    openssl(&arguments);
    setup
}

#[test]
fn csr_that_no_ca_takes_is_refused() {
    let name = "-addext subjectAltName=DNS:a.test";
    let small = with_csr_by(&format!("{name} -newkey rsa:1024"));
    small.fails(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR's RSA key has 1024 bits, and CAs take 2048 or more

"#]]);
    let rsa = with_csr_by(&format!("{name} -newkey rsa:2048 -sha1"));
    rsa.fails(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR is signed with SHA-1, which CAs do not take; make it again with -sha256

"#]]);
    let ec = with_csr_by(&format!(
        "{name} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha1"
    ));
    ec.fails(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR is signed with SHA-1, which CAs do not take; make it again with -sha256

"#]]);
    let address = with_csr_by("-newkey rsa:2048 -addext subjectAltName=DNS:192.0.2.1");
    address.fails(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR has the IP address 192.0.2.1 as a DNS name; write it as IP:192.0.2.1

"#]]);
}

/// Let's Encrypt would refuse these when all names are proven. Other CAs may take them.
#[test]
fn csr_that_lets_encrypt_does_not_take_is_a_warning() {
    let name = "-addext subjectAltName=DNS:a.test";
    for (options, warning) in [
        (
            "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
            "has a key on the curve P-521",
        ),
        ("-newkey ed25519", "has an Ed25519 key"),
        (
            "-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3",
            "has an RSA key with the exponent 3",
        ),
        (
            "-newkey rsa:2048 -addext tlsfeature=status_request",
            "asks for must-staple",
        ),
    ] {
        let setup = with_csr_by(&format!("{name} {options}"));
        // The run ends at something else.
        let run = setup.getcrt().args(&["--acme-dir", "nowhere"]);
        let outcome = run.outcome();
        outcome.failed("--acme-dir nowhere").says(&format!(
            "\nwarning: the CSR {warning}, which Let's Encrypt does not take\n"
        ));
    }
}

#[test]
fn csr_with_too_many_names_is_refused() {
    let setup = Setup::with_silent_ca();
    let names: Vec<String> = (0..1001).map(|number| format!("n{number}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for 1001 names, and no CA is known to take more than 1000

"#]]);
}

#[test]
fn account_key_that_everyone_can_read_is_a_warning() {
    let setup = Setup::with_fake_ca(|ca| ca);
    set_mode(&setup.path("account.key"), 0o644);
    setup.issues().stderr_is(str![[r#"
Parsing account key...
warning: every user of this machine can read your account key: chmod go-rwx account.key
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

/// The connection may be tried again within the second, so the number of warnings is not fixed.
#[test]
fn refused_connection_to_the_ca_is_an_error() {
    let setup = Setup::with_silent_ca();
    let nobody = ["--directory-url", "https://127.0.0.1:1/", "--timeout", "1"];
    let outcome = setup.getcrt().args(&nobody).outcome();
    outcome.failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
...
error: cannot use the directory: https://127.0.0.1:1/: the connection failed: Connection refused (os error 111)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
}

#[test]
fn csr_that_cannot_be_read_is_refused() {
    let setup = Setup::with_silent_ca();
    let csr = setup.path("domain.csr");
    let is_refused = |stderr: Inline| setup.fails(stderr);

    set_mode(&csr, 0o000);
    setup.run_fails(
        setup.getcrt_without_privileges(),
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: Permission denied (os error 13)
hint: getcrt runs as the user with the id [..]: run it as another one, or change the permissions

"#]],
    );
    fs::remove_file(&csr).unwrap();
    is_refused(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: No such file or directory (os error 2)

"#]]);
    fs::write(&csr, "").unwrap();
    is_refused(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the file is empty

"#]]);
}

#[test]
fn file_without_a_csr_is_refused() {
    let setup = Setup::with_silent_ca();
    let is_refused = |content: &str, stderr: Inline| {
        fs::write(setup.path("domain.csr"), content).unwrap();
        setup.fails(stderr);
    };
    let csr = text(&setup.path("domain.csr"));
    let certificate = self_signed(setup.directory(), "/CN=x", &["x.test"], "2");
    is_refused(
        &with_a_wrong_byte(&csr),
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR in it is damaged, or of a kind that OpenSSL does not know

"#]],
    );
    is_refused(
        &text(&setup.path("domain.key")),
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: no usable CSR in it; it looks like a private key
hint: check whether --account-key and --csr are swapped

"#]],
    );
    is_refused(
        &text(&certificate),
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: no usable CSR in it; it looks like a certificate

"#]],
    );
}

#[test]
fn csr_with_a_wrong_signature_is_refused() {
    let setup = Setup::with_silent_ca();
    let csr = setup.path("domain.csr");
    let path = csr.to_str().unwrap();
    openssl(&["req", "-in", path, "-outform", "DER", "-out", path]);
    // Another name than the one that was signed.
    let mut der = fs::read(&csr).unwrap();
    let name = der.windows(6).position(|bytes| bytes == b"a.test");
    der[name.unwrap()] = b'b';
    fs::write(&csr, &der).unwrap();
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR's signature does not verify; make the CSR again

"#]]);
}

#[test]
fn csr_without_names_is_refused() {
    let setup = Setup::with_silent_ca();
    csr_is_refused(
        &setup,
        "/",
        &[],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for no names, neither by common name nor by SAN

"#]],
    );
    csr_is_refused(
        &setup,
        "/O=Nobody",
        &[],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for no names, neither by common name nor by SAN

"#]],
    );
}

#[test]
fn wildcard_is_refused() {
    let setup = Setup::with_silent_ca();
    csr_is_refused(
        &setup,
        "/",
        &["*.a.test"],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for *.a.test, and http-01 cannot prove a wildcard
hint: list each host name in the CSR, or use a client that can do dns-01

"#]],
    );
    csr_is_refused(
        &setup,
        "/CN=*.a.test",
        &["a.test"],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for *.a.test, and http-01 cannot prove a wildcard
hint: list each host name in the CSR, or use a client that can do dns-01

"#]],
    );
}

#[test]
fn csr_for_something_other_than_a_dns_name_is_refused() {
    let setup = Setup::with_silent_ca();
    csr_is_refused(
        &setup,
        "/CN=Web server",
        &[],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for `Web server`, which is not a DNS name; leave out a trailing dot, and write letters beyond ASCII in the xn-- form

"#]],
    );
    csr_is_refused(
        &setup,
        "/",
        &["a.test", "b\u{fc}cher.test"],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for `bücher.test`, which is not a DNS name; leave out a trailing dot, and write letters beyond ASCII in the xn-- form

"#]],
    );
    csr_is_refused(
        &setup,
        "/",
        &["a..test"],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for `a..test`, which is not a DNS name; leave out a trailing dot, and write letters beyond ASCII in the xn-- form

"#]],
    );
    csr_is_refused(
        &setup,
        "/",
        &["email:me@a.test", "a.test"],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for something else than DNS names and IP addresses (an e-mail address, for example), which http-01 cannot prove

"#]],
    );
    csr_is_refused(
        &setup,
        "/",
        &["URI:http://a.test/"],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR asks for something else than DNS names and IP addresses (an e-mail address, for example), which http-01 cannot prove

"#]],
    );
}

#[track_caller]
fn csr_is_refused(setup: &Setup<SilentCa>, subject: &str, names: &[&str], stderr: Inline) {
    setup.csr(subject, names);
    setup.fails(stderr);
}

#[test]
fn csr_for_the_account_key_is_refused() {
    let setup = Setup::with_silent_ca();
    let account = setup.path("account.key");
    for kind in ["RSA:2048", "EC:P-256", "ED25519"] {
        key(&account, kind);
        csr(&setup.path("domain.csr"), &account, "/", &["a.test"]);
        setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
...
error: CSR contains a public key for a known account, namely the account key's own
hint: the certificate needs a key of its own: make one, and the CSR with it

"#]]);
    }
}

#[test]
fn acme_dir_that_cannot_be_used_is_refused() {
    let setup = Setup::with_silent_ca();
    let acme_dir = setup.acme_dir();
    let is_refused = |stderr: Inline| setup.fails(stderr);

    fs::remove_dir(&acme_dir).unwrap();
    is_refused(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --acme-dir acme: cannot open the directory acme: No such file or directory (os error 2)

"#]]);

    fs::write(&acme_dir, "").unwrap();
    is_refused(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --acme-dir acme: cannot open the directory acme: Not a directory (os error 20)

"#]]);

    fs::remove_file(&acme_dir).unwrap();
    fs::create_dir(&acme_dir).unwrap();
    set_mode(&acme_dir, 0o555);
    setup.run_fails(
        setup.getcrt_without_privileges(),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --acme-dir acme: cannot create acme/.getcrt-trial: Permission denied (os error 13)
hint: getcrt runs as the user with the id [..]: run it as another one, or change the permissions

"#]],
    );
}

#[test]
fn output_that_cannot_be_replaced_is_refused() {
    let setup = Setup::with_silent_ca();
    std::os::unix::fs::symlink("loop", setup.path("loop")).unwrap();
    output_is_refused(
        &setup,
        "acme",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output acme: this is a directory; name a file in it

"#]],
    );
    output_is_refused(
        &setup,
        "new/",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output new/: this names a directory; name a file in it

"#]],
    );
    output_is_refused(
        &setup,
        "nowhere/out.crt",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output nowhere/out.crt: cannot open the directory nowhere: No such file or directory (os error 2)

"#]],
    );
    output_is_refused(
        &setup,
        "/dev/null",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output /dev/null: this is not a regular file; leave -o out to write to stdout

"#]],
    );
    output_is_refused(
        &setup,
        "/dev/stdout",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output /dev/stdout: this is not a regular file; leave -o out to write to stdout

"#]],
    );
    output_is_refused(
        &setup,
        "loop",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output loop: too many levels of symbolic links

"#]],
    );
}

#[test]
fn output_to_a_file_of_another_kind_is_refused() {
    let setup = Setup::with_silent_ca();
    fs::write(setup.path("notes.txt"), "buy milk\n").unwrap();
    output_is_refused(
        &setup,
        "notes.txt",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output notes.txt: getcrt replaces only files that begin with a certificate, and this one does not; name another file

"#]],
    );
    output_is_refused(
        &setup,
        "account.key",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output account.key: this file holds a PEM block `PRIVATE KEY`, which would be lost; name another file

"#]],
    );
    output_is_refused(
        &setup,
        "domain.csr",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output domain.csr: this file holds a PEM block `CERTIFICATE REQUEST`, which would be lost; name another file

"#]],
    );
    // A label is shown, but one that is damaged may hold a part of the key.
    let secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    let damaged = format!("-----BEGIN PRIVATE KEY\n{secret}\n-----END PRIVATE KEY-----\n");
    fs::write(setup.path("damaged.key"), damaged).unwrap();
    output_is_refused(
        &setup,
        "damaged.key",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output damaged.key: this file holds a PEM block `DAMAGED PEM BLOCK`, which would be lost; name another file

"#]],
    );
}

#[test]
fn output_to_a_large_file_is_refused() {
    let setup = Setup::with_silent_ca();
    let large = fs::File::create(setup.path("large.crt")).unwrap();
    large.set_len(400 << 20).unwrap();
    output_is_refused(
        &setup,
        "large.crt",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output large.crt: the file is too large, with 4 MiB or more

"#]],
    );
    assert_eq!(large.metadata().unwrap().len(), 400 << 20);
}

#[track_caller]
fn output_is_refused(setup: &Setup<SilentCa>, output: &str, stderr: Inline) {
    setup.run_fails(setup.getcrt().args(&["--output", output]), stderr);
}

#[test]
fn output_in_a_read_only_directory_is_refused() {
    let setup = Setup::with_silent_ca();
    // The file itself could be written, but it could not be replaced as a whole.
    set_mode(setup.directory(), 0o555);
    let run = setup.getcrt_without_privileges();
    setup.run_fails(
        run.args(&["-o", "old.crt"]),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output old.crt: cannot create the temporary file .old.crt.getcrt: Permission denied (os error 13)
hint: getcrt runs as the user with the id [..]: run it as another one, or change the permissions

"#]],
    );
    assert_eq!(text(&setup.path("old.crt")), OLD_CERTIFICATE);
}

#[test]
fn ca_bundle_that_cannot_be_used_is_refused() {
    let setup = Setup::with_silent_ca();
    let is_refused = |bundle: &str, stderr: Inline| {
        setup.run_fails(setup.getcrt().args(&["--ca-bundle", bundle]), stderr);
    };
    is_refused(
        "missing.pem",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --ca-bundle missing.pem: No such file or directory (os error 2)

"#]],
    );
    is_refused(
        "domain.key",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --ca-bundle domain.key: no PEM certificate in it

"#]],
    );
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(setup.path("damaged.pem"), damaged).unwrap();
    // OpenSSL's own words differ from release to release.
    is_refused(
        "damaged.pem",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --ca-bundle damaged.pem: a certificate in it is damaged

"#]],
    );
}

#[test]
fn directory_url_without_https_is_refused() {
    let setup = Setup::with_silent_ca();
    let fails_with = |url: &str, told: &str| {
        let run = setup.getcrt().args(&["--directory-url", url]);
        let outcome = run.outcome();
        outcome.failed(told);
        setup.nothing_is_left(&outcome);
        outcome
    };
    fails_with("http://127.0.0.1/dir", "").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
error: cannot use the directory: `http://127.0.0.1/dir` is not an https URL, and ACME uses no others

"#]]);
    for url in [
        "file:///etc/passwd",
        "127.0.0.1",
        "https://",
        "",
        "https:///dir",
    ] {
        let told = format!("`{url}` is not an https URL, and ACME uses no others");
        fails_with(url, &told);
    }
    assert!(!setup.ca.was_asked());
}

#[test]
fn directory_url_with_a_password_is_refused_and_not_shown() {
    let setup = Setup::with_silent_ca();
    let run = |url: &str| setup.getcrt().args(&["-vv", "--directory-url", url]);
    let port_and_path = setup.ca.base_url().replace("https://127.0.0.1", "");
    let url = format!("https://caller:s3cret@127.0.0.1{port_and_path}/directory");
    setup.run_fails(run(&url), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
error: cannot use the directory: the URL has a user name or a password in it, for which ACME has no use

"#]]);
    setup.run_fails(run(&url.replace("https", "http")), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
error: cannot use the directory: the URL has a user name or a password in it, for which ACME has no use

"#]]);
    setup.run_fails(run(&url.replace("s3cret", "s3/cret")), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
error: cannot use the directory: this URL, which may contain a password, is not an https URL, and ACME uses no others

"#]]);
    for url in [
        "caller:s3cret@localhost",
        "https://s3cret@localhost/",
        "https://caller:s3 cret@localhost/",
    ] {
        run(url)
            .outcome()
            .failed("cannot use the directory: ")
            .says_not("cret");
    }
    assert!(!setup.ca.was_asked());
}

/// A value in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        ..0x80 => vec![tag, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [&head[..], content].concat()
}

#[test]
fn damaged_csr_with_a_good_signature_is_refused() {
    let setup = Setup::with_silent_ca();
    let key = PKey::private_key_from_pem(text(&setup.path("domain.key")).as_bytes()).unwrap();
    let public = key.public_key_to_der().unwrap();
    let is_refused = |public: &[u8], extensions: &[&[u8]], stderr: Inline| {
        // CertificationRequest, RFC 2986, section 4.
        let list = der(0x30, &extensions.concat());
        let request = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
        let attribute = der(0x30, &[&request[..], &der(0x31, &list)].concat());
        let (version, nobody) = (der(2, b"\0"), der(0x30, b""));
        let info = [&version[..], &nobody, public, &der(0xa0, &attribute)];
        let info = der(0x30, &info.concat());
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        let signature = signer.sign_oneshot_to_vec(&info).unwrap();
        let ecdsa_with_sha256 = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
        let signature = der(3, &[b"\0", &signature[..]].concat());
        let csr = der(0x30, &[&info[..], ecdsa_with_sha256, &signature].concat());
        fs::write(setup.path("domain.csr"), csr).unwrap();
        setup.fails(stderr);
    };
    let subject_alt_name = |names: &[u8]| {
        let id = b"\x06\x03\x55\x1d\x11";
        der(0x30, &[&id[..], &der(4, names)].concat())
    };
    let good = subject_alt_name(&der(0x30, b"\x82\x06a.test"));
    is_refused(
        &public,
        &[&good, &good],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR has 2 subjectAltName extensions, and one is allowed

"#]],
    );
    let too_long = subject_alt_name(b"\x30\x20\x82\x06a.test");
    is_refused(
        &public,
        &[&too_long],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR's subjectAltName extension is damaged

"#]],
    );
    let not_an_extension = der(0x30, b"\x05\x00");
    is_refused(
        &public,
        &[&not_an_extension],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR's extensions are damaged

"#]],
    );
    // The identifier of elliptic curve keys becomes one that nobody knows.
    let id = b"\x2a\x86\x48\xce\x3d\x02\x01";
    let place = public.windows(id.len()).position(|bytes| bytes == id);
    let mut unknown = public.clone();
    unknown[place.unwrap() + id.len() - 1] = 0x7f;
    is_refused(
        &unknown,
        &[&good],
        str![[r#"
Parsing account key...
Parsing CSR...
error: --csr domain.csr: the CSR's key is of an unknown kind

"#]],
    );
}

#[test]
fn too_few_file_descriptors_for_signals_is_an_error() {
    let setup = Setup::with_silent_ca();
    // The one beyond stdin, stdout and stderr is needed to load the shared libraries.
    let run = setup.getcrt_by("sh", &["-c", "ulimit -n 4; exec \"$0\" \"$@\""]);
    // Nothing is looked up, and each library more is one chance more that the loader fails.
    let run = run.env("LD_PRELOAD", "");
    setup.run_fails(
        run,
        str![[r#"
warning: cannot watch for signals, so Ctrl-C leaves challenge files behind: Too many open files (os error 24)
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --acme-dir acme: cannot open the directory acme: Too many open files (os error 24)

"#]],
    );
}
