//! The file system that a confined program sees: a new root with little in it, or the host's, read-only. All mounts are in
//! the program's own namespace, so nothing of them is left on the host when it is gone, whatever ended it.

use super::arguments::{Bind, View};
use super::fault::{Context, Fault};
use litegix_sys::mounts::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Uid, chdir, chown, pivot_root};
use std::env;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// (user, group).
type Owner = (u32, u32);

const NO_PATH: Option<&Path> = None;
/// Only directories and empty files lie on it.
const ROOT_OPTIONS: &str = "size=1m,mode=0755";
/// A distribution's programs and libraries. Links among them are links in the new root too.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
];
/// The index of the libraries.
const LIBRARY_CACHE: &str = "/etc/ld.so.cache";

/// The process has a mount namespace of its own, and is root.
pub fn enter(view: &View, owner: Owner) -> Result<(), Fault> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NO_PATH, "/", NO_PATH, private, NO_PATH)
        .context(|| "make the mounts private".to_owned())?;
    match &view.root {
        Some(root) => enter_new_root(root, view, owner),
        None => restrict_host_root(view, owner),
    }
}

fn enter_new_root(root: &Path, view: &View, owner: Owner) -> Result<(), Fault> {
    let what = || format!("make a root at {}", root.display());
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        root,
        Some("tmpfs"),
        closed,
        Some(ROOT_OPTIONS),
    )
    .context(what)?;
    if view.system {
        show_system(root)?;
    }
    for bind in &view.binds {
        show(root, bind)?;
    }
    for device in &view.devices {
        make_device(root, device, owner)
            .context(|| format!("make the device {}", device.display()))?;
    }
    let sealed = closed | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NO_PATH, root, NO_PATH, sealed, NO_PATH).context(what)?;
    let what = || format!("enter the root at {}", root.display());
    chdir(root).context(what)?;
    // The old root lies on top of the new one then, and is taken away (pivot_root(2)).
    pivot_root(".", ".").context(what)?;
    umount2(".", MntFlags::MNT_DETACH).context(what)?;
    chdir("/").context(what)
}

fn show_system(root: &Path) -> Result<(), Fault> {
    for path in SYSTEM.iter().chain([&LIBRARY_CACHE]).map(Path::new) {
        let Ok(facts) = fs::symlink_metadata(path) else {
            continue;
        };
        if facts.is_symlink() {
            fs::read_link(path)
                .and_then(|target| std::os::unix::fs::symlink(target, below(root, path)))
                .context(|| format!("link {}", path.display()))?;
            continue;
        }
        let bind = Bind {
            source: path.to_owned(),
            target: path.to_owned(),
            writable: false,
        };
        show(root, &bind)?;
    }
    Ok(())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn show(root: &Path, bind: &Bind) -> Result<(), Fault> {
    let what = || format!("show {}", bind.source.display());
    let target = below(root, &bind.target);
    make_mount_point(&bind.source, &target).context(what)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&bind.source), &target, NO_PATH, flags, NO_PATH).context(what)?;
    let closed = if bind.writable { NO_EXEC } else { READ_ONLY };
    set(&target, closed | NO_SUID | NO_DEV, 0, true).context(what)
}

