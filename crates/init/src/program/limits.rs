//! Resource limits by docker's names, which are those of setrlimit(2) in lower case.

use crate::machine::step_error::reason;
use crate::program::plan::{Failure, Limit};
use nix::sys::resource::{Resource, setrlimit};

/// A limit that docker's daemon gives every container: enough files, and as many processes as the control group allows.
fn defaults() -> [Limit; 2] {
    let limit = |name: &str, soft, hard| Limit {
        name: name.to_owned(),
        soft,
        hard,
    };
    [
        limit("nofile", 1024, 524_288),
        limit("nproc", u64::MAX, u64::MAX),
    ]
}

fn number(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

pub fn known(name: &str) -> bool {
    number(name).is_some()
}

/// Sets the defaults and over them the task's own.
pub fn set(own: &[Limit]) -> Result<(), Failure> {
    for limit in defaults().iter().chain(own) {
        let resource = number(&limit.name)
            .ok_or_else(|| Failure::invalid(format!("ulimit {}: unknown", limit.name)))?;
        setrlimit(resource, limit.soft, limit.hard).map_err(|error| {
            Failure::invalid(format!(
                "ulimit {} = {}:{}: {}",
                limit.name,
                limit.soft,
                limit.hard,
                reason(&error.into())
            ))
        })?;
    }
    Ok(())
}
