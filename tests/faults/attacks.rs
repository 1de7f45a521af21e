//! Another user of the machine, who may write in some of the directories, tries to make getcrt change files elsewhere.
//! Most of these tests need root, because getcrt runs as root and the attacker really is somebody else.

use std::os::unix::fs::{chown, symlink};
use std::sync::{Arc, OnceLock};

use crate::support::is_skipped_without_root;
use crate::support::prelude::*;
use crate::support::setup::OLD_CERTIFICATE;
use crate::support::silent_ca::SilentCa;

/// The user and group id of the attacker.
const ATTACKER: &str = "54321";
const ATTACKER_ID: u32 = 54321;

/// A directory of the attacker's, `theirs`, and one that only root may enter, `private`. In the latter there is a certificate.
fn with_an_attacker() -> Setup<SilentCa> {
    let setup = Setup::with_silent_ca();
    set_mode(setup.directory(), 0o755);
    let theirs = setup.path("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(ATTACKER_ID), Some(ATTACKER_ID)).unwrap();
    let private = setup.path("private");
    fs::create_dir(&private).unwrap();
    fs::copy(setup.path("old.crt"), private.join("root.crt")).unwrap();
    set_mode(&private.join("root.crt"), 0o600);
    set_mode(&private, 0o700);
    setup
}

/// Runs a shell command as the attacker, in the user's directory.
fn attack(setup: &Setup<impl Ca>, command: &str) {
    let identity = [
        &format!("--reuid={ATTACKER}"),
        &format!("--regid={ATTACKER}"),
        "--clear-groups",
    ];
    let run = Run::of("setpriv").args(&identity);
    let outcome = run
        .args(&["sh", "-c", command])
        .directory(setup.directory())
        .outcome();
    outcome.exits(0);
}

/// Nothing has changed in the directory that only root may enter.
#[track_caller]
fn private_is_as_before(setup: &Setup<impl Ca>) {
    let private = setup.path("private");
    assert_eq!(listing(&private), ["root.crt"]);
    assert_eq!(
        text(&private.join("root.crt")),
        text(&setup.path("old.crt"))
    );
}

#[test]
fn output_link_of_another_user_is_not_followed() {
    if is_skipped_without_root("a symlink that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    attack(&setup, "ln -s ../private/root.crt theirs/out.crt");
    let run = setup.getcrt().args(&["--output", "theirs/out.crt"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output theirs/out.crt: another user (uid 54321) could change where theirs/out.crt leads; give the path without it

"#]]);
    private_is_as_before(&setup);
}

#[test]
fn directory_link_of_another_user_is_not_followed() {
    if is_skipped_without_root("a symlink that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    attack(&setup, "ln -s ../private theirs/tls");
    let run = setup.getcrt().args(&["--output", "theirs/tls/new.crt"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output theirs/tls/new.crt: another user (uid 54321) could change where theirs/tls leads; give the path without it

"#]]);
    private_is_as_before(&setup);
}

/// Whoever owns a directory can rename the symlinks in it.
#[test]
fn link_in_a_directory_of_another_user_is_not_followed() {
    if is_skipped_without_root("a directory that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    symlink("../private/root.crt", setup.path("theirs/out.crt")).unwrap();
    let run = setup.getcrt().args(&["--output", "theirs/out.crt"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output theirs/out.crt: another user (uid 54321) could change where theirs/out.crt leads; give the path without it

"#]]);
    private_is_as_before(&setup);
}

#[test]
fn acme_dir_link_of_another_user_is_not_followed() {
    if is_skipped_without_root("a symlink that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    attack(&setup, "ln -s ../private theirs/acme");
    let run = setup.getcrt().args(&["--acme-dir", "theirs/acme"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --acme-dir theirs/acme: another user (uid 54321) could change where theirs/acme leads; give the path without it

"#]]);
    private_is_as_before(&setup);
}

/// The attacker can move the directory at any moment, and `..` is then somewhere else.
#[test]
fn way_up_from_a_directory_of_another_user_is_not_followed() {
    if is_skipped_without_root("a directory that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    let run = setup.getcrt().args(&["--output", "theirs/../out.crt"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output theirs/../out.crt: another user (uid 54321) could change where theirs/.. leads; give the path without it

"#]]);
}

/// The attacker puts another file in the place of the temporary one while the CA works.
#[test]
fn file_put_in_place_of_the_temporary_one_is_noticed() {
    let folder: Arc<OnceLock<PathBuf>> = Arc::default();
    let known = Arc::clone(&folder);
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", move |_, _| {
            let temporary = known.get().unwrap().join(".out.crt.getcrt");
            fs::remove_file(&temporary).unwrap();
            fs::write(&temporary, "junk").unwrap();
        })
    });
    folder.set(setup.directory().to_owned()).unwrap();
    let outcome = setup.getcrt().args(&["--output", "out.crt"]).outcome();
    outcome.failed_to_deliver("somebody has put another file in its place");
    outcome.says("\n-----END CERTIFICATE-----\n");
}

/// Links that the user who runs getcrt has made.
#[test]
fn own_links_are_followed() {
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::create_dir(setup.path("tls")).unwrap();
    symlink("tls", setup.path("link")).unwrap();
    symlink("../link/out.crt", setup.path("tls/link.crt")).unwrap();
    let run = setup.getcrt().args(&["--output", "link/link.crt"]);
    let outcome = run.outcome();
    outcome.exits(0);
    assert!(text(&setup.path("tls/out.crt")).starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(listing(&setup.path("tls")), ["link.crt", "out.crt"]);
}

#[test]
fn temporary_file_that_is_a_link_is_not_followed() {
    if is_skipped_without_root("a directory that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    attack(&setup, "ln -s ../private/root.crt theirs/.out.crt.getcrt");
    let run = setup.getcrt().args(&["--output", "theirs/out.crt"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output theirs/out.crt: cannot create the temporary file theirs/.out.crt.getcrt: another file with this name is in the way; look at it, and remove it if nothing needs it

"#]]);
    private_is_as_before(&setup);
}

/// A second name of a file of root's, which the kernel forbids to make where fs.protected_hardlinks is set.
#[test]
fn temporary_file_that_has_another_name_is_not_written() {
    let setup = Setup::with_silent_ca();
    fs::hard_link(setup.path("old.crt"), setup.path(".out.crt.getcrt")).unwrap();
    let run = setup.getcrt().args(&["--output", "out.crt"]);
    run.outcome()
        .failed("cannot create the temporary file .out.crt.getcrt: another file with this name is in the way");
    assert_eq!(text(&setup.path("old.crt")), OLD_CERTIFICATE);
}

#[test]
fn temporary_file_of_another_user_is_not_written() {
    if is_skipped_without_root("a file that belongs to somebody else") {
        return;
    }
    let setup = with_an_attacker();
    attack(&setup, "echo bait > theirs/.out.crt.getcrt");
    let run = setup.getcrt().args(&["--output", "theirs/out.crt"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: --output theirs/out.crt: cannot create the temporary file theirs/.out.crt.getcrt: another file with this name is in the way; look at it, and remove it if nothing needs it

"#]]);
    assert_eq!(text(&setup.path("theirs/.out.crt.getcrt")), "bait\n");
}

/// The attacker replaces the acme-dir by a symlink once getcrt has placed its order.
#[test]
fn acme_dir_that_is_swapped_does_not_lead_elsewhere() {
    let setup = swapped_after_the_order();
    let run = setup.getcrt().args(&["--acme-dir", "theirs/swapped"]);
    let outcome = run.outcome();
    // The web server does not serve that directory, so the self-check ends the run.
    outcome.failed("a.test");
    // This is when it was asked for the challenge files.
    assert_eq!(text(&setup.path("seen in moved")).lines().count(), 3);
    assert_eq!(text(&setup.path("seen in private")), "");
    assert_eq!(listing(&setup.path("private")), [""; 0]);
    assert_eq!(listing(&setup.path("theirs/moved")), [""; 0]);
}

/// The same with the directory of the certificate.
#[test]
fn output_directory_that_is_swapped_does_not_lead_elsewhere() {
    let setup = swapped_after_the_order();
    let run = setup.getcrt().args(&["--output", "theirs/swapped/out.crt"]);
    run.outcome().exits(0);
    assert_eq!(listing(&setup.path("private")), [""; 0]);
    assert_eq!(listing(&setup.path("theirs/moved")), ["out.crt"]);
}

/// A setup where the directory `theirs/swapped` is renamed to `theirs/moved` when an order is placed, and a symlink to the
/// directory `private` takes its place. When the web server is asked for a file, it notes what is in the two.
fn swapped_after_the_order() -> Setup<FakeCa> {
    // CA and web server start before the user's directory is known.
    let folder: Arc<OnceLock<PathBuf>> = Arc::default();
    let known_to_ca = Arc::clone(&folder);
    let known_to_web = Arc::clone(&folder);
    let configure = move |ca: FakeCaBuilder| {
        ca.tamper("newOrder", move |_, _| {
            let theirs = known_to_ca.get().unwrap().join("theirs");
            fs::rename(theirs.join("swapped"), theirs.join("moved")).unwrap();
            symlink("../private", theirs.join("swapped")).unwrap();
        })
    };
    let on_request = move |_: &Request, _| {
        let folder = known_to_web.get().unwrap();
        for (note, directory) in [
            ("seen in moved", "theirs/moved"),
            ("seen in private", "private"),
        ] {
            let names = listing(&folder.join(directory)).join("\n");
            fs::write(folder.join(note), names).unwrap();
        }
        None
    };
    let setup = Setup::with_fake_ca_and_web(configure, on_request);
    fs::create_dir(setup.path("private")).unwrap();
    fs::create_dir_all(setup.path("theirs/swapped")).unwrap();
    folder.set(setup.directory().to_owned()).unwrap();
    setup
}

#[test]
fn pipe_in_place_of_a_challenge_file_does_not_hang() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let pipe = setup.acme_dir().join(token(0));
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    setup
        .getcrt()
        .outcome()
        .failed("another file with this name is in the way");
    assert!(pipe.exists());
}