fn make_device(root: &Path, device: &Path, (uid, gid): Owner) -> io::Result<()> {
    let facts = fs::metadata(device)?;
    let target = below(root, device);
    fs::create_dir_all(target.parent().unwrap_or(root))?;
    let kind = SFlag::from_bits_truncate(facts.mode() & SFlag::S_IFMT.bits());
    mknod(&target, kind, Mode::S_IRUSR | Mode::S_IWUSR, facts.rdev())?;
    chown(&target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(())
}

fn restrict_host_root(view: &View, (uid, gid): Owner) -> Result<(), Fault> {
    // The working directory may lie below a new mount, which only its path leads to.
    let working_directory = env::current_dir();
    let shown = view.shown.iter().filter(|path| path.exists());
    let binds = view
        .binds
        .iter()
        .map(|bind| (bind.source.as_path(), bind.target.as_path()))
        .chain(shown.map(|path| (path.as_path(), path.as_path())))
        .map(|(source, target)| {
            // Opened now: what is hidden later may hold it.
            open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .map(|opened| (opened, target))
                .context(|| format!("show {}", source.display()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let memory = |path: &Path, options: &str| {
        mount(Some("tmpfs"), path, Some("tmpfs"), closed, Some(options))
            .context(|| format!("hide {}", path.display()))
    };
    let tmp = Path::new("/tmp");
    for path in view.hidden.iter().filter(|path| path.is_dir()) {
        memory(path, ROOT_OPTIONS)?;
    }
    if let Some(size) = view.tmp_mib {
        memory(tmp, &format!("size={size}m,mode=0700,uid={uid},gid={gid}"))?;
    }
    for (opened, target) in &binds {
        let what = || format!("show {}", target.display());
        let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        // Nothing is made outside of this namespace.
        let is_ours = |it: &PathBuf| target.starts_with(it);
        if view.hidden.iter().any(is_ours) || view.tmp_mib.is_some() && target.starts_with(tmp) {
            make_mount_point(&source, target).context(what)?;
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&source), *target, NO_PATH, flags, NO_PATH).context(what)?;
    }
    set(Path::new("/"), READ_ONLY | NO_SUID, 0, true)
        .context(|| "make the host's files read-only".to_owned())?;
    let writable = view.binds.iter().filter(|bind| bind.writable);
    for path in writable
        .map(|bind| bind.target.as_path())
        .chain(view.tmp_mib.map(|_| tmp))
    {
        set(path, NO_SUID | NO_DEV, READ_ONLY, false)
            .context(|| format!("make {} writable", path.display()))?;
    }
    // It shows the processes of the program's user only (proc(5)).
    let closed = closed | MsFlags::MS_RDONLY;
    let options = Some("hidepid=2");
    mount(Some("proc"), "/proc", Some("proc"), closed, options)
        .context(|| "mount /proc".to_owned())?;
    if let Ok(path) = working_directory {
        chdir(&path).context(|| format!("enter {}", path.display()))?;
    }
    Ok(())
}

fn make_mount_point(source: &Path, target: &Path) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        return fs::create_dir_all(target);
    }
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    if !target.exists() {
        File::create_new(target)?;
    }
    Ok(())
}

/// As `mounts::set_attributes`, also on kernels that lack the call.
fn set(path: &Path, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    match mounts::set_attributes(&c_path, set, clear, recursive) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
        result => return result,
    }
    let path = fs::canonicalize(path)?;
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some((point, attributes)) = mount_point(line) else {
            continue;
        };
        if point != path && !(recursive && point.starts_with(&path)) {
            continue;
        }
        let flags = flags_of(attributes & !clear | set) | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        match mount(NO_PATH, &point, NO_PATH, flags, NO_PATH) {
            // Another mount covers it, or the file system is gone.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) if point != path => {}
            result => result?,
        }
    }
    Ok(())
}

fn flags_of(attributes: u64) -> MsFlags {
    [
        (READ_ONLY, MsFlags::MS_RDONLY),
        (NO_SUID, MsFlags::MS_NOSUID),
        (NO_DEV, MsFlags::MS_NODEV),
        (NO_EXEC, MsFlags::MS_NOEXEC),
    ]
    .into_iter()
    .filter(|(attribute, _)| attributes & attribute != 0)
    .map(|(_, flag)| flag)
    .fold(MsFlags::MS_RELATIME, |all, flag| all | flag)
}

/// A mount and its attributes, from a line of mountinfo: `ID PARENT DEVICE ROOT POINT OPTIONS ...` (proc(5)).
fn mount_point(line: &str) -> Option<(PathBuf, u64)> {
    let mut fields = line.split(' ').skip(4);
    let point = unescape(fields.next()?);
    let attributes = fields
        .next()?
        .split(',')
        .map(|option| match option {
            "ro" => READ_ONLY,
            "nosuid" => NO_SUID,
            "nodev" => NO_DEV,
            "noexec" => NO_EXEC,
            _ => 0,
        })
        .fold(0, |all, attribute| all | attribute);
    Some((point, attributes))
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_are_read_with_their_attributes() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 ro,noexec,relatime master:1 - ext3 /dev/root rw";
        let expected = (PathBuf::from("/mnt 2"), READ_ONLY | NO_EXEC);
        assert_eq!(mount_point(line), Some(expected));
        assert_eq!(mount_point("36 35"), None);
    }

    proptest! {
        #[test]
        fn any_line_of_mounts_is_read(text in ".{0,100}") {
            let _ = mount_point(&text);
        }
    }
}
