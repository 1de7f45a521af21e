//! getcrt in acme-tiny's place: both programs are called in the same way and do the same work, at the same Pebble.
//! Each scenario shows what they do differently. A difference without a reason in [`WANTED`] is a fault.

use similar::{ChangeTag, TextDiff};
use snapbox::data::Inline;

use crate::support::pebble::Config;
use crate::support::prelude::*;
use crate::support::{is_skipped, snapshot};

/// The differences that there may be, by the reasons for them. What acme-tiny alone does begins with `-`, what
/// getcrt alone does with `+`. A `*` at the end stands for any text.
const WANTED: &[(&str, &[&str])] = &[
    (
        "getcrt says what the account agrees to, what was issued, and what of it was checked",
        &[
            "+ prints This agrees to the CA's terms of service: *",
            "+ prints Valid until *",
            "+ prints Checked: *",
        ],
    ),
    (
        "getcrt proves all names side by side",
        &[
            "- prints Verifying NAME...",
            "+ prints Verifying NAME...",
            "- prints NAME verified!",
            "+ prints NAME verified!",
            "- asks for a challenge",
        ],
    ),
    (
        "getcrt polls the order, which takes one request for all names",
        &["- asks for an authorization", "+ asks for the order"],
    ),
    (
        "a new account gets its contacts when it is registered",
        &["- asks for the account"],
    ),
    (
        "in the place of a traceback, one line says what is wrong, with details and a hint if there are any",
        &[
            "- prints Traceback (most recent call last):",
            "+ prints error: *",
            "+ prints   *",
            "+ prints hint: *",
            "+ prints warning: *",
        ],
    ),
    (
        "what is wrong with the user's files is found before the CA is asked",
        &[
            "- prints Found domains: *",
            "- prints Getting directory...",
            "- prints Directory found!",
            "- prints Registering account...",
            "- prints Registered! Account ID",
            "- prints Creating new order...",
            "- prints Order created!",
            "- prints Signing certificate...",
            "- asks for the directory",
            "- asks for a new account",
            "- asks for a new order",
            "- asks for the certificate to be issued",
        ],
    ),
    (
        "a run that fails leaves nothing behind",
        &["- leaves a challenge file"],
    ),
];

/// A user's directory, Pebble, and both programs.
struct Comparison {
    setup: Setup<Pebble>,
}

impl Comparison {
    /// `None` if acme-tiny is not there.
    fn new() -> Option<Comparison> {
        Comparison::with(&Config::default())
    }

    fn with(config: &Config) -> Option<Comparison> {
        if is_skipped("the comparison with acme-tiny", &["acme-tiny"]) {
            return None;
        }
        let mut variables = vec![("PEBBLE_WFE_NONCEREJECT", "0")];
        variables.extend(config.variables);
        let setup = Setup::with_configured_pebble(&Config {
            variables: &variables,
            ..*config
        });
        // acme-tiny knows no other kind. Each program has an account of its own.
        for name in ["acme-tiny.key", "getcrt.key"] {
            key(&setup.path(name), "RSA:2048");
        }
        setup.csr("/", &["a.test"]);
        Some(Comparison { setup })
    }

    /// The options that every scenario needs, and `more`.
    fn with_options(&self, program: &str, more: &str) -> String {
        let url = self.setup.ca.directory_url();
        let port = self.setup.web.port;
        format!(
            "{program} --account-key account.key --csr domain.csr --acme-dir acme \
             --directory-url {url} --check-port {port} {more}"
        )
    }

    /// Registers both accounts, and issues a certificate for each.
    fn issue_for_both_accounts(&self) {
        for account_key in ["acme-tiny.key", "getcrt.key"] {
            self.behaviour(account_key, &self.with_options(&getcrt_for_a_shell(), ""));
        }
    }

    /// Runs both programs with `more` options. The snapshot has the differences.
    #[track_caller]
    fn compare(&self, more: &str, expected: Inline) {
        self.compare_scripts(|program| self.with_options(program, more), expected);
    }

