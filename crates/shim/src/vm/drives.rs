//! Disks of the host for the hypervisor. The driver has opened each one and hands over the descriptor: no name of it is
//! looked up here. A hypervisor with a user of its own gets the disk as that user's, and the disk's owner on the host
//! stays: a block device by a node of its own, a file by a mount that shows another owner. File systems without such
//! mounts (9p, overlayfs) and kernels before 5.12 get a loop device in its place.

use crate::config::{Drive, User};
use litegix_sys::mounts::Shown;
use litegix_sys::spawn::Mount;
use litegix_sys::{descriptors, loop_device, mounts};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, makedev, mknod};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Between the look for a free loop device and its use, others may take it.
const LOOP_TRIES: u32 = 64;

#[derive(Debug, Error)]
pub enum DriveError {
    #[error("drive {}: it is not the one that the driver opened ({found})", path.display())]
    Exchanged { path: PathBuf, found: String },
    #[error("drive {}: {step}: {source}", path.display())]
    Step {
        path: PathBuf,
        step: &'static str,
        source: io::Error,
    },
    #[error(
        "drive {}: its file system can't show the VM's user as its owner ({unmapped}), and there is no loop device: \
         {source}; load the kernel module (modprobe loop), or move the file to ext4, XFS or Btrfs", path.display()
    )]
    NoLoop {
        path: PathBuf,
        unmapped: io::Error,
        source: io::Error,
    },
}

/// The disks of one process, ready to be mounted.
#[derive(Default)]
pub struct Drives {
    pub mounts: Vec<Mount>,
    /// They must stay open as long as the process runs.
    pub loops: Vec<File>,
}

pub fn prepare(drives: &[Drive]) -> Result<Drives, DriveError> {
    let mut prepared = Drives::default();
    for drive in drives {
        add(drive, &mut prepared)?;
    }
    Ok(prepared)
}

fn add(drive: &Drive, to: &mut Drives) -> Result<(), DriveError> {
    let failed = |step| {
        move |source| DriveError::Step {
            path: drive.path.clone(),
            step,
            source,
        }
    };
    let file =
        descriptors::inherited(drive.descriptor).map_err(failed("it was not handed over"))?;
    let facts = checked(drive, &file)?;
    let is_device = SFlag::from_bits_truncate(facts.st_mode).contains(SFlag::S_IFBLK);
    match drive.user {
        Some(user) if is_device => {
            make_node(drive, user, facts.st_rdev).map_err(failed("its device node can't be made"))
        }
        Some(user) => match shown_as(drive, &file, &facts, user) {
            Ok(mount) => {
                checked(drive, &mount)?;
                to.mounts.push(mounted(drive, mount)?);
                Ok(())
            }
            Err(unmapped) => {
                let device =
                    make_loop(drive, user, &file).map_err(|source| DriveError::NoLoop {
                        path: drive.path.clone(),
                        unmapped,
                        source,
                    })?;
                to.loops.push(device);
                Ok(())
            }
        },
        None => {
            let mount = mounts::detached(file.as_fd())
                .and_then(|mount| {
                    if !is_device {
                        mounts::restrict(mount.as_fd(), drive.read_only)?;
                    }
                    Ok(mount)
                })
                .map_err(failed("it can't be mounted"))?;
            checked(drive, &mount)?;
            to.mounts.push(mounted(drive, mount)?);
            Ok(())
        }
    }
}

/// The record and the driver's checks are about this file and no other.
fn checked(drive: &Drive, file: &OwnedFd) -> Result<FileStat, DriveError> {
    let facts = fstat(file).map_err(|error| DriveError::Step {
        path: drive.path.clone(),
        step: "it can't be examined",
        source: error.into(),
    })?;
    let found = if SFlag::from_bits_truncate(facts.st_mode).contains(SFlag::S_IFBLK) {
        format!("device {}", facts.st_rdev)
    } else {
        format!("file {}:{}", facts.st_dev, facts.st_ino)
    };
    if found == drive.identity {
        return Ok(facts);
    }
    let path = drive.path.clone();
    Err(DriveError::Exchanged { path, found })
}

/// A mount of the file that shows the user as its owner.
fn shown_as(drive: &Drive, file: &OwnedFd, facts: &FileStat, user: User) -> io::Result<OwnedFd> {
    let mount = mounts::detached(file.as_fd())?;
    mounts::restrict(mount.as_fd(), drive.read_only)?;
    let owner = Shown {
        stored: facts.st_uid,
        seen: user.uid,
    };
    let group = Shown {
        stored: facts.st_gid,
        seen: user.gid,
    };
    mounts::show_owner(mount.as_fd(), owner, group)?;
    Ok(mount)
}

