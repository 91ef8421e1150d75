//! `litegix-shim confine` as its callers run it. Needs root, and is skipped without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UID: u32 = 79_998;

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("litegix-confine-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("directory");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("mode");
        Self(path)
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("directory");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self")
        .is_ok_and(|facts| std::os::unix::fs::MetadataExt::uid(&facts) == 0);
    if !root {
        eprintln!("skipped: confinement needs root");
    }
    root
}

fn confine(options: &[&str], program: &[&str]) -> Output {
    let user = UID.to_string();
    Command::new(env!("CARGO_BIN_EXE_litegix-shim"))
        .args(["confine", "--uid", &user, "--gid", &user])
        .args(options)
        .arg("--")
        .args(program)
        .output()
        .expect("confine")
}

/// The script's output; its failure is the test's.
fn sh(options: &[&str], script: &str) -> String {
    let output = confine(options, &["/bin/sh", "-c", script]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn the_program_has_no_rights() {
    if !is_root() {
        return;
    }
    let status = sh(
        &["--limit", "nofile=77"],
        "cat /proc/self/status; ulimit -n; readlink /proc/self/ns/mnt",
    );
    for line in [
        format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}"),
        format!("Gid:\t{UID}\t{UID}\t{UID}\t{UID}"),
        "Groups:\t ".to_owned(),
        "CapInh:\t0000000000000000".to_owned(),
        "CapPrm:\t0000000000000000".to_owned(),
        "CapEff:\t0000000000000000".to_owned(),
        "CapBnd:\t0000000000000000".to_owned(),
        "CapAmb:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
        "77".to_owned(),
    ] {
        assert!(status.lines().any(|it| it == line), "{line:?} in {status}");
    }
    let own = fs::read_link("/proc/self/ns/mnt").expect("namespace");
    assert!(!status.contains(text(&own)));
}

#[test]
fn of_the_hosts_files_only_one_directory_is_writable() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("host");
    let (mine, other) = (scratch.directory("mine"), scratch.directory("other"));
    for path in [&mine, &other] {
        chown(path, Some(UID), Some(UID)).expect("owner");
    }
    fs::write(scratch.0.join("secret"), "s").expect("secret");
    fs::set_permissions(scratch.0.join("secret"), Permissions::from_mode(0o600)).expect("mode");
    let script = format!(
        "cd {0}; echo kept >mine/file; touch other/file 2>/dev/null || echo other is read-only
        cat secret 2>/dev/null || echo no secret; ls hidden; cat hidden/shown; ls -d /proc/1 2>/dev/null || echo alone
        kill -0 {1} 2>/dev/null || echo no kill",
        scratch.0.display(),
        std::process::id()
    );
    let hidden = scratch.directory("hidden");
    fs::write(hidden.join("file"), "").expect("file");
    fs::write(hidden.join("shown"), "seen\n").expect("file");
    let shown = hidden.join("shown");
    let options = [
        "--writable",
        text(&mine),
        "--hide",
        text(&hidden),
        "--show",
        text(&shown),
    ];
    let expected = "other is read-only\nno secret\nshown\nseen\nalone\nno kill\n";
    assert_eq!(sh(&options, &script), expected);
    assert_eq!(
        fs::read_to_string(mine.join("file")).expect("file"),
        "kept\n"
    );
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(text(&scratch.0)));
}

#[test]
fn a_new_root_has_only_the_named_files() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("root");
    let (root, run) = (scratch.directory("root"), scratch.directory("run"));
    chown(&run, Some(UID), Some(UID)).expect("owner");
    let disk = scratch.0.join("disk");
    fs::write(&disk, "of root\n").expect("disk");
    fs::set_permissions(&disk, Permissions::from_mode(0o600)).expect("mode");
    let options = [
        "--root",
        text(&root),
        "--system",
        "--bind",
        text(&run),
        text(&run),
        "--device",
        "/dev/null",
        "--no-net",
        "--ro-bind",
        "/etc/hostname",
        "/name",
        "--ro-open",
        text(&disk),
        "9",
    ];
    let script = format!(
        "pwd; cat <&9; touch {0}/made; echo >/dev/null && echo null; (touch /x /usr/x /name) 2>/dev/null || echo sealed
        ls / | grep -v -x -e usr -e bin -e sbin -e 'lib.*' -e nix -e gnu; cat /etc/shadow 2>/dev/null || echo no shadow",
        run.display()
    );
    let seen = sh(&options, &script);
    let top = run.components().nth(1).expect("first");
    let expected = format!(
        "/\nof root\nnull\nsealed\ndev\netc\nname\n{}\nno shadow\n",
        top.as_os_str().display()
    );
    assert_eq!(seen, expected);
    assert!(run.join("made").exists());
    assert_eq!(fs::read_dir(&root).expect("root").count(), 0);
}

#[test]
fn a_failure_names_the_step() {
    if !is_root() {
        return;
    }
    for (option, words) in [
        (
            ["--cgroup-procs", "/nowhere/cgroup.procs"],
            "can't join the cgroup of /nowhere",
        ),
        (["--writable", "/nowhere"], "can't show /nowhere"),
        (
            ["--netns", "/nowhere"],
            "can't join the network namespace /nowhere",
        ),
        (["--seccomp", "nothing"], "can't make the filter nothing"),
    ] {
        let output = confine(&option, &["true"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(71), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
    assert_eq!(confine(&[], &["/nowhere"]).status.code(), Some(71));
    assert_eq!(confine(&["--nothing"], &["true"]).status.code(), Some(64));
}

/// A static program of ours stands in for the vsock device: it needs no call but those of any program.
#[test]
fn a_call_beside_the_filters_list_ends_the_program() {
    if !is_root() {
        return;
    }
    // The build's own directory may be one that only root may enter.
    let copy = std::env::temp_dir().join(format!("litegix-confined-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_litegix-shim"), &copy).expect("copy");
    let shim = copy.to_str().expect("path");
    let version = confine(&["--seccomp", "vsock"], &[shim, "--version"]);
    assert!(version.status.success(), "{}", version.status);
    // getppid and all that follows are not in the list.
    let confined = confine(
        &["--seccomp", "vsock"],
        &[shim, "confine", "--uid", "1", "--gid", "1", "--", "true"],
    );
    assert_eq!(
        confined.status.signal(),
        Some(libc::SIGSYS),
        "{}",
        confined.status
    );
    let _ = std::fs::remove_file(copy);
}
