//! Renewal: whether it is due, by the CA or by lifetime, and what then happens.

use std::sync::OnceLock;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64URL, Engine};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::sha::sha256;
use openssl::x509::X509;
use snapbox::data::Inline;

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
            .says("\nRenewing: there is no usable certificate yet\n")
            .says("\nCertificate signed!\n");
        let order = self.ca.payload("newOrder");
        assert!(order["replaces"].is_null(), "{outcome}");
        self.nothing_is_left(&outcome);
    }

    /// A run that has nothing to do: exit status 3, and the CA is asked for nothing but advice.
    #[track_caller]
    fn not_due(&self) -> Outcome {
        let before = (self.certificate(), self.ca.count("newAccount"));
        let outcome = self.renew().outcome();
        outcome
            .exits(3)
            .check("stdout is not empty", outcome.stdout.is_empty());
        outcome.check(
            "the last line is another",
            last_line(&outcome).starts_with("Not due before "),
        );
        let after = (self.certificate(), self.ca.count("newAccount"));
        assert_eq!(after, before, "{outcome}");
        self.nothing_is_left(&outcome);
        let quiet = self.renew().arg("--quiet").outcome();
        quiet
            .exits(3)
            .check("--quiet says something", quiet.stderr.is_empty());
        outcome
    }

    /// A run that renews.
    #[track_caller]
    fn due(&self) -> Outcome {
        let before = self.certificate();
        let outcome = self.renew().outcome();
        outcome
            .exits(0)
            .says("\nRenewing: the certificate ")
            .says("\nCertificate signed!\n");
        assert!(self.certificate() != before, "{outcome}");
        self.nothing_is_left(&outcome);
        outcome
    }

    /// A renewal that fails with this stderr, and leaves the certificate as it was.
    #[track_caller]
    fn renewal_fails(&self, stderr: Inline) {
        let before = self.certificate();
        let outcome = self.renew().outcome();
        outcome.failed("").stderr_is(stderr);
        assert_eq!(self.certificate(), before, "{outcome}");
        self.nothing_is_left(&outcome);
    }
}

fn last_line(outcome: &Outcome) -> &str {
    outcome.stderr.lines().last().unwrap_or_default()
}

/// Debian's Pebble has no renewal information.
#[test]
fn certificate_of_a_real_ca_is_renewed_for_a_reason_alone() {
    let setup = Setup::with_pebble();
    let renew = || setup.getcrt().args(&["--renew", "-o", "out.crt"]);
    let renews = |names: &[&str], stderr: Inline| {
        let outcome = renew().outcome();
        outcome.exits(0).stderr_is(stderr);
        setup.verify_pem(&text(&setup.path("out.crt")), names);
    };
    renews(
        &NAMES,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Renewing: there is no usable certificate yet
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

"#]],
    );
    let first = text(&setup.path("out.crt"));
    renew().outcome().exits(3).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
No usable suggestion from the CA, so the lifetime decides: the CA has no renewal information
Not due before [TIME], by its lifetime; nothing was done

"#]]);
    assert_eq!(text(&setup.path("out.crt")), first);
    // Another key is a reason at any time, and so is another name.
    key(&setup.path("domain.key"), "EC:P-256");
    setup.csr("/", &NAMES);
    renews(
        &NAMES,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Renewing: the certificate is for another key than the CSR's
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

"#]],
    );
    let more = ["a.test", "www.a.test", "new.test"];
    setup.csr("/", &more);
    renews(
        &more,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test, new.test
Renewing: the certificate is not for new.test, which the CSR asks for
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/my-account/[ID]
Creating new order...
Order created!
...
Signing certificate...
Valid until [TIME], issued by Pebble Intermediate CA [ID], 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
}

#[test]
fn file_without_a_certificate_is_replaced() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let file = setup.path("cert.pem");
    for content in [
        "",
        "\n \0\0\0",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        // OpenSSL would ask for the passphrase.
        "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(&file, content).unwrap();
        setup.issue();
    }
}