fn mounted(drive: &Drive, mount: OwnedFd) -> Result<Mount, DriveError> {
    let target =
        CString::new(drive.target.as_os_str().as_bytes()).map_err(|error| DriveError::Step {
            path: drive.path.clone(),
            step: "its place has no path",
            source: io::Error::other(error),
        })?;
    Ok(Mount { mount, target })
}

/// A device node in the place of the file. The user has it by its group, since an owner could change its mode.
fn make_node(drive: &Drive, user: User, device: u64) -> io::Result<()> {
    let mode = if drive.read_only { 0o440 } else { 0o660 };
    let path = drive.target.as_path();
    fs::remove_file(path)?;
    mknod(path, SFlag::S_IFBLK, Mode::empty(), device)?;
    chown(path, Some(0), Some(user.gid))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The device is free again once its last user has closed it, whatever ended the user.
fn make_loop(drive: &Drive, user: User, file: &OwnedFd) -> io::Result<File> {
    let writable = !drive.read_only;
    let backing = OpenOptions::new()
        .read(true)
        .write(writable)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let control = File::open("/dev/loop-control")?;
    let mut busy = Errno::EBUSY.into();
    for _ in 0..LOOP_TRIES {
        let number = loop_device::find_free(&control)?;
        make_node(drive, user, makedev(loop_device::MAJOR, number))?;
        let device = open_device(&drive.target, writable)?;
        match loop_device::configure(&device, backing.as_fd(), drive.read_only) {
            Ok(()) => return Ok(device),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => busy = error,
            Err(error) => return Err(error),
        }
    }
    Err(busy)
}

fn open_device(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    const USER: User = User {
        uid: 70_123,
        gid: 70_123,
    };

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("litegix-drives-{name}-{}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).expect("directory");
            fs::write(directory.join("disk"), [7; 8192]).expect("disk");
            fs::write(directory.join("target"), "").expect("target");
            Self(directory)
        }

        fn drive(&self, read_only: bool, user: Option<User>) -> Drive {
            let file = File::open(self.0.join("disk")).expect("open");
            let facts = file.metadata().expect("facts");
            Drive {
                descriptor: file.into_raw_fd(),
                path: self.0.join("disk"),
                identity: format!("file {}:{}", facts.dev(), facts.ino()),
                target: self.0.join("target"),
                read_only,
                user,
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn is_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: mounts need root");
        }
        root
    }

    #[test]
    fn another_file_than_the_drivers_is_refused() {
        let place = Place::new("exchanged");
        let mut drive = place.drive(false, None);
        drive.identity = "file 1:2".to_owned();
        let refused = prepare(&[drive]).err().expect("refused").to_string();
        assert!(
            refused.contains("not the one that the driver opened"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_without_a_name_is_mounted_all_the_same() {
        if !is_root() {
            return;
        }
        let place = Place::new("renamed");
        let drive = place.drive(true, Some(USER));
        fs::remove_file(place.0.join("disk")).expect("remove");
        fs::write(place.0.join("disk"), "another").expect("another");
        let prepared = prepare(&[drive]).expect("prepared");
        assert_eq!(prepared.mounts.len() + prepared.loops.len(), 1);
    }

    #[test]
    fn a_loop_device_shows_the_file_and_ends_with_its_last_user() {
        if !is_root() || !Path::new("/dev/loop-control").exists() {
            return;
        }
        let place = Place::new("loop");
        let drive = place.drive(false, Some(USER));
        let file = descriptors::inherited(drive.descriptor).expect("descriptor");
        let mut device = make_loop(&drive, USER, &file).expect("loop device");
        let facts = fs::metadata(&drive.target).expect("node");
        assert!(facts.file_type().is_block_device());
        assert_eq!(
            (facts.uid(), facts.gid(), facts.mode() & 0o777),
            (0, USER.gid, 0o660)
        );
        let mut first = [0];
        device.read_exact(&mut first).expect("read");
        assert_eq!(first, [7]);
        device.write_all(&[9; 4095]).expect("write");
        device.sync_all().expect("sync");
        drop(device);
        assert_eq!(fs::read(place.0.join("disk")).expect("disk")[1..3], [9, 9]);
        let facts = fs::metadata(place.0.join("disk")).expect("facts");
        assert_eq!(facts.uid(), 0);
    }

    #[test]
    fn a_read_only_device_node_gives_no_right_to_write() {
        if !is_root() {
            return;
        }
        let place = Place::new("node");
        let drive = place.drive(true, Some(USER));
        make_node(&drive, USER, makedev(7, 0)).expect("node");
        let facts = fs::metadata(&drive.target).expect("node");
        assert_eq!(
            (facts.uid(), facts.gid(), facts.mode() & 0o777),
            (0, USER.gid, 0o440)
        );
    }
}
