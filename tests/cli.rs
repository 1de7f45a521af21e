//! The command line, and bad input: what is refused before anything is asked of a CA.

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use crate::support::prelude::*;
use crate::support::setup::OLD_CERTIFICATE;

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
fn version_and_help() {
    let version = Run::getcrt().arg("-V").outcome();
    version.exits(0).check(
        "it is another version",
        version.stdout == format!("getcrt {}\n", env!("CARGO_PKG_VERSION")),
    );
    let [short, long] = ["-h", "--help"].map(|help| Run::getcrt().arg(help).outcome());
    for outcome in [&short, &long] {
        outcome.exits(0);
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

    // The same options under the same headings in both, each of them once.
    let groups = grouped(&long.stdout);
    let headings: Vec<&str> = groups.iter().map(|(heading, _)| heading.as_str()).collect();
    let wanted = [
        "Needed", "Output", "The CA", "Renewal", "Checking", "Talking",
    ];
    assert_eq!(headings, wanted, "{long}");
    assert_eq!(grouped(&short.stdout), groups);
    let mut names: Vec<&String> = groups.iter().flat_map(|(_, names)| names).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert!(names.len() == count && count == 22, "{names:?}");
}

#[test]
fn verbose_may_be_said_more_than_once() {
    let setup = Setup::with_silent_ca();
    for verbose in [&["-v"][..], &["-vv"], &["-v", "--verbose"], &["-vvv"]] {
        let run = setup.getcrt().args(verbose);
        let outcome = run.args(&["--account-key", "missing.key"]).outcome();
        setup.refused(&outcome, "Error loading missing.key");
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    let setup = Setup::with_silent_ca();
    let ca = setup.ca.base_url();
    let wrong: [&[&str]; 18] = [
        &["--nonsense"],
        &["stray"],
        &["--ca", &ca],
        &["--staging"],
        &["--ca", &ca, "--staging"],
        &["--quiet", "-v"],
        &["--quiet", "--verbose"],
        &["--check-port", "0"],
        &["--check-port", "65536"],
        &["--timeout", "0"],
        &["--timeout", "soon"],
        &["--contact", ""],
        &["--contact", "a@a.test,b@b.test"],
        &["--contact", "mailto:a@a.test?subject=x"],
        &["--di"],
        &["--renew"],
        &["--eab-kid", "kid-1"],
        &["--eab-hmac-key", "domain.key"],
    ];
    for arguments in wrong {
        let outcome = setup.getcrt().args(arguments).outcome();
        outcome
            .exits(2)
            .says("error: ")
            .check("stdout is not empty", outcome.stdout.is_empty());
    }
    setup
        .getcrt()
        .args(&["--ca", &ca])
        .outcome()
        .says("'--ca <URL>' cannot be used with '--directory-url'");
    Run::getcrt()
        .outcome()
        .exits(2)
        .says("--account-key <FILE>")
        .says("--csr <FILE>")
        .says("--acme-dir <DIR>");
    assert!(!setup.ca.was_asked());
}

#[test]
fn account_keys_that_are_none() {
    let setup = Setup::with_silent_ca();
    let account = setup.path("account.key");
    let path = account.to_str().unwrap();
    let refused = |text: &str| setup.refused(&setup.getcrt().outcome(), text);

    fs::rename(&account, setup.path("moved.key")).unwrap();
    refused("Error loading account.key: No such file or directory");
    fs::create_dir(&account).unwrap();
    refused("Error loading account.key: Is a directory");
    fs::remove_dir(&account).unwrap();
    fs::write(&account, "").unwrap();
    refused("Error loading account.key: the file is empty");
    fs::write(&account, "nonsense").unwrap();
    refused("Error loading account.key: no usable private key in it, nor any other PEM");
    openssl(&[
        "pkey",
        "-in",
        setup.path("domain.key").to_str().unwrap(),
        "-pubout",
        "-out",
        path,
    ]);
    refused("it looks like a public key");
    fs::copy(setup.path("domain.csr"), &account).unwrap();
    refused("it looks like a CSR");
    fs::copy(
        self_signed(setup.directory(), "/CN=x", &["x.test"], "2"),
        &account,
    )
    .unwrap();
    refused("it looks like a certificate");
    let pem = text(&setup.path("domain.key"));
    fs::write(&account, pem.replacen("\nM", "\nA", 1)).unwrap();
    refused("the private key in it is damaged, or of a kind that OpenSSL does not know");
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    fs::write(&account, pem("OPENSSH PRIVATE KEY")).unwrap();
    refused("it looks like a key in OpenSSH's own format");
    fs::write(&account, pem("X509 CRL")).unwrap();
    refused("it looks like PEM of another kind");
    for (kind, told) in [
        ("RSA:1024", "1024 bits"),
        ("EC:secp256k1", "another curve"),
        ("X25519", "neither RSA, P-256"),
        ("ED448", "neither RSA, P-256"),
        ("RSA:4224", "4224 bits"),
    ] {
        key(&account, kind);
        refused(told);
    }
    fs::write(&account, vec![b'x'; 5 << 20]).unwrap();
    refused("the file is larger than 4 MiB");
}

#[test]
fn an_encrypted_account_key_is_never_asked_about() {
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
        setup.run_is_refused(
            setup.getcrt(),
            str![[r#"
Parsing account key...
error: Error loading account.key: this key is encrypted, and no passphrase is ever asked for
hint: decrypt it with `openssl pkey -in KEY -out PLAINKEY`

"#]],
        );
    }
}

#[test]
fn an_account_key_that_all_can_read_is_a_warning() {
    let setup = Setup::with_silent_ca();
    set_mode(&setup.path("account.key"), 0o644);
    // It is the refused connection that ends this run, not the warning.
    let outcome = setup
        .getcrt()
        .args(&["--directory-url", "https://127.0.0.1:1/", "--timeout", "1"])
        .outcome();
    outcome.failed(
        "cannot use the directory: https://127.0.0.1:1/: the connection failed: Connection refused",
    );
    outcome.says("\nwarning: every user of this machine can read your account key: chmod go-rwx account.key\n");
}

#[test]
fn csrs_that_are_none() {
    let setup = Setup::with_silent_ca();
    let csr = setup.path("domain.csr");
    let path = csr.to_str().unwrap();
    let refused = |text: &str| setup.refused(&setup.getcrt().outcome(), text);
    let whole = text(&csr);

    // A byte of a name is another one now, so the signature does not fit.
    openssl(&["req", "-in", path, "-outform", "DER", "-out", path]);
    let mut der = fs::read(&csr).unwrap();
    let place = der
        .windows(6)
        .position(|window| window == b"a.test")
        .unwrap();
    der[place] = b'b';
    fs::write(&csr, &der).unwrap();
    refused("Error loading domain.csr: the CSR's signature does not verify");
    fs::write(&csr, whole.replacen("\nM", "\nA", 1)).unwrap();
    refused("the CSR in it is damaged, or of a kind that OpenSSL does not know");
    fs::copy(setup.path("domain.key"), &csr).unwrap();
    refused("Error loading domain.csr: no usable CSR in it, it looks like a private key");
    fs::copy(
        self_signed(setup.directory(), "/CN=x", &["x.test"], "2"),
        &csr,
    )
    .unwrap();
    refused("it looks like a certificate");
    fs::write(&csr, "").unwrap();
    refused("Error loading domain.csr: the file is empty");
    fs::remove_file(&csr).unwrap();
    refused("Error loading domain.csr: No such file or directory");
}

#[test]
fn names_that_cannot_be_had() {
    let setup = Setup::with_silent_ca();
    let refused = |subject: &str, names: &[&str], text: &str| {
        setup.csr(subject, names);
        setup.refused(&setup.getcrt().outcome(), text);
    };
    refused("/", &[], "the CSR asks for no names");
    refused("/O=Nobody", &[], "the CSR asks for no names");
    refused(
        "/",
        &["*.a.test"],
        "the CSR asks for *.a.test, and http-01 cannot prove a wildcard",
    );
    refused(
        "/CN=*.a.test",
        &["a.test"],
        "http-01 cannot prove a wildcard",
    );
    refused(
        "/CN=Web server",
        &[],
        "the CSR asks for `Web server`, which is no DNS name",
    );
    refused("/", &["a.test", "b\u{fc}cher.test"], "which is no DNS name");
    refused(
        "/",
        &["a..test"],
        "the CSR asks for `a..test`, which is no DNS name",
    );
    refused(
        "/",
        &["email:me@a.test", "a.test"],
        "neither DNS name nor IP",
    );
    refused("/", &["URI:http://a.test/"], "neither DNS name nor IP");
}

#[test]
fn the_account_key_is_not_for_certificates() {
    let setup = Setup::with_silent_ca();
    for kind in ["RSA:2048", "EC:P-256", "ED25519"] {
        key(&setup.path("account.key"), kind);
        csr(
            &setup.path("domain.csr"),
            &setup.path("account.key"),
            "/",
            &["a.test"],
        );
        let outcome = setup.getcrt().outcome();
        setup.refused(&outcome, "CSR contains a public key for a known account");
        outcome.says("\nhint: the certificate needs a key of its own");
    }
}

#[test]
fn acme_dirs_that_are_none() {
    let setup = Setup::with_silent_ca();
    let acme = setup.path("acme");
    fs::remove_dir(&acme).unwrap();
    setup.refused(
        &setup.getcrt().outcome(),
        "--acme-dir acme: No such file or directory",
    );
    fs::write(&acme, "").unwrap();
    setup.refused(
        &setup.getcrt().outcome(),
        "--acme-dir acme: this is no directory",
    );
    fs::remove_file(&acme).unwrap();
    fs::create_dir(&acme).unwrap();
    set_mode(&acme, 0o555);
    let outcome = setup.getcrt_without_privileges().outcome();
    setup.refused(
        &outcome,
        "--acme-dir acme: no file can be made in it: Permission denied",
    );
}

#[test]
fn outputs_that_are_none() {
    let setup = Setup::with_silent_ca();
    let refused = |output: &str, told: &str| {
        let outcome = setup.getcrt().args(&["--output", output]).outcome();
        setup.refused(&outcome, told);
    };
    refused("acme", "--output acme: this is no regular file");
    refused(
        "/dev/null",
        "--output /dev/null: this is no regular file; for stdout leave -o out",
    );
    refused(
        "/dev/stdout",
        "this is no regular file; for stdout leave -o out",
    );
    refused(
        "nowhere/out.crt",
        "--output nowhere/out.crt: no file can be made in its directory: No such file",
    );
    refused("new/", "--output new/: this names a directory, not a file");
    // What is there must not be lost.
    refused(
        "account.key",
        "--output account.key: there is a PRIVATE KEY in this file, which would be lost",
    );
    refused(
        "domain.csr",
        "--output domain.csr: there is a CERTIFICATE REQUEST in this file, which would be lost",
    );
    // Nor may it be shown.
    let secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    fs::write(
        setup.path("damaged.key"),
        format!("-----BEGIN PRIVATE KEY\n{secret}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    let outcome = setup.getcrt().args(&["-o", "damaged.key"]).outcome();
    setup.refused(&outcome, "there is a DAMAGED PEM BLOCK in this file");
    outcome.says_not("MIGH");
    std::os::unix::fs::symlink("loop", setup.path("loop")).unwrap();
    refused("loop", "oo many levels of symbolic links");

    let large = fs::File::create(setup.path("large.crt")).unwrap();
    large.set_len(400 << 20).unwrap();
    refused(
        "large.crt",
        "--output large.crt: the file is larger than 4 MiB",
    );
    assert_eq!(large.metadata().unwrap().len(), 400 << 20);

    // A file that could be written, in a directory where it cannot be replaced.
    set_mode(setup.directory(), 0o555);
    let outcome = setup
        .getcrt_without_privileges()
        .args(&["-o", "old.crt"])
        .outcome();
    setup.refused(
        &outcome,
        "--output old.crt: no file can be made in its directory: Permission denied",
    );
    assert_eq!(text(&setup.path("old.crt")), OLD_CERTIFICATE);
}

#[test]
fn unreadable_files_are_named() {
    let setup = Setup::with_silent_ca();
    set_mode(&setup.path("account.key"), 0o000);
    let outcome = setup.getcrt_without_privileges().outcome();
    setup.refused(&outcome, "Error loading account.key: Permission denied");
    set_mode(&setup.path("account.key"), 0o600);
    set_mode(&setup.path("domain.csr"), 0o000);
    let outcome = setup.getcrt_without_privileges().outcome();
    setup.refused(&outcome, "Error loading domain.csr: Permission denied");
    set_mode(&setup.path("domain.csr"), 0o600);
    let bundle = |name: &str, told: &str| {
        let outcome = setup.getcrt().args(&["--ca-bundle", name]).outcome();
        outcome.failed(told);
        assert!(!setup.ca.was_asked());
    };
    bundle(
        "missing.pem",
        "Error loading missing.pem: No such file or directory",
    );
    bundle(
        "domain.key",
        "Error loading domain.key: no PEM certificate in it",
    );
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(setup.path("damaged.pem"), damaged).unwrap();
    bundle(
        "damaged.pem",
        "Error loading damaged.pem: a certificate in it is damaged: ",
    );
}

#[test]
fn only_https_is_spoken() {
    let setup = Setup::with_silent_ca();
    for url in [
        "http://127.0.0.1/dir",
        "file:///etc/passwd",
        "127.0.0.1",
        "https://",
        "",
        "https:///dir",
    ] {
        let outcome = setup.getcrt().args(&["--directory-url", url]).outcome();
        outcome.failed(&format!(
            "`{url}` is no https URL, and ACME is spoken over https only"
        ));
    }
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
fn csrs_that_are_damaged_and_signed() {
    let setup = Setup::with_silent_ca();
    let key = PKey::private_key_from_pem(text(&setup.path("domain.key")).as_bytes()).unwrap();
    let public = key.public_key_to_der().unwrap();
    let refused = |public: &[u8], extensions: &[&[u8]], told: &str| {
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
        let told = format!("Error loading domain.csr: {told}");
        setup.refused(&setup.getcrt().outcome(), &told);
    };
    let names = |names: &[u8]| {
        der(
            0x30,
            &[b"\x06\x03\x55\x1d\x11", &der(4, names)[..]].concat(),
        )
    };
    let good = names(&der(0x30, b"\x82\x06a.test"));
    let two = "the CSR's subjectAltName extension is damaged, or there are 2 of it";
    refused(&public, &[&good, &good], two);
    let one = "the CSR's subjectAltName extension is damaged, or there are 1 of it";
    refused(&public, &[&names(b"\x30\x20\x82\x06a.test")], one);
    let none = "the CSR's extensions are damaged";
    refused(&public, &[&der(0x30, b"\x05\x00")], none);
    // The identifier of elliptic curves' keys, and then one that nobody knows.
    let id = b"\x2a\x86\x48\xce\x3d\x02\x01";
    let place = public.windows(id.len()).position(|bytes| bytes == id);
    let mut strange = public.clone();
    strange[place.unwrap() + id.len() - 1] = 0x7f;
    let unknown = "the CSR's key is of an unknown kind";
    refused(&strange, &[&good], unknown);
}

#[test]
fn too_few_files_to_watch_for_signals() {
    let setup = Setup::with_silent_ca();
    // The one that is left opens libraries.
    let script = "ulimit -n 4; exec \"$0\" \"$@\"";
    let run = setup.with_options(Run::of("sh").args(&["-c", script, GETCRT]));
    let outcome = run.outcome();
    outcome.failed("cannot watch for signals: Too many open files (os error 24)");
}
