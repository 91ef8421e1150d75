//! Calls that concern the whole machine: clock, random pool, modules, names, loopback, restart.

use super::{c_string, check, check_long};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Adds nanoseconds to the wall clock, at once.
pub fn step_clock(difference_ns: i64) -> io::Result<()> {
    const ADJ_SETOFFSET: libc::c_uint = 0x0100;
    const ADJ_NANO: libc::c_uint = 0x2000;
    // SAFETY: plain data for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = ADJ_SETOFFSET | ADJ_NANO;
    change.time.tv_sec = difference_ns.div_euclid(1_000_000_000);
    // Nanoseconds, by the mode.
    change.time.tv_usec = difference_ns.rem_euclid(1_000_000_000);
    adjust_clock(&mut change)
}

/// Adds nanoseconds to the wall clock by making it faster or slower by half a thousandth. Takes the place of an earlier
/// such change that is not through.
pub fn slew_clock(difference_ns: i64) -> io::Result<()> {
    const ADJ_OFFSET_SINGLESHOT: libc::c_uint = 0x8001;
    // SAFETY: plain data for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = ADJ_OFFSET_SINGLESHOT;
    change.offset = difference_ns / 1000;
    adjust_clock(&mut change)
}

fn adjust_clock(change: &mut libc::timex) -> io::Result<()> {
    // SAFETY: reads and writes one timex. The state that it answers on success is of no interest.
    check(unsafe { libc::adjtimex(change) }).map(drop)
}

/// Nanoseconds since the kernel started.
pub fn uptime_ns() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Mixes bytes into the random pool, credits them in full, and reseeds the generator with them.
pub fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    // struct rand_pool_info: entropy_count (bits), buf_size (bytes), then the bytes; from <linux/random.h>.
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    let bytes = &bytes[..bytes.len().min(4096)];
    let bits = (bytes.len() * 8) as i32;
    let mut info = vec![0_u32; 2 + bytes.len().div_ceil(4)];
    info[0] = bits as u32;
    info[1] = bytes.len() as u32;
    for (word, chunk) in info[2..].iter_mut().zip(bytes.chunks(4)) {
        let mut padded = [0; 4];
        padded[..chunk.len()].copy_from_slice(chunk);
        *word = u32::from_ne_bytes(padded);
    }
    let pool = File::options().write(true).open("/dev/random")?;
    // SAFETY: the structure holds as many bytes as its length says.
    check(unsafe { libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY, info.as_ptr()) })?;
    // Kernels before 4.17 have no reseed; the bytes are in the pool all the same.
    // SAFETY: no argument.
    let _ = check(unsafe { libc::ioctl(pool.as_raw_fd(), RNDRESEEDCRNG) });
    Ok(())
}

/// Loads one uncompressed kernel module.
pub fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: an open descriptor and an empty, NUL-terminated parameter string.
    check_long(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) })
        .map(drop)
}

pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Brings `lo` up. The kernel itself then gives it 127.0.0.1 and ::1.
pub fn bring_loopback_up() -> io::Result<()> {
    // SAFETY: the socket is ours on success; ifreq is plain data for which zero is a value, and the kernel reads and
    // writes within it.
    unsafe {
        let socket = OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))?);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &raw mut request,
        ))?;
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw const request,
        ))?;
    }
    Ok(())
}

pub fn sync() {
    // SAFETY: no argument.
    unsafe { libc::sync() };
}

/// Restarts the machine, which ends the VMM. Returns only on failure.
pub fn restart() -> io::Error {
    // SAFETY: no memory is involved.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    io::Error::last_os_error()
}

/// Ctrl-Alt-Del becomes SIGINT to init instead of an immediate restart.
pub fn catch_control_alt_delete() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::reboot(libc::RB_DISABLE_CAD) }).map(drop)
}

/// Waits until a terminal has sent what was written to it.
pub fn drain(terminal: &File) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::tcdrain(terminal.as_raw_fd()) }).map(drop)
}

/// The kernel's release, as `uname -r` says it.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Changes the root of this process.
pub fn change_root(path: &str) -> io::Result<()> {
    let path = c_string(path.as_bytes())?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::chroot(path.as_ptr()) }).map(drop)
}

/// So much freed memory stays with this process. Buffers of bulk data come and go; by default each would cost the page faults
/// of fresh memory.
pub fn keep_freed_memory() {
    const KEPT: libc::c_int = 512 << 10;
    // SAFETY: two numbers; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) };
}
