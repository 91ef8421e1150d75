//! New terminals of the task's own devpts, whatever the task has made of its root.

use crate::root::rooted::Root;
use litegix_sys::tty::{self, Terminal};
use nix::fcntl::OFlag;
use nix::sys::stat::makedev;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MULTIPLEXER: &str = "/dev/pts/ptmx";

/// A root that the task may have changed can hold anything there, also a link to a path of init's own.
pub fn open(root: &Path) -> io::Result<Terminal> {
    let found = Root::open(root)?.find(Path::new(MULTIPLEXER), OFlag::O_PATH)?;
    let reached = Root::reach(&found);
    if fs::metadata(&reached)?.rdev() != makedev(5, 2) {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    tty::open(&reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_to_somewhere_else_leads_nowhere() {
        assert!(open(Path::new("/")).is_ok());
        let root = std::env::temp_dir().join(format!("litegix-terminals-{}", std::process::id()));
        fs::create_dir_all(root.join("dev/pts")).expect("directory");
        symlink(MULTIPLEXER, root.join("dev/pts/ptmx")).expect("link");
        assert!(open(&root).is_err());
        fs::remove_file(root.join("dev/pts/ptmx")).expect("remove");
        fs::write(root.join("dev/pts/ptmx"), "").expect("file");
        let error = open(&root).map(drop).expect_err("a file");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        fs::remove_dir_all(&root).expect("remove");
    }
}
