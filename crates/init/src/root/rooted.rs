//! Paths inside the task's root. The image decides about its symlinks, so the kernel resolves every path with the root
//! as its limit, and mounts go onto the resulting descriptor.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Like the kernel's own limit of 40, since each level here may cost several directories.
const MAX_LINKS: u32 = 16;

pub struct Root {
    descriptor: OwnedFd,
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            descriptor: File::open(path)?.into(),
        })
    }

    pub fn find(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        open_in_root(self.descriptor.as_fd(), path, flags, Mode::empty())
    }

    /// A path by which this process reaches the descriptor's file.
    pub fn reach(descriptor: &OwnedFd) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
    }

    /// Finds a directory; makes missing ones with mode 0755.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.directory_through(path, MAX_LINKS)
    }

    fn directory_through(&self, path: &Path, links: u32) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut so_far = PathBuf::from("/");
        let mut current = self.find(&so_far, flags)?;
        for component in path.components() {
            let parent = so_far.clone();
            match component {
                Component::Normal(name) => so_far.push(name),
                Component::ParentDir => so_far.push(".."),
                _ => continue,
            }
            current = match self.find(&so_far, flags) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let name = Path::new(component.as_os_str());
                    match mkdirat(&current, name, Mode::from_bits_truncate(0o755)) {
                        Ok(()) => self.find(&so_far, flags)?,
                        // A symlink that leads nowhere yet.
                        Err(Errno::EEXIST) if links > 0 => {
                            let target = self.link_target(&current, &parent, name)?;
                            self.directory_through(&target, links - 1)?
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                found => found?,
            };
        }
        Ok(current)
    }

    fn link_target(
        &self,
        parent: &OwnedFd,
        parent_path: &Path,
        name: &Path,
    ) -> io::Result<PathBuf> {
        Ok(parent_path.join(readlinkat(parent, name)?))
    }

    /// Finds a file. If it is missing, makes it empty, also behind a symlink that leads nowhere yet.
    pub fn file(&self, path: &Path) -> io::Result<OwnedFd> {
        self.file_through(path, MAX_LINKS)
    }

    fn file_through(&self, path: &Path, links: u32) -> io::Result<OwnedFd> {
        match self.find(path, OFlag::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        };
        let parent = self.directory(parent_path)?;
        let name = Path::new(name);
        if links > 0
            && let Ok(target) = self.link_target(&parent, parent_path, name)
        {
            return self.file_through(&target, links - 1);
        }
        let create = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        // Written through the parent's descriptor, whose last component is plain.
        open_in_root(
            parent.as_fd(),
            name,
            create,
            Mode::from_bits_truncate(0o644),
        )?;
        self.find(path, OFlag::O_PATH)
    }

    /// Mounts a file system on a directory, which is made if missing.
    pub fn mount(&self, path: &str, kind: &str, flags: MsFlags, data: &str) -> io::Result<()> {
        let target = self.directory(Path::new(path))?;
        mount(
            Some(kind),
            &Self::reach(&target),
            Some(kind),
            flags,
            Some(data),
        )?;
        Ok(())
    }

    /// Shows the file `source` in the place of `path`.
    pub fn bind_file(&self, source: &Path, path: &str, read_only: bool) -> io::Result<()> {
        let target = self.file(Path::new(path))?;
        if fs::metadata(Self::reach(&target))?.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        bind(source, &Self::reach(&target), MsFlags::empty())?;
        if read_only {
            // A descriptor from before the mount refers to the directory below it.
            let mounted = self.find(Path::new(path), OFlag::O_PATH)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            remount_read_only(&Self::reach(&mounted), flags)?;
        }
        Ok(())
    }
}

/// `path`, its `..` and its symlinks never leave `root`.
fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, path, how)?)
}

/// Shows `source` at `target` too; `flags` may include the mounts below it.
pub fn bind(source: &Path, target: &Path, flags: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, flags | MsFlags::MS_BIND, none)?;
    Ok(())
}

/// Makes a bind mount, or one place of a mounted file system, read-only. Its other flags become `flags`.
pub fn remount_read_only(path: &Path, flags: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, path, none, flags, none)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn fresh(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("litegix-rooted-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory to try in");
        path
    }

    #[test]
    fn dangling_links_are_followed_inside_the_root() {
        let top = fresh("dangling");
        fs::create_dir(top.join("etc")).expect("etc");
        symlink(
            "../run/systemd/resolve/stub.conf",
            top.join("etc/resolv.conf"),
        )
        .expect("link");
        symlink("/elsewhere/deep", top.join("data")).expect("link");
        symlink("../../../../../outside", top.join("up")).expect("link");
        let root = Root::open(&top).expect("root");
        root.file(Path::new("/etc/resolv.conf")).expect("file");
        root.directory(Path::new("/data/x")).expect("directory");
        root.directory(Path::new("/up/y")).expect("directory");
        assert!(top.join("run/systemd/resolve/stub.conf").is_file());
        assert!(top.join("elsewhere/deep/x").is_dir());
        assert!(top.join("outside/y").is_dir());
        let _ = fs::remove_dir_all(&top);
    }

    #[test]
    fn missing_directories_are_made_and_loops_end() {
        let top = fresh("loops");
        symlink("b", top.join("a")).expect("link");
        symlink("a", top.join("b")).expect("link");
        let root = Root::open(&top).expect("root");
        root.file(Path::new("/etc/hosts")).expect("file");
        assert!(top.join("etc/hosts").is_file());
        assert!(root.file(Path::new("/a")).is_err());
        assert!(root.directory(Path::new("/a/c")).is_err());
        assert!(root.directory(Path::new("/etc/hosts/c")).is_err());
        let _ = fs::remove_dir_all(&top);
    }
}
