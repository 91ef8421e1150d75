//! Mounts, as far as libc has no functions for them: their attributes (mount_setattr(2), Linux 5.12), the owner that they
//! show in the place of another (idmapped mounts), and mounts of a descriptor without a place yet (open_tree(2), move_mount(2)).

use crate::{check, check_long};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// <linux/mount.h>
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
pub const READ_ONLY: u64 = 0x01;
pub const NO_SUID: u64 = 0x02;
pub const NO_DEV: u64 = 0x04;
pub const NO_EXEC: u64 = 0x08;
const IDMAP: u64 = 0x0010_0000;

/// struct mount_attr, its first version.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// A user id or group id of a file system, and the one that a mount shows in its place.
#[derive(Clone, Copy)]
pub struct Shown {
    pub stored: u32,
    pub seen: u32,
}

/// A new mount of exactly this file.
pub fn detached(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the path is a C string; on success the descriptor is ours. Descriptors fit in an int.
    unsafe {
        let fd = check_long(libc::syscall(
            libc::SYS_open_tree,
            file.as_raw_fd(),
            c"".as_ptr(),
            flags,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as libc::c_int))
    }
}

/// No programs, set-user-ID bits or devices through this mount; no writing either if it is read-only.
pub fn restrict(mount: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let mut set = NO_SUID | NO_DEV | NO_EXEC;
    if read_only {
        set |= READ_ONLY;
    }
    set_own_attributes(mount, set, 0)
}

/// Shows the owner as another one. File systems without idmapped mounts answer EINVAL, kernels before 5.12 ENOSYS.
pub fn show_owner(mount: BorrowedFd<'_>, user: Shown, group: Shown) -> io::Result<()> {
    let namespace = user_namespace(user, group)?;
    set_own_attributes(mount, IDMAP, namespace.as_raw_fd() as u64)
}

/// Changes the mount at the path, and with `recursive` all mounts below it. `ENOSYS` before Linux 5.12.
pub fn set_attributes(path: &CStr, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let flags = if recursive { AT_RECURSIVE } else { 0 };
    let attributes = Attributes {
        set,
        clear,
        propagation: 0,
        user_namespace: 0,
    };
    change(libc::AT_FDCWD, path, flags, &attributes)
}

fn set_own_attributes(mount: BorrowedFd<'_>, set: u64, user_namespace: u64) -> io::Result<()> {
    let attributes = Attributes {
        set,
        clear: 0,
        propagation: 0,
        user_namespace,
    };
    change(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH, &attributes)
}

fn change(
    at: libc::c_int,
    path: &CStr,
    flags: libc::c_int,
    attributes: &Attributes,
) -> io::Result<()> {
    // SAFETY: the path ends with a NUL, and the structure is valid for the length.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// Gives the mount its place. Async-signal-safe.
pub fn attach(mount: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both paths are C strings.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// A user namespace that maps one user and one group. A child is born in it, and only lives until it is open.
fn user_namespace(user: Shown, group: Shown) -> io::Result<OwnedFd> {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: no new stack and no shared memory: this is fork. The child makes system calls only.
    let pid = check_long(unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_int>(),
            std::ptr::null_mut::<libc::c_int>(),
            0_usize,
        )
    })?;
    if pid == 0 {
        // SAFETY: no memory is involved. A parent that died before the call leaves a child that waits for nothing.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            loop {
                libc::pause();
            }
        }
    }
    // The namespace's own id comes first (user_namespaces(7)): a file's stored owner, shown as the user.
    let line = |of: Shown| format!("{} {} 1", of.stored, of.seen);
    let opened = fs::write(format!("/proc/{pid}/uid_map"), line(user))
        .and_then(|()| fs::write(format!("/proc/{pid}/gid_map"), line(group)))
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
    // Process ids fit in an int.
    let child = pid as libc::pid_t;
    // SAFETY: no memory is involved; the status is not asked for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        while check(libc::waitpid(child, std::ptr::null_mut(), 0))
            .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        {}
    }
    Ok(OwnedFd::from(opened?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_mount_shows_the_file_as_anothers_and_leaves_it_alone() {
        let path = std::env::temp_dir().join(format!("litegix-shown-{}", std::process::id()));
        fs::write(&path, "content").expect("file");
        let file = File::open(&path).expect("open");
        let facts = file.metadata().expect("facts");
        let shown = |stored| Shown {
            stored,
            seen: 70_123,
        };
        let mapped = detached(file.as_fd()).and_then(|mount| {
            restrict(mount.as_fd(), true)?;
            show_owner(mount.as_fd(), shown(facts.uid()), shown(facts.gid()))?;
            Ok(mount)
        });
        match mapped {
            Ok(mount) => {
                let seen = File::from(mount).metadata().expect("facts");
                assert_eq!((seen.uid(), seen.gid()), (70_123, 70_123));
                assert_eq!((seen.dev(), seen.ino()), (facts.dev(), facts.ino()));
            }
            Err(error) => eprintln!("skipped: it needs root and a file system that can ({error})"),
        }
        let after = fs::metadata(&path).expect("facts");
        assert_eq!((after.uid(), after.gid()), (facts.uid(), facts.gid()));
        fs::remove_file(path).expect("clean-up");
    }
}
