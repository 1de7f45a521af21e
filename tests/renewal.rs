//! Renewal: whether it is due, by the CA or by lifetime, and what then happens.

use openssl::asn1::Asn1Time;

use crate::support::pebble::NAMES;
use crate::support::prelude::*;

/// A moment `hours` from now, as RFC 3339 has it.
fn moment(hours: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let time = Asn1Time::from_unix(now.as_secs() as i64 + hours * 3600)
        .unwrap()
        .to_string();
    // "Nov  6 08:49:37 1994 GMT"
    let parts: Vec<&str> = time.split_whitespace().collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|month| *month == parts[0]).unwrap() + 1;
    format!("{}-{month:02}-{:0>2}T{}Z", parts[3], parts[1], parts[2])
}

/// A CA that suggests a window, from `start` to `end` in hours from now.
fn suggesting(ca: FakeCaBuilder, start: i64, end: i64) -> FakeCaBuilder {
    let window = json!({"suggestedWindow": {"start": moment(start), "end": moment(end)}, "explanationURL": "https://ca.test/why"});
    telling(ca, window)
}

/// A CA with this renewal information.
fn telling(ca: FakeCaBuilder, information: Value) -> FakeCaBuilder {
    let ca = ca.tamper("directory", |reply, _| {
        reply.edit(|directory| {
            let base = directory["newOrder"]
                .as_str()
                .unwrap()
                .replace("new-order", "renewal-info");
            directory["renewalInfo"] = json!(base);
        });
    });
    ca.tamper("renewalInfo", move |reply, _| {
        reply.replace(200, &information.to_string())
    })
}

impl Setup<FakeCa> {
    fn renew(&self) -> Run {
        self.getcrt().args(&["--renew", "-o", "cert.pem"])
    }

    fn certificate(&self) -> String {
        text(&self.path("cert.pem"))
    }

    /// Issues a certificate with --renew, for there is none yet.
    #[track_caller]
    fn issue(&self) {
        let outcome = self.renew().outcome();
        outcome
            .exits(0)
            .says("\nRenewing: there is no certificate yet\n")
            .says("\nCertificate signed!\n");
        assert!(
            self.ca.payload("newOrder")["replaces"].is_null(),
            "{outcome}"
        );
        self.nothing_is_left(&outcome);
    }

    /// A run that has nothing to do: exit 3, one line, and nothing asked of the CA but advice.
    #[track_caller]
    fn not_due(&self, told: &str) -> Outcome {
        let (before, orders) = (self.certificate(), self.ca.count("newAccount"));
        let outcome = self.renew().outcome();
        outcome
            .exits(3)
            .says(told)
            .check("stdout is not empty", outcome.stdout.is_empty());
        outcome.check(
            "the last line is another",
            outcome
                .stderr
                .lines()
                .last()
                .unwrap()
                .starts_with("Not due before "),
        );
        assert_eq!(
            (self.certificate(), self.ca.count("newAccount")),
            (before, orders),
            "{outcome}"
        );
        self.nothing_is_left(&outcome);
        let quiet = self.renew().arg("--quiet").outcome();
        quiet
            .exits(3)
            .check("--quiet says something", quiet.stderr.is_empty());
        outcome
    }

    /// A run that renews, for the reason `told`.
    #[track_caller]
    fn due(&self, told: &str) -> Outcome {
        let before = self.certificate();
        let outcome = self.renew().outcome();
        outcome
            .exits(0)
            .says(&format!("\nRenewing: {told}"))
            .says("\nCertificate signed!\n");
        assert!(self.certificate() != before, "{outcome}");
        self.nothing_is_left(&outcome);
        outcome
    }
}

#[test]
fn issue_then_not_due_with_a_real_ca() {
    let setup = Setup::with_pebble();
    let output = setup.path("out.crt");
    let getcrt = || {
        setup
            .getcrt()
            .args(&["--renew", "-o", output.to_str().unwrap()])
    };
    getcrt().outcome().exits(0).says("\nCertificate signed!\n");
    setup.verify_pem(&text(&output), &NAMES);
    let first = text(&output);
    let outcome = getcrt().outcome();
    // Debian's Pebble has no renewal information.
    outcome
        .exits(3)
        .says("\nGoing by its lifetime: the CA has no renewal information\nNot due before ");
    outcome
        .says(", by its lifetime; nothing was done\n")
        .says_not("Registering account");
    assert_eq!(text(&output), first);
    // Another key is a reason, whatever the time.
    key(&setup.path("domain.key"), "EC:P-256");
    setup.csr("/", &NAMES);
    getcrt()
        .outcome()
        .exits(0)
        .says("\nRenewing: the certificate is for another key than the CSR's\n");
    setup.verify_pem(&text(&output), &NAMES);
    setup.csr("/", &["a.test", "www.a.test", "new.test"]);
    getcrt()
        .outcome()
        .exits(0)
        .says("\nRenewing: the certificate is not for new.test, which the CSR asks for\n");
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
}

