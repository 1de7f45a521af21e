//! The whole conversation with a real CA.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::support::files::library;
use crate::support::is_skipped_without_ipv6;
use crate::support::is_skipped_without_mounts;
use crate::support::pebble::NAMES;
use crate::support::prelude::*;

#[test]
fn two_names() {
    let setup = Setup::with_pebble();
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
    let order = outcome
        .stderr
        .lines()
        .map(|line| line.split(": http").next().unwrap());
    let order: Vec<&str> = order
        .map(|line| line.split(": data:").next().unwrap())
        .collect();
    let valid = order
        .iter()
        .position(|line| line.starts_with("Valid until "))
        .unwrap();
    let summary = order[valid];
    assert!(
        summary.contains(", issued by Pebble Intermediate CA ") && summary.ends_with(", 2 names"),
        "{outcome}"
    );
    assert_eq!(
        order,
        [
            "Parsing account key...",
            "Parsing CSR...",
            "Found domains: a.test, www.a.test",
            "Getting directory...",
            "Directory found!",
            "Registering account...",
            "Registered! Account ID",
            "This agrees to the CA's terms of service",
            "Creating new order...",
            "Order created!",
            "Verifying a.test...",
            "Verifying www.a.test...",
            "a.test verified!",
            "www.a.test verified!",
            "Signing certificate...",
            summary,
            "Certificate signed!",
        ],
        "{outcome}"
    );
    for request in setup.web.requests() {
        let (content, mode) = request.file.unwrap();
        assert_eq!(mode, 0o644);
        assert!(!content.ends_with(b"\n") && content.contains(&b'.'));
    }
    assert!(setup.web_saw_the_ca());

    let again = setup.getcrt().arg("--quiet").outcome();
    assert_eq!(again.stderr, "");
    setup.verify_pem(&again.stdout, &NAMES);
    setup
        .getcrt()
        .outcome()
        .issued()
        .says("Already registered! Account ID: https://");
}

#[test]
fn one_name() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["only.test"]);
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &["only.test"]);
    outcome.says(", 1 name\n");
}

