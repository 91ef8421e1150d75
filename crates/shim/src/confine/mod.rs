//! `litegix-shim confine OPTIONS -- PROGRAM ...`: gives away every right that the program does not need, then becomes the
//! program. The supervisor starts QEMU and its vsock device by it, and the driver its pull worker. The process is a fresh one
//! with a single thread, so that its steps may allocate and fail with a sentence, which they may not between fork and exec.
//!
//! The program has a user of its own without further groups and without any capability, can't gain rights by running
//! others, sees only the files that the options name, and dies with the caller.

mod arguments;
mod fault;
mod filter;
mod root;

use arguments::{Confinement, Network, OpenFile};
use fault::{Context, Fault};
use litegix_sys::rights;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// sysexits.h.
const USAGE: u8 = 64;
const OS_ERROR: u8 = 71;

/// Returns only if it fails.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let confinement = match arguments::parse(arguments) {
        Ok(confinement) => confinement,
        Err(error) => {
            eprintln!("litegix-shim confine: {error}\n{}", arguments::USAGE);
            return ExitCode::from(USAGE);
        }
    };
    let Err(fault) = become_program(&confinement);
    eprintln!("litegix-shim confine: {fault}");
    ExitCode::from(OS_ERROR)
}

fn become_program(confinement: &Confinement) -> Result<std::convert::Infallible, Fault> {
    let parent = getppid();
    let filter = confinement
        .filter
        .as_deref()
        .map(filter::compile)
        .transpose()?;
    for path in &confinement.cgroup_procs {
        // "0" is the writer itself.
        fs::write(path, "0").context(|| format!("join the cgroup of {}", path.display()))?;
    }
    for file in &confinement.files {
        pass(file).context(|| format!("open {}", file.path.display()))?;
    }
    separate(&confinement.network)?;
    root::enter(&confinement.view, (confinement.uid, confinement.gid))?;
    for &(resource, value) in &confinement.limits {
        setrlimit(resource, value, value).context(|| format!("limit {resource:?}"))?;
    }
    if let Some(mask) = confinement.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    drop_rights(confinement)?;
    // A change of the user had untied the process from its parent, which may have died just then.
    set_pdeathsig(Signal::SIGKILL).context(|| "die with the parent".to_owned())?;
    if getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH))
            .context(|| "find the parent".to_owned());
    }
    if let Some(filter) = filter {
        filter::apply(&filter)?;
    }
    let program = &confinement.argv[0];
    let error = Command::new(program).args(&confinement.argv[1..]).exec();
    Err(error).context(|| format!("run {}", program.display()))
}

/// Opens a file with root's rights, for the program to have at the promised number.
fn pass(file: &OpenFile) -> io::Result<()> {
    let access = if file.writable {
        OFlag::O_RDWR
    } else {
        OFlag::O_RDONLY
    };
    let opened = open(
        &file.path,
        access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )?;
    // Without close-on-exec, and left open.
    let number = fcntl(&opened, FcntlArg::F_DUPFD(file.number))?;
    if number == file.number {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "descriptor {} is in use",
        file.number
    )))
}

/// Namespaces of the program's own. The caller makes a process namespace, since that needs a fork.
fn separate(network: &Network) -> Result<(), Fault> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let flags = match network {
        Network::None => own | CloneFlags::CLONE_NEWNET,
        Network::Kept => own,
        Network::Of(path) => {
            let what = || format!("join the network namespace {}", path.display());
            let namespace = File::open(path).context(what)?;
            setns(namespace, CloneFlags::CLONE_NEWNET).context(what)?;
            own
        }
    };
    unshare(flags).context(|| "make namespaces".to_owned())
}

fn drop_rights(confinement: &Confinement) -> Result<(), Fault> {
    let (uid, gid) = (
        Uid::from_raw(confinement.uid),
        Gid::from_raw(confinement.gid),
    );
    rights::limit_bounding_set(0).context(|| "empty the bounding set".to_owned())?;
    rights::clear_ambient_set().context(|| "empty the ambient set".to_owned())?;
    setgroups(&[]).context(|| "leave all groups".to_owned())?;
    setresgid(gid, gid, gid).context(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).context(|| format!("become user {uid}"))?;
    // The change of the user has emptied all sets but the inheritable one.
    rights::set_capabilities(0).context(|| "drop all capabilities".to_owned())?;
    rights::join_new_keyring();
    set_no_new_privs().context(|| "set no_new_privs".to_owned())
}
