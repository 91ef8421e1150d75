//! The system calls that neither the standard library nor `nix` has, and those that init and the supervisor both need
//! in a form of their own. Only this crate has unsafe code: all others forbid it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod descriptors;
pub mod loop_device;
pub mod machine;
pub mod mounts;
pub mod passing;
pub mod proc_stat;
pub mod process;
pub mod rights;
pub mod scheduling;
pub mod spawn;
pub mod tap;
pub mod tty;

use std::io;

/// Defines the C `main` of a program without a Rust one, which the standard library would only reach with open standard
/// streams. `$run` is a `fn() -> i32`.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        // SAFETY: no other item of a program may have this name, and the C start-up code calls a function of this type.
        #[unsafe(no_mangle)]
        pub extern "C" fn main() -> i32 {
            $run()
        }
    };
}

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
