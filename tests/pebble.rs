//! The whole conversation with a real CA.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use snapbox::data::Inline;

use crate::support::files::library;
use crate::support::pebble::NAMES;
use crate::support::prelude::*;
use crate::support::setup::{OLD_CERTIFICATE, user_directory};
use crate::support::silent_ca::SilentCa;
use crate::support::web::Proxy;
use crate::support::{is_skipped_without_ipv6, is_skipped_without_mounts, program};

#[test]
fn first_run_shows_each_step() {
    let setup = Setup::with_pebble();
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
    outcome.stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    for request in setup.web.requests() {
        let (content, mode) = request.file.unwrap();
        assert_eq!(mode, 0o644);
        assert!(!content.ends_with(b"\n") && content.contains(&b'.'));
    }
    assert!(setup.web_saw_the_ca());
}

#[test]
fn later_run_finds_the_account() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["earlier.test"]);
    setup.getcrt().outcome().issued();
    setup.csr("/", &NAMES);
    setup.getcrt().outcome().issued().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/my-account/[ID]
Creating new order...
Order created!
...
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn quiet_run_says_nothing() {
    let setup = Setup::with_pebble();
    let outcome = setup.getcrt().arg("--quiet").outcome();
    outcome
        .exits(0)
        .check("--quiet says something", outcome.stderr.is_empty());
    setup.verify_pem(&outcome.stdout, &NAMES);
}

#[test]
fn one_name_is_certified() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["only.test"]);
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &["only.test"]);
    outcome.says(", 1 name\n");
}

#[test]
fn twenty_names_survive_many_rejected_nonces() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_WFE_NONCEREJECT", "40")]);
    let names: Vec<String> = (0..20).map(|i| format!("n{i}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    setup.verify(&setup.getcrt().outcome(), &names);
}

#[test]
fn nine_of_ten_rejected_nonces_are_survived() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_WFE_NONCEREJECT", "90")]);
    setup.csr("/", &["a.test"]);
    setup.verify(&setup.getcrt().outcome(), &["a.test"]);
}

#[test]
fn authorizations_are_reused() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_AUTHZREUSE", "100")]);
    setup.getcrt().outcome().issued();
    let seen = setup.web.requests().len();
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
    outcome.stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/my-account/[ID]
Creating new order...
Order created!
Already verified: a.test, skipping...
Already verified: www.a.test, skipping...
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    assert_eq!(setup.web.requests().len(), seen, "files were fetched again");
}

#[test]
fn slow_validation_is_waited_for() {
    let setup = Setup::with_slow_validation("20");
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
}

#[test]
fn alternate_roots_and_long_chains_are_no_obstacle() {
    let setup = Setup::with_pebble_and_variables(&[
        ("PEBBLE_ALTERNATE_ROOTS", "2"),
        ("PEBBLE_CHAIN_LENGTH", "3"),
    ]);
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
    assert_eq!(outcome.stdout.matches("BEGIN CERTIFICATE").count(), 4);
}

#[test]
fn every_kind_of_account_key_is_accepted() {
    let setup = Setup::with_pebble();
    let account = setup.path("account.key");
    let path = account.to_str().unwrap();
    for kind in [
        "RSA:2048", "RSA:3072", "RSA:4096", "EC:P-256", "EC:P-384", "EC:P-521",
    ] {
        key(&account, kind);
        setup.getcrt().outcome().issued();
    }
    // The forms of older tools: SEC1, with its parameters before it, and PKCS#1.
    openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-out", path]);
    assert!(
        text(&account).contains("BEGIN EC PARAMETERS")
            && text(&account).contains("BEGIN EC PRIVATE KEY")
    );
    set_mode(&account, 0o600);
    setup.getcrt().outcome().issued();
    openssl(&["genrsa", "-traditional", "-out", path, "2048"]);
    assert!(text(&account).contains("BEGIN RSA PRIVATE KEY"));
    set_mode(&account, 0o600);
    setup.getcrt().outcome().issued();
}