#[test]
fn twenty_names_and_many_rejected_nonces() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_WFE_NONCEREJECT", "40")]);
    let names: Vec<String> = (0..20).map(|i| format!("n{i}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    setup.verify(&setup.getcrt().outcome(), &names);
}

#[test]
fn nine_of_ten_nonces_rejected() {
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
    outcome.says(
        "Already verified: a.test, skipping...\nAlready verified: www.a.test, skipping...\nSigning",
    );
    assert_eq!(setup.web.requests().len(), seen, "files were fetched again");
}

#[test]
fn a_slow_validation_is_waited_for() {
    let setup = Setup::with_pebble_and_variables(&[
        ("PEBBLE_VA_NOSLEEP", "0"),
        ("PEBBLE_VA_SLEEPTIME", "20"),
    ]);
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
}

#[test]
fn alternate_roots_and_long_chains_change_nothing() {
    let setup = Setup::with_pebble_and_variables(&[
        ("PEBBLE_ALTERNATE_ROOTS", "2"),
        ("PEBBLE_CHAIN_LENGTH", "3"),
    ]);
    let outcome = setup.getcrt().outcome();
    setup.verify(&outcome, &NAMES);
    assert_eq!(outcome.stdout.matches("BEGIN CERTIFICATE").count(), 4);
}

#[test]
fn every_kind_of_account_key() {
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
fn a_key_the_ca_does_not_take_is_its_own_words() {
    let setup = Setup::with_pebble();
    key(&setup.path("account.key"), "ED25519");
    setup
        .getcrt()
        .outcome()
        .failed("cannot register the account: https://")
        .says("urn:ietf:params:acme:error:");
}

#[test]
fn every_kind_of_certificate_key() {
    let setup = Setup::with_pebble();
    for kind in ["RSA:2048", "EC:P-384", "ED25519"] {
        key(&setup.path("domain.key"), kind);
        setup.csr("/", &NAMES);
        setup.verify(&setup.getcrt().outcome(), &NAMES);
    }
}

#[test]
fn a_csr_in_der() {
    let setup = Setup::with_pebble();
    let csr = setup.path("domain.csr");
    openssl(&[
        "req",
        "-in",
        csr.to_str().unwrap(),
        "-outform",
        "DER",
        "-out",
        csr.to_str().unwrap(),
    ]);
    setup.verify(&setup.getcrt().outcome(), &NAMES);
}

#[test]
fn a_common_name_comes_first_and_once() {
    let setup = Setup::with_pebble();
    setup.csr("/CN=WWW.a.test", &["a.test", "www.a.test"]);
    setup
        .getcrt()
        .outcome()
        .issued()
        .says("Found domains: www.a.test, a.test\n");
    setup.csr("/CN=Web server of the shop", &["a.test"]);
    let outcome = setup.getcrt().outcome();
    outcome
        .issued()
        .says("Ignoring the common name `Web server of the shop`, which is no host name\n");
    setup.resolve(&["lone.test"]);
    csr(
        &setup.path("domain.csr"),
        &setup.path("domain.key"),
        "/CN=lone.test",
        &[],
    );
    // Pebble is one of those that the warning speaks of.
    let outcome = setup.getcrt().outcome();
    outcome
        .says("Found domains: lone.test\n")
        .says("warning: lone.test is the CSR's common name");
    outcome
        .failed("/finalize-order/")
        .says("HTTP 403, Order includes different number of DNSnames");
}

#[test]
fn ip_addresses() {
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
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    // nginx's workers are another user, who must be able to read what root wrote under any umask.
    set_mode(directory.path(), 0o755);
    fs::create_dir(path("acme")).unwrap();
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
    let nginx = Command::new("nginx")
        .arg("-c")
        .arg(path("nginx.conf"))
        .stderr(Stdio::null())
        .spawn();
    let _nginx = Server(nginx.expect("is nginx installed?"));
    await_port(port);
    let mut web = Web::serving(&path("acme"));
    web.port = port;
    let log = path("access.log");
    let setup = Setup::with_pebble_and_web(directory, web);
    let outcome = setup
        .getcrt_by("sh", &["-c", "umask 077; exec \"$0\" \"$@\""])
        .outcome();
    setup.verify(&outcome, &NAMES);
    assert!(
        text(&log).contains("\" 200 ") && text(&log).contains("LetsEncrypt"),
        "{}",
        text(&log)
    );
}

#[test]
fn one_name_of_three_fails() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["good.test", "bad.test", "fine.test"]);
    setup.mislead_the_ca("bad.test", "127.0.0.2");
    let old = setup.path("old.crt");
    fs::write(&old, "the old certificate").unwrap();
    let outcome = setup
        .getcrt()
        .args(&["-o", old.to_str().unwrap()])
        .outcome();
    outcome
        .failed(": Challenge did not pass for bad.test: ")
        .says("error: order https://localhost:");
    outcome
        .says("\n  bad.test: ")
        .says("urn:ietf:params:acme:error:")
        .says_not("\n  good.test");
    assert_eq!(text(&old), "the old certificate");
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
    assert!(
        !listing(setup.path("").as_path())
            .iter()
            .any(|name| name.starts_with(".getcrt"))
    );
}

#[test]
fn every_name_that_failed_is_told() {
    let setup = Setup::with_pebble();
    setup.csr("/", &["good.test", "bad.test", "worse.test"]);
    setup.mislead_the_ca("bad.test", "127.0.0.2");
    setup.mislead_the_ca("worse.test", "127.0.0.2");
    let outcome = setup.getcrt().outcome();
    outcome
        .failed("Challenge did not pass for ")
        .says_not("\n  good.test");
    let told = ["bad.test", "worse.test"]
        .iter()
        .filter(|name| outcome.stderr.contains(&format!("\n  {name}: ")))
        .count();
    assert!(told >= 1, "{outcome}");
}

