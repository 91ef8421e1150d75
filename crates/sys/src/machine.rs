//! The whole machine's clock and random pool, and this process's memory.

use crate::check;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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

/// Adds nanoseconds to the wall clock by making it faster or slower by half a thousandth. Replaces an earlier such
/// change that is still under way.
pub fn slew_clock(difference_ns: i64) -> io::Result<()> {
    const ADJ_OFFSET_SINGLESHOT: libc::c_uint = 0x8001;
    // SAFETY: plain data for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = ADJ_OFFSET_SINGLESHOT;
    change.offset = difference_ns / 1000;
    adjust_clock(&mut change)
}

fn adjust_clock(change: &mut libc::timex) -> io::Result<()> {
    // SAFETY: reads and writes one timex. The state that it returns on success is ignored.
    check(unsafe { libc::adjtimex(change) }).map(drop)
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

/// This process keeps this much freed memory. Buffers of bulk data come and go; by default each would cost the page
/// faults of fresh memory.
pub fn keep_freed_memory() {
    const KEPT: libc::c_int = 512 << 10;
    // SAFETY: two numbers; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) };
}
