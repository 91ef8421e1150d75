//! The options of `litegix-shim confine`. Its callers are the driver's own, so errors are short.

use nix::sys::resource::Resource;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub const USAGE: &str =
    "usage: litegix-shim confine --uid N --gid N [OPTION]... -- PROGRAM [ARGUMENT]...";

/// The rights that the program keeps, and the files that it sees.
#[derive(Debug, Default)]
pub struct Confinement {
    pub uid: u32,
    pub gid: u32,
    /// The `cgroup.procs` of each group that it runs in.
    pub cgroup_procs: Vec<PathBuf>,
    pub network: Network,
    pub view: View,
    pub limits: Vec<(Resource, u64)>,
    /// Files that are opened with root's rights.
    pub files: Vec<OpenFile>,
    pub filter: Option<OsString>,
    pub umask: Option<u32>,
    pub argv: Vec<OsString>,
}

#[derive(Debug, Default)]
pub enum Network {
    /// The caller's.
    #[default]
    Kept,
    /// A new namespace, without any interface.
    None,
    /// The namespace of this file.
    Of(PathBuf),
}

/// The file system as the program sees it.
#[derive(Debug, Default)]
pub struct View {
    /// An empty directory, where the new root is built. Without it the program sees the host's root, read-only.
    pub root: Option<PathBuf>,
    pub binds: Vec<Bind>,
    /// Only with a new root: the system's programs and libraries.
    pub system: bool,
    /// Only with a new root: device nodes, which the program's user owns.
    pub devices: Vec<PathBuf>,
    /// Only with the host's root: directories that are empty for the program.
    pub hidden: Vec<PathBuf>,
    /// Paths below those, which are there all the same.
    pub shown: Vec<PathBuf>,
    /// Only with the host's root: the size of a `/tmp` of the program's own, in MiB.
    pub tmp_mib: Option<u32>,
}

#[derive(Debug, PartialEq)]
pub struct Bind {
    pub source: PathBuf,
    /// Absolute.
    pub target: PathBuf,
    pub writable: bool,
}

#[derive(Debug, PartialEq)]
pub struct OpenFile {
    pub path: PathBuf,
    pub writable: bool,
    /// The descriptor's number in the program.
    pub number: i32,
}

#[derive(Debug, Error, PartialEq)]
pub enum ArgumentError {
    #[error("unknown option {}", .0.display())]
    Unknown(OsString),
    #[error("{0} lacks a value")]
    Missing(String),
    #[error("{option}: {} can't be used", value.display())]
    Value { option: String, value: OsString },
    #[error("a user and a group other than root are needed")]
    Root,
    #[error("no program is given")]
    NoProgram,
}

pub fn parse(arguments: &[OsString]) -> Result<Confinement, ArgumentError> {
    let mut parsed = Confinement::default();
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let name = option.to_str().unwrap_or_default();
        let mut next = || {
            rest.next()
                .ok_or_else(|| ArgumentError::Missing(name.to_owned()))
        };
        let view = &mut parsed.view;
        match name {
            "--uid" => parsed.uid = number(name, next()?)?,
            "--gid" => parsed.gid = number(name, next()?)?,
            "--cgroup-procs" => parsed.cgroup_procs.push(next()?.into()),
            "--no-net" => parsed.network = Network::None,
            "--netns" => parsed.network = Network::Of(next()?.into()),
            "--root" => view.root = Some(next()?.into()),
            "--system" => view.system = true,
            "--device" => view.devices.push(absolute(name, next()?)?),
            "--bind" | "--ro-bind" => view.binds.push(Bind {
                source: next()?.into(),
                target: absolute(name, next()?)?,
                writable: name == "--bind",
            }),
            "--writable" => {
                let path = absolute(name, next()?)?;
                view.binds.push(Bind {
                    source: path.clone(),
                    target: path,
                    writable: true,
                });
            }
            "--hide" => view.hidden.push(absolute(name, next()?)?),
            "--show" => view.shown.push(absolute(name, next()?)?),
            "--tmp-mib" => view.tmp_mib = Some(number(name, next()?)?),
            "--open" | "--ro-open" => parsed.files.push(OpenFile {
                path: next()?.into(),
                writable: name == "--open",
                number: number(name, next()?)?,
            }),
            "--limit" => parsed.limits.push(limit(name, next()?)?),
            "--seccomp" => parsed.filter = Some(next()?.clone()),
            "--umask" => {
                let value = next()?;
                let mask = value
                    .to_str()
                    .and_then(|it| u32::from_str_radix(it, 8).ok());
                parsed.umask = Some(mask.ok_or_else(|| wrong(name, value))?);
            }
            "--" => {
                parsed.argv = rest.cloned().collect();
                break;
            }
            _ => return Err(ArgumentError::Unknown(option.clone())),
        }
    }
    if parsed.uid == 0 || parsed.gid == 0 {
        return Err(ArgumentError::Root);
    }
    if parsed.argv.is_empty() {
        return Err(ArgumentError::NoProgram);
    }
    Ok(parsed)
}