#[test]
fn certificate_is_not_due_before_the_window_of_the_ca() {
    let told = str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Not due before [TIME], as the CA suggests; nothing was done

"#]];
    for (start, end) in [(48, 72), (1, 2), (1, 600)] {
        let setup = Setup::with_fake_ca(|ca| suggesting(ca, start, end));
        setup.issue();
        let outcome = setup.not_due();
        outcome.stderr_is(told.clone());
        // Every run gives the same time.
        assert_eq!(last_line(&outcome), last_line(&setup.not_due()));
    }
}

#[test]
fn certificate_is_due_after_the_window_of_the_ca() {
    let told = str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], as the CA suggests
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

"#]];
    for (start, end) in [(-72, -48), (-2, -1), (-100_000, -1)] {
        let setup = Setup::with_fake_ca(|ca| suggesting(ca, start, end));
        setup.issue();
        setup.due().stderr_is(told.clone());
    }
}

#[test]
fn moment_in_the_window_depends_on_the_certificate() {
    // Wide enough that the moment is hardly ever within an hour of now.
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -600, 600));
    setup.issue();
    for _ in 0..4 {
        // The first 32 bits of the hash of the certificate's identifier are its share of the window.
        let certificate = X509::from_pem(setup.certificate().as_bytes()).unwrap();
        let issuer = BASE64URL.encode(certificate.authority_key_id().unwrap().as_slice());
        let mut serial = certificate.serial_number().to_bn().unwrap().to_vec();
        if serial[0] >= 0x80 {
            serial.insert(0, 0);
        }
        let id = format!("{issuer}.{}", BASE64URL.encode(serial));
        let hash = sha256(id.as_bytes());
        let share = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        if share < u32::MAX / 2 {
            setup
                .due()
                .says("\nRenewing: the certificate has been due since ");
        } else {
            setup
                .not_due()
                .says(", as the CA suggests; nothing was done\n");
            // Another certificate has another moment.
            fs::remove_file(setup.path("cert.pem")).unwrap();
            setup.issue();
        }
    }
}

#[test]
fn order_names_the_certificate_that_it_replaces() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    setup.issue();
    let old = X509::from_pem(setup.certificate().as_bytes()).unwrap();
    setup.due();
    let order = setup.ca.payload("newOrder");
    let (issuer, serial) = order["replaces"].as_str().unwrap().split_once('.').unwrap();
    let decode = |text| BASE64URL.decode(text).unwrap();
    assert_eq!(decode(issuer), old.authority_key_id().unwrap().as_slice());
    let number = BigNum::from_slice(&decode(serial)).unwrap();
    assert_eq!(number, old.serial_number().to_bn().unwrap());
}

#[test]
fn order_that_is_refused_as_a_renewal_is_repeated_as_another() {
    let renew = |refuse: &'static (dyn Fn(&mut Reply) + Sync)| {
        let setup = Setup::with_fake_ca(|ca| {
            // Only the order of the renewal is refused, which comes after that of the first issuance.
            suggesting(ca, -2, -1).tamper("newOrder", move |reply, count| {
                if count == 1 {
                    refuse(reply);
                }
            })
        });
        setup.issue();
        let outcome = setup.due();
        assert!(setup.ca.payload("newOrder")["replaces"].is_null());
        assert_eq!(setup.ca.count("newOrder"), 3);
        outcome
    };
    renew(&|reply| reply.problem(409, "alreadyReplaced", "not that one")).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], as the CA suggests
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Ordering again without `replaces`, because: https://localhost:[PORT]/new-order: HTTP 409, not that one (urn:ietf:params:acme:error:alreadyReplaced)
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
    let refused = |refuse, reason: &str| {
        renew(refuse)
            .says("\nOrdering again without `replaces`, because: https://localhost:")
            .says(&format!("/new-order: {reason}\nOrder created!\n"));
    };
    refused(
        &|reply| reply.problem(409, "conflict", "not that one"),
        "HTTP 409, not that one (urn:ietf:params:acme:error:conflict)",
    );
    refused(
        &|reply| reply.problem(403, "rejectedIdentifier", "not that one"),
        "HTTP 403, not that one (urn:ietf:params:acme:error:rejectedIdentifier)",
    );
    refused(
        &|reply| reply.problem(500, "serverInternal", "not that one"),
        "HTTP 500, not that one (urn:ietf:params:acme:error:serverInternal)",
    );
    refused(
        &|reply| reply.replace(400, r#"{"detail": "not that one"}"#),
        "HTTP 400, not that one",
    );
    refused(
        &|reply| reply.replace(404, "<html>"),
        "HTTP 404, a reply that begins `<html>`",
    );
}