    /// Runs a shell script once for each program, whose path it is told.
    #[track_caller]
    fn compare_scripts(&self, script: impl Fn(&str) -> String, expected: Inline) {
        let acme_tiny = self.behaviour("acme-tiny.key", &script("acme-tiny"));
        let getcrt = self.behaviour("getcrt.key", &script(&getcrt_for_a_shell()));
        let mut differences = String::new();
        for change in TextDiff::from_lines(&acme_tiny, &getcrt).iter_all_changes() {
            let sign = match change.tag() {
                ChangeTag::Delete => "-",
                ChangeTag::Insert => "+",
                ChangeTag::Equal => continue,
            };
            let difference = format!("{sign} {}", change.value());
            assert!(
                is_wanted(difference.trim_end()),
                "without a reason: {difference}--- acme-tiny\n{acme_tiny}--- getcrt\n{getcrt}"
            );
            differences += &difference;
        }
        snapshot::assert_is(&differences, expected);
    }

    /// What can be seen of a run: a line for its end, for its stdout, for each line that it prints, for each request
    /// that the CA sees, and for each file that it leaves in the acme-dir.
    fn behaviour(&self, account_key: &str, script: &str) -> String {
        let setup = &self.setup;
        fs::copy(setup.path(account_key), setup.path("account.key")).unwrap();
        let log = setup.path("pebble.log");
        let log_before = text(&log).len();
        let run = setup.here(Run::of("sh").args(&["-c", script]));
        // acme-tiny keeps the names in a set, whose order is random otherwise.
        let run = run.env("PYTHONHASHSEED", "0");
        let outcome = run.env("SSL_CERT_FILE", &https().root).outcome();
        let mut lines = Vec::new();
        lines.push(match outcome.status.code() {
            Some(0) => "succeeds".to_owned(),
            _ => "fails".to_owned(),
        });
        lines.push(match outcome.stdout.as_str() {
            "" => "puts nothing on stdout".to_owned(),
            text if text.starts_with("-----BEGIN CERTIFICATE-----\n") => {
                "puts a PEM chain on stdout".to_owned()
            }
            text => format!("puts on stdout {text:?}"),
        });
        lines.extend(printed(&outcome.stderr));
        lines.extend(requests(&text(&log)[log_before..]));
        for name in listing(&setup.acme_dir()) {
            lines.push("leaves a challenge file".to_owned());
            fs::remove_file(setup.acme_dir().join(name)).unwrap();
        }
        lines.join("\n") + "\n"
    }
}

fn is_wanted(difference: &str) -> bool {
    let fits = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => difference.starts_with(start),
        None => difference == *pattern,
    };
    WANTED.iter().any(|(_, patterns)| patterns.iter().any(fits))
}

/// The lines of stderr, without what differs from run to run. Of Python's traceback only the beginning counts.
fn printed(stderr: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in stderr.lines() {
        let (text, names) = line.split_once(": ").unwrap_or((line, ""));
        let line = match text {
            "Found domains" => {
                let mut names: Vec<&str> = names.split(", ").collect();
                names.sort_unstable();
                format!("{text}: {}", names.join(", "))
            }
            "Registered! Account ID" | "Already registered! Account ID" => text.to_owned(),
            // acme-tiny proves the names in the CA's order, getcrt in that of the CSR.
            _ if text.starts_with("Verifying ") => "Verifying NAME...".to_owned(),
            _ if text.ends_with(" verified!") => "NAME verified!".to_owned(),
            _ => line.to_owned(),
        };
        let is_traceback = line.starts_with("Traceback");
        lines.push(format!("prints {line}"));
        if is_traceback {
            break;
        }
    }
    lines
}

/// What Pebble was asked for, in order. Repetitions, as in a poll, count once, and nonces not at all.
fn requests(log: &str) -> Vec<String> {
    let mut requests: Vec<String> = Vec::new();
    for line in log.lines() {
        let Some((before, _)) = line.split_once(" -> calling handler()") else {
            continue;
        };
        let path = before.rsplit(' ').next().unwrap();
        let first = path.trim_start_matches('/').split('/').next().unwrap();
        let resource = match first {
            "nonce-plz" => continue,
            "dir" => "the directory",
            "sign-me-up" => "a new account",
            "my-account" => "the account",
            "order-plz" => "a new order",
            "my-order" => "the order",
            "authZ" => "an authorization",
            "chalZ" => "a challenge",
            "finalize-order" => "the certificate to be issued",
            "certZ" => "the certificate",
            other => other,
        };
        let request = format!("asks for {resource}");
        if requests.last() != Some(&request) {
            requests.push(request);
        }
    }
    requests
}

