//! What a run of getcrt needs: a user's files, a web server, and a CA. Here the tests put getcrt's command line
//! together, unless the command line itself is their subject.

use std::fs;
use std::path::{Path, PathBuf};

use snapbox::data::Inline;
use tempfile::TempDir;

use super::files::{csr, directory, give_away, key, library, listing, set_mode};
use super::is_root;
use super::run::{GETCRT, Outcome, Run};
use super::web::Web;

/// A CA to which getcrt can be sent.
pub trait Ca {
    fn directory_url(&self) -> String;
    /// The root to trust for its https, in PEM.
    fn root(&self) -> Vec<u8>;
    /// What getcrt must not have done.
    fn complaints(&self) -> Vec<String> {
        Vec::new()
    }
    /// Whether a run can get as far as a certificate.
    fn may_issue(&self) -> bool {
        true
    }
}

/// A user with an account key, a domain key, a CSR and an acme-dir, with the web server that serves it, and
/// with a CA.
pub struct Setup<C> {
    folder: TempDir,
    pub web: Web,
    pub ca: C,
}

/// What is in the file `old.crt` of every setup.
pub const OLD_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
the old certificate
-----END CERTIFICATE-----
";

impl<C: Ca> Setup<C> {
    /// Makes the user's files in `folder`, with a CSR for `names`. The web server must serve the directory
    /// `acme` in it.
    pub fn new(folder: TempDir, web: Web, ca: C, names: &[&str]) -> Setup<C> {
        let setup = Setup { folder, web, ca };
        fs::create_dir_all(setup.acme_dir()).unwrap();
        key(&setup.path("account.key"), "EC:P-256");
        key(&setup.path("domain.key"), "EC:P-256");
        setup.csr("/", names);
        fs::write(setup.path("old.crt"), OLD_CERTIFICATE).unwrap();
        fs::write(setup.path("ca.pem"), setup.ca.root()).unwrap();
        for name in ["hosts", "ca.pem"] {
            set_mode(&setup.path(name), 0o644);
        }
        setup
    }

