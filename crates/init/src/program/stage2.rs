//! The second stage: a copy of the zygote, single-threaded, that enters or makes the task's namespaces, forks the
//! program's process as a child of init, and brings it to execve. Everything here happens in the order of docker's
//! runtime.

use crate::machine::step_error::reason;
use crate::program::limits;
use crate::program::lookup;
use crate::program::plan::{Failure, FailureKind, Plan, Report};
use crate::program::users;
use crate::program::world;
use litegix_sys::process::{self, Side};
use litegix_sys::{rights, tty};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::stat::{Mode, SFlag, fstat, minor, umask};
use nix::unistd::{
    Gid, Pid, Uid, execve, fchown, getpgrp, setgroups, setpgid, setresgid, setresuid, setsid,
    tcsetpgrp,
};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

const JOINING: &str = "entering the control group";

/// New PID, mount and IPC namespaces.
const TASK_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC);

/// Follows the plan, and reports. Does not return in the program's process.
pub fn run(mut plan: File, report: &mut File) -> i32 {
    let outcome = read_plan(&mut plan).and_then(|plan| fork(&plan, report));
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            tell(report, &Report::Failed(failure));
            1
        }
    }
}

pub fn tell(report: &mut File, message: &Report) {
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.push(b'\n');
        // If init does not listen any more, the report has no reader.
        let _ = report.write_all(&line);
    }
}

fn read_plan(file: &mut File) -> Result<Plan, Failure> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(|error| Failure::internal("reading the plan", &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(FailureKind::Internal, format!("the plan: {error}")))
}

fn fork(plan: &Plan, report: &mut File) -> Result<(), Failure> {
    let failed = |what: &'static str| move |error: io::Error| Failure::internal(what, &error);
    fs::write(
        "/proc/self/oom_score_adj",
        plan.oom_score_adjustment.to_string(),
    )
    .map_err(failed("oom_score_adj"))?;
    // Once in the task's namespaces this process is visible there, and it may do more than the task.
    let _ = prctl::set_dumpable(false);
    // Opened here, where it is visible; written by the program's process for itself, as late as possible. Moving a
    // process is always possible, but forking one inside a group at its limit of processes is not. Until then the work
    // has init's share of the processor.
    let group = File::options()
        .write(true)
        .open(&plan.cgroup_processes)
        .map_err(failed(JOINING))?;
    let new = match plan.enter {
        Some(main) => {
            let gone = |error: io::Error| match error.raw_os_error() {
                Some(libc::ESRCH | libc::ENOMEM) => not_running(),
                _ => Failure::internal("entering the task's namespaces", &error),
            };
            let pidfd = process::open_pidfd(main).map_err(gone)?;
            setns(pidfd, TASK_NAMESPACES).map_err(|error| gone(error.into()))?;
            CloneFlags::empty()
        }
        None => TASK_NAMESPACES,
    };
    let side = process::clone_sibling(new).map_err(|error| match error.raw_os_error() {
        // A PID namespace whose first process has ended takes no more.
        Some(libc::ENOMEM) if plan.enter.is_some() => not_running(),
        _ => Failure::internal("fork", &error),
    })?;
    match side {
        Side::Parent(pid) => {
            tell(report, &Report::Process(pid));
            Ok(())
        }
        Side::Child => {
            let failure = become_program(plan, &group);
            tell(report, &Report::Failed(failure));
            process::exit_now(127)
        }
    }
}

fn not_running() -> Failure {
    Failure::new(FailureKind::NotRunning, "task is not running")
}

/// Everything from the fork to execve. Returns only its failure.
fn become_program(plan: &Plan, group: &File) -> Failure {
    match prepare(plan, group) {
        Ok((program, env)) => {
            let error = execute(&program, &plan.argv, &env);
            lookup::execution_failure(&program, &error)
        }
        Err(failure) => failure,
    }
}

/// Returns only the error.
fn execute(program: &str, arguments: &[String], environment: &[String]) -> io::Error {
    let strings = |texts: &[String]| -> io::Result<Vec<CString>> {
        let text = |text: &String| CString::new(text.as_str()).map_err(io::Error::from);
        texts.iter().map(text).collect()
    };
    let run = || -> io::Result<std::convert::Infallible> {
        let program = CString::new(program)?;
        Ok(execve(
            &program,
            &strings(arguments)?,
            &strings(environment)?,
        )?)
    };
    let Err(error) = run();
    error
}

fn set_identity(identity: &users::Identity) -> nix::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let user = Uid::from_raw(identity.user);
    let group = Gid::from_raw(identity.group);
    setgroups(&groups)?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