#[test]
fn account_key_that_the_ca_does_not_take_is_an_error() {
    let setup = Setup::with_pebble();
    key(&setup.path("account.key"), "ED25519");
    setup.run_fails(setup.getcrt(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/sign-me-up: HTTP 400, no signature algorithms suitable for given key type: ed25519.PublicKey (urn:ietf:params:acme:error:badPublicKey)
hint: make another key: RSA with 2048 bits and P-256 are taken everywhere

"#]]);
}

#[test]
fn every_kind_of_certificate_key_is_accepted() {
    let setup = Setup::with_pebble();
    for kind in ["RSA:2048", "EC:P-384", "ED25519"] {
        key(&setup.path("domain.key"), kind);
        setup.csr("/", &NAMES);
        // For some of them there is a warning, because Let's Encrypt does not take them.
        let outcome = setup.getcrt().outcome();
        outcome.delivers();
        setup.verify_pem(&outcome.stdout, &NAMES);
    }
}

#[test]
fn csr_in_der_is_accepted() {
    let setup = Setup::with_pebble();
    let csr = setup.path("domain.csr");
    let path = csr.to_str().unwrap();
    openssl(&["req", "-in", path, "-outform", "DER", "-out", path]);
    setup.verify(&setup.getcrt().outcome(), &NAMES);
}

#[test]
fn common_name_comes_first_and_once() {
    let setup = Setup::with_pebble();
    setup.csr("/CN=WWW.a.test", &["a.test", "www.a.test"]);
    let outcome = setup.getcrt().outcome();
    outcome.issued().says("Found domains: www.a.test, a.test\n");
}

#[test]
fn common_name_that_is_no_host_name_is_ignored() {
    let setup = Setup::with_pebble();
    setup.csr("/CN=Web server of the shop", &["a.test"]);
    setup.getcrt().outcome().issued().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Ignoring the common name `Web server of the shop`, which is not among the subject alternative names
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
a.test verified!
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

/// Pebble is one of the CAs that the warning is about.
#[test]
fn csr_with_a_common_name_alone_is_warned_about() {
    let setup = Setup::with_pebble();
    setup.csr("/CN=lone.test", &[]);
    setup.resolve(&["lone.test"]);
    setup.run_fails(setup.getcrt(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: lone.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying lone.test...
lone.test verified!
Signing certificate...
error: order https://localhost:[PORT]/my-order/[ID]: https://localhost:[PORT]/finalize-order/[ID]: HTTP 403, Order includes different number of DNSnames identifiers than CSR specifies (urn:ietf:params:acme:error:unauthorized)

"#]]);
}

#[test]
fn ip_addresses_are_certified() {
    if is_skipped_without_ipv6("a certificate for IP addresses") {
        return;
    }
    let setup = Setup::with_pebble();
    setup.csr("/", &["IP:127.0.0.1", "IP:::1"]);
    let outcome = setup.getcrt().outcome();
    setup.verify(
        &outcome,
        &["IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1"],
    );
    outcome.says("Found domains: 127.0.0.1, ::1\n");
}

#[test]
fn nginx_serves_the_files() {
    let directory = user_directory();
    let path = |name: &str| directory.path().join(name);
    let port = free_port();
    let config = format!(
        "daemon off; pid {0}/nginx.pid; error_log {0}/error.log;
        events {{}}
        http {{ access_log {0}/access.log; server {{
            listen 127.0.0.1:{port};
            location /.well-known/acme-challenge/ {{ alias {0}/acme/; }}
        }} }}",
        directory.path().display()
    );
    fs::write(path("nginx.conf"), config).unwrap();
    let nginx = Command::new(program("nginx").expect("is nginx installed?"))
        .arg("-c")
        .arg(path("nginx.conf"))
        .stderr(Stdio::null())
        .spawn();
    let _nginx = Server(nginx.unwrap());
    await_port(port);
    let setup = Setup::with_pebble_and_web(directory, Web::elsewhere(port));
    // nginx's workers are another user, who must be able to read what root wrote under any umask.
    let outcome = setup
        .getcrt_by("sh", &["-c", "umask 077; exec \"$0\" \"$@\""])
        .outcome();
    setup.verify(&outcome, &NAMES);
    let log = text(&setup.path("access.log"));
    assert!(
        log.contains("\" 200 ") && log.contains("LetsEncrypt"),
        "{log}"
    );
}

#[test]
fn one_name_of_three_fails() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["good.test", "bad.test", "fine.test"]);
    setup.mislead_the_ca("bad.test", "127.0.0.2");
    setup.run_fails(setup.getcrt(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: good.test, bad.test, fine.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying good.test...
Verifying bad.test...
Verifying fine.test...
...
error: order https://localhost:[PORT]/my-order/[ID]: Challenge did not pass for bad.test: Get "http://bad.test:[PORT]/.well-known/acme-challenge/[TOKEN]": dial tcp 127.0.0.2:[PORT]: connect: connection refused (urn:ietf:params:acme:error:connection)
hint: open port 80 of the web server to the whole internet, at every address in the name's A and AAAA records

"#]]);
}

/// When the first of the two has failed, the CA may not have tried the other.
#[test]
fn two_names_of_three_fail() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["good.test", "bad.test", "worse.test"]);
    setup.mislead_the_ca("bad.test", "127.0.0.2");
    setup.mislead_the_ca("worse.test", "127.0.0.2");
    let outcome = setup.getcrt().outcome();
    outcome
        .failed("Challenge did not pass for ")
        .says_not("\n  good.test")
        .stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: good.test, bad.test, worse.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying good.test...
Verifying bad.test...
Verifying worse.test...
...
error: order https://localhost:[PORT]/my-order/[ID]: Challenge did not pass for [..]: Get "http://[..].test:[PORT]/.well-known/acme-challenge/[TOKEN]": dial tcp 127.0.0.2:[PORT]: connect: connection refused (urn:ietf:params:acme:error:connection)
  [..].test: Get "http://[..].test:[PORT]/.well-known/acme-challenge/[TOKEN]": dial tcp 127.0.0.2:[PORT]: connect: connection refused (urn:ietf:params:acme:error:connection)
...

"#]]);
}

/// A user whose web server serves another directory than the acme-dir.
fn with_another_directory_served() -> Setup<Pebble> {
    let directory = user_directory();
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let web = Web::serving(&elsewhere);
    Setup::with_pebble_and_web(directory, web)
}

#[test]
fn file_that_is_not_served_is_noticed_before_the_ca_looks() {
    let setup = with_another_directory_served();
    setup.run_fails(setup.getcrt(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
error: order https://localhost:[PORT]/my-order/[ID]: local check: a.test, www.a.test: Wrote file to acme/[TOKEN], but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]: 127.0.0.1 (private: the CA may reach another server): HTTP 404 with the body `no such file` (--disable-check leaves this to the CA)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
    assert!(!setup.web_saw_the_ca());
}

#[test]
fn file_that_is_not_served_is_left_to_the_ca_on_request() {
    let setup = with_another_directory_served();
    setup.csr("/", &["a.test"]);
    setup.run_fails(setup.getcrt().arg("--disable-check"), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
error: order https://localhost:[PORT]/my-order/[ID]: Challenge did not pass for a.test: Non-200 status code from HTTP: http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN] returned 404 (urn:ietf:params:acme:error:unauthorized)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir on every server to which the name's A and AAAA records point

"#]]);
    assert!(setup.web_saw_the_ca());
}

#[test]
fn name_that_only_the_ca_can_reach_is_warned_about() {
    let setup = Setup::with_pebble();
    setup.resolve(&["www.a.test"]);
    let outcome = setup.getcrt().outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
warning: local check: a.test: Wrote file to acme/[TOKEN], but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]: failed to lookup address information: [..]; the CA decides (--disable-check skips this check)
a.test verified!
www.a.test verified!
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    setup.verify_pem(&outcome.stdout, &NAMES);
    let unchecked = setup.getcrt().arg("--disable-check").outcome();
    unchecked.issued();
}

#[test]
fn redirects_are_followed_as_a_validator_does() {
    let directory = user_directory();
    let acme_dir = directory.path().join("acme");
    let folder = acme_dir.clone();
    let redirect = move |request: &Request| {
        if let Some(token) = request.path.strip_prefix("/moved/") {
            let content = fs::read(folder.join(token)).unwrap();
            return Some(response("200 OK", &content));
        }
        let token = request.path.strip_prefix("/.well-known/acme-challenge/")?;
        let status = format!("301 Moved\r\nLocation: /moved/{token}");
        Some(response(&status, b""))
    };
    let web = Web::answering(&acme_dir, Box::new(redirect));
    let setup = Setup::with_pebble_and_web(directory, web);
    setup.verify(&setup.getcrt().outcome(), &NAMES);
}

#[test]
fn empty_environment_is_enough() {
    let setup = Setup::with_pebble();
    let preload = format!("LD_PRELOAD={}", library("libnss_wrapper.so").display());
    let hosts = format!("NSS_WRAPPER_HOSTS={}", setup.path("hosts").display());
    setup.verify(
        &setup.getcrt_by("env", &["-i", &preload, &hosts]).outcome(),
        &NAMES,
    );
}

#[test]
fn keys_and_csr_may_come_from_pipes() {
    let setup = Setup::with_pebble();
    let script = r#""$0" --account-key <(cat account.key) --csr <(cat domain.csr) --ca-bundle <(cat ca.pem) "$@""#;
    let outcome = setup
        .here(Run::of("bash").args(&["-c", script, GETCRT]))
        .args(&["--acme-dir", "acme"])
        .args(&["--directory-url", &setup.ca.directory_url()])
        .args(&["--check-port", &setup.web.port.to_string()])
        .outcome();
    setup.verify(&outcome, &NAMES);
    let key = fs::File::open(setup.path("account.key")).unwrap();
    let mut run = setup.getcrt().args(&["--account-key", "/dev/stdin"]);
    run.command.stdin(key);
    setup.verify(&run.outcome(), &NAMES);
}

#[test]
fn options_may_be_abbreviated_as_in_acme_tiny() {
    let setup = Setup::with_pebble();
    let outcome = setup
        .here(Run::getcrt())
        .args(&["--acc", "account.key", "--cs", "domain.csr"])
        .args(&["--acm", "acme", "--q", "--ca-b", "ca.pem"])
        .args(&["--direct", &setup.ca.directory_url()])
        .args(&["--ch", &setup.web.port.to_string()])
        .args(&["--disa", "--co", "me@a.test"])
        .outcome();
    setup.verify_pem(&outcome.exits(0).stdout, &NAMES);
}

/// Pebble's directory is elsewhere, so the error shows the URL that was made of the option.
#[test]
fn deprecated_ca_option_leads_to_a_directory() {
    let setup = Setup::with_pebble();
    let base = setup.ca.directory_url().replace("/dir", "");
    let run = setup.here(Run::getcrt());
    let run = run
        .args(&["--account-key", "account.key"])
        .args(&["--csr", "domain.csr"])
        .args(&["--acme-dir", "acme"])
        .args(&["--ca-bundle", "ca.pem"]);
    setup.run_fails(run.args(&["--ca", &base]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: HTTP 404, a reply that begins `404 page not found`
hint: check --directory-url: there is nothing at this address

"#]]);
}

#[test]
fn default_value_of_acme_tinys_ca_option_is_ignored() {
    let setup = Setup::with_pebble();
    let run = setup.getcrt();
    let outcome = run
        .args(&["--ca", "https://acme-v02.api.letsencrypt.org"])
        .outcome();
    outcome.issued();
}

#[test]
fn contacts_are_updated() {
    let setup = Setup::with_pebble();
    let update = |contacts: &[&str], stderr: Inline| {
        let outcome = setup.getcrt().args(contacts).outcome();
        outcome.issued().stderr_is(stderr);
    };
    update(
        &["--contact", "me@a.test", "mailto:you@a.test"],
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Updated contact details:
mailto:me@a.test
mailto:you@a.test
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
    // The last option counts.
    update(
        &["--contact", "none@a.test", "--contact", "last@a.test"],
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/my-account/[ID]
Updated contact details:
mailto:last@a.test
Creating new order...
Order created!
...
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
    update(
        &["--contact"],
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/my-account/[ID]
Updated contact details:
Creating new order...
Order created!
...
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
}

#[test]
fn dry_run_issues_nothing_and_touches_nothing() {
    let setup = Setup::with_pebble();
    let outcome = setup
        .getcrt()
        .args(&["--dry-run", "-o", "old.crt"])
        .outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Dry run passed, no certificate was requested.

"#]]);
    outcome.check("stdout is not empty", outcome.stdout.is_empty());
    assert_eq!(text(&setup.path("old.crt")), OLD_CERTIFICATE);
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
    assert!(!text(&setup.path("pebble.log")).contains("Issued certificate"));
}

/// A run with a new file as the output, under a umask that lets nobody else read it.
fn run_with_output(setup: &Setup<Pebble>) -> Run {
    setup
        .getcrt_by("sh", &["-c", "umask 077; exec \"$0\" \"$@\""])
        .args(&["-o", "out.crt"])
}

#[test]
fn output_file_is_made_for_all_to_read() {
    let setup = Setup::with_pebble();
    let outcome = run_with_output(&setup).outcome();
    outcome
        .exits(0)
        .says("\nCertificate signed!\n")
        .says_not("warning")
        .check("stdout is not empty", outcome.stdout.is_empty());
    let output = setup.path("out.crt");
    setup.verify_pem(&text(&output), &NAMES);
    let mode = fs::metadata(&output).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    setup.nothing_is_left(&outcome);
}

/// The new file has the old one's mode and owner.
#[test]
fn output_file_is_replaced_by_another() {
    let setup = Setup::with_pebble();
    let output = setup.path("out.crt");
    fs::write(&output, OLD_CERTIFICATE).unwrap();
    let inode = fs::metadata(&output).unwrap().ino();
    set_mode(&output, 0o640);
    let may_give_away = chown(&output, Some(12345), Some(54321)).is_ok();
    let outcome = run_with_output(&setup).outcome();
    outcome.exits(0).says_not("warning");
    setup.verify_pem(&text(&output), &NAMES);
    let now = fs::metadata(&output).unwrap();
    assert_ne!(now.ino(), inode);
    assert_eq!(now.permissions().mode() & 0o777, 0o640);
    if may_give_away {
        assert_eq!((now.uid(), now.gid()), (12345, 54321));
    }
    setup.nothing_is_left(&outcome);
}

#[test]
fn links_to_the_output_are_followed() {
    let setup = Setup::with_pebble();
    fs::create_dir(setup.path("live")).unwrap();
    fs::write(setup.path("live/cert.pem"), OLD_CERTIFICATE).unwrap();
    symlink("live/cert.pem", setup.path("link")).unwrap();
    symlink("link", setup.path("link-to-link")).unwrap();
    symlink("live/new.pem", setup.path("dangling")).unwrap();
    for (link, target) in [
        ("link-to-link", "live/cert.pem"),
        ("dangling", "live/new.pem"),
    ] {
        let outcome = setup.getcrt().args(&["-o", link]).outcome();
        outcome.exits(0).says_not("warning");
        setup.verify_pem(&text(&setup.path(target)), &NAMES);
        let metadata = fs::symlink_metadata(setup.path(link)).unwrap();
        assert!(metadata.is_symlink());
    }
}

/// A run that asks Let's Encrypt's staging for a certificate, in place of the one that is in `self.crt`. The
/// proxy, at which nobody listens, keeps it on this machine.
fn run_with_staging(setup: &Setup<SilentCa>, staging: &[&str]) -> Run {
    let proxy = format!("http://127.0.0.1:{}", free_port());
    setup
        .here(Run::getcrt())
        .env("HTTPS_PROXY", proxy)
        .args(&["--account-key", "account.key"])
        .args(&["--csr", "domain.csr"])
        .args(&["--acme-dir", "acme"])
        .args(&["--timeout", "1", "-o", "self.crt"])
        .args(staging)
}

#[test]
fn staging_does_not_replace_a_valid_certificate() {
    let setup = Setup::with_silent_ca();
    self_signed(setup.directory(), "/CN=a.test", &["a.test"], "30");
    let run = run_with_staging(&setup, &["--staging"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output self.crt: staging would replace a valid certificate with one that nobody trusts; name another file

"#]]);
    let url = "https://acme-staging-v02.api.letsencrypt.org/directory";
    let run = run_with_staging(&setup, &["--directory-url", url]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output self.crt: staging would replace a valid certificate with one that nobody trusts; name another file

"#]]);
}

#[test]
fn private_key_beside_the_certificate_is_not_lost() {
    let setup = Setup::with_silent_ca();
    let valid = self_signed(setup.directory(), "/CN=a.test", &["a.test"], "30");
    let both = text(&setup.path("domain.key")) + &text(&valid);
    fs::write(&valid, both).unwrap();
    let run = run_with_staging(&setup, &["--staging"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output self.crt: this file holds a PEM block `PRIVATE KEY`, which would be lost; name another file

"#]]);
}

#[test]
fn staging_replaces_a_certificate_from_staging() {
    let setup = Setup::with_silent_ca();
    for subject in [
        "/CN=(STAGING) Tenuous Tomato R13",
        "/O=(STAGING) Let's Encrypt/CN=x",
    ] {
        self_signed(setup.directory(), subject, &["a.test"], "30");
        // The run gets as far as the proxy.
        let outcome = run_with_staging(&setup, &["--staging"]).outcome();
        outcome.failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
...
error: cannot use the directory: https://acme-staging-v02.api.letsencrypt.org/directory: the connection failed: the proxy 127.0.0.1:[PORT] (HTTPS_PROXY): Connection refused (os error 111)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    }
}

/// An OpenSSL that is linked in looks where its builder had the roots, and there is nothing.
#[test]
fn roots_are_found_where_systems_keep_them() {
    if is_skipped_without_mounts("roots at other places") {
        return;
    }
    let setup = Setup::with_pebble();
    let home = openssl(&["version", "-d"]);
    let home = home.split('"').nth(1).unwrap();
    let run_with_bundle = |bundle: &str| {
        let folder = Path::new(bundle).parent().unwrap().display();
        // Only this run sees the system changed.
        let script = format!(
            "mount -t tmpfs none /etc && mount -t tmpfs none {home} && mkdir -p {home}/certs {folder} &&
            echo 127.0.0.1 localhost >/etc/hosts && cp ca.pem {bundle} && exec \"$0\" \"$@\""
        );
        let run = Run::of_script_with_mounts(&script).arg(GETCRT);
        setup.with_options_but_the_root(run)
    };
    for bundle in [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ] {
        setup.verify(&run_with_bundle(bundle).outcome(), &NAMES);
    }
    setup.run_fails(run_with_bundle("/etc/elsewhere.pem"), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/dir: its TLS certificate is refused: unable to get local issuer certificate
hint: for a private CA, name its root with --ca-bundle; else install ca-certificates

"#]]);
}

#[test]
fn unknown_root_is_an_error() {
    let setup = Setup::with_pebble();
    let run = setup.with_options_but_the_root(Run::getcrt());
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/dir: its TLS certificate is refused: unable to get local issuer certificate
hint: for a private CA, name its root with --ca-bundle; else install ca-certificates

"#]]);
}

#[test]
fn environment_names_the_roots() {
    let setup = Setup::with_pebble();
    let run = setup.with_options_but_the_root(Run::getcrt());
    let outcome = run.env("SSL_CERT_FILE", &https().root).outcome();
    setup.verify(&outcome, &NAMES);
}

#[test]
fn proxy_of_the_environment_is_for_the_ca_alone() {
    let setup = Setup::with_pebble();
    let proxy = Proxy::start();
    let url = format!("http://localhost:{}", proxy.port);
    let outcome = setup.getcrt().env("HTTPS_PROXY", url).outcome();
    setup.verify(&outcome, &NAMES);
    assert!(proxy.requests() > 0);
}

#[test]
fn proxy_that_is_down_is_an_error_unless_it_is_not_used() {
    let setup = Setup::with_pebble();
    let url = format!("http://127.0.0.1:{}", free_port());
    let run = || setup.getcrt().env("HTTPS_PROXY", &url);
    setup.run_fails(run().args(&["--timeout", "2"]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
...
error: cannot use the directory: https://localhost:[PORT]/dir: the connection failed: the proxy 127.0.0.1:[PORT] (HTTPS_PROXY): Connection refused (os error 111)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    setup.verify(&run().env("NO_PROXY", "localhost").outcome(), &NAMES);
}

#[test]
fn socks_proxy_is_an_error() {
    let setup = Setup::with_pebble();
    let run = setup.getcrt().env("HTTPS_PROXY", "socks5://127.0.0.1:1");
    setup.run_fails(
        run,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
error: HTTPS_PROXY: this does not name an http or https proxy, and getcrt can use no others
hint: set it to http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; in a password, write %2F for a slash, and so on

"#]],
    );
}
