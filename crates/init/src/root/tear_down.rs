//! The end of the task's root.

use nix::mount::{MntFlags, umount2};
use std::fs;
use std::path::PathBuf;

/// Unmounts everything of the task, inner mounts first. Busy ones are detached, so that this always comes to an end.
pub fn tear_down() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for path in task_mounts(&mounts).into_iter().rev() {
        if umount2(&path, MntFlags::empty()).is_err() {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
        }
    }
}

/// Mount points below /task, in the order of mounting.
fn task_mounts(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|path| path.starts_with("/task/"))
        // The kernel writes a space as \040. Only the image could make such a path, and detaching its parent takes it
        // along.
        .filter(|path| !path.contains('\\'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tasks_mounts_are_found() {
        let text = "20 1 0:1 / / rw - rootfs rootfs rw\n\
            30 20 7:0 / /task/root rw,relatime - overlay overlay rw\n\
            31 30 7:0 / /task/root/dev rw - tmpfs tmpfs rw\nodd\n";
        assert_eq!(
            task_mounts(text),
            ["/task/root", "/task/root/dev"].map(PathBuf::from)
        );
    }
}