/// The first reply is lost with its connection, as may happen to any request.
#[test]
fn order_of_a_renewal_whose_reply_is_lost_is_sent_again() {
    let lose = |reply: &mut Reply, count| {
        if count == 1 {
            reply.wire = Wire::Close;
        }
    };
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1).tamper("newOrder", lose));
    setup.issue();
    setup.due().says_not("for a renewal");
    assert!(setup.ca.payload("newOrder")["replaces"].is_string());
    assert_eq!(setup.ca.count("newOrder"), 3);
}

#[test]
fn order_that_is_refused_also_without_the_renewal_is_an_error() {
    let refuse = |reply: &mut Reply, count| {
        if count >= 1 {
            reply.problem(403, "rejectedIdentifier", "not for you");
        }
    };
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1).tamper("newOrder", refuse));
    setup.issue();
    setup.renewal_fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], as the CA suggests
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Ordering again without `replaces`, because: https://localhost:[PORT]/new-order: HTTP 403, not for you (urn:ietf:params:acme:error:rejectedIdentifier)
cert.pem is unchanged, and valid for [..] days and [..] hours more
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, not for you (urn:ietf:params:acme:error:rejectedIdentifier)
hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 3);
}

#[test]
fn rate_limit_of_a_renewal_is_final() {
    let refuse = |reply: &mut Reply, count| {
        if count == 1 {
            reply.problem(403, "rateLimited", "not for you");
        }
    };
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1).tamper("newOrder", refuse));
    setup.issue();
    setup.renewal_fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], as the CA suggests
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
cert.pem is unchanged, and valid for [..] days and [..] hours more
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, not for you (urn:ietf:params:acme:error:rateLimited)
hint: wait until the limit has passed; for tests, use --staging

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 2);
}

impl Setup<FakeCa> {
    fn is_due(&self) -> Run {
        self.getcrt().args(&["--is-due", "-o", "cert.pem"])
    }
}

#[test]
fn missing_certificate_is_due() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let outcome = setup.is_due().outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Due: there is no usable certificate yet

"#]]);
    assert_eq!(outcome.stdout, "");
    assert_eq!(setup.ca.requests(), [""; 0]);
    assert!(!setup.path("cert.pem").exists());
    setup.nothing_is_left(&outcome);
}

/// Only unsigned requests: for monitoring, no account is needed.
#[test]
fn asking_whether_it_is_due_signs_nothing() {
    for (start, end, status) in [(48, 72, 3), (-2, -1, 0)] {
        let setup = Setup::with_fake_ca(|ca| suggesting(ca, start, end));
        setup.issue();
        let before = setup.ca.requests().len();
        let outcome = setup.is_due().outcome();
        outcome.exits(status);
        assert_eq!(setup.ca.requests()[before..], ["directory", "renewalInfo"]);
        setup
            .is_due()
            .arg("--quiet")
            .outcome()
            .exits(status)
            .stderr_is(str![]);
    }
}

#[test]
fn certificate_that_is_due_is_told_with_the_reason() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    setup.issue();
    setup.is_due().outcome().exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Due: the certificate has been due since [TIME], as the CA suggests

"#]]);
}

