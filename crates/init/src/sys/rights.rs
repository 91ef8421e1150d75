//! What a process may do: user, groups, capabilities, limits.

use super::{check, check_long};
use std::io;

pub fn set_umask(mask: u32) {
    // SAFETY: it cannot fail.
    unsafe { libc::umask(mask) };
}

/// A session keyring of its own, so that programs do not share keys by accident.
pub fn join_new_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring. Kernels without keys answer ENOSYS, which is fine.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
}

/// setrlimit(2); `u64::MAX` is unlimited.
pub fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> io::Result<()> {
    let value = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: reads one rlimit.
    check(unsafe { libc::setrlimit(resource, &raw const value) }).map(drop)
}

/// No program of this process gets more than it has, by set-user-ID or file capabilities.
pub fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Until the next execve nobody without special rights may trace this process or read its memory.
pub fn forbid_tracing() {
    // SAFETY: no memory is involved; it cannot fail for this value.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Drops every capability that is not in the mask from the bounding set.
pub fn limit_bounding_set(allowed: u64) -> io::Result<()> {
    for capability in 0..64_u32 {
        // SAFETY: no memory is involved.
        let present = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if present < 0 {
            // The first number that the kernel does not know.
            break;
        }
        if allowed & (1 << capability) == 0 {
            // SAFETY: no memory is involved.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// Permitted and effective capabilities; none inheritable.
pub fn set_capabilities(mask: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let low = mask as u32;
    let high = (mask >> 32) as u32;
    // Two times effective, permitted, inheritable.
    let data = [low, low, 0, high, high, 0];
    // SAFETY: header and data have the layout of version 3.
    check_long(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

pub fn set_identity(user: u32, group: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(group, group, group))?;
        check(libc::setresuid(user, user, user))?;
    }
    Ok(())
}
