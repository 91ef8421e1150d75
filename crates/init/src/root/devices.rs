//! The device nodes for a task. All are the VM's: the task can't reach any of the host's.

use crate::root::rooted::Root;
use litegix_protocol::guest::Device;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Makes a device node whose type and exact permissions `mode` gives, whatever the umask.
fn make_device(path: &Path, mode: u32, device: u64) -> io::Result<()> {
    let permissions = mode & 0o7777;
    let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    mknod(path, kind, Mode::from_bits_truncate(permissions), device)?;
    fs::set_permissions(path, fs::Permissions::from_mode(permissions))
}

/// The disks that the job asked for; vda and vdb are the machine's own. They exist by now: the driver's module is
/// loaded, and finds them all at once.
fn extra_disks(directory: &Path) -> io::Result<()> {
    for letter in 'c'..='z' {
        let name = format!("vd{letter}");
        let Ok(facts) = fs::symlink_metadata(Path::new("/dev").join(&name)) else {
            break;
        };
        make_device(&directory.join(name), libc::S_IFBLK | 0o660, facts.rdev())?;
    }
    Ok(())
}

/// Docker's devices of each container, and the job's own disks.
pub fn fill(root: &Root) -> io::Result<()> {
    let directory = root.directory(Path::new("/dev"))?;
    let directory = Root::reach(&directory);
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in nodes {
        let device = makedev(major, minor);
        make_device(&directory.join(name), libc::S_IFCHR | 0o666, device)?;
    }
    extra_disks(&directory)?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        symlink(target, directory.join(name))?;
    }
    fs::create_dir_all(directory.join("mqueue"))
}

/// One device of the guest's kernel, or a folder of them, with the mode that it has there.
pub fn give(root: &Root, wanted: &Device) -> io::Result<()> {
    let from = Path::new(&wanted.path);
    let to = Path::new(&wanted.target);
    let found = fs::metadata(from)?;
    if found.is_dir() {
        return copy(root, from, to);
    }
    let kind = found.file_type();
    let (true, Some(parent), Some(name)) = (
        kind.is_char_device() || kind.is_block_device(),
        to.parent(),
        to.file_name(),
    ) else {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    };
    let parent = root.directory(parent)?;
    match make_device(&Root::reach(&parent).join(name), found.mode(), found.rdev()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Every device node of the guest's kernel that the task's /dev does not have yet.
pub fn copy(root: &Root, from: &Path, to: &Path) -> io::Result<()> {
    let directory = root.directory(to)?;
    let directory = Root::reach(&directory);
    let device = fs::metadata(from)?.dev();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let found = entry.metadata()?;
        if kind.is_dir() && found.dev() == device && found.ino() == entry.ino() {
            copy(root, &path, &to.join(entry.file_name()))?;
        } else if kind.is_char_device() || kind.is_block_device() {
            match make_device(
                &directory.join(entry.file_name()),
                found.mode(),
                found.rdev(),
            ) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
