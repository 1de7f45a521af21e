//! The examples, as they stand in `examples/` but for paths and the reload: run twice against a real
//! CA, they issue, and then find nothing to do and reload nothing.

use crate::support::pebble::NAMES;
use crate::support::prelude::*;

/// An example with the paths of `setup` in the place of its own.
fn adapted(setup: &Setup<Pebble>, example: &str) -> String {
    let mut content = fs::read_to_string(format!("examples/{example}")).unwrap();
    let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    for (theirs, ours) in [
        ("/etc/getcrt/tls/domain.crt", path("tls/domain.crt")),
        ("/etc/getcrt/account.key", path("account.key")),
        ("/etc/getcrt/domain.csr", path("domain.csr")),
        ("/etc/getcrt/domain.key", path("domain.key")),
        ("/var/www/acme-challenge", path("acme")),
    ] {
        assert!(
            content.contains(theirs)
                || example != "getcrt.service"
                || theirs == "/etc/getcrt/domain.key",
            "{example} lacks {theirs}"
        );
        content = content.replace(theirs, &ours);
    }
    content
}

/// The script's run, with what a private CA needs beside, and with a `getcrt` on its path.
fn run(setup: &Setup<Pebble>, script: &str) -> Outcome {
    let bin = setup.path("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(setup.path("tls")).unwrap();
    let options = format!(
        "--directory-url {} --check-port {} --ca-bundle ca.pem",
        setup.ca.directory_url(),
        setup.web.port
    );
    fs::write(
        bin.join("getcrt"),
        format!(
            "#!/bin/sh\nexec {} \"$@\" {options}\n",
            getcrt_for_a_shell()
        ),
    )
    .unwrap();
    set_mode(&bin.join("getcrt"), 0o755);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = setup.here(Run::of("sh").args(&["-c", script]));
    run.env("PATH", path).outcome()
}

/// How often the web server was reloaded.
fn reloads(setup: &Setup<Pebble>) -> usize {
    fs::read_to_string(setup.path("reloads"))
        .unwrap_or_default()
        .lines()
        .count()
}

#[test]
fn the_renewal_script() {
    let setup = Setup::with_pebble();
    let script = adapted(&setup, "renew.sh")
        .replace("systemctl reload nginx.service", "echo reload >>reloads");
    run(&setup, &script).exits(0);
    setup.verify_pem(&text(&setup.path("tls/domain.crt")), &NAMES);
    assert_eq!(reloads(&setup), 1);
    let outcome = run(&setup, &script);
    outcome
        .exits(0)
        .check("it says something", outcome.stderr.is_empty());
    assert_eq!(reloads(&setup), 1);
    // A failure is one of the script, too.
    fs::write(setup.path("domain.csr"), "").unwrap();
    run(&setup, &script).exits(1).says("error: --csr ");
    assert_eq!(reloads(&setup), 1);
}

/// Each certificate has a key of its own, and the old pair stays until the new one is complete.
#[test]
fn the_rotation_script() {
    let setup = Setup::with_pebble();
    let script = adapted(&setup, "rotate.sh")
        .replace("systemctl reload nginx.service", "echo reload >>reloads")
        .replace(
            "DNS:example.org,DNS:www.example.org",
            "DNS:a.test,DNS:www.a.test",
        );
    let [key, certificate] = ["domain.key", "tls/domain.crt"].map(|name| setup.path(name));
    let verify = || setup.verify_pem(&text(&certificate), &NAMES);
    let first_key = text(&key);

    // There is a CSR, but no certificate yet.
    run(&setup, &script).exits(0);
    verify();
    let second_key = text(&key);
    assert_ne!(second_key, first_key);
    assert_eq!(reloads(&setup), 1);

    let outcome = run(&setup, &script);
    outcome
        .exits(0)
        .check("it says something", outcome.stderr.is_empty());
    assert_eq!(text(&key), second_key);
    assert_eq!(reloads(&setup), 1);

    // Another name makes it due, which fails at first.
    setup.resolve(&["a.test", "www.a.test", "new.a.test"]);
    let more = script.replace("DNS:a.test,", "DNS:new.a.test,DNS:a.test,");
    fs::remove_file(setup.path("domain.csr")).unwrap();
    let failing = more.replace(setup.acme_dir().to_str().unwrap(), "/nowhere");
    run(&setup, &failing).exits(1).says("--acme-dir /nowhere");
    assert_eq!(text(&key), second_key);
    verify();
    assert_eq!(reloads(&setup), 1);

    run(&setup, &more).exits(0);
    setup.verify_pem(&text(&certificate), &["new.a.test", "a.test", "www.a.test"]);
    assert_ne!(text(&key), second_key);
    assert_eq!(reloads(&setup), 2);
    let mut files = listing(setup.directory());
    files.extend(listing(&setup.path("tls")));
    assert!(
        !files.iter().any(|name| name.ends_with(".new")),
        "{files:?}"
    );
}

/// The commands of the recipe, and both lines of its crontab.
#[test]
fn rsa_and_ecdsa_side_by_side() {
    let setup = Setup::with_pebble();
    let recipes = adapted(&setup, "README.md")
        .replace(
            "/etc/getcrt/domain-rsa",
            setup.path("domain-rsa").to_str().unwrap(),
        )
        .replace(
            "/etc/getcrt/tls/domain-rsa",
            setup.path("tls/domain-rsa").to_str().unwrap(),
        )
        .replace(
            "DNS:example.org,DNS:www.example.org",
            "DNS:a.test,DNS:www.a.test",
        )
        .replace(
            "sudo -n /usr/bin/systemctl reload nginx.service",
            "echo reload >>reloads",
        );
    let (_, section) = recipes.split_once("## RSA and ECDSA for one name").unwrap();
    let (commands, rest) = section
        .split_once("```sh\n")
        .unwrap()
        .1
        .split_once("```")
        .unwrap();
    run(&setup, commands).exits(0);
    let crontab = rest.split("```\n").nth(1).unwrap();
    let lines: Vec<&str> = crontab.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, name, key) in [
        (lines[0], "tls/domain.crt", "id-ecPublicKey"),
        (lines[1], "tls/domain-rsa.crt", "rsaEncryption"),
    ] {
        let command = line.splitn(7, ' ').last().unwrap();
        run(&setup, command).exits(0);
        let path = setup.path(name);
        let shown = openssl(&["x509", "-in", path.to_str().unwrap(), "-noout", "-text"]);
        assert!(
            shown.contains(&format!("Public Key Algorithm: {key}\n")),
            "{shown}"
        );
        run(&setup, command).exits(3);
    }
    assert_eq!(reloads(&setup), 2);
}