#[test]
fn what_is_not_served_is_found_before_the_ca_is_told() {
    let directory = directory();
    for name in ["acme", "elsewhere"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    let web = Web::serving(&directory.path().join("elsewhere"));
    let setup = Setup::with_pebble_and_web(directory, web);
    let outcome = setup.getcrt().outcome();
    outcome
        .failed("local check: a.test: Wrote file to ")
        .says("but couldn't download http://a.test:");
    outcome
        .says("127.0.0.1 (private")
        .says("HTTP 404 with the body `no such file`");
    outcome
        .says("--disable-check leaves this to the CA")
        .says("\n  www.a.test: ")
        .says("\nhint: the web server serves another");
    assert!(!setup.web_saw_the_ca());
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
    // The CA would have said so too.
    setup
        .getcrt()
        .arg("--disable-check")
        .outcome()
        .failed("Challenge did not pass for ");
    assert!(setup.web_saw_the_ca());
}

#[test]
fn a_name_that_this_machine_cannot_reach_is_the_cas_to_decide() {
    let setup = Setup::with_pebble();
    setup.resolve(&["www.a.test"]);
    let outcome = setup.getcrt().outcome();
    outcome
        .exits(0)
        .says("warning: local check: Wrote file to ")
        .says("couldn't download http://a.test:");
    setup.verify_pem(&outcome.stdout, &NAMES);
    let without = setup.getcrt().arg("--disable-check").outcome();
    without.issued();
}

#[test]
fn redirects_are_followed_as_a_validator_does() {
    let directory = directory();
    let acme_dir = directory.path().join("acme");
    fs::create_dir(&acme_dir).unwrap();
    let redirecting = |request: &Request| {
        let token = request.path.strip_prefix("/.well-known/acme-challenge/")?;
        Some(response(
            &format!("301 Moved\r\nLocation: /moved/{token}"),
            b"",
        ))
    };
    let kept = acme_dir.clone();
    let web = Web::answering(
        &acme_dir,
        Box::new(move |request| {
            let moved = request
                .path
                .strip_prefix("/moved/")
                .map(|token| fs::read(kept.join(token)).unwrap());
            moved
                .map(|content| response("200 OK", &content))
                .or_else(|| redirecting(request))
        }),
    );
    let setup = Setup::with_pebble_and_web(directory, web);
    setup.verify(&setup.getcrt().outcome(), &NAMES);
}

#[test]
fn an_empty_environment() {
    let setup = Setup::with_pebble();
    let preload = format!("LD_PRELOAD={}", library("libnss_wrapper.so").display());
    let hosts = format!("NSS_WRAPPER_HOSTS={}", setup.path("hosts").display());
    setup.verify(
        &setup.getcrt_by("env", &["-i", &preload, &hosts]).outcome(),
        &NAMES,
    );
}

#[test]
fn keys_and_csr_from_pipes() {
    let setup = Setup::with_pebble();
    let script = format!(
        r#"cd {}; "$0" --account-key <(cat account.key) --csr <(cat domain.csr) --acme-dir acme --directory-url {} --check-port {} --ca-bundle <(cat {})"#,
        setup.path("").display(),
        setup.ca.directory_url(),
        setup.web.port,
        https().root.display()
    );
    let outcome = setup
        .here(Run::of("bash").args(&["-c", &script, GETCRT]))
        .outcome();
    setup.verify(&outcome, &NAMES);
    let key = fs::File::open(setup.path("account.key")).unwrap();
    let mut run = setup.getcrt().args(&["--account-key", "/dev/stdin"]);
    run.command.stdin(key);
    setup.verify(&run.outcome(), &NAMES);
}

#[test]
fn unique_prefixes_as_in_acme_tiny() {
    let setup = Setup::with_pebble();
    let run = setup.here(Run::getcrt());
    let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    let run = run.args(&[
        "--acc",
        &path("account.key"),
        "--cs",
        &path("domain.csr"),
        "--acm",
        &path("acme"),
        "--q",
    ]);
    let run = run.args(&[
        "--direct",
        &setup.ca.directory_url(),
        "--ch",
        &setup.web.port.to_string(),
    ]);
    let bundle = https().root.to_str().unwrap();
    let outcome = run
        .args(&["--ca-b", bundle, "--disa", "--co", "me@a.test"])
        .outcome();
    setup.verify_pem(&outcome.exits(0).stdout, &NAMES);
}

#[test]
fn the_deprecated_ca_option() {
    let setup = Setup::with_pebble();
    let base = setup.ca.directory_url().replace("/dir", "");
    let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    let run = setup.here(Run::getcrt()).args(&["--ca", &base]);
    let run = run.args(&[
        "--account-key",
        &path("account.key"),
        "--csr",
        &path("domain.csr"),
        "--acme-dir",
        &path("acme"),
    ]);
    let bundle = https().root.to_str().unwrap();
    // Pebble's directory is elsewhere, so that the message shows which URL was made of it.
    run.args(&["--ca-bundle", bundle])
        .outcome()
        .failed(&format!("{base}/directory: HTTP 404"));
    // acme-tiny's default value is ignored, beside another option too.
    setup
        .getcrt()
        .args(&["--ca", "https://acme-v02.api.letsencrypt.org"])
        .outcome()
        .issued();
}

#[test]
fn contacts() {
    let setup = Setup::with_pebble();
    let outcome = setup
        .getcrt()
        .args(&["--contact", "me@a.test", "mailto:you@a.test"])
        .outcome();
    outcome.issued().says(
        "\nUpdated contact details:\nmailto:me@a.test\nmailto:you@a.test\nCreating new order",
    );
    let outcome = setup
        .getcrt()
        .args(&["--contact", "none@a.test", "--contact", "last@a.test"])
        .outcome();
    outcome
        .issued()
        .says("\nUpdated contact details:\nmailto:last@a.test\nCreating new order...");
    let outcome = setup.getcrt().arg("--contact").outcome();
    outcome
        .issued()
        .says("\nUpdated contact details:\nCreating new order...");
}

#[test]
fn a_dry_run_issues_nothing_and_touches_nothing() {
    let setup = Setup::with_pebble();
    let output = setup.path("out.crt");
    fs::write(&output, "old").unwrap();
    let outcome = setup
        .getcrt()
        .args(&["--dry-run", "-o", output.to_str().unwrap()])
        .outcome();
    outcome
        .exits(0)
        .check("stdout is not empty", outcome.stdout.is_empty());
    outcome.check(
        "the end is another",
        outcome
            .stderr
            .ends_with("\nDry run passed, no certificate was requested.\n"),
    );
    outcome
        .says("a.test verified!\n")
        .says_not("Signing certificate");
    assert_eq!(text(&output), "old");
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
    assert!(!text(&setup.path("pebble.log")).contains("Issued certificate"));
}

#[test]
fn an_output_file_is_made_and_replaced() {
    let setup = Setup::with_pebble();
    let output = setup.path("out.crt");
    let getcrt = || {
        setup
            .getcrt_by("sh", &["-c", "umask 077; exec \"$0\" \"$@\""])
            .args(&["-o", output.to_str().unwrap()])
    };
    let outcome = getcrt().outcome();
    outcome
        .exits(0)
        .says("\nCertificate signed!\n")
        .check("stdout is not empty", outcome.stdout.is_empty());
    setup.verify_pem(&text(&output), &NAMES);
    let metadata = |path: &Path| fs::metadata(path).unwrap();
    assert_eq!(metadata(&output).permissions().mode() & 0o777, 0o644);

    // Replaced, as another file with the old one's mode and owner.
    let (first, inode) = (text(&output), metadata(&output).ino());
    set_mode(&output, 0o640);
    let may_give_away = std::os::unix::fs::chown(&output, Some(12345), Some(54321)).is_ok();
    getcrt().outcome().exits(0).says_not("warning");
    let now = metadata(&output);
    assert!(text(&output) != first && now.ino() != inode);
    assert_eq!(now.permissions().mode() & 0o777, 0o640);
    if may_give_away {
        assert_eq!((now.uid(), now.gid()), (12345, 54321));
    }
    assert!(
        !listing(&setup.path(""))
            .iter()
            .any(|name| name.starts_with(".getcrt"))
    );
}

#[test]
fn links_to_the_output_are_followed() {
    let setup = Setup::with_pebble();
    let path = |name: &str| setup.path(name);
    fs::create_dir(path("live")).unwrap();
    fs::write(path("live/cert.pem"), "old").unwrap();
    symlink("live/cert.pem", path("link")).unwrap();
    symlink("link", path("link-to-link")).unwrap();
    symlink("live/new.pem", path("dangling")).unwrap();
    for (link, target) in [
        ("link-to-link", "live/cert.pem"),
        ("dangling", "live/new.pem"),
    ] {
        let mut run = setup.getcrt().args(&["-o", link]);
        run.command.current_dir(path(""));
        run.outcome().exits(0).says_not("warning");
        setup.verify_pem(&text(&path(target)), &NAMES);
        assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink());
    }
}

