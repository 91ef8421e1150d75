//! The capabilities and the session keyring of this process.

use crate::{check, check_long};
use std::io;

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

/// Empties the ambient set, which programs that are not set-user-ID would start with.
pub fn clear_ambient_set() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    })
    .map(drop)
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