#[test]
fn files_that_hold_no_certificate() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let file = setup.path("cert.pem");
    for content in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(&file, content).unwrap();
        setup.issue();
    }
}

#[test]
fn the_window_of_the_ca() {
    for (start, end) in [(48, 72), (1, 2), (1, 700)] {
        let setup = Setup::with_fake_ca(|ca| suggesting(ca, start, end));
        setup.issue();
        let outcome = setup.not_due(", as the CA suggests; nothing was done\n");
        outcome.says("\nThe CA explains its suggestion at https://ca.test/why\n");
        // Every run of every day agrees.
        let told = outcome.stderr.lines().last().unwrap();
        setup.not_due(told);
    }
    for (start, end) in [(-72, -48), (-2, -1), (-100_000, -1)] {
        let setup = Setup::with_fake_ca(|ca| suggesting(ca, start, end));
        setup.issue();
        setup
            .due("the certificate is due since ")
            .says(", as the CA suggests\n");
    }
}

#[test]
fn a_window_around_now() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    // Wide enough that the moment is hardly ever within an hour of now.
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -700, 700));
    setup.issue();
    for _ in 0..4 {
        // The first 32 bits of the hash of the certificate's identifier are its share of the window.
        let certificate = openssl::x509::X509::from_pem(setup.certificate().as_bytes()).unwrap();
        let issuer =
            BASE64_URL_SAFE_NO_PAD.encode(certificate.authority_key_id().unwrap().as_slice());
        let mut serial = certificate.serial_number().to_bn().unwrap().to_vec();
        if serial[0] >= 0x80 {
            serial.insert(0, 0);
        }
        let id = format!("{issuer}.{}", BASE64_URL_SAFE_NO_PAD.encode(serial));
        let hash = openssl::sha::sha256(id.as_bytes());
        let share = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        match share < u32::MAX / 2 {
            true => drop(setup.due("the certificate is due since ")),
            false => {
                setup.not_due(", as the CA suggests; nothing was done\n");
                // Another certificate has another moment.
                fs::remove_file(setup.path("cert.pem")).unwrap();
                setup.issue();
            }
        }
    }
}

#[test]
fn a_new_order_says_what_it_replaces() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    setup.issue();
    let pem = setup.certificate();
    let old = openssl::x509::X509::from_pem(pem.as_bytes()).unwrap();
    setup.due("the certificate is due since ");
    let replaces = setup.ca.payload("newOrder")["replaces"]
        .as_str()
        .unwrap()
        .to_owned();
    let (issuer, serial) = replaces.split_once('.').unwrap();
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    let decode = |text| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    assert_eq!(decode(issuer), old.authority_key_id().unwrap().as_slice());
    let number = openssl::bn::BigNum::from_slice(&decode(serial)).unwrap();
    assert_eq!(number, old.serial_number().to_bn().unwrap());
}

#[test]
fn a_ca_that_does_not_want_to_hear_what_is_replaced() {
    for (status, kind) in [
        (409, "alreadyReplaced"),
        (409, "conflict"),
        (400, "malformed"),
        (404, "notFound"),
        (403, "unauthorized"),
    ] {
        let setup = Setup::with_fake_ca(|ca| {
            // Only the order of the renewal is refused, which comes after that of the first issuance.
            suggesting(ca, -2, -1).tamper("newOrder", move |reply, count| {
                if count == 1 {
                    reply.problem(status, kind, "not that one");
                }
            })
        });
        setup.issue();
        setup
            .due("the certificate is due since ")
            .says("\nThe CA does not take this order for a renewal: ");
        assert!(setup.ca.payload("newOrder")["replaces"].is_null());
        assert_eq!(setup.ca.count("newOrder"), 3);
    }
}

#[test]
fn other_refusals_of_a_renewal_are_final() {
    let limit = |reply: &mut Reply, count| {
        if count == 1 {
            reply.problem(403, "rejectedIdentifier", "not for you");
        }
    };
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1).tamper("newOrder", limit));
    setup.issue();
    let before = setup.certificate();
    let outcome = setup.renew().outcome();
    outcome
        .failed("cannot create the order: ")
        .says("\ncert.pem is as it was, and ends in ");
    assert_eq!(
        (setup.certificate(), setup.ca.count("newOrder")),
        (before, 2)
    );
}