#[test]
fn the_crontab() {
    let setup = Setup::with_pebble();
    let crontab = adapted(&setup, "crontab").replace(
        "sudo -n /usr/bin/systemctl reload nginx.service",
        "echo reload >>reloads",
    );
    let line = crontab
        .lines()
        .find(|line| line.starts_with("17 "))
        .unwrap();
    // Minute, hours, days, months, weekdays and the user stand before the command.
    let words: Vec<&str> = line.splitn(7, ' ').collect();
    assert_eq!(words[..6], ["17", "1,7,13,19", "*", "*", "*", "getcrt"]);
    assert!(!words[6].contains('%'), "cron would end the line there");
    run(&setup, words[6]).exits(0);
    setup.verify_pem(&text(&setup.path("tls/domain.crt")), &NAMES);
    assert_eq!(reloads(&setup), 1);
    let outcome = run(&setup, words[6]);
    outcome.exits(3).check(
        "cron would send mail",
        outcome.stderr.is_empty() && outcome.stdout.is_empty(),
    );
    assert_eq!(reloads(&setup), 1);
}

#[test]
fn the_systemd_service() {
    let setup = Setup::with_pebble();
    let service = adapted(&setup, "getcrt.service");
    let start = service
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    // A bare name is found in /usr/local/bin and in /usr/bin, so one file is right for both.
    assert!(start.starts_with("getcrt "), "{start}");
    run(&setup, start).exits(0);
    setup.verify_pem(&text(&setup.path("tls/domain.crt")), &NAMES);
    let before = fs::metadata(setup.path("tls/domain.crt"))
        .unwrap()
        .modified()
        .unwrap();
    run(&setup, start).exits(3).says("\nNot due before ");
    assert!(service.contains("\nSuccessExitStatus=3\n"));
    // What the reload waits for has not happened.
    assert_eq!(
        fs::metadata(setup.path("tls/domain.crt"))
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
    let watched = fs::read_to_string("examples/getcrt-reload.path").unwrap();
    assert!(watched.contains("\nPathChanged=/etc/getcrt/tls/domain.crt\n"));
    let unit = |line: &str| {
        fs::read_to_string("examples/getcrt.service")
            .unwrap()
            .lines()
            .any(|other| other == line)
    };
    assert!(
        unit("ReadWritePaths=/var/www/acme-challenge /etc/getcrt/tls")
            && unit("NoNewPrivileges=yes")
    );
}

#[test]
fn systemd_understands_the_units() {
    let setup = Setup::with_pebble();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]);
    for unit in [
        "getcrt.service",
        "getcrt.timer",
        "getcrt-reload.path",
        "getcrt-reload.service",
    ] {
        let content = fs::read_to_string(format!("examples/{unit}")).unwrap();
        fs::write(
            setup.path(unit),
            content.replace("=getcrt ", &format!("=\"{GETCRT}\" ")),
        )
        .unwrap();
        analyze.arg(setup.path(unit));
    }
    let output = analyze.output().expect("is systemd installed?");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_ours = told.lines().filter(|line| line.contains("getcrt"));
    assert!(output.status.success() && about_ours.count() == 0, "{told}");
}
