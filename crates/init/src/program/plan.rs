//! Init's order to its second stage (see `stage2`), and the answers.

use crate::machine::step_error::reason;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The mount point of the task's root, in init's view.
    pub root: PathBuf,
    /// The file that moves a process into the task's control group.
    pub cgroup_processes: PathBuf,
    /// The task's main process, whose namespaces to enter; none to make new ones for it.
    pub enter: Option<i32>,
    /// Settings of new namespaces, for the main process only.
    pub setup: Setup,
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    /// Names or numbers, beside the user's own.
    pub additional_groups: Vec<String>,
    pub work_dir: String,
    pub hostname: String,
    pub terminal: bool,
    /// Bit n for capability n: the most that programs can have.
    pub capabilities: u64,
    pub limits: Vec<Limit>,
    pub oom_score_adjustment: i32,
    pub no_new_privileges: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// Leave /proc and /sys as the kernel shows them.
    pub unmasked: bool,
    /// Names with slashes, below /proc/sys, and their values.
    pub sysctls: Vec<(String, String)>,
    /// Keep a reaping init as the namespace's first process.
    pub init: bool,
}

/// One limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// As docker names it.
    pub name: String,
    /// `u64::MAX` is unlimited.
    pub soft: u64,
    pub hard: u64,
}

/// One line of JSON each. The end without `Failed` means that the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The second stage, as seen by init.
    Stage(i32),
    /// The program's process, as seen by init.
    Process(i32),
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No such program.
    NotFound,
    /// A program that may not be run.
    NotExecutable,
    /// No such user or working directory.
    Invalid,
    /// The task is gone.
    NotRunning,
    Internal,
}

#[derive(Debug, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    pub fn internal(what: &str, error: &std::io::Error) -> Self {
        Self::new(FailureKind::Internal, format!("{what}: {}", reason(error)))
    }
}
