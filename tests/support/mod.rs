//! The things the tests are made of.

pub mod fake_ca;
pub mod files;
pub mod pebble;
pub mod prelude;
pub mod run;
pub mod server;
pub mod setup;
pub mod silent_ca;
pub mod snapshot;
pub mod web;

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::run::Run;

/// Longer than anything takes on a busy machine. What is still running then is taken to hang.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether to leave `what` out because something is missing. Prints the reason, and panics if nothing may be skipped.
fn is_skipped_if(is_missing: bool, what: &str, reason: &str) -> bool {
    if is_missing {
        assert!(!all_must_run(), "cannot test {what}: {reason}");
        say_skipped(&format!("{what}: {reason}"));
    }
    is_missing
}

/// Whether to leave `what` out because one of the programs that it needs is not installed.
pub fn is_skipped(what: &str, needed: &[&str]) -> bool {
    let missing = needed.iter().find(|name| program(name).is_none());
    let missing = missing.copied().unwrap_or_default();
    let reason = format!("there is no {missing} (GETCRT_TESTS=all sh tests/run.sh installs it)");
    is_skipped_if(!missing.is_empty(), what, &reason)
}

/// Where a program is. Debian's servers are in a folder that not every user's `PATH` has.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// Whether to leave `what` out because it needs root.
pub fn is_skipped_without_root(what: &str) -> bool {
    is_skipped_if(!is_root(), what, "it needs root")
}

/// Whether to leave `what` out because it takes minutes.
pub fn is_too_long(what: &str) -> bool {
    let reason = "it takes minutes (GETCRT_TESTS=all sh tests/run.sh includes it)";
    is_skipped_if(!all_must_run(), what, reason)
}

fn all_must_run() -> bool {
    env::var("GETCRT_TESTS").is_ok_and(|which| which == "all")
}

/// Not by eprint!, whose words are not shown where a test passes.
fn say_skipped(what: &str) {
    let _ = io::stderr().write_all(format!("skipped: {what}\n").as_bytes());
}

/// Whether root runs the tests.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A server process that ends with the test. It gets SIGTERM first, so that it can end its children.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        kill("TERM", self.0.id());
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(5) && !matches!(self.0.try_wait(), Ok(Some(_)))
        {
            sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal, by the shell's own kill: a small Debian has no other.
pub fn kill(signal: &str, process: u32) -> bool {
    let script = format!("kill -s {signal} {process}");
    Command::new("sh")
        .args(["-c", &script])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A port of loopback that nobody listens on, and that is not given again soon. It is below those that Linux hands
/// out by itself, so that no connection of another test can take it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    loop {
        let port = first_port() + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS_OF_A_PROCESS;
        if ["127.0.0.1", "::1"]
            .iter()
            .all(|address| !is_taken(address, port))
        {
            return port;
        }
    }
}

/// How many ports are for one test process: under nextest there is one for each test.
const PORTS_OF_A_PROCESS: u16 = 200;

/// The first of the ports that are for this process. It stays open, which tells other processes so.
fn first_port() -> u16 {
    static FIRST: OnceLock<TcpListener> = OnceLock::new();
    let listener = FIRST.get_or_init(|| {
        let mut firsts = (10_000..30_000).step_by(usize::from(PORTS_OF_A_PROCESS));
        firsts
            .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .expect("all ports are taken")
    });
    listener.local_addr().unwrap().port()
}

fn is_taken(address: &str, port: u16) -> bool {
    TcpListener::bind((address, port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Whether this machine has IPv6 on loopback.
pub fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Whether to leave `what` out because there is no IPv6.
pub fn is_skipped_without_ipv6(what: &str) -> bool {
    is_skipped_if(!has_ipv6(), what, "there is no IPv6")
}

/// Whether to leave `what` out because neither root nor a user namespace is available.
pub fn is_skipped_without_mounts(what: &str) -> bool {
    static CAN_MOUNT: OnceLock<bool> = OnceLock::new();
    let script = "mount -t tmpfs none /mnt";
    let can_mount = || {
        Run::of_script_with_mounts(script)
            .outcome()
            .status
            .success()
    };
    let can_mount = *CAN_MOUNT.get_or_init(can_mount);
    is_skipped_if(
        !can_mount,
        what,
        "it needs root or a user namespace, to mount",
    )
}

/// Listens at a free port. It may take a moment to be free: a child that is just being started by
/// another test has all open sockets of this process, until it becomes another program.
pub fn listen(address: &str, port: u16) -> TcpListener {
    let started = Instant::now();
    loop {
        match TcpListener::bind((address, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && started.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(5));
            }
            listener => return listener.unwrap(),
        }
    }
}

/// Waits until a server takes connections.
pub fn await_port(port: u16) {
    await_that(&format!("a server at port {port}"), || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// Waits for a condition.
pub fn await_that(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        sleep(Duration::from_millis(10));
    }
}
