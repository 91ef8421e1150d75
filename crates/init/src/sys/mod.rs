//! The only module with `unsafe`: thin, safe wrappers over the kernel calls that the standard library lacks. Each one
//! turns -1 into the errno's `io::Error` and takes Rust's types.

use std::ffi::CString;
use std::io;
use std::path::Path;

pub mod files;

pub mod machine;
pub mod netlink;
pub mod passing;
pub mod process;
pub mod rights;
pub mod scheduling;
pub mod tty;

/// The result of a call that answers -1 on error.
fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// As `check`, for raw system calls.
fn check_long(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "contains a NUL byte"))
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    c_string(path.as_os_str().as_bytes())
}