#[test]
fn broken_windows_fall_back_on_the_lifetime() {
    let broken = |window: Value, told: &str| {
        let setup = Setup::with_fake_ca(|ca| telling(ca, json!({"suggestedWindow": window})));
        setup.issue();
        setup.not_due(&format!("\nGoing by its lifetime: {told}\nNot due before "));
    };
    broken(
        json!({"start": moment(2), "end": moment(1)}),
        "the CA suggests a window that ends before it begins",
    );
    broken(
        json!({"start": moment(-1), "end": moment(-1)}),
        "the CA suggests a window that ends before it begins",
    );
    let late = "the CA suggests a window that ends after the certificate";
    broken(json!({"start": moment(1), "end": moment(24 * 40)}), late);
    broken(
        json!({"start": moment(1), "end": "9999-12-31T23:59:58-01:00"}),
        late,
    );
    for garbage in [
        json!(null),
        json!({}),
        json!({"start": "soon", "end": "later"}),
        json!({"start": 7, "end": []}),
        json!({"start": moment(-2)}),
    ] {
        broken(garbage, "the CA's renewal information is damaged");
    }
}

#[test]
fn a_ca_that_cannot_be_asked_is_no_failure() {
    let refused = |reply: &mut Reply, _| reply.problem(404, "malformed", "unknown certificate");
    let setup_1 = Setup::with_fake_ca(|ca| telling(ca, json!({})).tamper("renewalInfo", refused));
    setup_1.issue();
    setup_1
        .not_due("\nGoing by its lifetime: https://localhost:")
        .says("HTTP 404, unknown certificate");
    let garbage = |reply: &mut Reply, _| reply.replace(200, "soon");
    let setup_3 = Setup::with_fake_ca(|ca| telling(ca, json!({})).tamper("renewalInfo", garbage));
    setup_3.issue();
    setup_3
        .not_due("\nGoing by its lifetime: https://localhost:")
        .says(": the CA's reply is not JSON: a reply that begins `soon`\n");
    // Down after the first issuance.
    let down = |reply: &mut Reply, count| {
        if count > 0 {
            reply.wire = Wire::Hang;
        }
    };
    let setup_2 = Setup::with_fake_ca(|ca| ca.tamper("directory", down));
    setup_2.issue();
    let outcome = setup_2.renew().outcome();
    outcome
        .exits(3)
        .says("\nGoing by its lifetime: https://localhost:")
        .says("no answer in time");
}

#[test]
fn the_lifetime_of_a_certificate() {
    // Hours since the beginning and to the end, and whether it is due.
    let table = [
        (
            "90 days, 34 % left",
            (-90 * 24 * 66 / 100, 90 * 24 * 34 / 100),
            false,
        ),
        (
            "90 days, 33 % left",
            (-90 * 24 * 67 / 100 - 1, 90 * 24 * 33 / 100 - 1),
            true,
        ),
        (
            "45 days, 34 % left",
            (-45 * 24 * 66 / 100, 45 * 24 * 34 / 100),
            false,
        ),
        (
            "45 days, 33 % left",
            (-45 * 24 * 67 / 100 - 1, 45 * 24 * 33 / 100 - 1),
            true,
        ),
        ("6 days, 51 % left", (-70, 74), false),
        ("6 days, 49 % left", (-74, 70), true),
    ];
    for (_, hours, is_due) in table {
        let setup = Setup::with_fake_ca(|ca| ca.leaf(move |leaf| leaf.hours = hours));
        setup.issue();
        match is_due {
            true => drop(
                setup
                    .due("the certificate is due since ")
                    .says(", by its lifetime\n"),
            ),
            false => drop(setup.not_due(", by its lifetime; nothing was done\n")),
        }
    }
}

#[test]
fn what_was_just_written_is_never_due_for_its_names() {
    let setup =
        Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.names.insert(0, "Extra.Test".to_owned())));
    setup.issue();
    setup.not_due("\nThe certificate is for extra.test too, which the CSR does not ask for\n");
}

#[test]
fn a_dry_run_ignores_dueness() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    setup.issue();
    let before = setup.certificate();
    let outcome = setup.renew().arg("--dry-run").outcome();
    outcome
        .exits(0)
        .says("This dry run does not ask whether the certificate is due.")
        .says("Dry run passed");
    assert!(setup.ca.payload("newOrder")["replaces"].is_null());
    assert_eq!(
        (setup.certificate(), setup.ca.count("renewalInfo")),
        (before, 0)
    );
}