#[test]
fn first_registration() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.compare(
        "",
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn known_account() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.setup.csr("/", &["earlier.test"]);
    both.issue_for_both_accounts();
    both.setup.csr("/", &["a.test"]);
    both.compare(
        "",
        str![[r#"
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn contact_given_once() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.compare(
        "--contact mailto:a@a.test",
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for the account
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn contact_given_twice() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.compare(
        "--contact mailto:a@a.test mailto:b@a.test",
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for the account
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn two_names() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.setup.csr("/", &["a.test", "b.test"]);
    both.compare(
        "",
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
- prints NAME verified!
+ prints NAME verified!
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
+ prints Checked: key, names, dates and signature
- asks for an authorization
- asks for a challenge
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn common_name_only() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.setup.csr("/CN=lone.test", &[]);
    both.setup.resolve(&["lone.test"]);
    both.compare("", str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
- prints Traceback (most recent call last):
+ prints error: order https://localhost:[PORT]/my-order/[ID]: https://localhost:[PORT]/finalize-order/[ID]: HTTP 403, Order includes different number of DNSnames identifiers than CSR specifies (urn:ietf:params:acme:error:unauthorized)
- asks for an authorization
+ asks for the order

"#]]);
}

#[test]
fn quiet() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.compare(
        "--quiet",
        str![[r#"
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn disable_check() {
    let Some(both) = Comparison::new() else {
        return;
    };
    // Nobody but the CA knows the names.
    both.setup.resolve(&[]);
    both.compare(
        "--disable-check",
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn deprecated_ca_option() {
    let Some(both) = Comparison::new() else {
        return;
    };
    // Pebble's directory is elsewhere, so both must fail to find it.
    let url = both.setup.ca.directory_url();
    let base = url.strip_suffix("/dir").unwrap();
    both.compare_scripts(
        |program| {
            format!(
                "{program} --account-key account.key --csr domain.csr --acme-dir acme --ca {base}"
            )
        },
        str![[r#"
- prints Traceback (most recent call last):
+ prints error: cannot use the directory: https://localhost:[PORT]/directory: HTTP 404, a reply that begins `404 page not found`
+ prints hint: check --directory-url: there is nothing at this address

"#]],
    );
}

#[test]
fn unique_prefixes_of_options() {
    let Some(both) = Comparison::new() else {
        return;
    };
    let url = both.setup.ca.directory_url();
    let port = both.setup.web.port;
    both.compare_scripts(
        |program| {
            format!(
                "{program} --acc account.key --cs domain.csr --acme acme --dire {url} --ch {port} --qui"
            )
        },
        str![[r#"
- asks for an authorization
+ asks for the order

"#]],
    );
}

#[test]
fn reused_authorizations() {
    let Some(both) = Comparison::with(&Config {
        variables: &[("PEBBLE_AUTHZREUSE", "100")],
        ..Config::default()
    }) else {
        return;
    };
    both.issue_for_both_accounts();
    both.compare(
        "",
        str![[r#"
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature

"#]],
    );
}

#[test]
fn missing_account_key() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.compare_scripts(
        |program| format!("rm account.key; {}", both.with_options(program, "")),
        str![[r#"
- prints Traceback (most recent call last):
+ prints error: --account-key account.key: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn missing_csr() {
    let Some(both) = Comparison::new() else {
        return;
    };
    fs::remove_file(both.setup.path("domain.csr")).unwrap();
    both.compare(
        "",
        str![[r#"
- prints Traceback (most recent call last):
+ prints error: --csr domain.csr: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn missing_acme_dir() {
    let Some(both) = Comparison::new() else {
        return;
    };
    let elsewhere = |program: &str| {
        both.with_options(program, "")
            .replace("--acme-dir acme", "--acme-dir nowhere")
    };
    both.compare_scripts(
        elsewhere,
        str![[r#"
- prints Getting directory...
- prints Directory found!
- prints Registering account...
- prints Registered! Account ID
- prints Creating new order...
- prints Order created!
- prints Verifying NAME...
- prints Traceback (most recent call last):
- asks for the directory
- asks for a new account
- asks for a new order
- asks for an authorization
+ prints error: --acme-dir nowhere: cannot open the directory nowhere: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn missing_option() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.compare_scripts(
        |program| format!("{program} --account-key account.key 2>usage; test $? = 2"),
        str![],
    );
}

#[test]
fn file_that_is_not_served() {
    let Some(both) = Comparison::new() else {
        return;
    };
    // The web server serves `acme`.
    fs::create_dir(both.setup.path("elsewhere")).unwrap();
    let elsewhere = |program: &str| {
        both.with_options(program, "")
            .replace("--acme-dir acme", "--acme-dir elsewhere")
            + "; code=$?; mv elsewhere/* acme/ 2>/dev/null; exit $code"
    };
    both.compare_scripts(elsewhere, str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
- prints Traceback (most recent call last):
+ prints error: order https://localhost:[PORT]/my-order/[ID]: local check: a.test: Wrote file to elsewhere/[TOKEN], but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]: 127.0.0.1 (private: the CA may reach another server): HTTP 404 with the body `no such file` (--disable-check leaves this to the CA)
+ prints hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir
- leaves a challenge file

"#]]);
}

#[test]
fn account_key_as_the_key_of_the_csr() {
    let Some(both) = Comparison::new() else {
        return;
    };
    let script = |program: &str| {
        let request = "openssl req -new -key account.key -subj / -addext subjectAltName=DNS:a.test";
        format!(
            "{request} -out domain.csr; {}",
            both.with_options(program, "")
        )
    };
    both.compare_scripts(
        script,
        str![[r#"
- prints Found domains: a.test
- prints Getting directory...
- prints Directory found!
- prints Registering account...
- prints Registered! Account ID
- prints Creating new order...
- prints Order created!
- prints Verifying NAME...
- prints NAME verified!
- prints Signing certificate...
- prints Traceback (most recent call last):
- asks for the directory
- asks for a new account
- asks for a new order
- asks for an authorization
- asks for a challenge
- asks for an authorization
- asks for the certificate to be issued
+ prints error: CSR contains a public key for a known account, namely the account key's own
+ prints hint: the certificate needs a key of its own: make one, and the CSR with it

"#]],
    );
}

#[test]
fn name_that_the_ca_refuses() {
    let Some(both) = Comparison::with(&Config {
        members: r#", "domainBlocklist": ["refused.test"]"#,
        ..Config::default()
    }) else {
        return;
    };
    both.setup.csr("/", &["refused.test"]);
    both.compare("", str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
- prints Traceback (most recent call last):
+ prints error: cannot create the order: https://localhost:[PORT]/order-plz: HTTP 400, Order included an identifier for which issuance is forbidden by policy: "refused.test" (urn:ietf:params:acme:error:rejectedIdentifier)
+ prints hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]]);
}

#[test]
fn name_that_the_ca_cannot_validate() {
    let Some(both) = Comparison::new() else {
        return;
    };
    both.setup.mislead_the_ca("a.test", "127.0.0.2");
    both.compare("", str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
- prints Traceback (most recent call last):
+ prints error: order https://localhost:[PORT]/my-order/[ID]: Challenge did not pass for a.test: Get "http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]": dial tcp 127.0.0.2:[PORT]: connect: connection refused (urn:ietf:params:acme:error:connection)
+ prints hint: open port 80 of the web server to the whole internet, at every address in the name's A and AAAA records
+ asks for the order
- leaves a challenge file

"#]]);
}

#[test]
fn chain_in_a_file() {
    let Some(both) = Comparison::new() else {
        return;
    };
    let script = |program: &str| {
        format!(
            "{} && cat signed.crt",
            both.with_options(program, ">signed.crt")
        )
    };
    both.compare_scripts(
        script,
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for an authorization
+ asks for the order

"#]],
    );
}

/// The script that acme-tiny's README tells its users to let cron run.
#[test]
fn script_of_cron() {
    let Some(both) = Comparison::new() else {
        return;
    };
    let script = |program: &str| {
        let fetch = both.with_options(program, ">signed.crt.tmp || exit");
        format!("{fetch}\nmv signed.crt.tmp signed.crt\ncat signed.crt")
    };
    both.compare_scripts(
        script,
        str![[r#"
+ prints This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
+ prints Valid until [TIME], issued by Pebble Intermediate CA [ID], 1 name
+ prints Checked: key, names, dates and signature
- asks for an authorization
+ asks for the order

"#]],
    );
}
