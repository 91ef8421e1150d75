//! Loop devices: a block device made of a file (loop(4)).

use crate::check;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// <linux/loop.h>
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The major number of all loop devices (Documentation/admin-guide/devices.txt).
pub const MAJOR: u64 = 7;

/// struct loop_config with its struct loop_info64.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    numbers: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_key: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// The number of a device that was free a moment ago.
pub fn find_free(control: &File) -> io::Result<u64> {
    // SAFETY: no memory is involved.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u64::try_from(number).map_err(io::Error::other)
}

/// Makes the device show the file. It is free again once nobody has it open any more. Fails with EBUSY if another
/// process took the device, and with EINVAL on kernels before 5.8.
pub fn configure(device: &File, file: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let mut flags = LO_FLAGS_AUTOCLEAR;
    if read_only {
        flags |= LO_FLAGS_READ_ONLY;
    }
    let config = Config {
        fd: file.as_raw_fd() as u32,
        block_size: 0,
        numbers: [0; 5],
        number_and_encryption: [0; 3],
        flags,
        names_and_key: [0; 64 + 64 + 32],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one struct loop_config.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}