#[test]
fn a_failed_renewal_says_what_is_left() {
    for (hours, told) in [
        (
            (-60 * 24, 40 * 24 + 5),
            "\ncert.pem is as it was, and ends in 40 days and ",
        ),
        (
            (-80 * 24, 20 * 24 + 5),
            "\nwarning: cert.pem is as it was, and ends in 20 days and ",
        ),
        ((-95 * 24, 2 * 24 + 5), " hours ONLY\n"),
    ] {
        let fail = |reply: &mut Reply, count| {
            if count > 0 {
                reply.problem(403, "rejectedIdentifier", "no more");
            }
        };
        let setup = Setup::with_fake_ca(|ca| {
            suggesting(ca, -2, -1)
                .leaf(move |leaf| leaf.hours = hours)
                .tamper("newOrder", fail)
        });
        setup.issue();
        setup.renew().outcome().failed("no more").says(told);
    }
}

#[test]
fn a_certificate_from_staging_is_replaced_at_once() {
    let setup = Setup::with_pebble();
    let output = setup.path("self.crt");
    self_signed(
        &setup.path(""),
        "/CN=(STAGING) Wannabe Watercress R11",
        &NAMES,
        "80",
    );
    // It is for the CSR's key, so that nothing else is a reason.
    fs::copy(setup.path("self.key"), setup.path("domain.key")).unwrap();
    setup.csr("/", &NAMES);
    let outcome = setup
        .getcrt()
        .args(&["--renew", "-o", output.to_str().unwrap()])
        .outcome();
    outcome
        .exits(0)
        .says("\nRenewing: the certificate is from a test CA\n");
    setup.verify_pem(&text(&output), &NAMES);
}

#[test]
fn six_days_of_a_real_ca() {
    let setup = Setup::with_validity(6 * 86_400);
    let output = setup.path("out.crt");
    let getcrt = || {
        setup
            .getcrt()
            .args(&["--renew", "-o", output.to_str().unwrap()])
    };
    // Half of six days; a run around midnight may be of either day.
    let day = || moment(3 * 24)[8..10].trim_start_matches('0').to_owned();
    let before = day();
    getcrt().outcome().exits(0);
    let days = [before, day()];
    let outcome = getcrt().outcome();
    let last = outcome.exits(3).stderr.lines().last().unwrap();
    let is_then = days
        .iter()
        .any(|day| last.split_whitespace().nth(4) == Some(day));
    outcome.check(
        &format!("it is not of days {days:?}"),
        last.starts_with("Not due before ") && is_then,
    );
    let short = Setup::with_validity(20);
    let output = short.path("out.crt");
    let getcrt = || {
        short
            .getcrt()
            .args(&["--renew", "-o", output.to_str().unwrap()])
    };
    getcrt().outcome().exits(0);
    await_that("half of its life", || {
        getcrt().outcome().status.code() == Some(0)
    });
}

/// A certificate for the CSR, self-signed, that ends `days` from now.
fn self_signed_for_the_csr(setup: &Setup<FakeCa>, days: &str) {
    let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &path("domain.csr"),
        "-signkey",
        &path("domain.key"),
        "-days",
        days,
        "-copy_extensions",
        "copy",
        "-out",
        &path("cert.pem"),
    ]);
}

#[test]
fn an_expired_certificate_is_not_asked_about() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, 1, 2));
    self_signed_for_the_csr(&setup, "-1");
    setup.due("the certificate ended at ");
    assert_eq!(setup.ca.count("renewalInfo"), 0);
}

#[test]
fn an_output_that_is_a_pipe_does_not_hang() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let mut run = setup.getcrt().args(&["--renew", "-o", "/dev/stdin"]);
    run.command.stdin(std::process::Stdio::piped());
    run.outcome()
        .failed("--output /dev/stdin: this is no regular file");
}

#[test]
fn a_renewal_that_fails_too_late() {
    let fail = |reply: &mut Reply, _| reply.problem(403, "rejectedIdentifier", "no more");
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", fail));
    self_signed_for_the_csr(&setup, "-1");
    let outcome = setup.renew().outcome();
    outcome
        .failed("no more")
        .says("\nRenewing: the certificate ended at ")
        .says("\nwarning: cert.pem is as it was, and HAS ENDED\n");
}

#[test]
fn a_certificate_that_does_not_say_who_issued_it() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    self_signed_for_the_csr(&setup, "30");
    setup.not_due(
        "\nGoing by its lifetime: the certificate does not identify its issuer's key\nNot due before ",
    );
}