    /// The user's directory, in which getcrt runs.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the user's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn acme_dir(&self) -> PathBuf {
        self.path("acme")
    }

    /// Makes another CSR for the domain key, and lets its names lead to the web server.
    pub fn csr(&self, subject: &str, names: &[&str]) {
        self.resolve(names);
        csr(
            &self.path("domain.csr"),
            &self.path("domain.key"),
            subject,
            names,
        );
    }

    /// Lets getcrt resolve these names, and no others, to the web server.
    pub fn resolve(&self, names: &[&str]) {
        self.resolve_to("127.0.0.1", names);
    }

    /// Lets getcrt resolve these names, and no others, to an address.
    pub fn resolve_to(&self, address: &str, names: &[&str]) {
        let line = |name: &&str| format!("{address} {name}\n");
        let lines: String = names.iter().map(line).collect();
        fs::write(self.path("hosts"), lines).unwrap();
    }

    /// getcrt as the user calls it.
    pub fn getcrt(&self) -> Run {
        self.with_options(Run::getcrt())
    }

    /// getcrt called by another program, whose own arguments end with what to run: `sh`, for example, with
    /// `-c` and `umask 077; exec "$0" "$@"`.
    pub fn getcrt_by(&self, program: &str, arguments: &[&str]) -> Run {
        self.with_options(Run::of(program).args(arguments).arg(GETCRT))
    }

    /// getcrt called by a shell script that sees another file system tree. The script ends with
    /// `exec "$0" "$@"`.
    pub fn getcrt_with_mounts(&self, script: &str) -> Run {
        self.with_options(Run::of_script_with_mounts(script).arg(GETCRT))
    }

    /// getcrt as the user calls it, for whom the permissions of files count.
    pub fn getcrt_without_privileges(&self) -> Run {
        self.with_options(Run::getcrt_without_privileges())
    }

    /// getcrt as the user calls it, who may start no thread.
    pub fn getcrt_without_threads(&self) -> Run {
        let run = if is_root() {
            // The limit does not count for root.
            give_away(self.directory(), 54321);
            let user = ["--reuid=54321", "--regid=54321", "--clear-groups"];
            Run::of("setpriv").args(&user).arg("prlimit")
        } else {
            Run::of("prlimit")
        };
        let copy = self.path("getcrt");
        fs::copy(GETCRT, &copy).unwrap();
        set_mode(&copy, 0o755);
        self.with_options(run.arg("--nproc=1").arg(copy))
    }

    /// Adds the options that every run needs to `run`, which ends with getcrt.
    pub fn with_options(&self, run: Run) -> Run {
        self.with_options_but_the_root(run)
            .args(&["--ca-bundle", "ca.pem"])
    }

    /// The same, but getcrt has no reason to trust the CA.
    pub fn with_options_but_the_root(&self, run: Run) -> Run {
        self.here(run)
            .args(&["--account-key", "account.key"])
            .args(&["--csr", "domain.csr"])
            .args(&["--acme-dir", "acme"])
            .args(&["--directory-url", &self.ca.directory_url()])
            .args(&["--check-port", &self.web.port.to_string()])
            .args(&["--timeout", "60"])
    }

    /// Lets `run` run in the user's directory, and find the user's names.
    pub fn here(&self, run: Run) -> Run {
        self.resolving(run).directory(self.folder.path())
    }

    /// Lets `run` find the user's names.
    ///
    /// nss_wrapper reads its hosts file at the first lookup and fails where two threads make that at once, as
    /// the self-check does. So the CA, or the proxy that leads to it, has to be named `localhost` and not by
    /// its address: its lookup comes first, and from one thread.
    pub fn resolving(&self, run: Run) -> Run {
        run.env("LD_PRELOAD", library("libnss_wrapper.so"))
            .env("NSS_WRAPPER_HOSTS", self.path("hosts"))
    }

    /// getcrt must fail with this stderr, and lose nothing.
    #[track_caller]
    pub fn fails(&self, stderr: Inline) {
        self.run_fails(self.getcrt(), stderr);
    }

    /// `run` must fail with this stderr, and lose nothing.
    #[track_caller]
    pub fn run_fails(&self, run: Run, stderr: Inline) {
        self.failure(run, "").stderr_is(stderr);
    }

    /// getcrt must fail with `text` in its error line, and lose nothing.
    #[track_caller]
    pub fn fails_with(&self, text: &str) -> Outcome {
        self.failure(self.getcrt(), text)
    }

    /// The same, in as many seconds.
    #[track_caller]
    pub fn fails_within(&self, seconds: &str, text: &str) -> Outcome {
        self.failure(self.getcrt().args(&["--timeout", seconds]), text)
    }

    #[track_caller]
    fn failure(&self, run: Run, text: &str) -> Outcome {
        // A run that may get far must keep the old certificate.
        let run = if self.ca.may_issue() {
            run.args(&["-o", "old.crt"])
        } else {
            run
        };
        let outcome = run.outcome();
        outcome.failed(text);
        let kept = fs::read_to_string(self.path("old.crt")).unwrap();
        assert_eq!(kept, OLD_CERTIFICATE, "{outcome}");
        self.nothing_is_left(&outcome);
        outcome
    }

    /// A run that must bring a certificate in spite of all, by the rules of the protocol.
    #[track_caller]
    pub fn issues(&self) -> Outcome {
        let outcome = self.getcrt().outcome();
        outcome.delivers();
        self.nothing_is_left(&outcome);
        outcome
    }

    /// No file is left, and the CA has no complaints.
    #[track_caller]
    pub fn nothing_is_left(&self, outcome: &Outcome) {
        self.no_file_is_left(outcome);
        assert_eq!(self.ca.complaints(), [""; 0], "{outcome}");
    }

    /// The acme-dir is empty, and getcrt has left nothing beside the user's files.
    #[track_caller]
    pub fn no_file_is_left(&self, outcome: &Outcome) {
        let left: Vec<String> = listing(self.directory())
            .into_iter()
            .filter(|name| name.starts_with('.'))
            .collect();
        assert_eq!(left, [""; 0], "{outcome}");
        if self.acme_dir().is_dir() {
            assert_eq!(listing(&self.acme_dir()), [""; 0], "{outcome}");
        }
    }
}

impl<C> Drop for Setup<C> {
    /// Lets the directories be removed, whatever the test has forbidden.
    fn drop(&mut self) {
        set_mode(self.folder.path(), 0o755);
        let acme_dir = self.folder.path().join("acme");
        if acme_dir.is_dir() {
            set_mode(&acme_dir, 0o755);
        }
    }
}

/// A directory for a user and an acme-dir in it, to serve before the rest of a [`Setup`] is there.
pub fn user_directory() -> TempDir {
    let directory = directory();
    let acme_dir = directory.path().join("acme");
    fs::create_dir(&acme_dir).unwrap();
    // Web servers that become another user must be able to enter it, whatever the umask.
    set_mode(&acme_dir, 0o755);
    directory
}