/// Neither a CA that is down nor a directory in which nothing can be written keeps the answer back.
#[test]
fn whether_it_is_due_is_told_without_the_ca() {
    let setup = Setup::with_fake_ca(|ca| ca);
    setup.issue();
    set_mode(setup.directory(), 0o555);
    let run = setup.getcrt_without_privileges();
    let unreachable = ["--directory-url", "https://localhost:1/directory"];
    let run = run
        .args(&["--is-due", "-o", "cert.pem", "--timeout", "2"])
        .args(&unreachable);
    run.outcome().exits(3).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
warning: https://localhost:1/directory: the connection failed: Connection refused (os error 111); trying again in [SECONDS] s
No usable suggestion from the CA, so the lifetime decides: https://localhost:1/directory: the connection failed: Connection refused (os error 111)
Not due before [TIME], by its lifetime; nothing was done

"#]]);
}

#[test]
fn output_that_cannot_be_read_is_an_error_and_not_due() {
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::write(setup.path("cert.pem"), "buy milk\n").unwrap();
    setup.is_due().outcome().failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
error: --output cert.pem: getcrt replaces only files that begin with a certificate, and this one does not; name another file

"#]]);
    assert_eq!(text(&setup.path("cert.pem")), "buy milk\n");
}

/// The CA may suggest what it likes, but the certificate is renewed before it ends.
#[test]
fn window_may_reach_beyond_the_end_of_the_certificate() {
    for (start, end) in [
        (moment(24 * 40), moment(24 * 50)),
        (moment(24 * 40), "9999-12-31T23:59:58-01:00".to_owned()),
    ] {
        let window = json!({"suggestedWindow": {"start": start, "end": end}});
        let setup = Setup::with_fake_ca(|ca| telling(ca, window));
        setup.issue();
        setup.not_due().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Not due before [TIME], by the last tenth of its lifetime; nothing was done

"#]]);
    }
}

#[test]
fn unusable_window_is_reported_and_the_lifetime_counts() {
    let not_due = |window: Value, stderr: Inline| {
        let setup = Setup::with_fake_ca(|ca| telling(ca, json!({"suggestedWindow": window})));
        setup.issue();
        setup.not_due().stderr_is(stderr);
    };
    let negative = str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: the CA suggests a window that ends before it begins
Not due before [TIME], by its lifetime; nothing was done

"#]];
    for (start, end) in [(2, 1), (-1, -1)] {
        let window = json!({"start": moment(start), "end": moment(end)});
        not_due(window, negative.clone());
    }
    let damaged = str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: the CA's renewal information is damaged
Not due before [TIME], by its lifetime; nothing was done

"#]];
    for window in [
        json!(null),
        json!({}),
        json!({"start": "soon", "end": "later"}),
        json!({"start": 7, "end": []}),
        json!({"start": moment(-2)}),
    ] {
        not_due(window, damaged.clone());
    }
}

#[test]
fn unusable_reply_on_renewal_is_reported_and_the_lifetime_counts() {
    let not_due = |tamper: fn(&mut Reply, usize), stderr: Inline| {
        let setup = Setup::with_fake_ca(|ca| telling(ca, json!({})).tamper("renewalInfo", tamper));
        setup.issue();
        setup.not_due().stderr_is(stderr);
    };
    not_due(
        |reply, _| reply.problem(404, "malformed", "unknown certificate"),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: https://localhost:[PORT]/renewal-info/[..]: HTTP 404, unknown certificate (urn:ietf:params:acme:error:malformed)
Not due before [TIME], by its lifetime; nothing was done

"#]],
    );
    not_due(
        |reply, _| reply.replace(200, "soon"),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: https://localhost:[PORT]/renewal-info/[..]: the CA's reply is not JSON: a reply that begins `soon`
Not due before [TIME], by its lifetime; nothing was done

"#]],
    );
}