fn prepare(plan: &Plan, mut group: &File) -> Result<(String, Vec<String>), Failure> {
    let failed = |what: &'static str| move |error: io::Error| Failure::internal(what, &error);
    if plan.enter.is_none() {
        world::set_up(&plan.root, &plan.setup)?;
    }
    let identity = users::resolve(
        &plan.user,
        &plan.additional_groups,
        &read_user_file(users::PASSWD),
        &read_user_file(users::GROUP),
    )
    .map_err(|error| Failure::invalid(error.to_string()))?;
    setsid().map_err(|error| failed("setsid")(error.into()))?;
    own_standard_streams(plan, identity.user).map_err(failed("standard streams"))?;
    if plan.terminal {
        tty::control(io::stdin()).map_err(failed("controlling terminal"))?;
        if plan.enter.is_none() {
            fstat(io::stdin())
                .map_err(io::Error::from)
                .and_then(|found| world::show_console(minor(found.st_rdev)))
                .map_err(failed("/dev/console"))?;
        }
    }
    rights::join_new_keyring();
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    limits::set(&plan.limits)?;
    rights::limit_bounding_set(plan.capabilities).map_err(failed("capabilities"))?;
    group.write_all(b"0").map_err(failed(JOINING))?;
    set_identity(&identity).map_err(|error| failed("user and groups")(error.into()))?;
    let own = if identity.user == 0 {
        plan.capabilities
    } else {
        0
    };
    rights::set_capabilities(own).map_err(failed("capabilities"))?;
    if plan.no_new_privileges {
        prctl::set_no_new_privs().map_err(|error| failed("no_new_privs")(error.into()))?;
    }
    let work_dir = if plan.work_dir.is_empty() {
        "/"
    } else {
        &plan.work_dir
    };
    std::env::set_current_dir(work_dir).map_err(|error| {
        Failure::invalid(format!(
            "working directory \"{}\": {}",
            work_dir.escape_debug(),
            reason(&error)
        ))
    })?;
    if plan.setup.init {
        stay_as_init(plan.terminal).map_err(failed("init"))?;
    }
    let env = environment(plan, &identity.home);
    let path = lookup::variable(&env, "PATH").unwrap_or(lookup::DEFAULT_PATH);
    let program = lookup::find(&plan.argv[0], path)?;
    process::close_from_on_exec(3);
    process::reset_signals();
    Ok((program, env))
}

/// The image's file, or nothing: an image need not have it. Anything except a plain file counts as nothing too.
fn read_user_file(path: &str) -> String {
    use std::os::unix::fs::OpenOptionsExt;
    let read = || -> io::Result<Vec<u8>> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(users::MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn change_owner(stream: impl AsFd, user: u32) -> io::Result<()> {
    fchown(stream, Some(Uid::from_raw(user)), None)?;
    Ok(())
}

/// So that the program may open its streams anew by /dev/stdout and the like.
fn own_standard_streams(plan: &Plan, user: u32) -> io::Result<()> {
    if plan.terminal {
        // The group stays "tty".
        return change_owner(io::stdin(), user);
    }
    // A shared null device as input keeps its owner.
    let mode = SFlag::from_bits_truncate(fstat(io::stdin())?.st_mode);
    if mode & SFlag::S_IFMT == SFlag::S_IFIFO {
        change_owner(io::stdin(), user)?;
    }
    change_owner(io::stdout(), user)?;
    change_owner(io::stderr(), user)
}

fn environment(plan: &Plan, home: &str) -> Vec<String> {
    let mut env = plan.env.clone();
    // As in docker: an empty HOME counts as unset, an empty PATH is kept.
    if lookup::variable(&env, "HOME") == Some("") {
        env.retain(|entry| !entry.starts_with("HOME="));
    }
    let mut add = |name: &str, value: &str| {
        if lookup::variable(&env, name).is_none() {
            env.push(format!("{name}={value}"));
        }
    };
    add("PATH", lookup::DEFAULT_PATH);
    add("HOSTNAME", &plan.hostname);
    add("HOME", home);
    if plan.terminal {
        add("TERM", "xterm");
    }
    env
}

/// `init = true`: the namespace's first process stays, passes signals on to the program, and reaps all other orphans.
/// Its end, with the program's exit code, is the task's. Returns only in a child, which is to become the program.
fn stay_as_init(terminal: bool) -> io::Result<()> {
    // Before the fork, so that none is lost in between.
    process::block_signals();
    match process::fork()? {
        Side::Child => {
            // A group of its own, so that a terminal's signals reach the program and its children.
            let own = Pid::from_raw(0);
            setpgid(own, own)?;
            if terminal {
                // With SIGTTOU blocked.
                tcsetpgrp(io::stdin(), getpgrp())?;
            }
            Ok(())
        }
        Side::Parent(child) => {
            process::close_from(3);
            reap_until_end_of(child)
        }
    }
}

fn reap_until_end_of(child: i32) -> ! {
    loop {
        match process::next_signal() {
            Some(libc::SIGCHLD) => {
                while let Some((pid, status)) = process::reap_any() {
                    if pid == child {
                        process::exit_now(process::decode_status(status).0);
                    }
                }
            }
            // The program may have ended just now; that is reported next.
            Some(signal) => drop(process::kill(child, signal)),
            None => {}
        }
    }
}