#[test]
fn staging_does_not_replace_what_is_valid() {
    let setup = Setup::with_pebble();
    let valid = self_signed(&setup.path(""), "/CN=a.test", &["a.test"], "30");
    let run = |output: &Path| {
        let run = Run::getcrt().args(&[
            "--staging",
            "--timeout",
            "1",
            "-o",
            output.to_str().unwrap(),
        ]);
        let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
        // A proxy that nobody listens at keeps the test on this machine.
        let run = run.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", free_port()));
        run.args(&[
            "--account-key",
            &path("account.key"),
            "--csr",
            &path("domain.csr"),
            "--acme-dir",
            &path("acme"),
        ])
        .outcome()
    };
    run(&valid)
        .failed("staging would replace a valid certificate by one nobody trusts")
        .says_not("Getting directory");
    let by_url = Run::getcrt().args(&[
        "--directory-url",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
    ]);
    let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    let by_url = by_url.args(&[
        "--account-key",
        &path("account.key"),
        "--csr",
        &path("domain.csr"),
        "--acme-dir",
        &path("acme"),
    ]);
    by_url
        .args(&["-o", valid.to_str().unwrap()])
        .outcome()
        .failed("staging would replace a valid certificate");
    // A key beside it would be lost, too.
    let both = format!("{}{}", text(&setup.path("domain.key")), text(&valid));
    fs::write(&valid, both).unwrap();
    run(&valid).failed("there is a PRIVATE KEY in this file, which would be lost");
    for harmless in [
        "/CN=(STAGING) Tenuous Tomato R13",
        "/O=(STAGING) Let's Encrypt/CN=x",
    ] {
        let staging = self_signed(&setup.path(""), harmless, &["a.test"], "30");
        run(&staging).failed(
            "cannot use the directory: https://acme-staging-v02.api.letsencrypt.org/directory: ",
        );
    }
}

