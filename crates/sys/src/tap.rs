//! TAP interfaces: the kernel finds one by its name in the network namespace of the process that opens it. These calls
//! allocate no memory, so a child may make them between fork and exec.

use crate::check;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// include/uapi/linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOWNER: libc::Ioctl = 0x4004_54cc;
const TUNSETGROUP: libc::Ioctl = 0x4004_54ce;

/// An interface that stays when the process that makes it ends, and is down.
pub struct TapSpec {
    pub name: CString,
    pub mac: [u8; 6],
    pub mtu: i32,
    /// The user and the group that may open it, beside root.
    pub owner: Option<(u32, u32)>,
}

/// Makes it in this process's network namespace.
pub fn make_tap(spec: &TapSpec) -> io::Result<()> {
    let tap = open_tap(&spec.name)?;
    if let Some((uid, gid)) = spec.owner {
        set(&tap, TUNSETOWNER, uid)?;
        set(&tap, TUNSETGROUP, gid)?;
    }
    let kind = SockType::Datagram;
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = request_for(&spec.name)?;
    // SAFETY: it is plain data for which zero is a value.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::ARPHRD_ETHER;
    for (to, from) in address.sa_data.iter_mut().zip(spec.mac) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ask(&socket, libc::SIOCSIFHWADDR as libc::Ioctl, &mut request)?;
    request.ifr_ifru.ifru_mtu = spec.mtu;
    ask(&socket, libc::SIOCSIFMTU as libc::Ioctl, &mut request)?;
    set(&tap, TUNSETPERSIST, 1)
}

/// Opens one of this process's network namespace, with headers for offloads. One that does not exist is made, and ends with
/// the descriptor.
pub fn open_tap(name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let tap = open(c"/dev/net/tun", flags, Mode::empty())?;
    let mut request = request_for(name)?;
    let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = kind as libc::c_short;
    ask(&tap, TUNSETIFF, &mut request)?;
    Ok(tap)
}

fn request_for(name: &CStr) -> io::Result<libc::ifreq> {
    // SAFETY: it is plain data for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.to_bytes_with_nul();
    if bytes.len() > request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn ask(fd: &OwnedFd, call: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the request has the layout that these calls read and write.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), call, std::ptr::from_mut(request)) }).map(drop)
}

fn set(tap: &OwnedFd, call: libc::Ioctl, value: u32) -> io::Result<()> {
    // SAFETY: these calls take a number.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), call, libc::c_ulong::from(value)) }).map(drop)
}