#[test]
fn ca_that_is_down_is_reported_and_the_lifetime_counts() {
    let hang_after_the_first = |reply: &mut Reply, count| {
        if count > 0 {
            reply.wire = Wire::Hang;
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("directory", hang_after_the_first));
    setup.issue();
    setup.renew().outcome().exits(3).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: https://localhost:[PORT]/directory: no answer in time
Not due before [TIME], by its lifetime; nothing was done

"#]]);
}

#[test]
fn certificate_is_due_with_a_third_or_half_of_its_lifetime_left() {
    let with_hours = |begin: i64, end: i64| {
        let setup = Setup::with_fake_ca(|ca| ca.leaf(move |leaf| leaf.hours = (begin, end)));
        setup.issue();
        setup
    };
    // The hours since its beginning and to its end; of the short one, half has to be left.
    let (days_90, days_45) = (90 * 24, 45 * 24);
    let not_due = str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: the CA has no renewal information
Not due before [TIME], by its lifetime; nothing was done

"#]];
    for (begin, end) in [
        (-days_90 * 66 / 100, days_90 * 34 / 100),
        (-days_45 * 66 / 100, days_45 * 34 / 100),
        (-70, 74),
    ] {
        with_hours(begin, end).not_due().stderr_is(not_due.clone());
    }
    let due = str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: the CA has no renewal information
Renewing: the certificate has been due since [TIME], by its lifetime
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

"#]];
    for (begin, end) in [
        (-days_90 * 67 / 100 - 1, days_90 * 33 / 100 - 1),
        (-days_45 * 67 / 100 - 1, days_45 * 33 / 100 - 1),
        (-74, 70),
    ] {
        with_hours(begin, end).due().stderr_is(due.clone());
    }
}

#[test]
fn certificate_for_more_names_is_not_due() {
    let setup =
        Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.names.insert(0, "Extra.Test".to_owned())));
    setup.issue();
    setup.not_due().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The certificate is for names that the CSR does not ask for: extra.test
No usable suggestion from the CA, so the lifetime decides: the CA has no renewal information
Not due before [TIME], by its lifetime; nothing was done

"#]]);
}

#[test]
fn dry_run_does_not_ask_whether_it_is_due() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    setup.issue();
    let before = setup.certificate();
    let outcome = setup.renew().arg("--dry-run").outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
This dry run does not ask whether the certificate is due.
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
Dry run passed, no certificate was requested.

"#]]);
    assert!(setup.ca.payload("newOrder")["replaces"].is_null());
    assert_eq!(
        (setup.certificate(), setup.ca.count("renewalInfo")),
        (before, 0)
    );
}

#[test]
fn failed_renewal_says_how_long_the_certificate_is_valid() {
    let fails = |hours: (i64, i64), stderr: Inline| {
        let refuse = |reply: &mut Reply, count| {
            if count > 0 {
                reply.problem(403, "rejectedIdentifier", "no more");
            }
        };
        let setup = Setup::with_fake_ca(|ca| {
            suggesting(ca, -2, -1)
                .leaf(move |leaf| leaf.hours = hours)
                .tamper("newOrder", refuse)
        });
        setup.issue();
        setup.renewal_fails(stderr);
    };
    fails(
        (-60 * 24, 40 * 24 + 5),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], as the CA suggests
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Ordering again without `replaces`, because: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
cert.pem is unchanged, and valid for 40 days and [..] hours more
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]],
    );
    fails(
        (-80 * 24, 20 * 24 + 5),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], as the CA suggests
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Ordering again without `replaces`, because: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
warning: cert.pem is unchanged, and valid for 20 days and [..] hours more
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]],
    );
    fails(
        (-95 * 24, 2 * 24 + 5),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
The CA explains its suggestion at https://ca.test/why
Renewing: the certificate has been due since [TIME], by the last tenth of its lifetime
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Ordering again without `replaces`, because: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
warning: cert.pem is unchanged, and valid for 2 days and [..] hours more
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]],
    );
}

