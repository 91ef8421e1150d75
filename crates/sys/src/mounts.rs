//! Attributes of mounts, for which libc has no function (mount_setattr(2), Linux 5.12).

use crate::check_long;
use std::ffi::CStr;
use std::io;

/// include/uapi/linux/mount.h.
pub const READ_ONLY: u64 = 0x01;
pub const NO_SUID: u64 = 0x02;
pub const NO_DEV: u64 = 0x04;
pub const NO_EXEC: u64 = 0x08;

/// struct mount_attr, its first version.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Changes the mount at the path, and with `recursive` all mounts below it. `ENOSYS` before Linux 5.12.
pub fn set_attributes(path: &CStr, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let attributes = Attributes {
        set,
        clear,
        propagation: 0,
        user_namespace: 0,
    };
    let flags = if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with a NUL, and the structure is valid for the length.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}
