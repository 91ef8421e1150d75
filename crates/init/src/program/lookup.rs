//! Finding the program: the task's PATH, in the task's root, as the task's user.

use crate::machine::step_error::reason;
use crate::program::plan::{Failure, FailureKind};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The value of a variable in a list of K=V. The last one wins, as it does for most programs.
pub fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter()
        .rev()
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The file to execute for a program's name.
pub fn find(name: &str, path: &str) -> Result<String, Failure> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(execution_failure(name, &error)),
        };
    }
    let mut denied = false;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        match executable(Path::new(&candidate)) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = true,
            _ => {}
        }
    }
    let shown = name.escape_debug();
    Err(if denied {
        Failure::new(
            FailureKind::NotExecutable,
            format!("exec: \"{shown}\": permission denied"),
        )
    } else {
        Failure::new(
            FailureKind::NotFound,
            format!("exec: \"{shown}\": executable file not found in $PATH"),
        )
    })
}

fn executable(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

/// Explains why a named program could not be run.
pub fn execution_failure(program: &str, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => {
            FailureKind::NotFound
        }
        Some(libc::EACCES | libc::EPERM | libc::EISDIR | libc::ENOEXEC | libc::ETXTBSY) => {
            FailureKind::NotExecutable
        }
        Some(libc::E2BIG | libc::EINVAL) => FailureKind::Invalid,
        _ if error.kind() == io::ErrorKind::InvalidInput => FailureKind::Invalid,
        _ => FailureKind::Internal,
    };
    // A file that exists and is yet "not found" lacks its interpreter or loader.
    let hint = if error.raw_os_error() == Some(libc::ENOENT) && fs::metadata(program).is_ok() {
        " (its interpreter or loader is missing)"
    } else {
        ""
    };
    Failure::new(
        kind,
        format!(
            "exec: \"{}\": {}{hint}",
            program.escape_debug(),
            reason(error)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_variable_wins() {
        let env = ["PATHX=1", "PATH=/a", "PATH=/b"].map(str::to_owned);
        assert_eq!(variable(&env, "PATH"), Some("/b"));
        assert_eq!(variable(&env, "PAT"), None);
    }

    #[test]
    fn programs_are_found_or_refused_like_docker_does() {
        assert_eq!(find("sh", "/nowhere:/bin").expect("sh"), "/bin/sh");
        assert_eq!(find("/bin/sh", "").expect("sh"), "/bin/sh");
        let missing = find("no-such", "/bin").expect_err("missing");
        assert_eq!(missing.kind, FailureKind::NotFound);
        assert_eq!(
            missing.message,
            "exec: \"no-such\": executable file not found in $PATH"
        );
        let missing = find("/no/such", "/bin").expect_err("missing");
        assert_eq!(
            missing.message,
            "exec: \"/no/such\": no such file or directory"
        );
        assert_eq!(missing.kind, FailureKind::NotFound);
        assert_eq!(
            find("passwd", "/etc").expect_err("mode").kind,
            FailureKind::NotExecutable
        );
        assert_eq!(
            find("/etc", "/bin").expect_err("directory").kind,
            FailureKind::NotExecutable
        );
        assert_eq!(
            find("", "/bin").expect_err("empty").kind,
            FailureKind::NotFound
        );
    }
}
