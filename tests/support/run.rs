//! Running getcrt, and assertions about a run.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use snapbox::data::Inline;

use super::{PATIENCE, is_root, kill, snapshot};

/// The program under test.
pub const GETCRT: &str = env!("CARGO_BIN_EXE_getcrt");

/// The program under test as a word of a shell's command line.
pub fn getcrt_for_a_shell() -> String {
    format!("'{GETCRT}'")
}

/// A run that is being put together.
pub struct Run {
    pub command: Command,
}

impl Run {
    /// A run of getcrt with nothing on its command line.
    pub fn getcrt() -> Run {
        Run::of(GETCRT)
    }

    /// A run of getcrt for which the permissions of files count, even if root runs the tests: without root's
    /// capabilities, but still as the owner of root's files.
    pub fn getcrt_without_privileges() -> Run {
        if is_root() {
            let capabilities = ["--bounding-set=-all", "--inh-caps=-all"];
            Run::of("setpriv").args(&capabilities).arg(GETCRT)
        } else {
            Run::getcrt()
        }
    }

    /// A run of a shell script in a mount namespace of its own; "$0" and "$@" are what is added.
    pub fn of_script_with_mounts(script: &str) -> Run {
        // Root needs no user namespace, which is not to be had everywhere.
        let run = Run::of("unshare").args(if is_root() { &[] } else { &["--map-root-user"] });
        run.args(&["--mount", "sh", "-c", script])
    }

    /// A run of another program.
    pub fn of(program: impl AsRef<OsStr>) -> Run {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
            "NO_PROXY",
            "no_proxy",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "NO_COLOR",
        ] {
            command.env_remove(name);
        }
        Run { command }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Run {
        self.command.arg(argument);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Run {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn directory(mut self, directory: &Path) -> Run {
        self.command.current_dir(directory);
        self
    }

    pub fn stdout(mut self, to: impl Into<Stdio>) -> Run {
        self.command.stdout(to);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn outcome(self) -> Outcome {
        self.start().outcome()
    }

    /// Starts it, to do something to it meanwhile.
    pub fn start(mut self) -> Running {
        let child = self.command.spawn().unwrap();
        let arguments: Vec<&str> = self.command.get_args().filter_map(OsStr::to_str).collect();
        let mut bounds = arguments.windows(2).filter(|pair| pair[0] == "--timeout");
        let bound = bounds
            .next_back()
            .and_then(|pair| pair[1].parse().ok())
            .unwrap_or(900);
        let deadline = Instant::now() + Duration::from_secs(bound);
        Running {
            shown: format!("{:?}", self.command),
            child,
            deadline,
        }
    }
}

/// A run that is under way.
pub struct Running {
    shown: String,
    pub child: Child,
    deadline: Instant,
}

impl Running {
    /// Waits for the end.
    #[track_caller]
    pub fn outcome(mut self) -> Outcome {
        let stdout = self.child.stdout.take().map(read_all);
        let stderr = self.child.stderr.take().map(read_all);
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                let _ = self.child.kill();
            }
            sleep(Duration::from_millis(5));
        };
        let [stdout, stderr] =
            [stdout, stderr].map(|reader| reader.map_or_else(String::new, |r| r.join().unwrap()));
        // Much more than the few seconds of a clean-up, for the sake of busy machines.
        let is_late = Instant::now() > self.deadline + Duration::from_secs(30);
        Outcome {
            shown: self.shown,
            is_late,
            status,
            stdout,
            stderr,
        }
    }

    pub fn signal(&self, name: &str) {
        assert!(kill(name, self.child.id()));
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A run that has ended. Its checks show the whole of it when they fail.
pub struct Outcome {
    shown: String,
    is_late: bool,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}\n--- stdout\n{}--- stderr\n{}",
            self.shown, self.status, self.stdout, self.stderr
        )
    }
}

impl Outcome {
    #[track_caller]
    pub fn check(&self, what: &str, is_so: bool) -> &Outcome {
        assert!(is_so, "{what}\n{self}");
        self
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Outcome {
        self.check(
            &format!("the exit status is not {code}"),
            self.status.code() == Some(code),
        )
    }

    #[track_caller]
    pub fn dies_of(&self, signal: i32) -> &Outcome {
        self.check(
            &format!("it did not die of signal {signal}"),
            self.status.signal() == Some(signal),
        )
    }

    /// Its stderr is this, all of it.
    #[track_caller]
    pub fn stderr_is(&self, expected: Inline) -> &Outcome {
        snapshot::assert_is(&self.stderr, expected);
        self
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Outcome {
        self.check(
            &format!("stderr lacks `{text}`"),
            self.stderr.contains(text),
        )
    }

    #[track_caller]
    pub fn says_not(&self, text: &str) -> &Outcome {
        self.check(&format!("stderr has `{text}`"), !self.stderr.contains(text))
    }

    /// A certificate on stdout and nothing else.
    #[track_caller]
    pub fn delivers(&self) -> &Outcome {
        let is_pem = self.stdout.starts_with("-----BEGIN CERTIFICATE-----\n");
        self.exits(0).check(
            "stdout is no PEM chain",
            is_pem && self.stdout.ends_with("-----END CERTIFICATE-----\n"),
        );
        self.check(
            "the last line is another",
            self.stderr.ends_with("\nCertificate signed!\n"),
        )
    }

    /// The same, and no word of warning.
    #[track_caller]
    pub fn issued(&self) -> &Outcome {
        let is_trouble = |line: &str| line.starts_with("warning:") || line.starts_with("error:");
        self.delivers().check(
            "there is a warning or an error",
            !self.stderr.lines().any(is_trouble),
        )
    }

    /// The one way in which every run fails: exit 1, nothing on stdout, the story, then one `error:`
    /// line with `text` in it, lines indented by two spaces, and at most one `hint:` line, all of
    /// them printable.
    #[track_caller]
    pub fn failed(&self, text: &str) -> &Outcome {
        self.exits(1)
            .check("stdout is not empty", self.stdout.is_empty());
        self.failed_to_deliver(text)
    }

    /// The same, but stdout may hold anything.
    #[track_caller]
    pub fn failed_to_deliver(&self, text: &str) -> &Outcome {
        self.check("it took longer than --timeout", !self.is_late);
        let lines: Vec<&str> = self.stderr.lines().collect();
        let errors: Vec<usize> = (0..lines.len())
            .filter(|i| lines[*i].starts_with("error: "))
            .collect();
        self.exits(1)
            .check("there is not one error line", errors.len() == 1);
        self.check(
            &format!("the error line lacks `{text}`"),
            lines[errors[0]].contains(text),
        );
        let mut rest = lines[errors[0] + 1..]
            .iter()
            .skip_while(|line| line.starts_with("  ") && line.len() > 2)
            .peekable();
        if rest.peek().is_some_and(|line| line.starts_with("hint: ")) {
            rest.next();
        }
        let is_last = rest.peek().is_none();
        self.check("something else follows the error", is_last);
        let is_printable = |c: char| !c.is_control() || c == '\n';
        self.check(
            "stderr is not printable",
            self.stderr.chars().all(is_printable),
        );
        self.says_not("panicked")
            .says_not("RUST_BACKTRACE")
            .says_not("{\"")
    }
}