/// An OpenSSL that is linked in looks where its builder had it, and there is nothing.
#[test]
fn roots_are_found_where_systems_keep_them() {
    if is_skipped_without_mounts("roots at other places") {
        return;
    }
    let setup = Setup::with_pebble();
    let home = openssl(&["version", "-d"]);
    let home = home.split('"').nth(1).unwrap();
    for (bundle, is_found) in [
        ("/etc/ssl/certs/ca-certificates.crt", true),
        ("/etc/pki/tls/certs/ca-bundle.crt", true),
        ("/etc/ssl/ca-bundle.pem", true),
        ("/etc/ssl/cert.pem", true),
        ("/etc/elsewhere.pem", false),
    ] {
        let folder = Path::new(bundle).parent().unwrap().display();
        let root = https().root.display();
        // Of the system nothing is changed but for this run.
        let script = format!(
            "mount -t tmpfs none /etc && mount -t tmpfs none {home} && mkdir -p {home}/certs {folder} &&
            echo 127.0.0.1 localhost >/etc/hosts && cp {root} {bundle} && exec \"$0\" \"$@\""
        );
        let run = Run::of_script_with_mounts(&script).arg(GETCRT);
        let outcome = setup.with_options_but_the_root(run).outcome();
        if is_found {
            setup.verify(&outcome, &NAMES);
        } else {
            outcome.failed("its TLS certificate is refused: ");
        }
    }
}

#[test]
fn the_environment_names_the_roots() {
    let setup = Setup::with_pebble();
    let outcome = setup.with_options_but_the_root(Run::getcrt()).outcome();
    outcome
        .failed("its TLS certificate is refused: ")
        .says("\nhint: for a private CA, name its root with --ca-bundle");
    let run = setup.with_options_but_the_root(Run::getcrt());
    let outcome = run.env("SSL_CERT_FILE", &https().root).outcome();
    setup.verify(&outcome, &NAMES);
}

#[test]
fn the_proxy_of_the_environment_is_for_the_ca_alone() {
    let setup = Setup::with_pebble();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let outcome = setup
        .getcrt()
        .env("HTTPS_PROXY", &dead)
        .args(&["--timeout", "2"])
        .outcome();
    outcome.failed("cannot use the directory: ");
    setup.verify(
        &setup
            .getcrt()
            .env("HTTPS_PROXY", &dead)
            .env("NO_PROXY", "localhost")
            .outcome(),
        &NAMES,
    );
    let proxy = crate::support::web::Proxy::start();
    let outcome = setup
        .getcrt()
        .env("HTTPS_PROXY", format!("http://localhost:{}", proxy.port))
        .outcome();
    setup.verify(&outcome, &NAMES);
    assert!(proxy.requests() > 0);
    let outcome = setup
        .getcrt()
        .env("HTTPS_PROXY", "socks5://127.0.0.1:1")
        .outcome();
    outcome.failed("the environment asks for a SOCKS proxy");
}