fn wrong(option: &str, value: &OsStr) -> ArgumentError {
    ArgumentError::Value {
        option: option.to_owned(),
        value: value.to_owned(),
    }
}

fn number<T: std::str::FromStr>(option: &str, value: &OsStr) -> Result<T, ArgumentError> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| wrong(option, value))
}

fn absolute(option: &str, value: &OsStr) -> Result<PathBuf, ArgumentError> {
    let path = Path::new(value);
    let plain = path.is_absolute() && !path.components().any(|it| it.as_os_str() == "..");
    plain
        .then(|| path.to_owned())
        .ok_or_else(|| wrong(option, value))
}

/// NAME=VALUE, with Linux' names in lower case.
fn limit(option: &str, value: &OsStr) -> Result<(Resource, u64), ArgumentError> {
    let (name, amount) = value
        .to_str()
        .and_then(|text| text.split_once('='))
        .ok_or_else(|| wrong(option, value))?;
    let resource = match name {
        "core" => Resource::RLIMIT_CORE,
        "fsize" => Resource::RLIMIT_FSIZE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        _ => return Err(wrong(option, value)),
    };
    Ok((resource, number(option, OsStr::new(amount))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn every_option_is_read() {
        let text = "--uid 70000 --gid 70001 --cgroup-procs /c --no-net --root /r --system --device /dev/kvm \
            --ro-bind /a /b --bind /c /d --writable /w --open /disk 10 --limit nofile=2048 --seccomp vsock \
            --umask 077 -- prog --uid 0";
        let parsed = parse(&words(text)).expect("parse");
        assert_eq!((parsed.uid, parsed.gid), (70_000, 70_001));
        assert_eq!(parsed.view.binds.len(), 3);
        assert!(!parsed.view.binds[0].writable && parsed.view.binds[2].writable);
        assert_eq!(parsed.files[0].number, 10);
        assert_eq!(parsed.limits, [(Resource::RLIMIT_NOFILE, 2048)]);
        assert_eq!(parsed.umask, Some(0o77));
        assert_eq!(parsed.argv, words("prog --uid 0"));
    }

    #[test]
    fn what_would_not_confine_is_refused() {
        for text in [
            "--gid 1 -- true",
            "--uid 0 --gid 1 -- true",
            "--uid 1 --gid 1",
            "--uid 1 --gid 1 --bind /a ../b -- true",
            "--uid 1 --gid 1 --writable /a/../b -- true",
            "--uid 1 --gid 1 --limit stack=1 -- true",
            "--uid 1 --gid 1 --free -- true",
            "--uid 1 --gid",
        ] {
            assert!(parse(&words(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_answered(words in proptest::collection::vec("-{0,2}[a-z0-9/=-]{0,12}", 0..12)) {
            let words: Vec<_> = words.into_iter().map(OsString::from).collect();
            let _ = parse(&words);
        }
    }
}