#[test]
fn certificate_from_staging_is_replaced_at_once() {
    let setup = Setup::with_pebble();
    let staging = "/CN=(STAGING) Wannabe Watercress R11";
    self_signed(setup.directory(), staging, &NAMES, "80");
    // It is for the CSR's key, so that nothing else is a reason.
    fs::copy(setup.path("self.key"), setup.path("domain.key")).unwrap();
    setup.csr("/", &NAMES);
    let run = setup.getcrt().args(&["--renew", "-o", "self.crt"]);
    run.outcome().exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Renewing: the certificate is from Let's Encrypt's staging
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
    setup.verify_pem(&text(&setup.path("self.crt")), &NAMES);
}

#[test]
fn certificate_for_six_days_is_due_after_three() {
    let setup = Setup::with_validity(6 * 86_400);
    let renew = || setup.getcrt().args(&["--renew", "-o", "out.crt"]);
    // A run around midnight may be of either day.
    let day = || moment(3 * 24)[8..10].trim_start_matches('0').to_owned();
    let before = day();
    renew().outcome().exits(0);
    let days = [before, day()];
    let outcome = renew().outcome();
    let last = last_line(outcome.exits(3));
    let is_then = days
        .iter()
        .any(|day| last.split_whitespace().nth(4) == Some(day));
    outcome.check(
        &format!("it is not of days {days:?}"),
        last.starts_with("Not due before ") && is_then,
    );
}

#[test]
fn certificate_becomes_due_at_half_its_life() {
    let setup = Setup::with_validity(60);
    let renew = || setup.getcrt().args(&["--renew", "-o", "out.crt"]).outcome();
    renew().exits(0);
    renew().exits(3);
    let renewed = OnceLock::new();
    await_that("half of its life", || {
        let outcome = renew();
        outcome.status.code() == Some(0) && renewed.set(outcome).is_ok()
    });
    // It is not renewed because it has ended.
    renewed
        .get()
        .unwrap()
        .says("\nRenewing: the certificate has been due since ")
        .says(", by its lifetime\n");
}

/// Makes `cert.pem` for the CSR, signed by its own key, that ends `days` from now.
fn self_signed_for_the_csr(setup: &Setup<FakeCa>, days: &str) {
    let path = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    let [csr, key, certificate] = ["domain.csr", "domain.key", "cert.pem"].map(path);
    let mut arguments = vec!["x509", "-req", "-in", &csr, "-signkey", &key];
    arguments.extend(["-days", days, "-copy_extensions", "copy"]);
    arguments.extend(["-out", &certificate]);
    openssl(&arguments);
}

#[test]
fn ended_certificate_is_renewed_without_asking_the_ca() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, 1, 2));
    self_signed_for_the_csr(&setup, "-1");
    setup.due().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Renewing: the certificate ended at [TIME]; by this machine's clock it is [TIME]
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
    assert_eq!(setup.ca.count("renewalInfo"), 0);
}

#[test]
fn output_that_is_a_pipe_does_not_hang() {
    let setup = Setup::with_silent_ca();
    let mut run = setup.getcrt().args(&["--renew", "-o", "/dev/stdin"]);
    run.command.stdin(Stdio::piped());
    setup.run_fails(
        run,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output /dev/stdin: this is not a regular file; leave -o out to write to stdout

"#]],
    );
}

#[test]
fn failed_renewal_says_that_the_certificate_has_ended() {
    let refuse = |reply: &mut Reply, _| reply.problem(403, "rejectedIdentifier", "no more");
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", refuse));
    self_signed_for_the_csr(&setup, "-1");
    setup.renewal_fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Renewing: the certificate ended at [TIME]; by this machine's clock it is [TIME]
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
warning: cert.pem is unchanged, and has expired
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, no more (urn:ietf:params:acme:error:rejectedIdentifier)
hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]]);
}

#[test]
fn certificate_that_does_not_identify_its_issuer_goes_by_its_lifetime() {
    let setup = Setup::with_fake_ca(|ca| suggesting(ca, -2, -1));
    self_signed_for_the_csr(&setup, "30");
    setup.not_due().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
No usable suggestion from the CA, so the lifetime decides: the certificate does not identify its issuer's key
Not due before [TIME], by its lifetime; nothing was done

"#]]);
}
